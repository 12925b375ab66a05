"""Shards -> the rows of a manifest, their samples and labels by webdataset's rule.

A sample is files next to each other whose names are alike up to the first dot of the last part:
a/1.jpg and a/1.cls. Read and written besides are wids' list of shards and DALI's index of one.
"""

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from ssl_common import crew, streams
from ssl_common.data import shards, tars
from ssl_common.data.manifest import Row, format_row
from ssl_common.data.members import (
    DEFLATED,
    ENCRYPTED,
    LINK,
    OUTSIDE,
    PACKED,
    PLAIN,
    SPARSE,
    Broken,
    Entry,
    leads_out,
    plain_name,
)
from ssl_common.data.suffixes import SUFFIXES
from ssl_common.progress import Progress, silent
from ssl_common.streams import DataError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
NUMBERED = re.compile(r"(.*?)(\d+)(\.[^./\d]*)")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # of one letter is a drive of Windows
META = re.compile(rb"__[^/]*__($|/)")
ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)
MOST = 1 << 20  # shards that one pattern may name
LABEL = 1 << 20  # bytes that a label, or the JSON it stands in, may take
IDX, CHECKED = ".idx", 16  # DALI's ending; members of such an index that are looked at
KIND = "wids-shard-index-v1"
NOTES = {  # what is said of members, in this order
    LINK: "links, left out",
    OUTSIDE: "names that lead out of their shard, left out",
    SPARSE: "sparse files, left out",
    ENCRYPTED: "encrypted, left out",
    PACKED: "compressed by a method that is not read, left out",
    DEFLATED: "compressed, slower to read (zip -0)",
    "repeated": "names that come again, of which the last counts",
    "several": "samples of several images (--image EXT takes one of each)",
    "bare": "images without that label",
    "followed": "shards with another tar behind their end (cat), which is not read",
    "empty": "shards without an image",
}


class Options(NamedTuple):
    """What is listed of a shard: images with the extension IMAGE, and the label in LABEL."""

    image: bytes | None = None
    label: str | None = None
    dali: bool = False  # write DALI's index beside it


class Listed(NamedTuple):
    """What was found in a shard."""

    rows: bytes
    images: int
    samples: int
    classes: frozenset[str]
    notes: dict[Any, tuple[int, str]]  # a key of NOTES -> how often, and the first path
    broken: str | None = None


# ---- Which shards -------------------------------------------------------------------------------


def expand(pattern: str) -> list[str]:
    """Return the paths that PATTERN names: {00000..00041} and {a,b} stand for each of them."""
    found = None if os.path.exists(pattern) else BRACES.search(pattern)
    if not found:
        return [pattern]
    if numbers := RANGE.fullmatch(found[1]):
        first, last = numbers.groups()
        wide = max(map(len, numbers.groups())) if "0" in (first[0], last[0]) else 0
        step = 1 if int(first) <= int(last) else -1
        span = range(int(first), int(last) + step, step)
        if len(span) > MOST:
            raise DataError(f"{pattern}: {len(span):,} shards, more than {MOST:,}: give less")
        parts: Iterable[str] = (f"{number:0{wide}}" for number in span)
    elif "," in found[1]:
        parts = found[1].split(",")
    else:
        raise DataError(f"{pattern}: {found[0]} is no range: write {{00000..00041}} or {{a,b}}")
    paths: list[str] = []
    for part in parts:
        paths += expand(f"{pattern[: found.start()]}{part}{pattern[found.end() :]}")
        if len(paths) > MOST:
            raise DataError(f"{pattern}: more than {MOST:,} shards: give less")
    return paths


def named(operands: Sequence[str]) -> list[str]:
    """Return the shards that OPERANDS name: paths, patterns, lists of wids, indices of DALI.

    Raises DataError for what is no file of this machine, naming the first; nothing is run, nothing
    fetched.
    """
    paths: list[str] = []
    for operand in operands:
        paths += _wids(operand) if operand.endswith(".json") else expand(operand)
    gone = []
    for path in paths:
        if os.path.isfile(path):
            continue
        if ADDRESS.match(path) and not os.path.exists(path):
            what = "a command" if path.lower().startswith("pipe:") else "an address"
            raise DataError(f"{path}: {what}, which is not followed: name a file")
        if os.path.exists(path):
            raise DataError(f"{path}: not a file, which a shard is: list a folder by folder")
        gone.append(path)
    if gone:
        more = f", nor {len(gone) - 1:,} more of {len(paths):,} shards" if len(gone) > 1 else ""
        raise DataError(f"{gone[0]}: no such file{more}: add it, or leave it out")
    seen: set[str] = set()
    for path in paths:
        if not path.lower().endswith((".tar", ".zip", IDX)):
            raise DataError(f"{path}: a shard is called .tar or .zip: unpack it, or rename it")
        if tar(path) in seen:
            raise DataError(f"{path}: named twice: name it once")
        seen.add(tar(path))
    return paths


