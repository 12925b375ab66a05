"""bzip2 unpacked block by block, by several threads: the bytes and the errors of bz2.

A block begins at any bit of a file, with a number of 48 bits and its checksum; so does the end of a
stream, with another number. Both are looked for, and what begins with the first is unpacked, up to
the next number, as a stream of its own, while bz2 lets other threads run. Where bits only look like
a number, they cut a block in two: bz2 finds it short, and is given what follows as well.
"""

import bz2
import collections
import io
import itertools
import re
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

BLOCK, END = 0x314159265359, 0x177245385090
HEADER = re.compile(rb"BZh[1-9]")  # of a stream, at a whole byte; the digit is for all its blocks
READ = 1 << 20  # bytes at a time
LONGEST = 1 << 22  # bytes of a packed block, and more: 900,000 codes of 20 bits at most
SHORT, DAMAGED = "bzip2 ends before the end of its stream", "Invalid data stream"
# Which 16 bits are the second and third, or the third and fourth, byte of what has a number in it.
LIKELY = np.zeros(1 << 16, bool)
for _number, _bit, _byte in itertools.product((BLOCK, END), range(8), (3, 4)):
    LIKELY[_number << 8 - _bit >> 56 - 8 * _byte & 0xFFFF] = True


class Part(NamedTuple):
    """The bits from a number, or from the beginning of the file, to the next number."""

    header: bytes  # of the stream that they seem to be in
    value: int  # of the bits, LENGTH, and of others before them
    length: int

    def bits(self, start: int, stop: int) -> int:
        """Return the bits from START to STOP as a number."""
        return self.value >> max(0, self.length - stop) & (1 << stop - start) - 1

    def octets(self, start: int) -> bytes:
        """Return the bits from START on as bytes, as many as are whole."""
        size = max(0, self.length - start) // 8
        return self.bits(start, start + 8 * size).to_bytes(size)


class Unpacked(io.RawIOBase):
    """What unpacked() yields of PACKED by THREADS, as a stream; it is closed with it."""

    def __init__(self, packed: Any, threads: int) -> None:
        self.pieces, self.left = unpacked(packed, threads), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.left and (piece := next(self.pieces, None)) is not None:
            self.left = memoryview(piece)
        count = min(len(buffer), len(self.left))
        buffer[:count], self.left = self.left[:count], self.left[count:]
        return count

    def close(self) -> None:
        self.pieces.close()
        super().close()


def unpacked(packed: Any, threads: int) -> Generator[bytes, None, None]:
    """Yield what the blocks of PACKED, a stream, hold; 3 for each of THREADS wait at most.

    Raises what bz2 does: EOFError where PACKED is cut short, OSError where it is damaged. What
    follows a stream and does not begin as one is ignored, as there. Close it: that ends the pool.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from _unpacked(_begun(_parts(packed), pool, 2 * threads))
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(parts: Iterator[Part], pool: Any, count: int) -> Iterator[tuple[Part, Future]]:
    """Yield PARTS, each with what POOL makes of it; COUNT later, so that it is made meanwhile."""
    waiting: collections.deque[tuple[Part, Future]] = collections.deque()
    for part in parts:
        waiting.append((part, pool.submit(_block, part)))
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _unpacked(parts: Iterator[tuple[Part, Future]]) -> Iterator[bytes]:
    """Yield what the blocks among PARTS hold; raise what unpacked() does."""

    def joined(part: Part) -> Part:
        for more, _made in parts:
            value = part.value << more.length | more.bits(0, more.length)
            return Part(part.header, value, part.length + more.length)
        raise EOFError(SHORT)

    after, begun = next(parts)[0].octets(0), False
    while HEADER.fullmatch(after):
        total, begun = 0, True
        for part, made in parts:
            if part.bits(0, 48) == END:
                break
            data = made.result()
            while data is None:
                part = joined(part)
                data = _block(part)
            total = (total << 1 & 0xFFFFFFFF | total >> 31) ^ part.bits(48, 80)
            yield data
        else:
            raise EOFError(SHORT)
        while part.length < 80:
            part = joined(part)
        if part.bits(48, 80) != total:
            raise OSError(DAMAGED)
        after = part.octets(80 + part.length % 8)  # others fill a byte
    if after or not begun:
        try:
            bz2.BZ2Decompressor().decompress(after)
        except OSError:
            if not begun:
                raise
        else:
            raise EOFError(SHORT)


def _block(part: Part) -> bytes | None:
    """Return what the block PART holds; None where bits are missing. OSError if it is damaged."""
    unpack = bz2.BZ2Decompressor()
    data = unpack.decompress(part.header + part.octets(0))
    rest = part.bits(part.length & -8, part.length) << 80 | END << 32 | part.bits(48, 80)
    pad = -part.length % 8
    try:
        data += unpack.decompress((rest << pad).to_bytes(10 + (pad > 0)))
    except OSError:
        return None
    return data if unpack.eof else None


def _parts(packed: Any) -> Iterator[Part]:
    """Yield the parts of PACKED, up to one that is too long; the first is before all numbers."""
    held, begin, header, more = b"", 0, b"", b"more"
    while more and len(held) <= LONGEST:
        more = packed.read1(READ)
        start = max(0, len(held) - 6)
        held += more
        for end in _numbers(held, start):
            if end > begin:
                part = Part(
                    header, int.from_bytes(held[begin // 8 : -(-end // 8)]) >> -end % 8, end - begin
                )
                yield part
                last = (part.value & 0xFFFFFFFF).to_bytes(4)
                if part.bits(0, 48) != BLOCK and HEADER.fullmatch(last):
                    header = last
                begin = end
        held, begin = held[begin // 8 :], begin % 8
    yield Part(header, int.from_bytes(held), 8 * len(held) - begin)


def _numbers(data: bytes, start: int) -> list[int]:
    """Return at which bits of DATA a number begins, from its byte START on."""
    pairs = np.frombuffer(data, ">u2", (len(data) - start) // 2, start)
    near = start + 2 * np.flatnonzero(LIKELY[pairs])
    near = np.concatenate([near - 2, near - 1])
    near = near[(near >= 0) & (near <= len(data) - 7)]
    seven = np.zeros(len(near), np.uint64)
    for byte in range(7):
        seven = seven << np.uint64(8) | np.frombuffer(data, np.uint8)[near + byte]
    bits = seven[:, None] >> np.arange(8, 0, -1, dtype=np.uint64) & np.uint64((1 << 48) - 1)
    rows, shifts = np.nonzero((bits == BLOCK) | (bits == END))
    return sorted({*(8 * near[rows] + shifts).tolist()})
