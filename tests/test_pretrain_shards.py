"""pretrain on shards as a process: the network is that of the unpacked files, to the last byte."""

import json
import os
import shutil
import signal
import tarfile

import pytest
import torch
from test_pretrain import SLOW, finish, start, train, untimed


@pytest.fixture
def packed(scratch):
    """Put the photographs of scratch into two tars, and below unpacked into folders so called."""
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    shutil.copy(scratch / "p4.npy", unpacked)
    rows = []
    for name in ("cat", "dog"):
        shutil.copytree(scratch / "photos" / name, unpacked / f"{name}.tar")
        with tarfile.open(scratch / f"{name}.tar", "w") as archive:
            for number in range(6):
                archive.add(scratch / f"photos/{name}/{number}.jpg", f"{number}.jpg")
                rows.append(f"{name}.tar/{number}.jpg\n")
    for folder in (scratch, unpacked):
        (folder / "train.tsv").write_text("".join(rows))
    return scratch


@pytest.mark.parametrize(
    "extra",
    [
        ["--shuffle-window", "1"],
        pytest.param([], marks=SLOW),
        pytest.param(["--gpus", "2", "--device", "cpu"], marks=SLOW),
    ],
)
def test_the_network_of_shards_is_that_of_their_files(packed, extra):
    """At any number of workers, also killed at some step; on two ranks, or few shards at a time."""
    words = ["--iterations", "40", "--checkpoint-every", "9steps", *extra]
    log, _err = train(packed / "unpacked", "model.pt", *words, "-j", "0")
    process = start(packed, "model.pt", *words, "-j", "3")
    while not list(packed.glob("model.pt.state/step-*.pt")):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, -9)
    again, _err = train(packed, "model.pt", *words, "-j", "2")
    assert (packed / "model.pt").read_bytes() == (packed / "unpacked/model.pt").read_bytes()
    assert untimed(again)[-1] == untimed(log)[-1]
    settings = json.loads(log.splitlines()[0])
    assert settings.get("shuffle_window") == (1 if "--shuffle-window" in extra else None)


@SLOW
def test_another_list_of_the_same_images_gives_the_same_weights(packed):
    """The digest of the list, and its name, are the only difference."""
    words = ["--iterations", "6", "-j", "0"]
    train(packed, "shards.pt", *words)
    rows = (packed / "train.tsv").read_text()
    for name in ("cat", "dog"):
        rows = rows.replace(f"{name}.tar", f"photos/{name}")
    (packed / "train.tsv").write_text(rows)
    train(packed, "files.pt", *words)
    ours, theirs = (
        torch.load(packed / name, weights_only=True) for name in ("shards.pt", "files.pt")
    )
    assert ours["settings"].pop("data") != theirs["settings"].pop("data")
    assert ours["settings"] == theirs["settings"]
    for part in ("trunk", "head"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in ours[part])


def test_shards_that_are_lost_count_as_unreadable(packed):
    """By the rule of files: each image gives its place to the next line that can be read."""
    (packed / "dog.tar").unlink()
    words = ["--iterations", "6", "-j", "2", "--max-bad", "100%"]
    log, _err = train(packed, "model.pt", *words)
    last = json.loads(log.splitlines()[-1])
    assert last["unreadable"] == 12