def tar(path: str) -> str:
    """Return the shard of PATH, which may be DALI's index of it."""
    return f"{path[: -len(IDX)]}.tar" if path.lower().endswith(IDX) else path


def gaps(paths: Sequence[str]) -> str:
    """Return in words which numbers are missing among PATHS that are numbered; "" for none."""
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for path in paths:
        if match := NUMBERED.fullmatch(path):
            head, number, tail = match.groups()
            groups.setdefault((head, tail, str(len(number))), []).append((int(number), path))
    missing, first = 0, ""
    for each in groups.values():
        each.sort()
        for (before, path), (after, _path) in zip(each, each[1:], strict=False):
            if after > before + 1:
                missing += after - before - 1
                first = first or path
    return f"{missing:,} numbers without a shard, the first after {first}" if missing else ""


def _wids(path):
    """Return the shards that wids' list PATH names, from its folder on."""
    with streams.regular(path) as stream:
        data = stream.read()
    try:
        listed = json.loads(data)["shardlist"]
        urls = [each["url"] for each in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{path}: not a list of wids, {{"shardlist": [{{"url": ...}}]}}') from error
    if not all(isinstance(url, str) and url for url in urls):
        raise DataError(f"{path}: a url that is no text: mend it")
    folder = os.path.dirname(path)
    return [url if ADDRESS.match(url) else os.path.join(folder, url) for url in urls]


def write_wids(stream: BinaryIO, path: str, paths: Sequence[str], counts: Sequence[int]) -> None:
    """Write to STREAM, which is the file PATH, wids' list of the shards PATHS of COUNTS samples."""
    paths = [tar(each) for each in paths]
    folder = os.path.dirname(os.path.abspath(path)) if path != "-" else os.getcwd()
    shardlist = [
        {"url": os.path.relpath(each, folder), "nsamples": count, "filesize": os.stat(each).st_size}
        for each, count in zip(paths, counts, strict=True)
    ]
    content = {"__kind__": KIND, "wids_version": 1, "shardlist": shardlist}
    stream.write(json.dumps(content, indent=1).encode() + b"\n")


# ---- What is in a shard -------------------------------------------------------------------------


def key(name: bytes) -> tuple[bytes, bytes] | None:
    """Return the key and the extension, in small letters, of NAME by webdataset's rule, or None.

    None is for files without a dot, hidden ones and those of __folders__.
    """
    base = name.rfind(b"/") + 1
    dot = name.find(b".", base)
    if dot <= base or META.match(name):
        return None
    return name[:dot], name[dot + 1 :].lower()


def scan(path: str, options: Options) -> Listed:
    """Return the images of the shard PATH, and keep its index.

    PATH may be the index of DALI beside it. Raises DataError for a name or label that no manifest
    can hold.
    """
    idx = path if path.lower().endswith(IDX) else None
    path = tar(path)
    with streams.regular(path) as stream:
        file, last = stream.fileno(), None
        status = os.fstat(file)
        maker, notes, broken = shards.Maker(), _Notes(path), None
        shard = _Shard(path, file, options, notes)
        try:
            found = _read_idx(idx, file, status.st_size) if idx else shards.entries(path, file)
            for some in found:
                maker.add(some)
                for last in some:
                    shard.add(last)
            shard.end()
        except Broken as error:
            broken = str(error)
        index = maker.index(status, broken is not None)
        shards.keep(path, index)
        # Behind a tar that is itself in a tar, all kinds of members may follow.
        plain = last and last.kind == PLAIN and b".tar/" not in last.name.lower()
        if last and plain and tars.followed(file, last.offset + last.size):
            notes.add("followed")
    if broken:
        return Listed(b"", 0, 0, frozenset(), {}, f"{path}: {broken}")
    rows = shard.rows
    if index[4] < maker.count():
        rows = shard.without_repeated()
    if options.dali:
        _write_idx(path, shard.samples)
    if not rows:
        notes.add("empty")
    listed = b"".join(row for _name, row in rows)
    return Listed(listed, len(rows), shard.count, frozenset(shard.classes), dict(notes.first))


class _Notes:
    """Counts what is said of the members of the shard PATH."""

    def __init__(self, path):
        self.path, self.first = path, {}

    def add(self, kind, name=b""):
        count, first = self.first.get(kind, (0, None))
        named = f"{self.path}/{os.fsdecode(name)}" if name else self.path
        self.first[kind] = (count + 1, first or named)


class _Shard:
    """Puts the entries of a shard together to samples, and those to rows."""

    def __init__(self, path, file, options, notes):
        self.path, self.file, self.options, self.notes = path, file, options, notes
        self.rows, self.classes, self.count = [], set(), 0
        self.samples = []  # for DALI
        self._key, self._files = None, []

    def add(self, entry):
        if entry.kind in NOTES and not META.match(entry.name):
            self.notes.add(entry.kind, entry.name)
        if entry.kind > DEFLATED or (parts := key(entry.name)) is None:
            return
        if parts[0] != self._key:
            self.end()
            self._key = parts[0]
        self._files.append((parts[1], entry))

    def end(self):
        """Write the rows of the sample that ends here."""
        files, self._files = self._files, []
        if not files:
            return
        self.count += 1
        if self.options.dali:
            self.samples.append([(ext, entry) for ext, entry in files])
        if wanted := self.options.image:
            images = [entry for ext, entry in files if ext == wanted]
        else:
            images = [
                entry for ext, entry in files if f".{ext.decode('latin1')}".endswith(SUFFIXES)
            ]
            if len(images) > 1:
                self.notes.add("several", images[1].name)
        if not images:
            return
        labels = self._labels(dict(files)) if self.options.label else None
        for entry in images:
            row = Row(f"{self.path}/{os.fsdecode(entry.name)}")
            if labels is None and self.options.label:
                self.notes.add("bare", entry.name)
            elif labels:
                row = row._replace(labels=labels[0], difficult=labels[1])
                self.classes.update(*labels)
            self.rows.append((entry.name, format_row(row)))

    def without_repeated(self):
        """Return the rows but those whose name comes again."""
        last = {name: number for number, (name, _row) in enumerate(self.rows)}
        for number, (name, _row) in enumerate(self.rows):
            if last[name] != number:
                self.notes.add("repeated", name)
        return [row for number, row in enumerate(self.rows) if last[row[0]] == number]

    def _labels(self, files):
        """Return (labels, difficult ones) of the sample of FILES; None if it has none."""
        extension, _colon, field = self.options.label.partition(":")
        if extension == "folder":
            path = f"{self.path}/{os.fsdecode(next(iter(files.values())).name)}"
            return (re.sub(r"\.(tar|zip)$", "", path.split("/")[-2], flags=re.IGNORECASE),), ()
        entry = files.get(extension.encode())
        if entry is None:
            return None
        where = f"{self.path}/{os.fsdecode(entry.name)}"
        text = _text(self.file, entry, where)
        if field:
            names = _field(text, field, where)
        else:
            names = text.strip().split(",") if text.strip() else []
        if not names:
            return None
        clear = tuple(name for name in names if not name.startswith("?"))
        return clear, tuple(name[1:] for name in names if name.startswith("?"))


def _text(file, entry, where):
    """Return the text in ENTRY of FILE, called WHERE."""
    if entry.size > LABEL:
        raise DataError(f"{where}: of {entry.size:,} bytes, where a label is: choose another")
    data = shards.contents(file, entry.kind, entry.offset, entry.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8, where a label is: choose another") from error


def _field(text, field, where):
    """Return the labels in FIELD of TEXT, which is JSON: a text, a number, or a list of them."""
    try:
        value = json.loads(text).get(field)
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: not a JSON object, where a label is") from error
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, str | int) for each in values):
        raise DataError(f"{where}: {field} is no text or number, nor a list of them")
    return [str(each) for each in values]


