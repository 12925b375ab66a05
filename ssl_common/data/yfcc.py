"""The YFCC100M listing -> a seeded sample of its photos, nested and independent of its order.

A line of the listing (yfcc100m_dataset, Thomee et al., CACM 2016) has 25 fields separated by TABs,
text fields URL-encoded; one of 2014 lacks the first and the third, the line number and the hash.
Read are the photo id, the hash that names the image in the multimedia-commons bucket, the download
url, and the marker, 0 for a photo and 1 for a video.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_common import streams
from ssl_common.data.mixing import GOLDEN, mix
from ssl_common.data.packed import LONGEST as MAGIC
from ssl_common.data.packed import command, reader
from ssl_common.streams import DataError

FIELDS, FIELDS_2014 = 25, 23
PHOTO_ID, HASH = 1, 2  # with 23 fields the id is the first, and there is no hash
URL, MARKER = -9, -1
# The hash is an MD5 whose bytes were printed without leading zeros: at most 32 characters.
HEX = re.compile(rb"[0-9a-f]{16,32}")
ID_DIGITS = 19  # below 2^64 for certain; real ones have 11

WINDOW = 32  # bytes that are looked at before the end of an id or a hash
PAD = b" " * (WINDOW - 1) + b"\n"  # before a block, as if a line ended there
READ = 1 << 20  # bytes at a time
LONGEST = 1 << 26  # bytes of a line, and more are not kept while its end is looked for
TAB, NEWLINE, RETURN, ZERO, ONE = b"\t\n\r01"
SLACK = 16  # a sample of n is pruned when it holds n / SLACK too many
CHUNK = 1 << 13  # photos at a time where a sample is moved or written


def sample(
    listings: Sequence[str],
    count: float,
    seed: int,
    form: str = "path",
    max_bad: float = 0.001,
    progress: Callable[[int, int | None, str], object] = lambda *_: None,
    workers: int = 1,
) -> tuple[Iterator[bytes], "Tally"]:
    """Draw COUNT photos from LISTINGS in one pass; return (lines, Tally), lines an iterator.

    LISTINGS are files or "-", plain, gzip, bzip2 or xz; COUNT may be math.inf, all photos. A photo
    is sampled by its key(), so a smaller sample is the beginning of a larger one, and neither the
    order of the lines nor their division into files matters. A repeated id counts once: of lines
    that say different things, the one whose FORM (of FORMS) is first in the order of bytes. Memory
    is that of 17/16 of the sample. PROGRESS is called with the bytes done, those in all or None,
    and a note. WORKERS threads unpack bzip2, and as many parse. Raises DataError for fewer photos
    than COUNT, none at all, a truncated archive, or a share of lines that do not parse above
    MAX_BAD.
    """
    sizes = [_size(listing) for listing in listings]  # also finds now what is not there
    total = None if None in sizes else sum(sizes)
    kept, tally, done = Sample(count), Tally(max_bad), 0
    for listing in listings:
        before, tally.number = done, 0
        with open_listing(listing, max(1, workers)) as (stream, position):
            where = streams.name(listing)
            for part in _parts(stream, where, kept, seed, FORMS[form], max(1, workers)):
                tally.add(part, listing)
                kept.add(part.keys, part.texts)
                done = before + position() if position else done + part.size
                progress(done, total, f"{tally.photos:,} photos")
    tally.refuse()
    kept.prune()
    tally.sampled = len(kept)
    if not tally.sampled or (tally.sampled < count and np.isfinite(count)):
        where = " ".join(streams.name(listing) for listing in listings)
        advice = f", not {count}: ask for -n all" if tally.sampled else ": is it yfcc100m_dataset?"
        raise DataError(f"{where}: {tally.sampled} photos{advice}")
    output: Callable[[bytes], bytes] = {"path": path, "shard": member}.get(form, bytes)
    return (output(text) + b"\n" for text in kept), tally


def key(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return the uint64 keys of photo IDS (uint64) under SEED, below 2^64.

    key(id) = mix(mix(seed + GOLDEN) xor id), modulo 2^64. Two photos never have the same one.
    """
    return mix(mix(np.array([seed], np.uint64) + GOLDEN) ^ ids)


