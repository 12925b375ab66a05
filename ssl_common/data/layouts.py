"""Layouts of data sets on disk -> the rows of a manifest. Images are listed, never opened."""

import collections
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO
from xml.etree import ElementTree

from ssl_common import streams
from ssl_common.data.manifest import Row, format_row
from ssl_common.data.suffixes import SUFFIXES
from ssl_common.streams import DataError

# What the parts of a data set are called that are to be listed one by one.
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
LETTER = re.compile(r"[a-z]/(.+)/[^/]+")  # a path of Places: a/abbey/1.jpg, b/bakery/shop/1.jpg
NAMED = 5  # suffixes that one line names


def write(
    stream: BinaryIO,
    rows: Iterable[Row],
    progress: Callable[[int], None] = lambda done: None,
    others: collections.Counter[str] | None = None,
) -> str:
    """Write ROWS as a manifest to STREAM; return what was written, in words.

    OTHERS counts, by suffix, the files that were no images, as folder() leaves it.
    """
    count = 0
    classes: set[str] = set()
    for count, row in enumerate(rows, 1):
        stream.write(format_row(row))
        classes.update(row.labels, row.difficult)
        progress(count)
    summary = f"{count:,} images, {len(classes):,} classes"
    if others:
        kinds = [f"{suffix or 'no suffix'} ({n:,})" for suffix, n in others.most_common(NAMED)]
        kinds += ["..."] if len(others) > NAMED else []
        summary += f"; left out {others.total():,} files that are no images: {', '.join(kinds)}"
    return summary


# ---- folder: ROOT/<class>/**/<image> -----------------------------------------------------------


def folder(root: str, others: collections.Counter[str] | None = None) -> Iterator[Row]:
    """Yield a Row for each image file below ROOT, sorted by the bytes of its path.

    An image is known by its suffix, and OTHERS counts the other files by theirs; its label is the
    first folder below ROOT, none where it lies in ROOT itself. Hidden files and folders are left
    out, links followed. Raises DataError for a ROOT without an image, for one whose folders are
    splits that hold the classes, and for a link that leads back to a folder it lies in.
    """
    others = collections.Counter() if others is None else others
    _refuse_splits(root)
    start, empty = len(os.path.join(root, "")), True
    for path in _files(root):
        if not path.lower().endswith(SUFFIXES):
            others[os.path.splitext(path)[1].lower()] += 1
            continue
        empty = False
        label, below, _rest = path[start:].partition(os.sep)
        yield Row(path, (label,) if below else ())
    if empty:
        raise DataError(f"{root}: no image below it: their names end in {' '.join(SUFFIXES)}")


def _refuse_splits(root):
    """Raise DataError where all folders in ROOT are called as splits are, and one holds folders."""
    parts = _folders(root)
    names = [os.path.basename(part) for part in parts]
    if {name.lower() for name in names} <= SPLITS and any(map(_folders, parts)):
        message = f"{', '.join(names)}: splits, which are no classes: list each by itself, as"
        raise DataError(f"{root}: its folders are {message} {parts[0]}")