# ---- DALI's index -------------------------------------------------------------------------------


def _write_idx(path, samples):
    """Write DALI's index of the shard PATH, whose SAMPLES are lists of (extension, entry)."""
    lines = [f"v1.2 {len(samples)}"]
    for files in samples:
        if any(b" " in entry.name or entry.kind != PLAIN for _ext, entry in files):
            name = os.fsdecode(files[0][1].name)
            raise DataError(f"{path}/{name}: DALI's index has tars without spaces in names alone")
        lines.append(" ".join(_component(entry) for _ext, entry in files))
    target = f"{os.path.splitext(path)[0]}{IDX}"
    with streams.writing(target) as stream:
        stream.write(("\n".join(lines) + "\n").encode())


def _component(entry):
    name = os.fsdecode(entry.name)
    return f"{name[name.index('.', name.rfind('/') + 1) + 1 :]} {entry.offset} {entry.size} {name}"


def _read_idx(path: str, file: int, size: int) -> Iterator[list[Entry]]:
    """Yield the entries, by samples, that DALI's index PATH has of the FILE, of SIZE bytes."""
    with streams.regular(path) as stream:
        version, *lines = stream.read().decode("utf-8", "surrogateescape").splitlines() or [""]
    wide = {"v1.1": 3, "v1.2": 4}.get(version.split(" ")[0])
    if wide is None or version.split(" ")[1:] != [str(len(lines))]:
        raise DataError(f"{path}:1: not an index of DALI, v1.1 or v1.2, or cut short")
    step = max(1, len(lines) // CHECKED)
    for number, line in enumerate(lines):
        words = line.split(" ")
        if len(words) % wide or not words[0]:
            raise DataError(
                f"{path}:{number + 2}: not like jpg 512 4096 a.jpg: list the tar itself"
            )
        sample = []
        for part in range(0, len(words), wide):
            _ext, offset, length, *name = words[part : part + wide]
            if not (
                offset.isdecimal() and length.isdecimal() and int(offset) + int(length) <= size
            ):
                raise DataError(f"{path}:{number + 2}: leads out of its tar: make it again")
            known = plain_name(os.fsencode(name[0])) if name else None
            if known is None or number % step == 0:
                there = tars.at(file, int(offset))
                # A longer name, or one of other letters, stands in a header before that one.
                short = len(known or b"") < 100 and (known or b"").isascii()
                known = known or (there.name if there and len(there.name) < 100 else None)
                same = there and (there.name == known or not short) and there.size == int(length)
                if known is None or not same:
                    message = "another file lies there in its tar: make it again"
                    raise DataError(f"{path}:{number + 2}: {message}")
            kind = OUTSIDE if leads_out(known) else PLAIN
            entry = Entry(known, kind, int(offset), int(length))
            sample.append(entry)
        yield sample


# ---- The list -----------------------------------------------------------------------------------


def write(
    stream: BinaryIO,
    paths: Sequence[str],
    options: Options,
    workers: int,
    progress: Progress = silent,
) -> tuple[str, list[int]]:
    """Write the images of the shards PATHS to STREAM as a manifest; WORKERS processes read them.

    Return what was written, in words, and the samples of each shard. Raises DataError for shards
    that are cut short or damaged, once all have been looked at.
    """
    images, counts = 0, []
    classes: set[str] = set()
    broken: list[str] = []
    notes: dict[Any, tuple[int, str]] = {}
    work = functools.partial(scan, options=options)
    with contextlib.closing(crew.side_by_side(work, paths, workers)) as parts:
        for done, part in enumerate(parts, 1):
            stream.write(part.rows)
            images += part.images
            counts.append(part.samples)
            classes |= part.classes
            for kind, (count, first) in part.notes.items():
                before = notes.get(kind, (0, first))
                notes[kind] = (before[0] + count, before[1])
            broken += [part.broken] if part.broken else []
            progress(done, len(paths))
    if broken:
        others = [each.partition(": ")[0] for each in broken[1:4]]
        more = f"; as are {', '.join(others)}{', ...' if broken[4:] else ''}" if others else ""
        raise DataError(f"{broken[0]}{more}: fetch such shards again, or leave them out")
    if not images:
        raise DataError(f"{paths[0]}: no image in {len(paths):,} shards: is --image right?")
    said = [f"{images:,} images of {len(paths):,} shards, {len(classes):,} classes"]
    for kind, words in NOTES.items():
        if kind in notes:
            count, first = notes[kind]
            said.append(f"{count:,} {words}, the first {first}")
    said += [missing] if (missing := gaps([tar(path) for path in paths])) else []
    return "; ".join(said), counts
