"""The sample of YFCC100M: against a plain sort of keys that are computed with Python integers."""

import bz2
import gzip
import hashlib
import io
import lzma
import math
import random
import re

import numpy as np
import pytest
from scipy import stats

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


def plain_name(url):
    """The MD5 of a url, its bytes without leading zeros."""
    digest = hashlib.md5(url.encode()).hexdigest()
    return "".join(pair.lstrip("0") or "0" for pair in re.findall("..", digest))


def url_of(photo):
    return f"http://farm1.staticflickr.com/{photo % 997}/{photo}_0f11b3c88a.jpg"


def line(number, photo, marker=0, name=None, fields=25, url=None):
    url = url_of(photo) if url is None else url
    head = [f"{number}", f"{photo}", name or plain_name(url)] if fields == 25 else [f"{photo}"]
    text = [f"field{n}+%C3%A9" for n in range(13)]
    return "\t".join([*head, *text, url, *text[:7], f"{marker}"]) + "\n"


IDS = [6_000_000_000 + 7919 * n for n in range(300)]
LINES = [line(n, photo, marker=int(n % 5 == 0)) for n, photo in enumerate(IDS)]
OLD = [line(n, photo, int(n % 5 == 0), fields=23) for n, photo in enumerate(IDS)]
PHOTOS = [photo for n, photo in enumerate(IDS) if n % 5]


def write(path, lines):
    path.write_bytes("".join(lines).encode())
    return str(path)


def draw(listings, count, seed=0, form="path", **options):
    lines, tally = yfcc.sample(listings, count, seed, form, **options)
    return [each.decode().removesuffix("\n") for each in lines], tally


def smallest(photos, count, seed):
    return sorted(set(photos), key=lambda photo: plain_key(photo, seed))[:count]


def path_of(photo):
    name = plain_name(url_of(photo))
    return f"data/images/{name[:3]}/{name[3:6]}/{name}.jpg"


def plainly(photos, count, seed=0):
    return [path_of(photo) for photo in smallest(photos, count, seed)]


@pytest.fixture
def short_blocks(monkeypatch):
    """Let a block be shorter than most lines."""
    monkeypatch.setattr(yfcc, "READ", 100)


# ---- The key ------------------------------------------------------------------------------------


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


