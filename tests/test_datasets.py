"""Order and draws that depend on the seed, the epoch and the image alone."""

import errno
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import BIN, environment, readers

from ssl_common import streams
from ssl_common.data import images
from ssl_common.data.batches import batches
from ssl_common.data.datasets import RandomCrops, SequentialImages
from ssl_common.data.manifest import Manifest
from ssl_common.data.order import ShuffleSampler, draws, shuffle
from ssl_common.pretext.bins import Histograms
from ssl_common.streams import DataError


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 100, 1000, 65537])
def test_a_shuffle_visits_every_number_once(count):
    order = shuffle(np.arange(count), count, seed=1, epoch=2)
    assert sorted(order) == list(range(count))


def test_any_part_of_a_shuffle_is_that_part_of_the_whole():
    whole = shuffle(np.arange(1000), 1000, 0, 0)
    assert (shuffle(np.arange(300, 420), 1000, 0, 0) == whole[300:420]).all()


def test_shuffles_differ_by_seed_and_epoch_and_look_random():
    orders = [shuffle(np.arange(5000), 5000, s, e) for s, e in ((0, 0), (0, 1), (1, 0))]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Two random orders agree in one place on average (Poisson), never in 20.
        assert (orders[first] == orders[second]).sum() < 20
    for order in orders:
        places = np.arange(5000)
        assert abs(np.corrcoef(places, order)[0, 1]) < 0.06  # 4 standard errors
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.06
        # Each tenth of the epoch shows all tenths of the images alike: chi-square, 81 degrees.
        table = np.histogram2d(places, order, bins=10)[0]
        assert ((table - 50) ** 2 / 50).sum() < 150


def test_shuffle_of_100_million_needs_no_memory_for_the_rest():
    order = shuffle(np.arange(99_999_000, 100_000_000), 100_000_000, 0, 0)
    assert len(set(order)) == 1000 and order.max() < 100_000_000


def test_batches_from_a_later_step_are_those_of_the_whole():
    whole = list(ShuffleSampler(10, 3, 8, 0, seed=4))
    assert list(ShuffleSampler(10, 3, 8, 5, seed=4)) == whole[5:]
    assert [epoch for batch in whole for epoch, _ in batch] == [0] * 9 + [1] * 9 + [2] * 6
    assert all(len({index for _, index in whole[s] + whole[s + 1]}) == 6 for s in (0, 3, 6))


