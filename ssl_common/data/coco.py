"""COCO's files, IMAGES/<file_name> and instances_*.json -> rows of a manifest, and objects."""

import json
import math
import os
from collections.abc import Iterable

from ssl_common import streams
from ssl_common.data.boxes import Cut
from ssl_common.data.manifest import Row, format_row
from ssl_common.data.targets import Objects
from ssl_common.streams import DataError

PARTS = {"images": "file_name", "annotations": None, "categories": "name"}  # and what names one


def coco(root: str, annotations: str) -> list[Row]:
    """Return a Row for each image that the COCO file ANNOTATIONS names, sorted by file name.

    The images lie in ROOT. As in the benchmark's script (create_coco_data_files.py), an image shows
    a class if it has an object of it that is not to be ignored, has an area, and whose box, as far
    as it lies in the image, is over 1 pixel wide and high; a crowd is an object like others. Where
    the size of the image is not known, left out or 0 as other tools write it, the whole box counts.
    Raises DataError for another file, where its parts do not agree, and where none of its objects
    counts.
    """
    source = streams.name(annotations)
    content = _read_json(annotations, source)
    images, classes = (_named(source, content, part) for part in ("images", "categories"))
    sizes = {number: _size(source, number, image) for number, image in images.items()}
    classes_of: dict[int, set[str]] = {number: set() for number in images}
    for where, place, number, category in _places(source, content, images, classes):
        if _counts(where, place, sizes[number]):
            classes_of[number].add(classes[category]["name"])
    if content["annotations"] and not any(classes_of.values()):
        message = f"none of its {len(content['annotations']):,} annotations counts as an object"
        advice = "see their area, bbox and ignore, and width and height of the images"
        raise DataError(f"{source}: {message}: {advice}")
    rows = [
        Row(os.path.join(root, images[number]["file_name"]), tuple(names))
        for number, names in classes_of.items()
    ]
    for row in rows:
        try:
            format_row(row)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
    return sorted(rows, key=lambda row: os.fsencode(row.path))


def objects(root: str, annotations: str, cut: Cut | None = None) -> list[Objects]:
    """Return the Objects of each image that the COCO file ANNOTATIONS names, sorted by file name.

    The images lie in ROOT. What is to be ignored is difficult; CUT counts the boxes that leave
    their image. Raises DataError as coco() does, and where the size of an image is not known.
    """
    cut = Cut() if cut is None else cut
    source = streams.name(annotations)
    content = _read_json(annotations, source)
    images, classes = (_named(source, content, part) for part in ("images", "categories"))
    sizes = {number: _known_size(source, number, image) for number, image in images.items()}
    found: dict[int, list[tuple]] = {number: [] for number in images}
    for where, place, number, category in _places(source, content, images, classes):
        x, y, width, height = _box(where, place)
        if box := cut((x, y, x + width, y + height), *sizes[number]):
            flags = place.get("ignore") == 1, place.get("iscrowd") == 1
            found[number].append((box, classes[category]["name"], *flags))
    listed = []
    for number, each in found.items():
        width, height = sizes[number]
        boxes, labels, difficult, crowd = zip(*each, strict=True) if each else [()] * 4
        path = os.path.join(root, images[number]["file_name"])
        listed.append(Objects(path, width, height, boxes, labels, difficult, crowd))
    return sorted(listed, key=lambda row: os.fsencode(row.path))