def test_keys_that_never_change():
    """The examples of ssl-formats(5), of two real photos: a sample is for good."""
    ids = np.array([7088065, 6162540254], np.uint64)
    assert yfcc.key(ids, 0).tolist() == [0xE09DBBD64ACF87EE, 0x31D2E2B4B4DFC8A6]
    assert yfcc.key(ids, 1).tolist() == [0xD02A587AF695F8D2, 0x9BCFB3E201C71322]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_sample_is_uniform(seed):
    """Consecutive ids, as near to each other as can be: strata by place and by last digits.

    A 1% sample of 2^20 photos, in each of 64 strata; without replacement, so the variance of a
    count is 99% of what chi-square takes it for.
    """
    ids = np.arange(6_000_000_000, 6_000_000_000 + 2**20, dtype=np.uint64)
    count = len(ids) // 100
    drawn = np.argsort(yfcc.key(ids, seed))[:count]
    for strata in (drawn // 2**14, drawn % 64, drawn // 64 % 64):
        counts = np.bincount(strata, minlength=64)
        assert len(counts) == 64
        assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4


def test_samples_of_different_seeds_are_independent():
    """Pairs in common are hypergeometric: 100 expected, standard deviation 9.9."""
    ids = np.arange(10**6, dtype=np.uint64)
    drawn = [np.argsort(yfcc.key(ids, seed))[:10_000] for seed in range(6)]
    common = [len(np.intersect1d(a, b)) for n, a in enumerate(drawn) for b in drawn[:n]]
    assert len(common) == 15
    assert min(common) > 60 and max(common) < 140
    assert abs(np.mean(common) - 100) < 4 * 9.9 / 15**0.5


# ---- The sample ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 240, math.inf])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_sample_is_the_smallest_keys(tmp_path, count, seed):
    paths, tally = draw([write(tmp_path / "l.tsv", LINES)], count, seed)
    assert paths == plainly(PHOTOS, min(count, 240), seed)
    assert (tally.lines, tally.photos, tally.bad, tally.sampled) == (300, 240, 0, len(paths))


@pytest.mark.parametrize("fields", [25, 23])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_form_of_both_layouts(tmp_path, fields, end, short_blocks):
    lines = [each.replace("\n", end) for each in (LINES if fields == 25 else OLD)]
    listing = write(tmp_path / "l.tsv", lines)
    chosen = smallest(PHOTOS, 30, 3)
    assert draw([listing], 30, 3, "id")[0] == [str(photo) for photo in chosen]
    assert draw([listing], 30, 3, "url")[0] == [url_of(photo) for photo in chosen]
    assert draw([listing], 30, 3, "path")[0] == [path_of(photo) for photo in chosen]
    whole = {photo: each.rstrip("\r\n") for photo, each in zip(IDS, lines, strict=True)}
    assert draw([listing], 30, 3, "line")[0] == [whole[photo] for photo in chosen]


def test_layouts_may_be_mixed_and_ids_have_any_length(tmp_path):
    ids = [0, 7, 10**18, 2**63, 10**19 - 1, *(13**n for n in range(1, 17))]
    lines = [line(n, photo, fields=25 - 2 * (n % 2)) for n, photo in enumerate(ids)]
    lines.append(lines[1].replace("7", "007", 1))  # the same photo
    found, tally = draw([write(tmp_path / "l.tsv", lines)], math.inf, 0, "id")
    assert found == [str(photo) for photo in smallest(ids, len(ids), 0)]
    assert (tally.photos, tally.bad) == (len(ids) + 1, 0)


def test_samples_are_nested(tmp_path):
    listing = write(tmp_path / "l.tsv", LINES)
    every = draw([listing], math.inf)[0]
    for count in (1, 10, 20, 239):
        assert draw([listing], count)[0] == every[:count]
    assert draw([listing], 20, 1)[0] != every[:20]


def test_order_and_division_do_not_matter(tmp_path, short_blocks):
    whole = draw([write(tmp_path / "l.tsv", LINES)], 50)[0]
    shuffled = random.Random(0).sample(LINES, len(LINES))
    parts = [write(tmp_path / f"{n}.tsv", shuffled[n::3]) for n in range(3)]
    assert draw(parts, 50)[0] == whole


def test_samples_of_parts_merge_by_sampling_again(tmp_path):
    """Lines of either layout, a part with fewer photos than wanted, and an id in two parts."""
    parts = [LINES[:150], OLD[140:250], LINES[250:]]
    whole = draw([write(tmp_path / "l.tsv", sum(parts, []))], 60, 5)[0]
    samples = []
    for number, (part, count) in enumerate(zip(parts, (60, 60, math.inf), strict=True)):
        lines = draw([write(tmp_path / f"{number}", part)], count, 5, "line")[0]
        samples += [f"{each}\n" for each in lines]
    assert len(samples) < 180
    assert draw([write(tmp_path / "all", samples)], 60, 5)[0] == whole


def test_a_repeated_id_counts_once(tmp_path):
    listing = write(tmp_path / "l.tsv", LINES + LINES)
    assert draw([listing], 240)[0] == plainly(PHOTOS, 240)
    assert draw([listing] * 3, math.inf)[0] == plainly(PHOTOS, 240)
    with pytest.raises(DataError, match="l.tsv: 240 photos, not 241: ask for -n all"):
        draw([listing], 241)


def test_of_lines_with_one_id_the_order_does_not_choose(tmp_path):
    """That whose text is first in the order of bytes."""
    lines = [line(n, 5, url=url) for n, url in enumerate(["http://b", "http://c", "http://a"])]
    for turn in range(3):
        given = [*lines[turn:], LINES[1], *lines[:turn], *lines]
        urls = draw([write(tmp_path / "l.tsv", given)], math.inf, 0, "url")[0]
        assert set(urls) == {"http://a", url_of(IDS[1])}


def test_a_photo_at_the_limit_may_still_belong_to_the_sample():
    """It may be the last of it again, with another text."""
    block = yfcc.Block()
    assert block.fill(io.BytesIO(LINES[1].encode()), b"", "l.tsv") is None
    limit = yfcc.key(np.array([IDS[1]], np.uint64), 0)[0]
    assert yfcc.parse(block, 0, limit, yfcc.url).texts == [url_of(IDS[1]).encode()]
    assert yfcc.parse(block, 0, limit - np.uint64(1), yfcc.url).texts == []


def test_pruning_many_times_changes_nothing():
    pool = random.Random(1).sample(range(2**62), 60_000)
    pool += random.Random(2).sample(pool, 3000)
    sample, held = yfcc.Sample(500), 0
    for start in range(0, len(pool), 700):
        keys = yfcc.key(np.array(pool[start : start + 700], np.uint64), 3)
        may = keys <= sample.limit
        texts = [b"%x" % photo for photo in pool[start : start + 700]]
        sample.add(keys[may], [text for text, mays in zip(texts, may, strict=True) if mays])
        held = max(held, len(sample))
    assert held < 12_000 and sample.limit < 2**60
    sample.prune()
    expected = smallest(pool, 500, 3)
    assert [bytes(text) for text in sample] == [b"%x" % photo for photo in expected]


# ---- Lines that do not parse --------------------------------------------------------------------


BAD = {
    "short": ("1\t2\t3\n", "3 fields, not 25 or 23"),
    "long": (LINES[1].replace("\n", "\tx\n"), "26 fields, not 25 or 23"),
    "between": (OLD[1].replace("\n", "\tx\n"), "24 fields, not 25 or 23"),
    "empty": ("\n", "1 fields, not 25 or 23"),
    "empty line of DOS": ("\r\n", "1 fields, not 25 or 23"),
    "10 MB": (f"{'x' * 10_000_000}\n", "1 fields, not 25 or 23"),
    "id": (line(0, "12a", url="u"), "'12a' is not a photo id"),
    "old id": (line(0, "1 2", fields=23, url="u"), "'1 2' is not a photo id"),
    "no id": (line(0, "", url="u"), "'' is not a photo id"),
    "huge id": (line(0, "9" * 5000, url="u"), f"'{'9' * 40}' is not a photo id"),
    "hash": (line(0, 12, name="0" * 31 + "G"), f"'{'0' * 31}G' is not a hash"),
    "capital": (line(0, 12, name="A" + "0" * 31), f"'A{'0' * 31}' is not a hash"),
    "long hash": (line(0, 12, name="0" * 33), f"'{'0' * 33}' is not a hash"),
    "short hash": (line(0, 12, name="0" * 15), f"'{'0' * 15}' is not a hash"),
    "marker": (line(0, 12, marker=2), "the marker is '2', not"),
    "no marker": (line(0, 12, marker=""), "the marker is '', not"),
    "long marker": (line(0, 12, marker="00"), "the marker is '00', not"),
    "url": (line(0, 12, url=""), "a photo without a download url"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_in_a_thousand_is_left_out_and_said(tmp_path, kind):
    bad, message = BAD[kind]
    good = [line(n, 10**10 + n) for n in range(999)]
    paths, tally = draw([write(tmp_path / "l.tsv", [*good[:5], bad, *good[5:]])], 999)
    assert paths == plainly([10**10 + n for n in range(999)], 999)
    said = f"999 of 999 photos, 1,000 lines; bad lines left out: 1, the first {tmp_path}/l.tsv:6: "
    assert tally.summary().startswith(said + message)
    listing = write(tmp_path / "l.tsv", [*good[:4], bad, *good[5:]])
    share = r"\(1 of 999 lines are bad, --max-bad is 0.001\)"
    with pytest.raises(DataError, match=rf"l.tsv:5: {message}.* {share}"):
        draw([listing], 10)
    assert draw([listing], 998, max_bad=0.002)[1].bad == 1


def test_lines_are_counted_as_a_plain_reader_counts_them(tmp_path, short_blocks):
    """Characters put in, taken out and changed at random: against regular expressions."""
    rng, usual = random.Random(0), LINES[1:] + OLD[1:]
    lines = []
    for number in range(4000):
        text = list(rng.choice(usual)[:-1])
        for _ in range(number % 3):
            place = rng.choice((rng.randrange(len(text)), rng.randrange(50), len(text) - 1))
            text[place : place + rng.randrange(2)] = rng.choice(("\t", "", "0", "g", "\r", "\x01"))
        lines.append("".join(text))
    tail = r"(?:[^\t]*\t){11}[^\t]*\t([^\t]*)\t(?:[^\t]*\t){7}([01])\r?"
    head, old = r"[^\t]*\t([0-9]{1,19})\t([0-9a-f]{16,32})\t", r"([0-9]{1,19})()\t"
    patterns = [re.compile(f"{start}(?:[^\t]*\t){tail}") for start in (head, old)]
    good = [m for each in lines for pattern in patterns if (m := pattern.fullmatch(each))]
    good = [m for m in good if m[3] or m[4] == "1"]
    photos = {int(m[1]) for m in good if m[4] == "0"}
    text = write(tmp_path / "l.tsv", [each + "\n" for each in lines])
    found, tally = draw([text], math.inf, 0, "id", max_bad=1)
    assert 1000 < tally.bad == len(lines) - len(good)
    assert found == [str(photo) for photo in smallest(photos, len(photos), 0)]
    assert tally.photos == sum(m[4] == "0" for m in good)


def test_the_first_bad_line_is_counted_in_its_own_file(tmp_path, short_blocks):
    parts = [write(tmp_path / "a", LINES), write(tmp_path / "b", [*LINES[:7], "half"])]
    tally = draw(parts, 10, max_bad=0.01)[1]
    assert (tally.first, tally.bad) == (f"{tmp_path}/b:8: 1 fields, not 25 or 23", 1)


def test_the_last_line_may_lack_its_newline(tmp_path, short_blocks):
    listing = write(tmp_path / "l.tsv", [*LINES[:-1], LINES[-1].rstrip("\n")])
    assert draw([listing], 240)[0] == plainly(PHOTOS, 240)


def test_a_line_of_10_megabytes_is_a_line(tmp_path):
    big = LINES[1].replace("field2", "x" * 10_000_000)
    listing = write(tmp_path / "l.tsv", [LINES[0], big, *LINES[2:]])
    assert draw([listing], 240)[0] == plainly(PHOTOS, 240)
    assert big.rstrip("\n") in draw([listing], math.inf, 0, "line")[0]


def test_what_has_no_lines_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(yfcc, "LONGEST", 1 << 20)
    monkeypatch.setattr(yfcc, "READ", 1 << 16)
    with pytest.raises(DataError, match=r"zeros: a line of more than 1 MB: is it yfcc100m_dataset"):
        draw([write(tmp_path / "zeros", "\0" * (1 << 21))], 10)


def test_another_file_is_refused_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(yfcc, "READ", 1000)
    with pytest.raises(
        DataError, match=r"l.tsv:1: 2 fields, not 25 or 23 \((\S+) of \1 lines"
    ) as e:
        draw([write(tmp_path / "l.tsv", ["a\tb\n"] * 5000)], 10)
    assert "5,000" not in str(e.value)


@pytest.mark.parametrize("count", [1, math.inf])
@pytest.mark.parametrize("lines", [[], LINES[:1]], ids=["empty", "a video"])
def test_a_listing_without_a_photo_is_an_error(tmp_path, count, lines):
    with pytest.raises(DataError, match="l.tsv: 0 photos: is it yfcc100m_dataset"):
        draw([write(tmp_path / "l.tsv", lines)], count)


# ---- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"]
)
def test_archives_are_told_by_content(tmp_path, pack):
    path = tmp_path / "listing"
    halves = ["".join(LINES[:100]).encode(), "".join(LINES[100:]).encode()]
    path.write_bytes(b"".join(pack(half) for half in halves))  # two members, as pbzip2 writes
    for workers in (0, 1, 3):
        assert draw([str(path)], 50, workers=workers)[0] == plainly(PHOTOS, 50)
    whole = pack(b"".join(halves))
    for cut in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="listing: the archive is cut short"):
            draw([str(path)], 50)
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])  # in the checksum
    with pytest.raises(DataError, match="listing: the archive is damaged"):
        draw([str(path)], 50)


