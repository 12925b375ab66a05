"""--shuffle-window: every image once an epoch, few shards at a time, from any position."""

import math

import numpy as np
import pytest
from scipy import stats

from ssl_common.data.manifest import Manifest
from ssl_common.data.order import ShuffleSampler
from ssl_common.data.windows import Windows, begins
from ssl_common.streams import DataError

SIZES = [5, 1, 40, 17, 17, 100, 3, 64]
BEGINS = np.cumsum([0, *SIZES])
COUNT = sum(SIZES)


@pytest.mark.parametrize("wide", [1, 2, 3, 8, 100])
def test_an_epoch_is_every_image_once_a_window_of_shards_at_a_time(wide):
    windows, orders = Windows(BEGINS, wide), []
    for epoch in range(3):
        order = windows.shuffle(range(COUNT), COUNT, 7, epoch)
        assert sorted(order) == list(range(COUNT))
        shards = np.searchsorted(BEGINS, order, side="right") - 1
        shown = list(dict.fromkeys(shards.tolist()))  # in the order they are first needed
        seen, begin = set(), 0
        for window in range(math.ceil(len(SIZES) / wide)):
            within = set(shards[begin : begin + 1].tolist())
            while len(within) < min(wide, len(SIZES) - window * wide):
                begin += 1
                within |= {int(shards[begin])}
            size = sum(SIZES[shard] for shard in within)
            start = sum(SIZES[shard] for shard in seen)
            assert set(shards[start : start + size].tolist()) == within
            assert not within & seen
            seen |= within
            begin = start + size
        assert set(shown) == set(range(len(SIZES)))
        orders.append(order.tolist())
    assert len({tuple(order) for order in orders}) == 3
    assert Windows(BEGINS, wide).shuffle(range(COUNT), COUNT, 8, 0).tolist() != orders[0]


def test_any_position_is_had_without_those_before():
    windows = Windows(BEGINS, 2)
    whole = windows.shuffle(range(COUNT), COUNT, 7, 1)
    places = np.random.default_rng(0).permutation(COUNT)[:50].reshape(5, 10)
    assert (Windows(BEGINS, 2).shuffle(places, COUNT, 7, 1) == whole[places]).all()
    assert (windows.shuffle(range(COUNT), COUNT, 7, 0) != whole).any()
    assert (windows.shuffle(places, COUNT, 7, 1) == whole[places]).all()


@pytest.mark.parametrize(("parts", "ranks"), [(1, 1), (4, 2), (4, 4)])
def test_batches_go_on_at_any_step_and_any_number_of_ranks(parts, ranks):
    def sampled(start, rank, ranks):
        order = Windows(BEGINS, 3).shuffle
        return list(ShuffleSampler(COUNT, 12, 60, start, 5, parts, rank, ranks, order))

    whole = sampled(0, 0, 1)
    each = [sampled(0, rank, ranks) for rank in range(ranks)]
    together = [batch for group in zip(*each, strict=True) for batch in group]
    assert together == whole
    assert sampled(33, ranks - 1, ranks) == each[-1][33 * parts // ranks :]


def test_an_image_stands_anywhere_and_beside_those_of_its_window_alone():
    """Of 8 shards of 10: where image 13 stands over 1,600 epochs, chi-square of 80 places."""
    windows = Windows(np.arange(0, 81, 10), 2)
    orders = [windows.shuffle(range(80), 80, 3, epoch) for epoch in range(1600)]
    places = np.bincount([int(np.flatnonzero(order == 13)[0]) for order in orders], minlength=80)
    assert stats.chisquare(places).pvalue > 1e-4
    # The window that it is in holds another shard, each as often.
    beside = []
    for order in orders:
        window = order.reshape(4, 20)[(order.reshape(4, 20) == 13).any(1)][0]
        beside += {*(window // 10).tolist()} - {1}
    assert stats.chisquare(np.bincount(beside, minlength=8)[[0, *range(2, 8)]]).pvalue > 1e-4


def listed(tmp_path, *paths):
    (tmp_path / "list.tsv").write_text("".join(f"{path}\n" for path in paths))
    return Manifest(str(tmp_path / "list.tsv"))


def test_shards_of_a_list_are_its_shards_or_else_its_folders(tmp_path):
    shards = [
        "a/0.tar/1.jpg",
        "a/0.tar/d/2.jpg",
        "a/1.zip/1.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "b/c/1.jpg",
    ]
    assert begins(listed(tmp_path, *shards)).tolist() == [0, 2, 3, 5, 6]
    assert begins(listed(tmp_path, "1.jpg", "2.jpg")).tolist() == [0, 2]
    with pytest.raises(DataError, match=r"list.tsv:3: a.tar again, which stood before"):
        begins(listed(tmp_path, "a.tar/1.jpg", "b.tar/1.jpg", "a.tar/2.jpg"))
