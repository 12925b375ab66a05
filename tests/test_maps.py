"""The maps that train-detector --cache keeps: those of the body, known again, or an error."""

import os

import numpy as np
import pytest
import tiny  # noqa: F401 (networks of few layers)
import torch
from test_pretrain import untimed
from test_train_detector import FASTER, train

from ssl_common.data import images
from ssl_common.data.targets import ObjectList
from ssl_common.evaluation.detection import cache, networks, showing
from ssl_common.evaluation.detection.recipes import Design
from ssl_common.evaluation.kept import LEFT
from ssl_common.models import registry
from ssl_common.streams import DataError

CACHED = (*FASTER, "--cache", "maps", "--lr", "0.01")


def kept(folder, size=64, seed=0):
    """The cache of a body drawn from SEED for the scenes in FOLDER."""
    design = Design("faster", "res4", size=size, max_size=128)
    made = networks.make(registry.build("tiny-resnet", seed), 9, design, "random:tiny-resnet", 0)
    listed = ObjectList(str(folder / "scenes/objects.jsonl"))
    return cache.Cache(str(folder / "maps"), made, design, listed, str(folder))


def making(one):
    one.notice()
    one.make(torch.device("cpu"), 0, lambda *_: None)


def test_a_training_on_maps_is_that_on_images(folder):
    """But for the rounding to float16; and a second one takes the maps that are there."""
    first, err = train(folder, *CACHED, iterations=50)
    assert "the maps of 8 images and their mirror images, 0.00 GB; " in err and "GB are free" in err
    files = {path.name: path.stat().st_mtime_ns for path in (folder / "maps").iterdir()}
    again, err = train(folder, *CACHED, output="again.pt", iterations=50)
    assert "the maps of 8 images and their mirror images, 0.00 GB are there\n" in err
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "maps").iterdir()} == files
    assert (folder / "again.pt").read_bytes() == (folder / "d.pt").read_bytes()
    without, _ = train(folder, *FASTER, "--lr", "0.01", output="e.pt", iterations=50)
    one, other = untimed(first)[-1], untimed(without)[-1]
    assert one["loss"] == pytest.approx(other["loss"], rel=0.01)
    settings = untimed(first)[0]
    assert settings["cache"] is True and untimed(without)[0]["cache"] is False


def test_the_maps_are_the_bodys(folder):
    one = kept(folder)
    making(one)
    found = np.load(one.path, mmap_mode="r")
    assert (found.dtype, found.nbytes) == (np.float16, one.size)
    for line, each in enumerate(one.images):
        both = found[one.places[2 * line] : one.places[2 * line + 2]]
        both = both.reshape(2, *one.shapes[line][0])
        image = images.read(each.path, str(folder))
        for which, mirrored in enumerate((False, True)):
            how = showing.view(each.height, each.width, 64, 128, mirrored)
            want = one.made.features(showing.picture(image, how))
            np.testing.assert_array_equal(both[which], want.half())
        assert not np.array_equal(both[0], both[1])


def test_other_bodies_lists_and_sizes_have_maps_of_their_own(folder):
    names = {kept(folder).path, kept(folder, seed=1).path, kept(folder, size=80).path}
    lines = (folder / "scenes/objects.jsonl").read_bytes().splitlines(keepends=True)
    one = kept(folder)
    (folder / "fewer.jsonl").write_bytes(b"".join(lines[1:]))
    fewer = ObjectList(str(folder / "fewer.jsonl"))
    names.add(cache.Cache(one.folder, one.made, one.design, fewer, str(folder)).path)
    assert len(names) == 4


def test_what_changed_is_an_error_when_it_is_read(folder):
    one = kept(folder)
    making(one)
    with open(one.path, "r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\0<")
    read = cache.Cached(one, 0, 3, 0)
    lines = [list(read[epoch, 6][3][0].shape) for epoch in range(4)]
    assert lines == [list(one.shapes[6][0])] * 4
    with pytest.raises(DataError, match=r"maps-\w+.npy: map 8 is not what was written there"):
        for epoch in range(20):
            read[epoch, 7]
    with open(one.path, "r+b") as stream:
        stream.truncate(one.size)
    with pytest.raises(DataError, match=r"maps-\w+.npy: "):
        cache.Cached(one, 0, 3, 0)


def test_a_disk_that_is_too_small_is_told_before(folder, monkeypatch):
    one, status = kept(folder), os.statvfs(folder)
    free = LEFT + one.size

    class Disk:
        f_bavail, f_frsize = free - 1, 1

    monkeypatch.setattr(os, "statvfs", lambda _path: Disk)
    with pytest.raises(DataError, match=r"^--cache \S+/maps: no room for the maps of 8 images"):
        one.notice()
    Disk.f_bavail = free
    assert one.notice() and status and not os.listdir(folder / "maps")


def test_a_body_that_is_trained_has_no_maps(folder):
    _, err = train(folder, *CACHED, "--freeze", "res2", status=1)
    assert err == (
        "train-detector: --cache: --freeze res2 trains what the cache would hold: give"
        " --freeze res4\n"
    )


@pytest.mark.slow
def test_two_ranks_fill_one_cache(folder):
    train(folder, *CACHED, "--gpus", "2", "--device", "cpu", iterations=4)
    paths = sorted((folder / "maps").iterdir())
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    train(folder, *CACHED, output="one.pt", iterations=4)
    assert [path.read_bytes() for path in paths] == before