@pytest.mark.parametrize(
    "start, by", [(b"\x28\xb5\x2f\xfd", "zstd -dc"), (b"PK\x03\x04", "unzip -p")]
)
def test_archives_that_are_not_unpacked_are_named(tmp_path, start, by):
    path = tmp_path / "listing"
    path.write_bytes(start + b"\0" * 99)
    with pytest.raises(DataError, match=f"listing: packed: unpack it, {by} FILE | sample-yfcc"):
        draw([str(path)], 50)


def test_progress_is_in_bytes_of_the_files(tmp_path, short_blocks):
    plain, packed = write(tmp_path / "a", LINES), tmp_path / "b"
    packed.write_bytes(bz2.compress("".join(LINES).encode()))
    total, seen = (tmp_path / "a").stat().st_size + packed.stat().st_size, []
    draw([plain, str(packed)], 10, progress=lambda *told: seen.append(told))
    done, totals, notes = zip(*seen, strict=True)
    assert sorted(done) == list(done) and done[0] > 0 and done[-1] == total
    assert set(totals) == {total} and notes[-1] == "480 photos"


def test_a_missing_file_is_found_before_the_first_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        draw([write(tmp_path / "l.tsv", ["bad\n"] * 5000), "no-such-file"], 10)


# ---- Real lines ---------------------------------------------------------------------------------