def ids(paths: Iterable[str], annotations: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return ({path: id} of the images PATHS, {name: id} of all classes) in the file ANNOTATIONS.

    An image is known by the end of its path, as the file names it; one that it does not name has no
    id. Raises DataError as coco() does, and for a path that may be two of its images.
    """
    source = streams.name(annotations)
    content = _read_json(annotations, source)
    images, classes = (_named(source, content, part) for part in ("images", "categories"))
    known: dict[str, list[tuple[str, int]]] = {}  # {last part of the name: its images}
    for number, image in images.items():
        name = os.path.normpath(image["file_name"])
        known.setdefault(os.path.basename(name), []).append((name, number))
    found = {}
    for path in paths:
        whole = os.path.normpath(path)
        of_it = known.get(os.path.basename(whole), ())
        numbers = [key for name, key in of_it if f"/{whole}".endswith(f"/{name}")]
        if len(numbers) > 1:
            message = f"{path} may be image {numbers[0]} or {numbers[1]}: rename one of them"
            raise DataError(f"{source}: {message}")
        if numbers:
            found[path] = numbers[0]
    return found, {each["name"]: key for key, each in classes.items()}


def _read_json(path, source):
    """Return what the COCO file PATH holds, {part: list of dicts}, without the outlines."""
    try:
        with streams.reading(path) as stream:
            content = json.load(stream, object_hook=_without_outline)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON ({error})") from error
    for part in PARTS:
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise DataError(f"{source}: no list of {part}: is it instances_*.json?")
    return content


def _without_outline(entry):
    entry.pop("segmentation", None)  # nine tenths of the file
    return entry


def _named(source, content, part):
    """Return {id: entry} of a PART of CONTENT; refuse one without id or name, and repetition."""
    entries, names, key = {}, set(), PARTS[part]
    for entry in content[part]:
        number, name = entry.get("id"), entry.get(key)
        if not _is_whole(number):
            raise DataError(f"{source}: {part}: the id of {entry!r:.80} is no whole number")
        if not isinstance(name, str) or not name:
            raise DataError(f"{source}: {part} {number}: {key} is {name!r:.40}, which is no name")
        if number in entries or name in names:
            raise DataError(f"{source}: {part}: {number} ({name}) stands twice: delete one")
        entries[number] = entry
        names.add(name)
    if not entries:
        raise DataError(f"{source}: {part}: there is none")
    return entries


def _places(source, content, images, classes):
    """Yield (where it stands, annotation, id of its image, id of its class) of those in CONTENT."""
    for index, place in enumerate(content["annotations"]):
        where = f"{source}: annotation {place.get('id', f'number {index + 1}')!r:.40}"
        number = _listed(where, place, "image", images)
        yield where, place, number, _listed(where, place, "category", classes)


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value):
    """Tell whether VALUE is a number that can be reckoned with: JSON has true, NaN and 1e999."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _size(source, number, image):
    """Return width and height of IMAGE, in pixels; infinite where they are not known."""
    size = []
    for side in ("width", "height"):
        pixels = image.get(side)
        if pixels is not None and (not _is_real(pixels) or pixels < 0):
            raise DataError(f"{source}: images {number}: {side} is {pixels!r:.40}, not in pixels")
        size.append(pixels or math.inf)
    return size


def _known_size(source, number, image):
    """Return width and height of IMAGE, whole numbers of pixels."""
    size = image.get("width"), image.get("height")
    if not all(_is_whole(side) and side > 0 for side in size):
        message = f"images {number}: its size is {size[0]!r:.40} x {size[1]!r:.40}"
        raise DataError(f"{source}: {message}, not whole numbers of pixels: boxes need it")
    return size


def _listed(where, place, part, known):
    """Return the id of the image or the category, the PART that PLACE names, if it is KNOWN."""
    number = place.get(f"{part}_id")
    if not _is_whole(number) or number not in known:
        raise DataError(f"{where} is of {part} {number!r:.40}, which the file does not list")
    return number


def _counts(where, place, size):
    """Return whether the annotation PLACE shows its class in an image of SIZE."""
    if place.get("ignore") == 1:
        return False
    x, y, width, height = _box(where, place)
    area = place.get("area")
    if not _is_real(area):
        raise DataError(f"{where}: area is {area!r:.40}, not in pixels: that of its bbox will do")
    visible = min(x + width, size[0]) - max(x, 0), min(y + height, size[1]) - max(y, 0)
    return area > 0 and min(visible) > 1


def _box(where, place):
    """Return the box of the annotation PLACE: x, y, width, height."""
    box = place.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_real, box)):
        raise DataError(f"{where}: bbox is {box!r:.60}, not four numbers: x, y, width, height")
    return box
