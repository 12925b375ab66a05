"""The files of a run, damaged and touched, without the run: what it goes on from, what stays."""

import errno
import json
import os
import zipfile

import numpy as np
import pytest
import torch

from ssl_common import locks
from ssl_common.models import networks
from ssl_common.streams import DataError
from ssl_common.training import session
from ssl_common.training.checkpoints import Run

runs = []  # of a test
SETTINGS = {
    "arch": "tiny",
    "seed": 0,
    "batch": 8,
    "micro_batch": 4,
    "steps": 900,
    "data_name": "train",
}


def state(step):
    """What a loop leaves to a checkpoint of STEP: tensors of every kind, and plain values."""
    draw = torch.Generator().manual_seed(step)
    network = {
        "weight": torch.randn(8, 3, 5, 5, generator=draw).to(memory_format=torch.channels_last),
        "half": torch.randn(7, generator=draw).bfloat16(),
        "count": torch.tensor(step),
        "none": torch.zeros(0, 4),
        "mask": torch.tensor([True, False]),
    }
    optimizer = {"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": [(0.9, None)]}
    loop = {"network": network, "optimizer": optimizer, "random": [[torch.get_rng_state()]]}
    sums = torch.ones(4, dtype=torch.float64)
    return loop | {"threads": 1, "position": [1, 2], "sums": sums, "lines": [], "unreadable": 0}


def line(step):
    return (json.dumps({"step": step, "loss": 1 / 3} if step else {"lr": 0.1}) + "\n").encode()


def begin(folder, steps=(50, 100, 150), settings=SETTINGS, **more):
    """Return a run with a line of the log and a checkpoint for each of STEPS, and what it says."""
    run, said = resumed(folder, settings, **more)
    run.append(line(0))
    for step in steps:
        run.append(line(step))
        run.save(step, state(step))
    return run, said


def resumed(folder, settings=SETTINGS, step=None, **more):
    """Return a run whose newest whole checkpoint is STEP, and what it says."""
    said = []
    run = Run(str(folder / "m.pt"), dict(settings), say=said.append, **more)
    runs.append(run)
    run.open()
    found = run.resume()
    assert (found and found["step"]) == step
    return run, said


@pytest.fixture(autouse=True)
def closed():
    yield
    for run in runs:
        run.close()


def names(folder):
    return sorted(path.name for path in (folder / "m.pt.state").iterdir())


def checkpoint(folder, step):
    return folder / f"m.pt.state/step-{step:012}.pt"


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x10
    path.write_bytes(data)


def as_of_0_2_0(path, **fields):
    """Write PATH as 0.2.0 did: no digests, and no number of lines."""
    content = torch.load(path, weights_only=True)
    content = {k: v for k, v in content.items() if k not in ("digest", "log_digest", "log_lines")}
    torch.save(content | fields, path)


# ---- Which checkpoint -----------------------------------------------------------------------


def finished(path):
    networks.save(str(path), {"format": 1, "settings": SETTINGS, "trunk": {}, "head": {}})


def swapped(path):
    """Exchange the bytes of two tensors of one size, sums and all, as no bit that flips would."""
    content = torch.load(path, weights_only=True)
    content["network"]["half"] = content["network"]["half"].flip(0)
    torch.save(content, path)