def _folders(root):
    """Return the folders in ROOT that are not hidden, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.path for e in entries if e.is_dir() and not e.name.startswith("."))


def _files(here, above=()):
    """Yield the files below the folder HERE; ABOVE identifies the folders it lies in."""
    status = os.stat(here)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{here}: a link back to a folder it lies in: delete it")
    with os.scandir(here) as entries:
        # With its slash, a folder takes the place among the files that its paths have.
        children = sorted(
            (os.fsencode(entry.name + (os.sep if entry.is_dir() else "")), entry.path)
            for entry in entries
            if not entry.name.startswith(".")
        )
    for name, path in children:
        if name.endswith(b"/"):
            yield from _files(path, (*above, identity))
        else:
            yield path


# ---- voc: ROOT/JPEGImages/<id>.jpg, ROOT/ImageSets/Main/<class>_<split>.txt ---------------------


def voc(root: str, split: str) -> list[Row]:
    """Return a Row for each image of SPLIT in the PASCAL VOC devkit ROOT, sorted by path.

    Labels are those of ImageSets/Main/<class>_<split>.txt: 1 shows the class, 0 shows it with
    difficulty only, -1 does not. Without any such file they are those of the objects in
    Annotations/<id>.xml; without these either, as in the test set of VOC2012, images have none.
    Raises DataError naming file and line where the lists do not agree.
    """
    images, labelled = _split(root, split)
    labels_of: dict[str, dict[str, list[str]]] = {image: {"1": [], "0": []} for image in images}
    main = os.path.join(root, "ImageSets", "Main")
    # All classes or none: one that lacks just this list would silently be absent everywhere.
    if any(known == split for _name, known in labelled):
        for name in sorted({name for name, _split in labelled}):
            for image, label in _class_labels(main, name, split, labels_of).items():
                if label != "-1":
                    labels_of[image][label].append(name)
    elif annotated := annotations(root, images):
        for image, path in annotated.items():
            labels_of[image]["1"], labels_of[image]["0"] = _objects(path)
    files = image_files(root)
    rows = [
        Row(files(image), tuple(labels["1"]), tuple(labels["0"]))
        for image, labels in labels_of.items()
    ]
    return sorted(rows, key=lambda row: os.fsencode(row.path))


def _split(root: str, split: str) -> tuple[list[str], set[tuple[str, str]]]:
    """Return the ids of the images of SPLIT in the devkit ROOT, and (class, split) of its lists."""
    main = os.path.join(root, "ImageSets", "Main")
    if not os.path.isdir(main):
        raise DataError(f"{main}: no such folder: ROOT is like VOCdevkit/VOC2007")
    splits, labelled = _lists(main)
    if split not in splits:
        raise DataError(f"{main}: no split {split!r}: there are {', '.join(sorted(splits))}")
    return list(_members(main, split)), labelled


def identity(path: str) -> str:
    """Return what VOC calls the image at PATH: the name of its file, without the suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def members(root: str, split: str) -> list[str]:
    """Return the ids of the images of SPLIT in the devkit ROOT; raise DataError as voc() does."""
    return _split(root, split)[0]


def image_files(root: str) -> Callable[[str], str]:
    """Return a function of an image's id: its file in the devkit ROOT, whatever its suffix.

    It is <id>.jpg, as in the devkit, where there is no file of that name.
    """
    folder = os.path.join(root, "JPEGImages")
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    known = collections.defaultdict(list)
    for name in sorted(names):
        if name.lower().endswith(SUFFIXES):
            known[os.path.splitext(name)[0]].append(name)

    def file(image):
        usual = f"{image}.jpg"
        files = known.get(image, [usual])
        if len(files) > 1 and usual not in files:
            raise DataError(f"{folder}: both {files[0]} and {files[1]}: delete one")
        return os.path.join(folder, usual if usual in files else files[0])

    return file


def annotations(root: str, images: Iterable[str]) -> dict[str, str]:
    """Return {id: its annotation file} of all IMAGES of the devkit ROOT, {} where none has one.

    Raises DataError where some have one.
    """
    folder = os.path.join(root, "Annotations")
    files = {image: os.path.join(folder, f"{image}.xml") for image in images}
    gone = [path for path in files.values() if not os.path.exists(path)]
    if gone and len(gone) < len(files):
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise DataError(f"{gone[0]}: no such file{more}, but others are there: add it")
    return {} if gone else files


def annotation(path: str) -> ElementTree.Element:
    """Return the annotation of an image in the file PATH; raise DataError where it is not XML."""
    try:
        with streams.regular(path) as stream:
            return ElementTree.parse(stream).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not XML, or damaged ({error})") from error


def _objects(path):
    """Return the classes of the objects in the annotation PATH: those seen well, and the others."""
    places = annotation(path).findall("object")
    named = [
        (place.findtext("name", "").strip(), place.findtext("difficult", "")) for place in places
    ]
    if not all(name for name, _difficult in named):
        raise DataError(f"{path}: an object without a name: add it")
    clear = {name for name, difficult in named if difficult.strip() != "1"}
    return sorted(clear), sorted({name for name, _difficult in named} - clear)