@pytest.mark.parametrize(("parts", "ranks"), [(1, 1), (2, 2), (4, 2), (4, 1)])
def test_an_epoch_is_every_line_once_over_all_ranks_but_the_rest_of_its_order(parts, ranks):
    count, batch = 103, 8
    steps = 2 * (count // batch)
    for epoch in (0, 1):
        seen = []
        for rank in range(ranks):
            order = list(ShuffleSampler(count, batch, steps, 0, 5, parts, rank, ranks))
            assert len(order) == steps * parts // ranks
            seen += [index for items in order for e, index in items if e == epoch]
            # From any step on, the rank goes on as it would have.
            assert (
                list(ShuffleSampler(count, batch, steps, 7, 5, parts, rank, ranks))
                == order[7 * parts // ranks :]
            )
        left_out = shuffle(np.arange(count), count, 5, epoch)[-(count % batch) :]
        assert sorted(seen) == sorted(set(range(count)) - set(left_out.tolist()))


class Task:
    """A pretext task that shows what it is given."""

    draws = 3

    def crop(self, image, drawn):
        return np.array([int(image[0, 0, 0]), *drawn])


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_draws_are_uniform_and_independent(seed):
    drawn = draws(seed, [3] * 20_000, range(20_000), 4)
    assert drawn.shape == (20_000, 4) and drawn.min() >= 0 and drawn.max() < 1
    for column in drawn.T:  # chi-square, 99 degrees
        assert ((np.histogram(column, 100, (0, 1))[0] - 200) ** 2 / 200).sum() < 160
    others = [draws(seed, [4] * 20_000, range(20_000), 1)[:, 0], drawn[1:, 0], drawn[:, 1]]
    for other in others:
        assert abs(np.corrcoef(drawn[: len(other), 0], other)[0, 1]) < 0.03  # 4 standard errors


def test_draws_of_a_batch_are_those_of_its_images():
    epochs, indices = np.array([0, 0, 1]), np.array([5, 99_999_999, 5])
    batch = draws(7, epochs, indices, 3)
    each = [draws(7, [e], [i], 3)[0] for e, i in zip(epochs, indices, strict=True)]
    assert (batch == np.stack(each)).all() and len(np.unique(batch)) == 9
    assert not np.isin(draws(8, epochs, indices, 3), batch).any()


def test_draws_do_not_depend_on_workers(scratch):
    manifest = Manifest(str(scratch / "train.tsv"))
    dataset = RandomCrops(manifest, str(scratch), Task(), 0)

    def run(workers):
        order = ShuffleSampler(len(manifest), 4, 6, 0, 0)
        return [
            [part.tolist() for part in batch] for batch in batches(dataset, order, workers, False)
        ]

    assert run(0) == run(2) and len(run(0)) == 6
    pixels = np.array([b[3] for b in run(0)])
    assert len(np.unique(pixels[..., 1])) == 24  # the second epoch draws anew


def test_the_next_readable_line_stands_in_for_an_unreadable_one(scratch):
    rows = (scratch / "train.tsv").read_text().splitlines()[:3]
    (scratch / "holes.tsv").write_text("\n".join([rows[0], "gone.jpg", "zero.jpg", *rows[1:]]))
    (scratch / "zero.jpg").write_bytes(b"")
    dataset = RandomCrops(Manifest(str(scratch / "holes.tsv")), str(scratch), Task(), 0)
    passed, epoch, index, (color, *drawn) = dataset[0, 1]
    assert (passed, epoch, index) == (2, 0, 1)
    assert dataset[0, 3][0] == 0 and dataset[0, 3][3][0] == color
    assert drawn == list(draws(0, [0], [1], 3)[0])


def test_no_readable_image_at_all_is_an_error(scratch):
    (scratch / "none.tsv").write_text("a.jpg\nb.jpg\n")
    dataset = RandomCrops(Manifest(str(scratch / "none.tsv")), str(scratch), Task(), 0)
    with pytest.raises(DataError, match=r"none.tsv:2: no image can be read.*--root.*b.jpg"):
        dataset[0, 1]


@pytest.mark.parametrize("gone, readable", [(99, True), (100, False)])
def test_a_hundred_unreadable_lines_in_a_row_are_an_error(scratch, gone, readable):
    """As pretrain(1) says."""
    lines = [*(f"{number}.jpg" for number in range(gone)), "photos/cat/0.jpg"]
    (scratch / "row.tsv").write_text("\n".join(lines) + "\n")
    dataset = RandomCrops(Manifest(str(scratch / "row.tsv")), str(scratch), Task(), 0)
    if readable:
        assert dataset[0, 0][0] == 99
    else:
        with pytest.raises(DataError, match=r"row.tsv:1: no image can be read"):
            dataset[0, 0]


@pytest.mark.parametrize("read", [lambda found: SequentialImages(*found, torch.clone)[0],
                                  lambda found: RandomCrops(*found, Task(), 0)[0, 0]])  # fmt: skip
def test_a_list_with_spaces_before_its_labels(scratch, read):
    (scratch / "spaced.tsv").write_text("photos/cat/0.jpg 3\n")
    with pytest.raises(
        DataError, match=r"spaced.tsv:1: .*write a TAB, not a space, between photos"
    ):
        read((Manifest(str(scratch / "spaced.tsv")), str(scratch)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_the_error_itself(scratch, workers):
    (scratch / "holes.tsv").write_text((scratch / "train.tsv").read_text() + "gone.jpg\n")
    images = SequentialImages(Manifest(str(scratch / "holes.tsv")), str(scratch), torch.clone)
    order = [[index] for index in range(len(images))]
    with pytest.raises(DataError, match=r"holes.tsv:13: .*gone.jpg: No such file"):
        list(batches(images, order, workers, False))


# ---- What the machine lacks -------------------------------------------------------------------

LACKING = {
    "memory": (MemoryError(), "not enough memory"),
    "descriptors": (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
    "a disk": (OSError(errno.EIO, "Input/output error"), "Input/output error: the disk fails"),
    "a mount": (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle: the disk fails"),
}


@pytest.fixture(params=LACKING)
def shortage(request, scratch, monkeypatch):
    """Let the machine lack something where the fifth line is read; return what is to be said."""
    error, said = LACKING[request.param]
    path = (scratch / "train.tsv").read_text().split("\n")[4].split("\t")[0]
    regular = streams.regular

    def fails(name):
        if name.endswith(path):
            raise error
        return regular(name)

    monkeypatch.setattr(streams, "regular", fails)
    return f"^{scratch}/{path}: {said}"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["drawn", "in order", "counted"])
def test_a_shortage_is_an_error_in_every_process_that_reads(scratch, shortage, kind, workers):
    """It is no unreadable image, which the next line would stand in for or a count pass over."""
    manifest = Manifest(str(scratch / "train.tsv"))
    dataset, order = {
        "drawn": (RandomCrops(manifest, str(scratch), Task(), 0), ShuffleSampler(12, 4, 6, 0, 0)),
        "in order": (
            SequentialImages(manifest, str(scratch), lambda image: image[0, 0]),
            [[0, 1], [4, 5]],
        ),
        "counted": (Histograms(manifest, str(scratch)), [[0, 1], [4, 5]]),
    }[kind]
    with pytest.raises(DataError, match=shortage) as caught:
        list(batches(dataset, order, workers, False))
    assert not isinstance(caught.value, images.Unreadable)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_little_memory_after_reading(scratch, workers):
    """torch's own words for it, as it resizes: told as such, with the name of the manifest."""

    def resize(image):
        return torch.empty(1 << 60, dtype=torch.uint8)

    manifest = Manifest(str(scratch / "train.tsv"))
    said = r"train\.tsv: not enough memory.*: give a smaller -j$"
    with pytest.raises(DataError, match=said):
        list(batches(SequentialImages(manifest, str(scratch), resize), [[0]], workers, False))


def test_a_reader_that_is_killed_ends_the_others_and_the_command(scratch):
    """Through make-color-bins, as a process; the others read by the same."""
    rows = "".join(f"photos/cat/{n % 8}.jpg\n" for n in range(100_000))
    (scratch / "many.tsv").write_text(rows)
    with subprocess.Popen(
        [BIN / "make-color-bins", "many.tsv", "-j", "2", "-o", "b.npz"],
        cwd=scratch, env=environment(), stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            while len(found := readers(process.pid)) < 2:
                assert process.poll() is None
                time.sleep(0.05)
            os.kill(found[1], signal.SIGKILL)
            end = time.monotonic() + 5
            while readers(process.pid) and time.monotonic() < end:
                time.sleep(0.05)
            assert time.monotonic() < end
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    reason = "a process beside this one was killed by SIGKILL (memory full?): give a smaller -j"
    assert (process.returncode, said.decode()) == (1, f"make-color-bins: {reason}\n")
    assert not (scratch / "b.npz").exists()