def test_real_lines(data):
    listing = str(data("yfcc100m_excerpt/yfcc100m_dataset_25fields.tsv"))
    expected = "data/images/4cc/b23/4ccb23d8746b8d9d76ffd603fc7988.jpg"
    assert draw([listing], 1)[0] == [expected]
    url = "http://farm7.staticflickr.com/6167/6162540254_5d22abd711.jpg"
    assert draw([listing], 1, form="url")[0] == [url]
    assert draw([listing], 1, form="id")[0] == ["6162540254"]
    with open(listing) as stream:
        whole = stream.read()
    assert draw([listing], 1, form="line")[0] == [whole.rstrip("\n")]


def test_real_lines_of_2014(data, tmp_path):
    """Without a hash the image has the MD5 of its url: that of the one line of both layouts."""
    listing = str(data("yfcc100m_excerpt/yfcc100m_dataset_23fields.tsv"))
    ids = {"7088065", "343224206", "6325727670", "10642543105"}
    assert set(draw([listing], math.inf, form="id")[0]) == ids
    urls = draw([listing], math.inf, form="url")[0]
    names = [path.rsplit("/", 1)[1] for path in draw([listing], math.inf)[0]]
    assert names == [f"{plain_name(url)}.jpg" for url in urls]
    assert all(url.startswith("http://farm") and url.endswith(".jpg") for url in urls)
    new = data("yfcc100m_excerpt/yfcc100m_dataset_25fields.tsv").read_text().split("\t")
    old = write(tmp_path / "old", ["\t".join([new[1], *new[3:]])])
    assert draw([old], 1)[0] == ["data/images/4cc/b23/4ccb23d8746b8d9d76ffd603fc7988.jpg"]


def test_paths_are_those_of_the_bucket(data):
    for url in data("yfcc100m_excerpt/s3_urls_1000.txt").read_text().split():
        name = url.rsplit("/", 1)[1].removesuffix(".jpg")
        assert url.endswith(f"/{yfcc.path(name.encode()).decode()}")
        assert yfcc.HEX.fullmatch(name.encode())
