"""Generated scenes -> a PASCAL VOC devkit: pictures, boxes, normals, depth, and their lists."""

import functools
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ssl_common import streams
from ssl_common.crew import side_by_side
from ssl_common.data import targets
from ssl_common.data.manifest import DIFFICULT, NEGATIVE, POSITIVE, Row
from ssl_common.data.targets import Pair, format_objects, format_pair
from ssl_common.scenes import drawing, objects
from ssl_common.scenes.drawing import Annotation

SPLITS = {"train": (0,), "val": (2,), "trainval": (0, 2), "test": (1, 3)}  # index modulo 4


def make(folder: str, prefix: str, count: int, seed: int, workers: int) -> Iterator[Row]:
    """Write COUNT scenes of SEED as a devkit into FOLDER; yield the Row of each, in order.

    Paths in the rows begin with PREFIX, as those in the lists of boxes, of normals and of depth.
    The lists of splits are written after the last row.
    """
    for part in ("JPEGImages", "Annotations", "Normals", "Depth", "ImageSets/Main"):
        os.makedirs(os.path.join(folder, part))
    classes = sorted(objects.CLASSES)
    labels = np.full((count, len(classes)), NEGATIVE, np.int8)
    write = functools.partial(_write_scene, folder, seed)
    for index, scene in enumerate(side_by_side(write, range(count), workers)):
        size, annotations, intrinsics = scene
        for each in annotations:
            label = DIFFICULT if each.difficult else POSITIVE
            column = classes.index(each.name)
            labels[index, column] = max(labels[index, column], label)
        path = os.path.join(prefix, "JPEGImages", f"{name(index)}.jpg")
        line = format_objects(objects_of(path, size, annotations))
        _write(os.path.join(folder, "objects.jsonl"), line, "ab")
        for part in ("Normals", "Depth"):
            target = os.path.join(prefix, part, f"{name(index)}.png")
            line = format_pair(Pair(path, target))
            _write(os.path.join(folder, f"{part.lower()}.tsv"), line, "ab")
        numbers = ",".join(f"{each:.3f}" for each in intrinsics)
        _write(os.path.join(folder, "intrinsics.tsv"), f"{path}\t{numbers}\n".encode(), "ab")
        names = [[classes[c] for c in np.flatnonzero(labels[index] == label)]
                 for label in (POSITIVE, DIFFICULT)]  # fmt: skip
        yield Row(path, *map(tuple, names))
    _write_lists(os.path.join(folder, "ImageSets", "Main"), classes, labels)


def name(index: int) -> str:
    """Return the id of scene INDEX; VOC counts from 1."""
    return f"{index + 1:06d}"


def _write_scene(folder, seed, index):
    """Draw and write one scene; return its size (width, height), annotations and intrinsics."""
    picture = drawing.draw(seed, index)
    size, annotations = picture.image.size, picture.annotations
    text = annotation_xml(name(index), size, annotations)
    _write(os.path.join(folder, "Annotations", f"{name(index)}.xml"), text.encode())
    for part, image, kind, options in (
        ("JPEGImages", picture.image, "JPEG", {"quality": picture.quality}),
        ("Normals", Image.fromarray(picture.normals), "PNG", {"compress_type": 3}),  # runs: quick
        ("Depth", Image.fromarray(picture.depth), "PNG", {"compress_level": 1}),
    ):
        suffix = ".jpg" if kind == "JPEG" else ".png"
        content = _encoded(image, kind, **options)
        _write(os.path.join(folder, part, name(index) + suffix), content)
    return size, annotations, picture.intrinsics


def _encoded(image, kind, **options):
    """Return the bytes of IMAGE as a file of that KIND."""
    stream = io.BytesIO()  # Pillow itself takes no notice of a full disk
    image.save(stream, kind, **options)
    return stream.getbuffer()


def objects_of(
    path: str, size: tuple[int, int], annotations: Sequence[Annotation]
) -> targets.Objects:
    """Return the ANNOTATIONS of the picture at PATH, of SIZE (width, height), as Objects.

    VOC counts the first and the last pixel of a box, from 1; Objects, from 0, the edges.
    """
    ends = [each.box for each in annotations]
    boxes = tuple((xmin - 1, ymin - 1, xmax, ymax) for xmin, ymin, xmax, ymax in ends)
    names = tuple(each.name for each in annotations)
    return targets.Objects(path, *size, boxes, names, tuple(each.difficult for each in annotations))


def annotation_xml(image: str, size: tuple[int, int], annotations: Sequence[Annotation]) -> str:
    """Return the VOC annotation of the picture IMAGE of SIZE (width, height), as XML."""
    import xml.etree.ElementTree as ET

    def add(parent, **fields):
        for tag, value in fields.items():
            ET.SubElement(parent, tag).text = str(value)

    root = ET.Element("annotation")
    add(root, folder="VOC2007", filename=f"{image}.jpg")
    add(ET.SubElement(root, "source"), database="ssl-bench make-scenes")
    add(ET.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    add(root, segmented=0)
    for each in annotations:
        item = ET.SubElement(root, "object")
        add(item, name=each.name, pose="Unspecified")
        add(item, truncated=int(each.truncated), difficult=int(each.difficult))
        box = zip(("xmin", "ymin", "xmax", "ymax"), each.box, strict=True)
        add(ET.SubElement(item, "bndbox"), **dict(box))
    ET.indent(root, "\t")
    return ET.tostring(root, encoding="unicode") + "\n"


def _write_lists(main, classes, labels):
    """Write which images are of each split, and what each says of each class: 1, 0 or -1."""
    for split, remainders in SPLITS.items():
        members = [i for i in range(len(labels)) if i % 4 in remainders]
        _write(
            os.path.join(main, f"{split}.txt"), "".join(f"{name(i)}\n" for i in members).encode()
        )
        for column, each in enumerate(classes):
            lines = "".join(f"{name(i)} {labels[i, column]:2d}\n" for i in members)
            _write(os.path.join(main, f"{each}_{split}.txt"), lines.encode())


def _write(path, content, mode="wb"):
    with streams.naming(path), open(path, mode) as stream:
        stream.write(content)
