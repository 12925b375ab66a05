"""bzip2 by its blocks: the bytes and the kind of error of bz2, on whole and on spoilt files."""

import bz2
import io
import random
import threading

import pytest

from ssl_common.data import blocks

RNG = random.Random(0)


def only(number):
    """Return bytes of those alone whose map, as bzip2 writes it, is the 48 bits of NUMBER.

    None four times in a row, which would be followed by how many more there are, another byte.
    """
    used = [place for place in range(48) if number >> 47 - place & 1]
    return b"".join(bytes(RNG.sample(used, len(used))) for _ in range(100))


TEXT = bytes(RNG.choices(b"abcdefgh \n", k=400))
LONG = bytes(RNG.choices(b"ab", k=150_000))  # two blocks: one has 100,000
FALSE = [only(blocks.BLOCK), only(blocks.END)]
PACKED = {
    "text": bz2.compress(TEXT),
    "blocks": bz2.compress(LONG, 1),
    "nothing": bz2.compress(b""),
    "a number in a block": bz2.compress(FALSE[0]),
    "the other in a block": bz2.compress(FALSE[1]),
    "numbers in blocks": bz2.compress(FALSE[0] + 40 * FALSE[1], 1),
    "streams": b"".join(map(bz2.compress, (TEXT, b"", *FALSE, b"", TEXT), (9, 1, 3, 5, 9, 2))),
}
AFTER = [b"", b"\0" * 100, b"hello", b"BZ", b"BZh9", b"BZh91A", b"BZh0", bz2.compress(b"")]
AFTER += [b"BZh91AYX" + bz2.compress(TEXT), b"x" + bz2.compress(TEXT)]


def plainly(data):
    """Return what bz2 makes of DATA: the bytes, or the kind of its error."""
    try:
        with bz2.open(io.BytesIO(data)) as stream:
            return stream.read()
    except (EOFError, OSError) as error:
        return type(error)


def by_blocks(data, threads=1):
    try:
        with io.BufferedReader(blocks.Unpacked(io.BufferedReader(io.BytesIO(data)), threads)) as s:
            return s.read()
    except (EOFError, OSError) as error:
        return type(error)


@pytest.mark.parametrize("size", [13, 1 << 20], ids=["few bytes at a time", "many"])
@pytest.mark.parametrize("kind", PACKED)
def test_the_bytes_of_bz2(monkeypatch, kind, size):
    monkeypatch.setattr(blocks, "READ", size)
    for after in AFTER:
        data = PACKED[kind] + after
        assert by_blocks(data) == by_blocks(data, 3) == plainly(data), after


def test_the_numbers_that_are_false_are_met():
    for kind, number in zip(("a number in a block", "the other in a block"), FALSE, strict=True):
        data = PACKED[kind]
        found = blocks._numbers(data, 0)
        assert len(found) == 3 and bz2.decompress(data) == number
        whole = int.from_bytes(data)
        starts = [whole >> 8 * len(data) - place - 48 & (1 << 48) - 1 for place in found]
        assert set(starts) == {blocks.BLOCK, blocks.END}


@pytest.mark.parametrize("kind", PACKED)
def test_cut_short(kind):
    data = PACKED[kind]
    for cut in range(3, len(data), 1 + len(data) // 100):
        assert by_blocks(data[:cut]) == plainly(data[:cut]), cut


@pytest.mark.parametrize("kind", PACKED)
def test_a_flipped_bit(kind):
    """As bz2; but of a later stream that is damaged it leaves out all where that is short."""
    data = PACKED[kind]
    for bit in range(24, 8 * len(data), 1 + len(data) // 25):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 128 >> bit % 8
        want, found = plainly(bytes(spoilt)), by_blocks(bytes(spoilt))
        assert found == want or (kind == "streams" and found is OSError), bit


def test_a_later_stream_that_is_damaged_is_an_error():
    """Where bz2 takes all of it, as it is short, for bytes that mean nothing."""
    second = bytearray(bz2.compress(TEXT))
    second[60] ^= 1
    data = bz2.compress(TEXT) + bytes(second)
    assert plainly(data) == TEXT
    with pytest.raises(OSError, match="Invalid data stream"):
        list(blocks.unpacked(io.BufferedReader(io.BytesIO(data)), 1))


def test_memory_is_bounded_and_threads_end():
    """No more is read than what waits, and closing early leaves no thread."""
    before = threading.active_count()
    packed = io.BufferedReader(io.BytesIO(bz2.compress(RNG.randbytes(8_000_000), 1)))
    pieces = blocks.unpacked(packed, 2)
    next(pieces)
    assert 0 < packed.tell() <= 2 * blocks.READ
    pieces.close()
    assert threading.active_count() == before
    endless = io.BufferedReader(io.BytesIO(PACKED["text"] + b"\1" * 12_000_000))
    assert b"".join(blocks.unpacked(endless, 1)) == TEXT
    assert endless.tell() < 8 << 20
