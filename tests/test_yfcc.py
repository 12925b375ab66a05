"""The sample of YFCC100M: against a plain sort of keys that are computed with Python integers."""

import bz2
import gzip
import random

import numpy as np
import pytest

from ssl_common.data import yfcc
from ssl_common.streams import DataError

MASK = 2**64 - 1


def mix(z):
    """The finaliser of splitmix64, from its publication."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def plain_key(photo, seed):
    return mix(mix((seed + 0x9E3779B97F4A7C15) & MASK) ^ photo)


def line(number, photo, name=None, marker=0):
    text = [f"field{n}+%C3%A9" for n in range(21)]
    return "\t".join([str(number), str(photo), name or f"{photo:032x}", *text, str(marker)]) + "\n"


IDS = [6_000_000_000 + 7919 * n for n in range(300)]
LINES = [line(n, photo, marker=int(n % 5 == 0)) for n, photo in enumerate(IDS)]
PHOTOS = [photo for n, photo in enumerate(IDS) if n % 5]


def write(path, lines):
    path.write_text("".join(lines))
    return str(path)


def draw(listings, count, seed=0):
    paths, tally = yfcc.sample(listings, count, seed)
    return list(paths), tally


def plainly(photos, count, seed):
    ordered = sorted(set(photos), key=lambda photo: plain_key(photo, seed))[:count]
    names = [f"{photo:032x}" for photo in ordered]
    return [f"data/images/{name[:3]}/{name[3:6]}/{name}.jpg" for name in names]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_keys_equal_those_of_python_integers(seed):
    ids = [0, 1, 2**63, MASK, *IDS]
    found = yfcc.key(np.array(ids, np.uint64), seed)
    assert found.dtype == np.uint64
    assert found.tolist() == [plain_key(photo, seed) for photo in ids]


def test_the_generator_known_from_its_publication():
    """Splitmix64 from state 0 begins with 0xe220a8397b1dcdaf: mix of its increment."""
    assert mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert yfcc.key(np.zeros(1, np.uint64), 0)[0] == mix(0xE220A8397B1DCDAF)


@pytest.mark.parametrize("count", [1, 10, 240])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_sample_is_the_smallest_keys(tmp_path, count, seed):
    paths, tally = draw([write(tmp_path / "l.tsv", LINES)], count, seed)
    assert paths == plainly(PHOTOS, count, seed)
    assert (tally.lines, tally.photos, tally.bad) == (300, 240, 0)


def test_samples_are_nested(tmp_path):
    listing = write(tmp_path / "l.tsv", LINES)
    assert draw([listing], 20)[0][:10] == draw([listing], 10)[0]
    assert draw([listing], 20, 1)[0] != draw([listing], 20, 0)[0]


def test_order_and_division_do_not_matter(tmp_path):
    whole = draw([write(tmp_path / "l.tsv", LINES)], 50)[0]
    shuffled = random.Random(0).sample(LINES, len(LINES))
    parts = [write(tmp_path / f"{n}.tsv", shuffled[n::3]) for n in range(3)]
    assert draw(parts, 50)[0] == whole


def test_a_repeated_id_counts_once(tmp_path):
    listing = write(tmp_path / "l.tsv", LINES + LINES)
    assert draw([listing], 240)[0] == plainly(PHOTOS, 240, 0)
    with pytest.raises(DataError, match="l.tsv: 240 photos, not 241: ask for -n 240 or less"):
        draw([listing], 241)


def test_pruning_many_times_changes_nothing(tmp_path, monkeypatch):
    """Lines are read few at a time, and the buffer is far smaller than the listing."""
    monkeypatch.setattr(yfcc, "READ", 2000)
    listing = write(tmp_path / "l.tsv", LINES)
    assert draw([listing], 30)[0] == plainly(PHOTOS, 30, 0)
    pool = random.Random(1).sample(range(2**62), 60_000)
    sample = yfcc.Sample(500, 3)
    for start in range(0, len(pool), 700):
        some = pool[start : start + 700]
        sample.add(some, [b"%x" % photo for photo in some])
    assert sample.held < len(pool) // 4
    sample.prune()
    smallest = sorted(pool, key=lambda photo: plain_key(photo, 3))[:500]
    assert sample.names.tolist() == [b"%x" % photo for photo in smallest]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gzip", "bzip2"])
def test_archives_are_told_by_content(tmp_path, pack):
    path = tmp_path / "listing"
    halves = ["".join(LINES[:100]).encode(), "".join(LINES[100:]).encode()]
    path.write_bytes(b"".join(pack(half) for half in halves))  # two members, as pbzip2 writes
    assert draw([str(path)], 50)[0] == plainly(PHOTOS, 50, 0)
    whole = pack(b"".join(halves))
    for cut in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="listing: the archive is cut short"):
            draw([str(path)], 50)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(255 - b for b in whole[middle:-8]) + whole[-8:])
    with pytest.raises(DataError, match="listing: the archive is damaged"):
        draw([str(path)], 50)


BAD = {
    "short": ("1\t2\t3\n", "3 fields, not 25"),
    "long": (LINES[1].replace("\n", "\tx\n"), "26 fields, not 25"),
    "empty": ("\n", "1 fields, not 25"),
    "id": (line(0, "12a", "0" * 32), "'12a' is not a photo id"),
    "huge id": (line(0, "9" * 5000, "0" * 32), f"'{'9' * 40}' is not a photo id"),
    "hash": (line(0, 12, "0" * 31 + "G"), f"'{'0' * 31}G' is not a hash"),
    "long hash": (line(0, 12, "0" * 33), f"'{'0' * 33}' is not a hash"),
    "marker": (line(0, 12, marker=2), "the marker is '2', not"),
    "carriage return": (line(0, 12).replace("\n", "\r\n"), r"the marker is '0\\r', not"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_in_a_thousand_is_left_out_and_said(tmp_path, kind):
    bad, message = BAD[kind]
    good = [line(n, 10**10 + n) for n in range(999)]
    paths, tally = draw([write(tmp_path / "l.tsv", [*good[:5], bad, *good[5:]])], 999)
    assert paths == plainly([10**10 + n for n in range(999)], 999, 0)
    assert tally.summary().startswith("999 photos, 1,000 lines; left out 1 bad lines, first ")
    assert f"l.tsv:6: {message}".replace("\\\\", "\\") in tally.summary()
    with pytest.raises(DataError, match=rf"l.tsv:5: {message}.* \(1 of 999 lines are bad\)"):
        draw([write(tmp_path / "l.tsv", [*good[:4], bad, *good[5:]])], 10)


def test_another_file_is_refused_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(yfcc, "READ", 1000)
    with pytest.raises(DataError, match=r"l.tsv:1: 2 fields, not 25 \((\d+) of \1 lines") as error:
        draw([write(tmp_path / "l.tsv", ["a\tb\n"] * 5000)], 10)
    assert "5000" not in str(error.value)


def test_real_lines(data):
    listing = data("yfcc100m_excerpt/yfcc100m_dataset_25fields.tsv")
    expected = "data/images/4cc/b23/4ccb23d8746b8d9d76ffd603fc7988.jpg"
    assert draw([str(listing)], 1)[0] == [expected]
    with pytest.raises(DataError, match="23fields.tsv:1: 23 fields, not 25"):
        draw([str(data("yfcc100m_excerpt/yfcc100m_dataset_23fields.tsv"))], 1)


def test_paths_are_those_of_the_bucket(data):
    for url in data("yfcc100m_excerpt/s3_urls_1000.txt").read_text().split():
        name = url.rsplit("/", 1)[1].removesuffix(".jpg")
        assert url.endswith(f"/{yfcc.path(name)}")
        assert yfcc.HEX.fullmatch(name.encode())
