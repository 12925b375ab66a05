"""The YFCC100M listing -> a seeded sample of its photos, nested and independent of its order.

The listing (yfcc100m_dataset, Thomee et al., CACM 2016) has 25 fields a line, separated by TABs,
text fields URL-encoded. Three are read: the photo id, the hash that names the image in the
multimedia-commons bucket, and the marker, 0 for a photo and 1 for a video.
"""

import bz2
import contextlib
import gzip
import re
import zlib

import numpy as np

from ssl_common import streams
from ssl_common.streams import DataError

FIELDS, PHOTO_ID, HASH, MARKER = 25, 1, 2, 24
# The hash is an MD5 whose bytes were printed without leading zeros: at most 32 characters.
HEX = re.compile(rb"[0-9a-f]{16,32}")
TOLERATED = 1000  # one bad line in so many is counted; more are an error
READ = 1 << 20  # bytes of lines at a time


class Sample:
    """The n photos with the smallest keys among those added; memory is that of about 2n photos."""

    def __init__(self, count, seed):
        self.count, self.seed = count, seed
        self.keys, self.names = np.empty(0, np.uint64), np.empty(0, "S32")
        self.waiting, self.held = [], 0  # (keys, names) that may belong to the sample; how many
        self.limit = np.uint64(2**64 - 1)  # the greatest key that still may

    def add(self, ids, names):
        """Add photos by their IDS (integers below 2^64) and NAMES (the hash, bytes)."""
        keys = key(np.array(ids, np.uint64), self.seed)
        may = keys <= self.limit
        self.waiting.append((keys[may], np.array(names, "S32")[may]))
        self.held += np.count_nonzero(may)
        if self.held >= max(self.count, 10_000):  # seldom: pruning sorts
            self.prune()

    def prune(self):
        """Keep the photos with the smallest keys, in the order of their keys, each once."""
        keys = np.concatenate([self.keys, *(keys for keys, _names in self.waiting)])
        names = np.concatenate([self.names, *(names for _keys, names in self.waiting)])
        self.keys, first = np.unique(keys, return_index=True)
        self.keys, self.names = self.keys[: self.count], names[first[: self.count]]
        self.waiting, self.held = [], 0
        if len(self.keys) == self.count:
            self.limit = self.keys[-1]


class Tally:
    """What a pass over the listings saw: lines, photo lines, lines that do not parse."""

    def __init__(self):
        self.lines = self.photos = self.bad = 0
        self.first = None  # the first bad line: where, and what is wrong with it

    def refuse(self):
        """Raise DataError if more than one line in TOLERATED does not parse."""
        if self.bad * TOLERATED > self.lines:
            share = f"{self.bad} of {self.lines} lines"
            message = f"{self.first} ({share} are bad): is it yfcc100m_dataset, {FIELDS} fields?"
            raise DataError(message)

    def summary(self):
        """Return the tally in words."""
        text = f"{self.photos:,} photos, {self.lines:,} lines"
        return text + (f"; left out {self.bad} bad lines, first {self.first}" if self.bad else "")


def sample(listings, count, seed, progress=lambda done: None):
    """Draw COUNT photos from LISTINGS in one pass; return (paths, Tally), paths an iterator.

    LISTINGS are files or "-", plain, gzip or bzip2. A photo is drawn for its key(), so a smaller
    sample is the beginning of a larger one, and neither the order of the lines nor their division
    into files matters. A repeated id counts once. Raises DataError for fewer photos than COUNT, a
    truncated archive, or more than one line in 1,000 that does not parse.
    """
    drawn, tally = Sample(count, seed), Tally()
    for listing in listings:
        for ids, names in photos(listing, tally):
            drawn.add(ids, names)
            progress(tally.lines)
    tally.refuse()
    drawn.prune()
    if len(drawn.keys) < count:
        found = len(drawn.keys)
        where = " ".join(streams.name(listing) for listing in listings)
        advice = f": ask for -n {found} or less" if found else ""
        raise DataError(f"{where}: {found} photos, not {count}{advice}")
    return (path(name.decode()) for name in drawn.names), tally


def key(ids, seed):
    """Return the uint64 keys of photo IDS (uint64) under SEED, below 2^64.

    key(id) = mix(mix(seed + G) xor id), where G = 0x9e3779b97f4a7c15 and mix is the finaliser of
    splitmix64 (Steele, Lea and Flood, OOPSLA 2014), all modulo 2^64:

        z = (z xor z >> 30) * 0xbf58476d1ce4e5b9
        z = (z xor z >> 27) * 0x94d049bb133111eb
        z =  z xor z >> 31

    mix is one to one, so two photos never have the same key.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    return _mix(_mix(np.array([seed], np.uint64) + golden) ^ ids)


def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def path(name):
    """Return where the image with the hash NAME lies in the bucket."""
    return f"data/images/{name[:3]}/{name[3:6]}/{name}.jpg"


def photos(listing, tally):
    """Yield (ids, names) of the photos in LISTING, many at a time; count lines in TALLY."""
    before = 0
    with opened(listing) as stream:
        while lines := stream.readlines(READ):
            ids, names = [], []
            for number, line in enumerate(lines, before + 1):
                fields = line.rstrip(b"\n").split(b"\t")
                if problem := wrong(fields):
                    tally.bad += 1
                    tally.first = tally.first or f"{streams.name(listing)}:{number}: {problem}"
                elif fields[MARKER] == b"0":
                    ids.append(int(fields[PHOTO_ID]))
                    names.append(fields[HASH])
            before += len(lines)
            tally.lines += len(lines)
            tally.photos += len(ids)
            if tally.lines == tally.bad > TOLERATED:  # another file altogether: stop here
                tally.refuse()
            yield ids, names


def wrong(fields):
    """Return what is wrong with the FIELDS of a line, None where nothing is."""
    if len(fields) != FIELDS:
        return f"{len(fields)} fields, not {FIELDS}"
    photo = fields[PHOTO_ID]
    if not photo.isdigit() or len(photo) > 19:  # below 2^64 for certain; real ones have 11 digits
        return f"{_shown(photo)} is not a photo id"
    if not HEX.fullmatch(fields[HASH]):
        return f"{_shown(fields[HASH])} is not a hash"
    if fields[MARKER] not in (b"0", b"1"):
        return f"the marker is {_shown(fields[MARKER])}, not 0 (photo) or 1 (video)"
    return None


def _shown(field):
    return repr(field[:40].decode("utf-8", "replace"))


@contextlib.contextmanager
def opened(listing):
    """Open LISTING for reading lines of bytes, unpacked if its first bytes say so."""
    with streams.reading(listing) as stream:
        magic = stream.peek(3)[:3]
        unpack = gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open if magic == b"BZh" else None
        try:
            with unpack(stream) if unpack else contextlib.nullcontext(stream) as lines:
                yield lines
        except EOFError as error:
            raise DataError(f"{streams.name(listing)}: the archive is cut short") from error
        except (OSError, zlib.error) as error:
            if getattr(error, "errno", None):  # the disk's fault, not that of the archive
                error.filename = error.filename or streams.name(listing)
                raise
            message = f"{streams.name(listing)}: the archive is damaged ({error})"
            raise DataError(message) from error