# ---- What is kept -------------------------------------------------------------------------------


class Sample:
    """The n photos with the smallest keys among those added, each with a text.

    Keys, texts and the lengths of texts lie end to end in one bytearray each, which grow in place.
    """

    def __init__(self, count: float):
        self.count = count
        self.limit: Any = np.uint64(2**64 - 1)  # the greatest key that may belong to the sample
        self._keys, self._lengths, self._texts = bytearray(), bytearray(), bytearray()

    def __len__(self) -> int:
        return len(self._keys) // 8

    def add(self, keys: np.ndarray, texts: Sequence[bytes]) -> None:
        """Add photos by their KEYS (uint64) and TEXTS (bytes, below 4 GB each)."""
        self._keys += keys.tobytes()
        self._lengths += np.fromiter(map(len, texts), np.uint32, len(texts)).tobytes()
        self._texts += b"".join(texts)
        if len(self) >= self.count + max(self.count / SLACK, 10_000):  # seldom: pruning sorts
            self.prune()

    def prune(self) -> None:
        """Keep the photos with the smallest keys, each once."""
        keys = np.frombuffer(self._keys, np.uint64)
        order = np.argsort(keys)
        keep = np.ones(len(keys), bool)
        keep[self._repeated(order, keys[order])] = False
        order = order[keep[order]]
        if len(order) >= self.count:
            count = int(self.count)
            keep[order[count:]] = False
            self.limit = keys[order[count - 1]]
        del keys, order  # a bytearray that is looked at cannot shrink
        self._compact(keep)

    def _repeated(self, order, keys):
        """Return which photos repeat one whose text is not greater; KEYS are sorted by ORDER."""
        repeated, best, previous = [], None, None
        same = np.flatnonzero(keys[1:] == keys[:-1])
        ends = self._ends() if len(same) else np.empty(0, np.int64)

        def text(photo):
            return self._texts[ends[photo - 1] if photo else 0 : ends[photo]]

        for place in same.tolist():
            best = best if place - 1 == previous else order[place]
            other, previous = order[place + 1], place
            best, worse = (best, other) if text(best) <= text(other) else (other, best)
            repeated.append(worse)
        return np.array(repeated, np.int64)

    def _ends(self):
        return np.cumsum(np.frombuffer(self._lengths, np.uint32), dtype=np.int64)

    def _compact(self, keep):
        """Move the photos that KEEP names together, a chunk at a time, and forget the others."""
        kept = read = written = 0
        for start in range(0, len(keep), CHUNK):
            some = keep[start : start + CHUNK]
            lengths = np.frombuffer(self._lengths, np.uint32, len(some), 4 * start)
            size = int(lengths.sum(dtype=np.int64))
            text = np.frombuffer(self._texts, np.uint8, size, read)
            text, read = text[np.repeat(some, lengths)].tobytes(), read + size
            keys = np.frombuffer(self._keys, np.uint64, len(some), 8 * start)[some].tobytes()
            lengths = lengths[some].tobytes()
            self._keys[8 * kept : 8 * kept + len(keys)] = keys
            self._lengths[4 * kept : 4 * kept + len(lengths)] = lengths
            self._texts[written : written + len(text)] = text
            kept, written = kept + len(keys) // 8, written + len(text)
        del self._keys[8 * kept :], self._lengths[4 * kept :], self._texts[written:]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the texts in the order of their keys, after prune()."""
        order, ends = np.argsort(np.frombuffer(self._keys, np.uint64)), self._ends()
        lengths = np.frombuffer(self._lengths, np.uint32)
        for start in range(0, len(order), CHUNK):
            some = order[start : start + CHUNK]
            stops = ends[some]
            for begin, stop in zip((stops - lengths[some]).tolist(), stops.tolist(), strict=True):
                yield bytes(self._texts[begin:stop])


class Tally:
    """What a pass over the listings saw: lines, photo lines, lines that do not parse."""

    def __init__(self, max_bad: float):
        self.max_bad = max_bad
        self.lines = self.photos = self.bad = self.sampled = 0
        self.number = 0  # lines of the present listing
        self.first: str | None = None  # the first bad line: where, and what is wrong with it

    def add(self, part: "Part", listing: str) -> None:
        """Add a Part of LISTING; raise DataError where it is another file altogether."""
        if part.first and not self.first:
            number, problem = part.first
            self.first = f"{streams.name(listing)}:{self.number + number}: {problem}"
        self.lines += part.lines
        self.number += part.lines
        self.photos += part.photos
        self.bad += part.bad
        if self.lines == self.bad > 1000:  # no need to read all of it
            self.refuse()

    def refuse(self) -> None:
        """Raise DataError if too many lines do not parse."""
        if self.bad > self.max_bad * self.lines:
            share = f"{self.bad:,} of {self.lines:,} lines are bad, --max-bad is {self.max_bad:g}"
            raise DataError(f"{self.first} ({share}): is it yfcc100m_dataset?")

    def summary(self) -> str:
        """Return the tally in words."""
        text = f"{self.sampled:,} of {self.photos:,} photos, {self.lines:,} lines"
        left_out = f"bad lines left out: {self.bad:,}, the first {self.first}"
        return text + (f"; {left_out}" if self.bad else "")


# ---- Lines, many at a time ----------------------------------------------------------------------


class Part(NamedTuple):
    """What a block holds: how many bytes, lines, photos, bad lines; what may be in the sample."""

    size: int
    lines: int
    photos: int
    bad: int
    first: (
        tuple[int, str | None] | None
    )  # the first bad line: its number in the block, from 1, and the problem
    keys: np.ndarray
    texts: list[bytes]


class Block:
    """PAD and whole lines, in memory that is used again: fresh memory costs as much as reading."""

    def __init__(self):
        self.bytes, self.size = bytearray(PAD), len(PAD)
        self.low: np.ndarray = np.empty(0, bool)

    def fill(self, stream: Any, begun: bytes, where: str) -> bytes | None:
        """Read lines of STREAM after BEGUN, the beginning of one; return what begins the next.

        At the end of STREAM that is None; the last line may lack its newline. Raises DataError, in
        the name of WHERE, for a line of more than 64 MB.
        """
        used = len(PAD) + len(begun)
        self.bytes[len(PAD) : used] = begun
        while used < LONGEST:
            start, stop = used, used + READ
            self.bytes.extend(bytes(max(0, stop - len(self.bytes))))
            with memoryview(self.bytes) as view:
                # One read at a time: between two, Python hears a signal that came meanwhile.
                while used < stop and (count := stream.readinto1(view[used:stop])):
                    used += count
            if used < stop:
                if self.bytes[used - 1] != NEWLINE:
                    self.bytes[used] = NEWLINE
                    used += 1
                self.size = used
                return None
            if end := self.bytes.rfind(b"\n", start, used) + 1:
                self.size = end
                return bytes(self.bytes[end:used])
        message = f"a line of more than {LONGEST >> 20} MB: is it yfcc100m_dataset?"
        raise DataError(f"{where}: {message}")

    def marks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where TABs and newlines stand, and which of them: int64 and uint8."""
        data = np.frombuffer(self.bytes, np.uint8, self.size)
        if len(self.low) < self.size:
            self.low = np.empty(len(self.bytes), bool)
        low = np.less_equal(data, NEWLINE, out=self.low[: self.size])
        marks = np.flatnonzero(low)
        kinds = data[marks]
        real = kinds >= TAB  # other control characters mean nothing
        return (marks, kinds) if real.all() else (marks[real], kinds[real])


