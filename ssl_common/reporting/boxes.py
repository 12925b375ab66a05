"""Objects and detections as a picture: the boxes on their images, and which are right."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ssl_common import containers, legible, streams
from ssl_common.data import images
from ssl_common.data.lines import Lines
from ssl_common.data.targets import Box, ObjectList, Objects
from ssl_common.evaluation.detection import detections, precision, truth
from ssl_common.evaluation.detection.detections import Detections
from ssl_common.evaluation.detection.found import Found
from ssl_common.reporting.captions import INK, LINE, MARGIN, SPACE, caption, fitting, sheet
from ssl_common.streams import DataError

SIDE = 360  # pixels, longer side of an image as it is drawn
ACROSS = 3  # images side by side
# Okabe and Ito's colours: the colour-blind tell right from wrong.
RIGHT, WRONG, MISSED, IGNORED, PLAIN = "#009E73", "#D55E00", "#0072B2", "#999999", "#E69F00"
HUES = {"right": RIGHT, "wrong": WRONG, "missed": MISSED, "ignored": IGNORED, "": PLAIN}
LIGHT = 150  # of 255: a colour above it has black letters


class Marked(NamedTuple):
    """A box to draw, what is written on it, and what it is: a name of HUES."""

    box: Box
    text: str
    kind: str


class BoxList(Lines[Objects | Detections]):
    """Images with boxes by line number: objects or detections, as a line has scores or not."""

    NO_LINE = "no line: it holds one JSON object an image"

    def parse(self, data: bytes, line: int) -> Objects | Detections:
        """Return the content of DATA, line number LINE; raise DataError for what is wrong."""
        where = f"{streams.name(self.path)}:{line}"
        if "scores" in containers.json_object(data, where):
            return detections.parse(data, where)
        return ObjectList.parse(self, data, line)  # type: ignore[arg-type]


def show(
    path: str, objects: str | None, names: Sequence[str], count: int, least: float, root: str
) -> tuple[Image.Image, str]:
    """Return (picture, what it shows in words) of boxes in the list PATH.

    Those of the images NAMES, or of the first COUNT; detections with a score of LEAST or more.
    OBJECTS is a list of what there is to find. Raises DataError for an image that is not in a list.
    """
    listed = BoxList(path)
    chosen = _named(listed, names) if names else list(itertools.islice(listed, count))
    there = {}
    if objects:
        wanted = {each.path for each in chosen}
        there = {each.path: each for each in ObjectList(objects) if each.path in wanted}
        for each in chosen:
            if each.path not in there:
                raise DataError(f"{streams.name(objects)}: no line for {each.path}")
    shown = [_marked(each, there.get(each.path), least) for each in chosen]
    pictures = []
    for each in chosen:
        picture = Image.fromarray(images.read(each.path, root).numpy())
        if picture.size != (each.width, each.height):
            sizes = "{} x {} pixels, not {} x {}".format(*picture.size, each.width, each.height)
            raise DataError(f"{each.path}: it is {sizes}, as {streams.name(path)} says")
        pictures.append(picture)
    words = f"{len(chosen):,} images, {sum(map(len, shown)):,} boxes"
    return draw([each.path for each in chosen], pictures, shown), words


def _named(listed: BoxList, names: Sequence[str]) -> list[Objects | Detections]:
    """Return the lines of LISTED for the images NAMES, in this order."""
    found = {each.path: each for each in listed if each.path in set(names)}
    for name in names:
        if name not in found:
            raise DataError(f"{streams.name(listed.path)}: no line for {legible.text(name)}")
    return [found[name] for name in names]


def _marked(image: Objects | Detections, there: Objects | None, least: float) -> list[Marked]:
    """Return what to draw on IMAGE, the best last: on top; THERE are the objects to find in it."""
    if isinstance(image, Objects):
        return [
            Marked(box, label, "ignored" if ignored else "")
            for box, label, ignored in zip(image.boxes, image.labels, image.ignored, strict=True)
        ]
    kept = [row for row in zip(*image[3:], strict=True) if row[2] >= least]
    texts = [f"{label} {score:.2f}" for _box, label, score in kept]
    if there is None:
        return [Marked(row[0], text, "") for row, text in zip(kept, texts, strict=True)][::-1]
    kinds, missed = _judged(kept, there)
    marked = [Marked(r[0], t, kind) for r, t, kind in zip(kept, texts, kinds, strict=True)]
    return missed + marked[::-1]


def _judged(rows: Sequence[tuple], there: Objects) -> tuple[list[str], list[Marked]]:
    """Return what the detections ROWS are, by VOC's rule, and the objects of THERE not found."""
    listed = truth.arrays([there])
    places = {label: number for number, label in enumerate(listed.classes)}
    known = [number for number, row in enumerate(rows) if row[1] in places]
    found = Found(
        np.zeros(len(known), np.int64),
        np.array([places[rows[n][1]] for n in known], np.int64),
        np.array([rows[n][0] for n in known], np.float64).reshape(-1, 4),
        np.array([rows[n][2] for n in known], np.float64),
        np.ones(len(places), bool),
    )
    matches = precision.match(found, listed)
    right, ignored = precision.verdicts(matches, listed)
    kinds = ["wrong"] * len(rows)  # a class that no object here has
    for flags, kind in ((right, "right"), (ignored, "ignored")):
        for row in matches.rows[flags]:
            kinds[known[row]] = kind
    hit = set(matches.objects[right].tolist())
    missed = [
        Marked(box, f"{label} missed", "missed")
        for n, (box, label, off) in enumerate(
            zip(there.boxes, there.labels, there.ignored, strict=True)
        )
        if n not in hit and not off
    ]
    return kinds, missed


