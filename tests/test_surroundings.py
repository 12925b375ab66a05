"""What lies about and was not given: modules in the current folder, variables of other runs."""

import os
import subprocess
import sys

import pytest
from conftest import BIN, environment, plant_modules

from ssl_common.ranks import placement
from ssl_common.streams import DataError


def started(folder, *argv, env=None):
    return subprocess.run(
        [str(word) for word in argv], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
        env=environment({"OMP_NUM_THREADS": "1"} | (env or {})), text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "make-scenes -n 4 -j 2 -o new",
        "train-svm train.npy train.tsv --solver liblinear -j 2 -o new",
        "extract-features random:caffenet test.tsv --layer conv1 -j 2 -o new",
    ],
)
def test_no_child_imports_from_the_current_folder(line, scratch):
    """Those of --gpus neither: see test_torchrun."""
    mark = plant_modules(scratch)
    name, *words = line.split()
    done = started(scratch, BIN / name, *words)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
    assert done.stderr.count("\n") == 1


def test_the_modules_would_be_imported(scratch):
    """What children do by themselves: the test above can fail."""
    mark = plant_modules(scratch)
    started(scratch, sys.executable, "-c", "import json, torch")
    assert "json" in mark.read_text()


# ---- Variables --------------------------------------------------------------------------------

WHOLE = {
    **{"TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_RESTART_COUNT": "1", "RANK": "5"},
    **{"WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "here", "MASTER_PORT": "29500"},
}


@pytest.fixture
def variables(monkeypatch):
    """Set the variables of a rank to those given, and none else."""

    def give(**given):
        for name in (*WHOLE, placement.FOLDER):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))

    return give


def test_a_rank_knows_its_place(variables):
    variables(**WHOLE)
    assert placement.place() == placement.Place(5, 8, 1, 4, restarted=1)
    variables(**WHOLE | {"TORCHELASTIC_RUN_ID": ""})
    assert placement.place() is None
    variables(RANK=5, WORLD_SIZE=8)  # those that others set
    assert placement.place() is None


@pytest.mark.parametrize("lacking", sorted(set(WHOLE) - {"TORCHELASTIC_RUN_ID"}))
def test_half_the_variables_are_no_rank(variables, lacking):
    variables(**{name: value for name, value in WHOLE.items() if name != lacking})
    with pytest.raises(DataError, match=f"^TORCHELASTIC_RUN_ID is set.* {lacking} is not"):
        placement.place()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"RANK": "8"}, {"RANK": "-1"}, {"RANK": "0"}, {"RANK": "x"}, {"RANK": " 5"}),
        *({"LOCAL_RANK": "4"}, {"WORLD_SIZE": "0"}, {"WORLD_SIZE": "9" * 400}),
    ],
)
def test_variables_that_contradict_each_other_are_no_rank(variables, wrong):
    variables(**WHOLE | wrong)
    with pytest.raises(DataError, match="unset it, or start the command by torchrun$"):
        placement.place()


def test_only_the_folder_of_this_run_is_believed(variables, tmp_path):
    folder = tmp_path / "ranks-1"
    folder.mkdir()
    for left in ({}, WHOLE, WHOLE | {"TORCHELASTIC_RUN_ID": ""}):
        variables(**left, SSL_BENCH_RANKS=folder)
        assert placement.folder() is None and placement.last_words(True) is None
    variables(**WHOLE | {"TORCHELASTIC_RUN_ID": "ranks-1"}, SSL_BENCH_RANKS=folder)
    assert placement.last_words(True) == folder / "5.said"
    assert placement.last_words(False) == folder / "5.unsure"


@pytest.mark.parametrize(
    "line",
    [
        "extract-features random:caffenet test.tsv --layer conv1 -o new",
        "pretrain jigsaw train.tsv --permutations p4.npy --batch 4 -o new",
    ],
)
def test_a_part_of_a_rank_is_told_in_one_line(line, scratch):
    before = sorted(os.listdir(scratch))
    name, *words = line.split()
    done = started(scratch, BIN / name, *words, env={"TORCHELASTIC_RUN_ID": "x"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{name}: TORCHELASTIC_RUN_ID is set, as by torchrun")
    assert done.stderr.count("\n") == 1 and sorted(os.listdir(scratch)) == before


def test_what_is_left_over_changes_nothing(scratch):
    """Neither the data, nor the line, nor where it is said."""
    left = scratch / "left"
    left.mkdir()
    names = ("RANKS", "LAST_WORDS", "INPUT", "PARTIALS")
    env = {f"SSL_BENCH_{name}": str(left) for name in names} | {"TORCHELASTIC_RUN_ID": "x"}
    as_usual = started(scratch, BIN / "report", "results.jsonl")
    done = started(scratch, BIN / "report", "results.jsonl", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, as_usual.stdout, as_usual.stderr)
    done = started(scratch, BIN / "report", "nowhere.jsonl", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "report: nowhere.jsonl: No such file or directory\n"
    assert not list(left.iterdir())


def test_a_plot_is_that_of_no_ones_settings(scratch):
    def plot(name, env):
        done = started(scratch, BIN / "report", "results.jsonl", "--plot", name, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        return (scratch / name).read_bytes()

    usual = plot("a.svg", {})
    (scratch / "matplotlibrc").write_bytes(b"nonsense: 1\nfont.size: 30\nbackend: none\n\xff")
    assert plot("b.svg", {"MPLBACKEND": "none", "MATPLOTLIBRC": "b.svg"}) == usual


@pytest.mark.parametrize("said", ["", "x", "0", "-1", "1.5", "1_0", "2,,2", "9" * 400])
def test_a_number_of_threads_that_is_none_is_told(said, scratch):
    done = started(scratch, BIN / "report", "results.jsonl", env={"OMP_NUM_THREADS": said})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("report: OMP_NUM_THREADS='") and len(done.stderr) < 200


def test_nested_numbers_of_threads_are_fine(scratch):
    done = started(scratch, BIN / "report", "results.jsonl", env={"OMP_NUM_THREADS": "2, 1"})
    assert done.returncode == 0
