"""What a run says of itself and what ends it, without the run."""

import json
from dataclasses import replace

import pytest
import torch

from ssl_common.data.manifest import Manifest
from ssl_common.objective import Objective, Score
from ssl_common.pretext.colorization import Colorization
from ssl_common.pretext.recipes import JIGSAW
from ssl_common.progress import Conversation, silent
from ssl_common.streams import DataError
from ssl_common.training import guards
from ssl_common.training.journal import Journal
from ssl_common.training.plan import TrainingOptions, resolve

GRAY = Colorization.weightless


class Run:
    """A run of 5,000 steps of 4 images, of which there are 40, that keeps its log in a list."""

    command, settings = "pretrain", {}

    def __init__(self):
        self.lines, self.saved = [], []

    def resume(self):
        return None

    def log_lines(self):
        return []

    def append(self, line):
        self.lines.append(json.loads(line))

    def save(self, step, state):
        self.saved.append((step, state))


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "m.tsv").write_text("".join(f"{n}.jpg\n" for n in range(40)))
    said, task = [], Objective()
    task.chance, task.weightless = 1.386, GRAY
    plan = resolve(JIGSAW, "in1k", 40, batch=4, iterations=5000)
    made = Journal(
        *(Run(), replace(plan, micro_batch=2), task, Manifest(str(tmp_path / "m.tsv"))),
        *(torch.device("cpu"), TrainingOptions("m.pt", checkpoint_every=((1, "epoch"),))),
        Conversation(lambda _line: None, said.append, lambda: None, silent),
    )
    made.said = said
    assert resumed(made) == 0
    return made


def resumed(journal):
    network = torch.nn.Linear(2, 1)
    return journal.resume(network, torch.optim.SGD(network.parameters(), 0.1))


def test_a_checkpoint_of_another_network_is_one_line(journal):
    journal.run.resumed = "m.pt.state/step-000000000001.pt"
    journal.run.resume = lambda: {"network": {"weight": torch.ones(3, 3)}}
    with pytest.raises(DataError, match="step-.*pt: not the weights of this run: weight is") as e:
        resumed(journal)
    assert "\n" not in str(e.value)


def step(journal, number, loss=1.0, lost=(), weight=2.0):
    """Let step NUMBER, of two micro-batches of mean LOSS, be done; the first LOST lines."""
    weighed = torch.tensor(float(weight))
    for part, gone in ((0, torch.tensor(lost, dtype=torch.int64)), (1, torch.tensor([]).long())):
        score = Score(torch.tensor(2 * loss), weighed, {"accuracy": (torch.tensor(1), 2)})
        journal.add(2 * (number - 1) + part, score, gone)
    return journal.after(number, 0.1)


@pytest.mark.parametrize("loss, says", [(1.386, True), (1.5, True), (1.3, False)])
def test_chance_is_said_once_after_2000_steps(journal, loss, says):
    for number in range(1940, 2101):
        step(journal, number, loss)
    assert [line.split(":")[0] for line in journal.said] == (["step 2,000"] if says else [])
    assert not says or "try another --lr" in journal.said[0]


def test_when_chance_is_judged():
    """After 2,000 steps or 2 epochs, whichever is later, and at most 20,000 steps."""
    assert [guards.chance_step(n) for n in (3, 1000, 5004, 390_390)] == [2000, 2000, 10_008, 20_000]


