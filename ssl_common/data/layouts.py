"""How data sets lie on disk -> the rows of a manifest. Images are named here, never opened."""

import json
import os

from ssl_common import streams
from ssl_common.data.manifest import Row, format_row
from ssl_common.streams import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def write(stream, rows, progress=lambda done: None):
    """Write ROWS as a manifest to STREAM; return what was written, in words."""
    count, classes = 0, set()
    for count, row in enumerate(rows, 1):
        stream.write(_line(row))
        classes.update(row.labels, row.difficult)
        progress(count)
    return f"{count:,} images, {len(classes):,} classes"


def _line(row):
    """Return ROW as a line of a manifest; raise DataError for a name it cannot hold."""
    try:
        return format_row(row)
    except UnicodeEncodeError as error:
        raise DataError(f"{row.path!r}: the name is not UTF-8: rename it") from error


# ---- folder: ROOT/<class>/**/<image> -----------------------------------------------------------


def folder(root):
    """Yield a Row for each image file below ROOT, sorted by the bytes of its path.

    An image is known by its suffix; its label is the first folder below ROOT, none where it lies
    in ROOT itself. Hidden files and folders are left out, links followed. Raises DataError for a
    ROOT without an image, and for a link that leads back to a folder it lies in.
    """
    start, empty = len(os.path.join(root, "")), True
    for path in _images(root):
        empty = False
        label, below, _rest = path[start:].partition(os.sep)
        yield Row(path, (label,) if below else ())
    if empty:
        raise DataError(f"{root}: no image below it: their names end in {' '.join(SUFFIXES)}")


def _images(here, above=()):
    """Yield the image files below the folder HERE; ABOVE identifies the folders it lies in."""
    status = os.stat(here)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise DataError(f"{here}: a link back to a folder it lies in: delete it")
    with os.scandir(here) as entries:
        # With its slash, a folder takes the place among the files that its paths have.
        found = sorted(
            (os.fsencode(entry.name + (os.sep if entry.is_dir() else "")), entry.path)
            for entry in entries
            if not entry.name.startswith(".")
        )
    for name, path in found:
        if name.endswith(b"/"):
            yield from _images(path, (*above, identity))
        elif path.lower().endswith(SUFFIXES):
            yield path


# ---- voc: ROOT/JPEGImages/<id>.jpg, ROOT/ImageSets/Main/<class>_<split>.txt ---------------------


def voc(root, split):
    """Return a Row for each image of SPLIT in the PASCAL VOC devkit ROOT, sorted by path.

    Labels are those of ImageSets/Main/<class>_<split>.txt: 1 shows the class, 0 shows it with
    difficulty only, -1 does not. Without any such file, as in the test set of VOC2012, images have
    no labels. Raises DataError naming file and line where the lists do not agree.
    """
    main = os.path.join(root, "ImageSets", "Main")
    if not os.path.isdir(main):
        raise DataError(f"{main}: no such folder: ROOT is like VOCdevkit/VOC2007")
    splits, labelled = _lists(main)
    if split not in splits:
        raise DataError(f"{main}: no split {split!r}: there are {', '.join(sorted(splits))}")
    shown = {image: {"1": [], "0": []} for image in _members(main, split)}
    # All classes or none: one that lacks just this list would silently be absent everywhere.
    has_labels = any(known == split for _name, known in labelled)
    for name in sorted({name for name, _split in labelled} if has_labels else ()):
        for image, label in _class_labels(main, name, split, shown).items():
            if label != "-1":
                shown[image][label].append(name)
    rows = [
        Row(os.path.join(root, "JPEGImages", f"{image}.jpg"), tuple(said["1"]), tuple(said["0"]))
        for image, said in shown.items()
    ]
    return sorted(rows, key=lambda row: os.fsencode(row.path))


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
    images = {}
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
            found = " ".join(fields)
            raise DataError(f"{path}:{line}: {found!r} is not the id of an image and 1, 0 or -1")
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
    with streams.regular(path) as stream:
        lines = [(number, line.split()) for number, line in enumerate(stream, 1)]
    try:
        return path, [(number, [f.decode() for f in fields]) for number, fields in lines if fields]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: convert it with iconv") from error


# ---- coco: IMAGES/<file_name>, and instances_*.json ---------------------------------------------


def coco(root, annotations):
    """Return a Row for each image that the COCO file ANNOTATIONS names, sorted by file name.

    The images lie in ROOT. As in the benchmark's script (create_coco_data_files.py), an image shows
    a class if it has an object of it that is not to be ignored, has an area, and whose box, as far
    as it lies in the image, is over 1 pixel wide and high; a crowd is an object like others.
    Raises DataError for another file, and where its parts do not agree.
    """
    source, content = streams.name(annotations), _read_json(annotations)
    images = _named(source, content, "images", "file_name")
    classes = _named(source, content, "categories", "name")
    shown = {number: set() for number in images}
    for place in content["annotations"]:
        try:
            image, name = images[place["image_id"]], classes[place["category_id"]]["name"]
            if _counts(place, image):
                shown[image["id"]].add(name)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{source}: {_what_is_wrong(place, images, classes)}") from error
    rows = [
        Row(os.path.join(root, images[number]["file_name"]), tuple(names))
        for number, names in shown.items()
    ]
    for row in rows:
        try:
            _line(row)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
    return sorted(rows, key=lambda row: os.fsencode(row.path))


def _read_json(path):
    """Return what the COCO file PATH holds, {part: list of dicts}, without the outlines."""
    try:
        with streams.reading(path) as stream:
            content = json.load(stream, object_hook=_without_outline)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{streams.name(path)}: not JSON ({error})") from error
    for part in ("images", "annotations", "categories"):
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise DataError(f"{streams.name(path)}: no list of {part}: is it instances_*.json?")
    return content


def _without_outline(found):
    found.pop("segmentation", None)  # nine tenths of the file
    return found


def _named(source, content, part, key):
    """Return {id: entry} of a PART of CONTENT whose entries are named by KEY; refuse repetition."""
    entries, names = {}, set()
    for entry in content[part]:
        number, name = entry.get("id"), entry.get(key)
        if not isinstance(number, int) or not isinstance(name, str) or not name:
            raise DataError(f"{source}: {part}: no id and {key} in {entry!r:.80}")
        if number in entries or name in names:
            raise DataError(f"{source}: {part}: {number} ({name}) stands twice")
        entries[number] = entry
        names.add(name)
    if not entries:
        raise DataError(f"{source}: {part}: there is none")
    return entries


def _counts(place, image):
    """Return whether the annotation PLACE shows its class in IMAGE."""
    x, y, width, height = place["bbox"]
    seen = (
        min(x + width, image["width"]) - max(x, 0),
        min(y + height, image["height"]) - max(y, 0),
    )
    return place.get("ignore") != 1 and place["area"] > 0 and min(seen) > 1


def _what_is_wrong(place, images, classes):
    """Return why the annotation PLACE cannot be read."""
    number = place.get("id")
    for part, known in (("image", images), ("category", classes)):
        named = place.get(f"{part}_id")
        if not isinstance(named, int) or named not in known:
            return f"annotation {number} is of {part} {named}, which the file does not list"
    return f"annotation {number}: no proper bbox and area, or no size of image {place['image_id']}"