def _parts(stream, where, sample, seed, text, threads):
    """Yield parse() of STREAM, called WHERE, by THREADS while more is read and unpacked."""
    threads = min(threads, 4)  # reading feeds no more
    free = [Block() for _ in range(threads + 1)]
    begun: bytes | None = b""
    waiting: collections.deque[tuple[Block, concurrent.futures.Future[Part]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while begun is not None:
            if not free:
                block, part = waiting.popleft()
                yield part.result()
                free.append(block)
            block = free.pop()
            begun = block.fill(stream, begun, where)
            waiting.append((block, pool.submit(parse, block, seed, sample.limit, text)))
        for _block, part in waiting:
            yield part.result()


def parse(block: Block, seed: int, limit: np.uint64, text: Callable[[bytes], bytes]) -> Part:
    """Return the Part of BLOCK. No Python runs for a line that cannot be in the sample.

    Photos with a key() up to LIMIT are given, each with TEXT(its line, bytes).
    """
    data = np.frombuffer(block.bytes, np.uint8, block.size)
    marks, kinds = block.marks()
    ends = np.flatnonzero(kinds == NEWLINE)  # mark i ends a line; the first is that of PAD
    fields = np.diff(ends)
    usual = np.flatnonzero((fields == FIELDS) | (fields == FIELDS_2014))
    first, last, hashed = ends[usual], ends[usual + 1], fields[usual] == FIELDS
    # Field f of a line lies between its marks first + f and first + f + 1.
    stop = marks[last]
    stop = stop - (data[stop - 1] == RETURN)
    marker = data[stop - 1]
    photo = marker == ZERO
    good = (stop - marks[last - 1] == 2) & (photo | (marker == ONE))
    good &= ~photo | (marks[last + URL + 1] - marks[last + URL] > 1)
    digits = _before(data, marks[first + hashed + PHOTO_ID]) - np.uint8(ZERO)
    length = marks[first + hashed + PHOTO_ID] - marks[first + hashed] - 1
    good &= (length > 0) & (length <= ID_DIGITS) & _ending(digits < 10, length)
    ids = _numbers(digits, length)
    name = _before(data, marks[first + HASH + 1])
    length = marks[first + HASH + 1] - marks[first + HASH] - 1
    letters = (name - np.uint8(ord("a")) < 6) | (name - np.uint8(ZERO) < 10)
    good &= ~hashed | ((length >= 16) & (length <= 32) & _ending(letters, length))

    photo &= good
    keys = key(ids, seed)
    chances = np.flatnonzero(photo & (keys <= limit))  # photos that may be in the sample
    spans = zip((marks[first[chances]] + 1).tolist(), stop[chances].tolist(), strict=True)
    texts = [text(bytes(block.bytes[begin:end])) for begin, end in spans]
    bad = len(fields) - np.count_nonzero(good)
    problem = None
    if bad:
        line = int(np.setdiff1d(np.arange(len(fields)), usual[good])[0])
        problem = (
            line + 1,
            wrong(bytes(block.bytes[marks[ends[line]] + 1 : marks[ends[line + 1]]])),
        )
    return Part(
        block.size - len(PAD),
        len(fields),
        int(np.count_nonzero(photo)),
        int(bad),
        problem,
        keys[chances],
        texts,
    )


def _before(data, ends):
    """Return the 32 bytes of DATA before each of ENDS, uint8 (ends, 32)."""
    windows = np.ndarray((len(data) - WINDOW + 1,), f"V{WINDOW}", data, 0, (1,))
    return windows[ends - WINDOW].view(np.uint8).reshape(-1, WINDOW)


def _ending(right, lengths):
    """Return which rows of RIGHT, bool (rows, 32), are true in their last LENGTHS columns."""
    wrong = ~np.packbits(right, bitorder="little").view("<u4")  # the last column is the high bit
    return wrong.astype(np.uint64) >> (WINDOW - lengths).astype(np.uint64) == 0


def _numbers(digits, lengths):
    """Return the numbers that the last LENGTHS of DIGITS, uint8 (rows, 32), spell, uint64."""
    numbers = np.zeros(len(digits), np.uint64)
    for place in range(min(lengths.max(initial=0), ID_DIGITS), 0, -1):
        numbers = numbers * np.uint64(10) + digits[:, WINDOW - place] * (lengths >= place)
    return numbers


def wrong(line: bytes) -> str | None:
    """Return what is wrong with LINE, bytes without its newline; None where nothing is."""
    fields = line.removesuffix(b"\r").split(b"\t")
    if len(fields) not in (FIELDS, FIELDS_2014):
        return f"{len(fields)} fields, not {FIELDS} or {FIELDS_2014}"
    photo = fields[PHOTO_ID if len(fields) == FIELDS else PHOTO_ID - 1]
    if not photo.isdigit() or len(photo) > ID_DIGITS:
        return f"{_quoted(photo)} is not a photo id"
    if len(fields) == FIELDS and not HEX.fullmatch(fields[HASH]):
        return f"{_quoted(fields[HASH])} is not a hash"
    if fields[MARKER] not in (b"0", b"1"):
        return f"the marker is {_quoted(fields[MARKER])}, not 0 (photo) or 1 (video)"
    if fields[MARKER] == b"0" and not fields[URL]:
        return "a photo without a download url"
    return None


def _quoted(field):
    return repr(field[:40].decode("utf-8", "replace"))


# ---- What is written of a photo -----------------------------------------------------------------


def photo_id(line: bytes) -> bytes:
    """Return the photo id of LINE, bytes, without leading zeros."""
    number = line.split(b"\t", PHOTO_ID + 1)[PHOTO_ID - (line.count(b"\t") < FIELDS - 1)]
    return b"%d" % int(number)


def image(line: bytes) -> bytes:
    """Return the hash that names the image of LINE, bytes; one of 2014 has it of its url."""
    if line.count(b"\t") == FIELDS - 1:
        return line.split(b"\t", HASH + 1)[HASH]
    return b"".join(b"%x" % byte for byte in hashlib.md5(url(line)).digest())


def url(line: bytes) -> bytes:
    """Return the download url of LINE, bytes."""
    return line.rsplit(b"\t", -URL)[1]


FORMS = {"path": image, "shard": image, "url": url, "id": photo_id, "line": bytes}


def path(name: bytes) -> bytes:
    """Return where the image with the hash NAME, bytes, lies in the bucket."""
    return b"data/images/%b/%b/%b.jpg" % (name[:3], name[3:6], name)


def member(name: bytes) -> bytes:
    """Return where it lies in the 4,096 ZIPs of the package yfcc100m: by its first three digits."""
    return b"%b.zip/%b" % (name[:3], path(name))


# ---- Files --------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_listing(listing: str, threads: int) -> Iterator[tuple[Any, Callable[[], int] | None]]:
    """Open LISTING as (stream, position): its bytes, unpacked if the first say so, by THREADS.

    position() is how far the file is read; a pipe has None.
    """
    with streams.reading(listing) as packed:
        start = packed.peek(MAGIC)[:MAGIC]
        unpack, by = reader(start), command(start)
        if by and not unpack:
            raise DataError(f"{streams.name(listing)}: packed: unpack it, {by} FILE | sample-yfcc")
        position = packed.tell if packed.seekable() else None
        try:
            with unpack(packed, threads) if unpack else contextlib.nullcontext(packed) as stream:
                yield stream, position
        except EOFError as error:
            raise DataError(f"{streams.name(listing)}: the archive is cut short") from error
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if (
                isinstance(error, OSError) and error.errno
            ):  # the disk's fault, not that of the archive
                error.filename = error.filename or streams.name(listing)
                raise
            message = f"{streams.name(listing)}: the archive is damaged ({error})"
            raise DataError(message) from error


def _size(listing):
    """Return how many bytes the file LISTING has, None for a pipe."""
    with streams.naming("standard input"):
        status = os.fstat(0) if listing == "-" else os.stat(listing)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