DAMAGES = {
    "a bit of a tensor": lambda path: flip(path, path.read_bytes().index(b"archive/data/0") + 300),
    "a bit of the pickle": lambda path: flip(path, path.read_bytes().index(b"position") + 3),
    "cut short": lambda path: os.truncate(path, path.stat().st_size * 3 // 4),
    "empty": lambda path: os.truncate(path, 0),
    "nothing but zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(70_000)),
    "text": lambda path: path.write_text("<html>no such file</html>"),
    "a finished network": finished,
    "two values exchanged": swapped,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    begin(tmp_path)[0].close()
    damage(checkpoint(tmp_path, 150))
    run, (said,) = resumed(tmp_path, step=100)
    assert said.startswith(f"{checkpoint(tmp_path, 150)}: ")
    assert said.endswith(": going on from the one of step 100")
    assert checkpoint(tmp_path, 150).exists()  # until there is a whole one for it
    assert list(run.log_lines()) == [line(0), line(50), line(100)]
    run.save(120, state(120))
    assert names(tmp_path) == ["log.jsonl", checkpoint(tmp_path, 100).name,
                               checkpoint(tmp_path, 120).name]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_where_none_is_whole_the_run_stops(tmp_path, damage):
    begin(tmp_path)[0].close()
    for step in (100, 150):
        damage(checkpoint(tmp_path, step))
    before = names(tmp_path)
    with pytest.raises(DataError, match=r"step-0+150\.pt: .*no checkpoint before it is whole"):
        resumed(tmp_path)
    assert names(tmp_path) == before


def test_any_byte_that_changes_is_noticed_or_changes_nothing(tmp_path):
    """Some bytes of the archive mean nothing: its paddings and dates."""
    begin(tmp_path, (50,))[0].close()
    path, rng = checkpoint(tmp_path, 50), np.random.default_rng(0)
    whole, noticed = path.read_bytes(), 0
    want = networks.digest(networks.load(str(path)))
    for _trial in range(400):
        flip(path, int(rng.integers(len(whole))))
        try:
            assert networks.digest(networks.load(str(path))) == want
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            noticed += 1
        path.write_bytes(whole)
    assert noticed > 100


def test_checkpoints_of_0_2_0_go_on(tmp_path):
    """They have no digest: the sums of the archive, which torch does not look at, have to do."""
    begin(tmp_path)[0].close()
    for step in (100, 150):
        as_of_0_2_0(checkpoint(tmp_path, step))
    run, said = resumed(tmp_path, step=150)
    assert not said and list(run.log_lines()) == [line(step) for step in (0, 50, 100, 150)]
    run.close()
    flip(checkpoint(tmp_path, 150), checkpoint(tmp_path, 150).stat().st_size // 2)
    with zipfile.ZipFile(checkpoint(tmp_path, 150)) as archive:
        assert archive.testzip()
    _, (said,) = resumed(tmp_path, step=100)
    assert "going on from the one of step 100" in said


def test_other_settings_are_named_by_their_options(tmp_path):
    begin(tmp_path)[0].close()
    for other, said in (
        ({"micro_batch": 2}, "--gpus x --accumulate 2, not 4"),
        ({"seed": 1, "batch": 16, "micro_batch": 8}, "seed 0, not 1; batch 8, not 16"),
    ):
        with pytest.raises(DataError, match=f"made with {said}: give the same"):
            resumed(tmp_path, SETTINGS | other)
        runs[-1].close()
    resumed(tmp_path, SETTINGS | {"data_name": None}, step=150)[0].close()  # the same, from a pipe


# ---- What is kept ---------------------------------------------------------------------------


def test_the_newest_two_are_kept_and_those_that_stay_for_good(tmp_path):
    run, _ = begin(tmp_path, range(10, 101, 10), keeping=30)
    kept = [checkpoint(tmp_path, step).name for step in (30, 60, 90, 100)]
    assert names(tmp_path) == ["log.jsonl", *kept]
    run.finish({"trunk": {}, "head": {}})
    assert names(tmp_path) == ["log.jsonl", *kept[:3]]
    assert not (tmp_path / "m.pt.state/stopped").exists() and (tmp_path / "m.pt").exists()


def test_two_are_kept_where_none_stays_for_good(tmp_path):
    """As pretrain(1) says; so that one that is damaged has another before it."""
    begin(tmp_path, range(10, 101, 10))
    assert names(tmp_path) == ["log.jsonl", *(checkpoint(tmp_path, s).name for s in (90, 100))]


def test_files_of_others_are_neither_read_nor_removed(tmp_path):
    run, _ = begin(tmp_path)
    others = ["notes.pt", "best.pt", "zz.pt", "x.partial", "step-7.pt", "step-000000000900.pt.bak"]
    others += ["step-000000000900.pth", "stopped.txt", "log.jsonl.old", "xstep-000000000900.pt"]
    for name in others:
        (tmp_path / "m.pt.state" / name).write_text("mine")
    for name in ("step-000000000900.pt.0123456789abcdef.partial", "stopped.77.partial"):  # killed
        (tmp_path / "m.pt.state" / name).write_text("half")
    run.close()
    run, said = resumed(tmp_path, step=150)
    run.save(200, state(200))
    run.stop("SIGTERM")
    assert run.stopped() == "SIGTERM" and not said
    run.finish({"trunk": {}, "head": {}})
    run = Run(str(tmp_path / "m.pt"), SETTINGS)
    assert run.complete()
    assert names(tmp_path) == sorted([*others, "log.jsonl", "stopped"])
    assert all((tmp_path / "m.pt.state" / name).read_text() == "mine" for name in others)


@pytest.mark.parametrize("name", ["log.jsonl", "stopped", "step-000000000200.pt", "features"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_link_by_a_name_of_ours_is_not_followed(tmp_path, name, kind):
    begin(tmp_path)[0].close()
    path, target = tmp_path / "m.pt.state" / name, tmp_path / "diary"
    path.unlink(missing_ok=True)
    if kind == "link":
        target.write_text("dear diary")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    before = names(tmp_path)
    if (name, kind) == ("features", "folder"):
        resumed(tmp_path, step=150)[0].close()
        return
    with pytest.raises(DataError, match=f"{name}: (a link|no regular file) by the name of a file"):
        resumed(tmp_path)
    assert names(tmp_path) == before
    assert target.read_text() == "dear diary" if kind == "link" else not target.exists()


def test_a_log_of_two_names_is_not_written(tmp_path):
    """As of a folder and a copy of it by cp -l: a checkpoint is replaced, a log appended to."""
    begin(tmp_path)[0].close()
    log, copy = tmp_path / "m.pt.state/log.jsonl", tmp_path / "copy.jsonl"
    copy.hardlink_to(log)
    (tmp_path / "copy.pt").hardlink_to(tmp_path / "m.pt.state/step-000000000150.pt")
    with pytest.raises(DataError, match="log.jsonl: has another name"):
        resumed(tmp_path)
    before = copy.read_bytes()
    log.unlink()
    log.write_bytes(before)
    run, said = resumed(tmp_path, step=150)
    run.append(line(200))
    assert not said and copy.read_bytes() == before


# ---- A full disk ----------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch, tmp_path):
    """Let a run have room for 3 files in its folder: log, checkpoint, the one being made."""

    def writing(path, content, write=networks.save):
        if len(names(tmp_path)) >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        write(path, content)

    monkeypatch.setattr(networks, "save", writing)


def test_on_a_full_disk_old_checkpoints_make_room(tmp_path, narrow):
    run, _ = begin(tmp_path, range(10, 101, 10))
    assert names(tmp_path) == ["log.jsonl", checkpoint(tmp_path, 90).name,
                               checkpoint(tmp_path, 100).name]  # fmt: skip
    run.finish({"trunk": {}, "head": {}})  # makes room, too
    assert names(tmp_path) == ["log.jsonl"]


def test_the_newest_checkpoint_makes_no_room(tmp_path, narrow):
    run, _ = begin(tmp_path, (10,))
    for name in ("a", "b"):
        (tmp_path / "m.pt.state" / name).touch()
    before = names(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        run.save(20, state(20))
    assert names(tmp_path) == before
    run.close()
    resumed(tmp_path, step=10)


def test_a_line_that_does_not_fit_leaves_no_part_of_it(tmp_path):
    """The disk takes 10 bytes of it; the next one finds room."""
    run, _ = begin(tmp_path, ())
    whole = run.log._opened

    class Full:
        def write(self, data):
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole.write(data[:10])

        def __getattr__(self, name):
            return getattr(whole, name)

    run.log._opened = Full()
    with pytest.raises(OSError, match="No space left"):
        run.append(line(50))
    run.log._opened = whole
    run.append(line(100))
    run.save(100, state(100))
    assert list(run.log_lines()) == [line(0), line(100)]


def test_a_run_goes_on_while_workers_of_one_that_was_killed_still_live(tmp_path):
    """They notice a moment later; what locks the run is its own process."""
    begin(tmp_path)[0].close()
    read_end, write_end = os.pipe()
    trainer = os.fork()
    if not trainer:
        status = 1
        try:
            run = Run(str(tmp_path / "m.pt"), SETTINGS)
            run.open()
            if not os.fork():
                os.close(write_end)
                os.read(read_end, 1)  # until the test ends
            status = 0
        finally:
            os._exit(status)  # the trainer leaves its lock as SIGKILL would
    try:
        assert os.waitpid(trainer, 0) == (trainer, 0)
        resumed(tmp_path, step=150)
    finally:
        os.close(write_end)
        os.close(read_end)


def test_a_file_whose_lock_was_refused_stays_open_in_a_fork(tmp_path):
    """Its number may be another file's by then."""
    with open(tmp_path / "a", "wb") as one, open(tmp_path / "a", "wb") as other:
        locks.take(one.fileno())
        with pytest.raises(BlockingIOError):
            locks.take(other.fileno())
        forked = os.fork()
        if not forked:
            os._exit(not os.path.samestat(os.fstat(other.fileno()), os.stat(tmp_path / "a")))
        locks.leave(one.fileno())
        assert os.waitpid(forked, 0) == (forked, 0)


# ---- The network ----------------------------------------------------------------------------


def test_a_checkpoint_is_no_finished_network(tmp_path):
    begin(tmp_path)[0].close()
    (tmp_path / "m.pt").write_bytes(checkpoint(tmp_path, 150).read_bytes())
    before = names(tmp_path)
    with pytest.raises(DataError, match="m.pt: a checkpoint, not a finished network"):
        Run(str(tmp_path / "m.pt"), SETTINGS).complete()
    assert names(tmp_path) == before


def test_a_finished_network_that_was_damaged_is_not_complete(tmp_path):
    networks.save(
        str(tmp_path / "m.pt"),
        {"format": 1, "settings": SETTINGS, "trunk": {"w": torch.ones(9)}, "head": {}},
    )
    run = Run(str(tmp_path / "m.pt"), SETTINGS)
    assert run.complete()
    flip(tmp_path / "m.pt", (tmp_path / "m.pt").read_bytes().index(np.ones(9, "f4").tobytes()))
    with pytest.raises(DataError, match=r"m\.pt: .*damaged"):
        run.complete()


def test_a_finished_network_removes_the_checkpoints_of_its_own_run_alone(tmp_path):
    """One was killed after it had written the network; in another folder a second run goes on."""
    for other, left in ((SETTINGS, 0), (SETTINGS | {"seed": 1}, 2)):
        folder = tmp_path / str(other["seed"])
        folder.mkdir()
        begin(folder, settings=other)[0].close()
        finished(folder / "m.pt")
        assert Run(str(folder / "m.pt"), SETTINGS).complete()
        assert len([name for name in names(folder) if name.endswith(".pt")]) == left


# ---- The log --------------------------------------------------------------------------------

LOG = b"".join(map(line, (0, 50, 100, 150)))
CHANGES = {
    "untouched": (lambda log: log, [0, 50, 100, 150]),
    "told beyond the checkpoint": (lambda log: log + line(200), [0, 50, 100, 150]),
    "half a line beyond": (lambda log: log + b'{"step": 2', [0, 50, 100, 150]),
    "deleted": (lambda log: None, []),
    "emptied": (lambda log: b"", []),
    "cut in a line": (lambda log: log[:-5], [0, 50, 100]),
    "cut after a line": (lambda log: log[: -len(line(150))], [0, 50, 100]),
    "without its last newline": (lambda log: log[:-1], [0, 50, 100]),
    "NUL bytes for its end": (lambda log: log[:-60] + bytes(60), [0, 50]),
    "a note first": (lambda log: b"my best run\n" + log, [0, 50, 100, 150]),
    "an entry more": (lambda log: log.replace(b'"loss"', b'"note": "good", "loss"'), None),
    "a line less": (lambda log: log.replace(line(50), b""), [0, 100, 150]),
    "a bit flipped": (lambda log: log.replace(b'"loss"', b'"lo\xf3s"', 1), [0, 100, 150]),
    "no number": (lambda log: log.replace(b"0.33", b"NaN, 0.33", 1), [0, 100, 150]),
    "NaN": (lambda log: log.replace(line(100), b'{"step": 100, "loss": NaN}\n'), [0, 50, 150]),
    "no objects": (lambda log: log.replace(line(100), b"[100]\n"), [0, 50, 150]),
    "deep": (lambda log: log.replace(line(100), b"[" * 100_000 + b"\n"), [0, 50, 150]),
    "a byte-order mark": (lambda log: b"\xef\xbb\xbf" + log, [50, 100, 150]),
    "lines of DOS": (lambda log: log.replace(b"\n", b"\r\n"), None),
    "told twice": (lambda log: log + line(150), [0, 50, 100, 150]),
}


@pytest.mark.parametrize("old", [False, True], ids=["", "0.2.0"])
@pytest.mark.parametrize("change, kept", CHANGES.values(), ids=CHANGES)
def test_a_log_that_was_cut_or_changed(tmp_path, change, kept, old):
    """All that is left of it is JSON; what is lost is told; the next checkpoint is beside it."""
    begin(tmp_path)[0].close()
    path = tmp_path / "m.pt.state/log.jsonl"
    assert path.read_bytes() == LOG
    if old:
        as_of_0_2_0(checkpoint(tmp_path, 150))
    changed = change(LOG)
    path.unlink() if changed is None else path.write_bytes(changed)
    run, said = resumed(tmp_path, step=150)
    left = path.read_bytes()
    if kept is not None:
        assert left == b"".join(map(line, kept))
    assert [json.loads(each).get("step", 0) for each in left.splitlines()] == (
        kept if kept is not None else [0, 50, 100, 150]
    )
    if (changed or b"").startswith(LOG):
        assert not said
    else:
        of = "" if old else "of 4 "
        count = left.count(b"\n")
        assert said == [
            f"{path}: cut or changed since it was written: up to step 150 {count} {of}lines "
            "are left, and kept"
        ]
    run.append(line(200))
    run.save(200, state(200))
    run.close()
    run, said = resumed(tmp_path, step=200)
    assert not said and list(run.log_lines()) == left.splitlines(keepends=True) + [line(200)]


@pytest.mark.parametrize(
    "change, left",
    [("untouched", 4), ("deleted", 0), ("cut in a line", 3), ("a note first", 4), ("deep", 3)],
)
def test_the_log_of_a_finished_network_is_told_as_far_as_it_is_left(tmp_path, change, left):
    run, _ = begin(tmp_path, settings=SETTINGS | {"steps": 150})
    run.finish({"trunk": {}, "head": {}})
    path, told = tmp_path / "m.pt.state/log.jsonl", []
    changed = CHANGES[change][0](LOG)
    path.unlink() if changed is None else path.write_bytes(changed)
    said = session.tell_again(run, told.append)
    assert all(each in LOG.splitlines(keepends=True) for each in told) and len(told) == left
    of = f"; of its log, {path}, {left} of 4 lines are left" if left < 4 else ""
    assert said == f"{tmp_path}/m.pt is complete already: nothing to do{of}"