def _lists(main):
    """Return what the files in MAIN are: the set of splits, and the set of (class, split).

    train_val.txt may be a split of that name, or the class "train" in "val": a class file ends in
    the name of another file, and its first line has a label. The longest such name is its split.
    """
    stems = {name[:-4] for name in os.listdir(main) if name.endswith(".txt") and name[0] != "."}
    ends = {
        stem: [s for s in stems if stem.endswith(f"_{s}") and stem != f"_{s}"] for stem in stems
    }
    splits = {stem for stem in stems if not ends[stem] or not _has_label(main, stem)}
    pairs = set()
    for stem in stems - splits:
        split = max((s for s in ends[stem] if s in splits), key=len, default=None)
        if split is not None:
            pairs.add((stem[: -len(split) - 1], split))
    return splits, pairs


def _has_label(main, stem):
    _path, lines = _read(main, stem)
    return any(len(fields) > 1 for _line, fields in lines[:1])


def _members(main, split):
    """Return the images in the list of SPLIT."""
    path, lines = _read(main, split)
    images: dict[str, int] = {}
    for line, fields in lines:
        if len(fields) != 1:
            raise DataError(f"{path}:{line}: {' '.join(fields)!r} is not the id of one image")
        if images.setdefault(fields[0], line) != line:
            first = images[fields[0]]
            raise DataError(
                f"{path}:{line}: {fields[0]} stands on line {first} already: delete one"
            )
    if not images:
        raise DataError(f"{path}: no image in it")
    return images


def _class_labels(main, name, split, images):
    """Return {image: "1", "0" or "-1"} of the class NAME, for just the IMAGES of SPLIT."""
    if not os.path.exists(os.path.join(main, f"{name}_{split}.txt")):
        message = f"no {name}_{split}.txt, but the class has other lists: add it, or delete those"
        raise DataError(f"{main}: {message}")
    path, lines = _read(main, f"{name}_{split}")
    labels = {}
    for line, fields in lines:
        if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
            text = " ".join(fields)
            raise DataError(f"{path}:{line}: {text!r} is not the id of an image and 1, 0 or -1")
        image, label = fields
        if image not in images:
            raise DataError(f"{path}:{line}: {image} is not in {split}.txt: delete it, or add it")
        if image in labels:
            raise DataError(f"{path}:{line}: {image} stands twice: delete one")
        labels[image] = label
    missing = [image for image in images if image not in labels]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{path}: no line for {missing[0]}{more} of {split}.txt: add it")
    return labels


def _read(main, stem):
    """Return (path, [(line number, fields)]) of the list STEM; empty lines are left out."""
    path = os.path.join(main, f"{stem}.txt")
    lines = [
        (line, re.findall(r"\S+", text, re.ASCII))
        for line, text in _text_lines(path, streams.regular)
    ]
    return path, [(number, fields) for number, fields in lines if fields]


def _text_lines(path, opened):
    """Yield (line number, text) of the file PATH that OPENED opens, without a byte-order mark."""
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8: convert it with iconv") from error


# ---- places205: ROOT/<letter>/<class>/<image>, and train_places205.csv ---------------------------


def places205(root: str, listing: str) -> list[Row]:
    """Return a Row for each line "path label" of the Places205 list LISTING, sorted by path.

    The images lie in ROOT. A class is called by its folders after the letter: abbey of a/abbey,
    bakery/shop of b/bakery/shop. Raises DataError naming the line for one that is not like that,
    and where a class has two numbers or a number two classes.
    """
    where = streams.name(listing)
    rows: dict[str, Row] = {}
    numbers: dict[str, str] = {}  # of each class
    names: dict[str, str] = {}  # of each number
    for line, text in _text_lines(listing, streams.reading):
        path, _space, number = text.rstrip("\r\n").rpartition(" ")
        match = LETTER.fullmatch(path)
        if not match or not number.isdecimal():
            raise DataError(f"{where}:{line}: not like a/abbey/1.jpg 0: is it train_places205.csv?")
        name = match[1]
        if numbers.setdefault(name, number) != number:
            raise DataError(f"{where}:{line}: {name} is {numbers[name]} and {number}: mend one")
        if names.setdefault(number, name) != name:
            raise DataError(f"{where}:{line}: {number} is {names[number]} and {name}: mend one")
        if path in rows:
            raise DataError(f"{where}:{line}: {path} stands twice: delete one")
        rows[path] = Row(os.path.join(root, path), (name,))
    if not rows:
        raise DataError(f"{where}: no line: is it train_places205.csv?")
    return sorted(rows.values(), key=lambda row: os.fsencode(row.path))