def test_means_and_lines_of_the_log(journal):
    for number in range(1, 101):
        step(journal, number, loss=number, lost=[39, 7] if number == 60 else [])
    (first, second) = journal.run.lines[1:]
    assert first["loss"] == pytest.approx(sum(range(1, 51)) / 50) and first["accuracy"] == 0.5
    assert second["loss"] == pytest.approx(sum(range(51, 101)) / 50)
    assert first["unreadable"] == 0 and "unreadable_lines" not in first
    assert second["unreadable"] == 2
    assert second["unreadable_lines"] == [[8, "7.jpg"], [40, "39.jpg"]]
    assert second["time_data"] == 0 and second["epoch"] == 10
    assert [saved for saved, _ in journal.run.saved] == list(range(10, 101, 10))


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_images(journal):
    """Found at the next step that is looked at; the checkpoint that was due is not written."""
    for number in range(11, 17):
        step(journal, number, loss=float("nan") if number in (13, 15) else 1.0)
    with pytest.raises(DataError) as error:
        for number in range(17, 21):
            step(journal, number)
    lines = str(error.value).split("lines ")[1].split(":")[0].split(", ")
    assert "m.tsv: the loss is not finite at step 13," in str(error.value) and len(lines) == 2
    assert not journal.run.saved


def test_weights_that_are_not_finite_are_not_saved(journal):
    with torch.no_grad():
        journal.network.weight[0, 0] = float("inf")
    for number in range(11, 20):
        step(journal, number)
    with pytest.raises(DataError, match="the weights are not finite after step 20"):
        step(journal, 20)
    assert not journal.run.saved


@pytest.fixture
def many(journal, tmp_path):
    """Return the journal of a list that is longer than what it is judged by."""
    (tmp_path / "m.tsv").write_text("".join(f"{n}.jpg\n" for n in range(1001)))
    journal.manifest, journal.epoch_steps = Manifest(str(tmp_path / "m.tsv")), 10**9
    return journal


def test_unreadable_images_are_judged_from_the_1000th_on(many):
    journal = many
    for number in range(1, 250):  # 10 of 996: one more is 1.1% of 1,000
        step(journal, number, lost=[5] if number <= 10 else [])
    with pytest.raises(DataError, match=r"11 of 1,000 images cannot be read \(line 8: 7.jpg\)"):
        step(journal, 250, lost=[7])


def test_ten_of_a_thousand_are_not_more_than_one_percent(many):
    for number in range(1, 251):
        step(many, number, lost=[5] if number <= 10 else [])
    assert many.tally.unreadable == 10


def test_a_small_list_is_judged_between_its_passes(journal):
    """11 of 40 images are less than 30%, though they are more where they come first in a pass."""
    journal.max_bad = 0.3
    for number in range(1, 1001):
        step(journal, number, lost=[5] * 11 if number % 10 == 5 else [])
    assert journal.tally.unreadable == 1100
    step(journal, 1005, lost=[5] * 120)
    with pytest.raises(DataError, match="of 4,040 images"):
        step(journal, 1010)


@pytest.mark.parametrize("steps, last", [(5000, 10), (4, 4)])
def test_a_small_list_is_judged_at_its_end(journal, steps, last):
    """After each of its 40 images was asked for once, or where the run ends before."""
    journal.plan = replace(journal.plan, steps=steps)
    step(journal, 1, lost=[5])
    for number in range(2, last):
        step(journal, number)
    said = rf"m.tsv: 1 of {4 * last} images cannot be read \(line 6: 5.jpg\), more than --max-bad 1"
    with pytest.raises(DataError, match=said):
        step(journal, last)


def test_nothing_but_gray_images(journal):
    """Said after the first step, null in the log, and an error where all have been seen."""
    journal.epoch_steps = 60
    for number in range(1, 60):
        step(journal, number, weight=0)
    assert [line.split(": ")[:2] for line in journal.said] == [["step 1", GRAY.split(": ")[0]]]
    assert journal.run.lines[-1]["step"] == 50
    assert journal.run.lines[-1]["loss"] is None and journal.run.lines[-1]["accuracy"] is None
    with pytest.raises(DataError, match="m.tsv: step 60: all images so far are gray"):
        step(journal, 60, weight=0)


def test_some_images_in_colour_are_enough(journal):
    for number in range(1, 51):
        step(journal, number, weight=2 * (number == 9))
    assert journal.run.lines[-1]["loss"] == 50  # the sum of 50 steps over the weight of one
    assert len(journal.said) == 1