# ---- Drawing ------------------------------------------------------------------------------------


def draw(
    names: Sequence[str], pictures: Sequence[Image.Image], shown: Sequence[Sequence[Marked]]
) -> Image.Image:
    """Return one picture of PICTURES, RGB, with the boxes SHOWN on each, its name below."""
    scales = [SIDE / max(each.size) for each in pictures]
    sizes = [
        (max(1, round(scale * each.width)), max(1, round(scale * each.height)))
        for scale, each in zip(scales, pictures, strict=True)
    ]
    across = min(ACROSS, len(pictures))
    tall = [max(height for _width, height in row) for row in _rows(sizes)]
    below = 2 * LINE + SPACE
    size = (across * (SIDE + SPACE) - SPACE, sum(tall) + below * len(tall) - SPACE)
    picture, pen = sheet((size[0] + 2 * MARGIN, size[1] + 2 * MARGIN))
    for number, (name, image, marked) in enumerate(zip(names, pictures, shown, strict=True)):
        row, column = divmod(number, ACROSS)
        corner = (MARGIN + column * (SIDE + SPACE), MARGIN + sum(tall[:row]) + row * below)
        small = image.resize(sizes[number], Image.Resampling.LANCZOS)
        _mark(ImageDraw.Draw(small), marked, scales[number])
        picture.paste(small, corner)
        lines = [fitting(pen, name, SIDE), _counts(marked)]
        caption(pen, lines, (corner[0], corner[1] + sizes[number][1]))
    return picture


def _rows(sizes: Sequence[tuple[int, int]]) -> list[Sequence[tuple[int, int]]]:
    return [sizes[start : start + ACROSS] for start in range(0, len(sizes), ACROSS)]


def _mark(pen: ImageDraw.ImageDraw, marked: Sequence[Marked], scale: float) -> None:
    """Draw what is MARKED on an image of SCALE: all boxes, then the words on them."""
    width, height = pen.im.size
    places = []
    for box, text, kind in marked:
        x1, y1, x2, y2 = (scale * each for each in box)
        # The last edges are outside; what is narrower than a line is one.
        ends = max(x1, x2 - 1), max(y1, y2 - 1)
        pen.rectangle((x1, y1, *ends), outline=HUES[kind], width=2)
        places.append((x1, y1, text, HUES[kind]))
    for x, y, text, hue in places:
        long = pen.textlength(text)
        x, y = max(0, min(x, width - long - 3)), max(0, min(y, height - LINE + 3))
        pen.rectangle((x, y, x + long + 3, y + LINE - 3), fill=hue)
        pen.text((x + 2, y), text, _ink(hue))


def _ink(hue: str) -> str:
    """Return the colour of letters on HUE, as #rrggbb."""
    red, green, blue = bytes.fromhex(hue[1:])
    return INK if (299 * red + 587 * green + 114 * blue) / 1000 > LIGHT else "white"


def _counts(marked: Sequence[Marked]) -> str:
    """Return in words what is MARKED: 2 right, 1 wrong; 3 boxes where nothing says which."""
    kinds = [each.kind for each in marked]
    named = [f"{kinds.count(kind)} {kind}" for kind in HUES if kind and kind in kinds]
    number = kinds.count("")
    plain = f"{number} box{'es' * (number != 1)}" if number or not kinds else ""
    return ", ".join(filter(None, [plain, *named]))
