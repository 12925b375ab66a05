"""Proposals as others keep them -> ours: Girshick's .mat, and .pkl of Detectron and detectron2.

    .mat        boxes, images: cells; a box is y1, x1, y2, x2 in pixels from 1, the last ones inside
    Detectron   boxes, scores, indexes: x1, y1, x2, y2 in pixels from 0, the last ones inside
    detectron2  boxes, objectness_logits, ids, bbox_mode: from 0, right and lower edges outside

Nothing in a pickle is run.
"""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_common import containers, schema, streams
from ssl_common.data import layouts
from ssl_common.evaluation.detection.proposals import Boxes, Proposals, gather
from ssl_common.streams import DataError

NUMBERS = re.compile(r"\d+")
XYXY, XYWH = 0, 1  # modes of detectron2


class Source(NamedTuple):
    """The proposals of a file, in its order, and what it calls the images; `ids` None: nothing."""

    name: str
    found: list[Boxes]
    ids: list[str | int] | None


def convert(files: Sequence[str], paths: Sequence[str]) -> tuple[Proposals, int]:
    """Return the proposals that FILES hold for the images PATHS, and how many others they have.

    An image is known by the name of its file without suffix, or by the number in it. Where a file
    names none, it must be the only one and have as many images as there are PATHS. Raises DataError
    that names the first image without proposals.
    """
    sources = [_read(file) for file in files]
    names = ", ".join(source.name for source in sources)
    for source in sources:
        if source.ids is None:
            return _by_order(source, paths, alone=len(sources) == 1), 0
    known: dict[str | int, Boxes] = {}
    for source in sources:
        for key, boxes in zip(source.ids or (), source.found, strict=True):
            if known.setdefault(key, boxes) is not boxes:
                raise DataError(f"{source.name}: image {key} stands twice")
    found, used = [], set()
    for line, path in enumerate(paths, 1):
        named = next((each for each in _keys(path) if each in known), None)
        if named is None:
            raise DataError(f"{names}: no proposals of {path}, image {line:,} of the list")
        found.append(known[named])
        used.add(named)
    return gather(names, paths, found), len(known) - len(used)


def _by_order(source: Source, paths: Sequence[str], alone: bool) -> Proposals:
    """Return the proposals of SOURCE, which names no images: those of PATHS in their order."""
    if not alone:
        raise DataError(f"{source.name}: it names no images: convert it by itself")
    if len(source.found) != len(paths):
        least = min(len(source.found), len(paths))
        first = f": the first without proposals is {paths[least]}" if least < len(paths) else ""
        message = f"proposals of {len(source.found):,} images, without names, for a list of"
        raise DataError(f"{source.name}: {message} {len(paths):,}{first}")
    return gather(source.name, paths, source.found)


def _keys(path: str) -> Iterable[str | int]:
    """Yield what others may call the image at PATH: 2008_000003, 2008000003; the last number."""
    name = layouts.identity(path)
    yield name
    if numbers := NUMBERS.findall(name):
        yield int("".join(numbers)[:18])
        yield int(numbers[-1][:18])


def _read(path: str) -> Source:
    """Return what the file PATH, of any of these kinds, holds."""
    with streams.reading(path) as stream:
        data = stream.read()
    name = streams.name(path)
    if data.startswith(b"MATLAB"):
        source = _of_matlab(data, path)
    elif data[:1] == b"\x80" or data[:1] == b"(":
        source = _of_pickle(data, name)
    else:
        raise DataError(f"{name}: neither a .mat of MATLAB 5 nor a pickle: is it proposals?")
    if source.ids is not None and len(source.ids) != len(source.found):
        message = f"boxes of {len(source.found):,} images, but names of {len(source.ids):,}"
        raise DataError(f"{name}: {message}")
    for number, each in enumerate(source.found):
        key = source.ids[number] if source.ids is not None else f"number {number + 1:,}"
        sides = each.boxes[:, 2:] - each.boxes[:, :2]
        if not (np.abs(each.boxes) <= schema.FARTHEST).all() or (sides < 0).any():
            raise DataError(f"{name}: image {key}: a box that is none: is it another file?")
        if not np.isfinite(each.scores).all():
            raise DataError(f"{name}: image {key}: a score that is no number")
    return source


# ---- MATLAB -------------------------------------------------------------------------------------


def _of_matlab(data: bytes, path: str) -> Source:
    from scipy.io import loadmat  # which scikit-learn brings

    with containers.understanding(path, "a .mat of MATLAB 5"):
        content = loadmat(io.BytesIO(data), variable_names=["boxes", "images"])
    if "boxes" not in content:
        raise DataError(f"{streams.name(path)}: no boxes in it: are they proposals?")
    with containers.understanding(path, "a .mat of proposals"):
        rows = [np.asarray(cell, np.float64).reshape(-1, 4) for cell in content["boxes"].ravel()]
        ids: list[str | int] | None = None
        if "images" in content:
            ids = [str(np.asarray(cell).item()) for cell in content["images"].ravel()]
    boxes = [each[:, [1, 0, 3, 2]] - [1, 1, 0, 0] for each in rows]
    return Source(streams.name(path), [Boxes(each, np.zeros(len(each))) for each in boxes], ids)


# ---- Pickles ------------------------------------------------------------------------------------


def _of_pickle(data: bytes, name: str) -> Source:
    from ssl_common.models.foreign import pickles

    content = pickles.read(io.BytesIO(data), name)
    ours = isinstance(content, dict) and "ids" in content  # detectron2's
    keys = ("boxes", *(("objectness_logits", "ids") if ours else ("scores", "indexes")))
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        theirs = "boxes, scores and indexes, nor boxes, objectness_logits and ids"
        raise DataError(f"{name}: it has neither {theirs}: is it proposals?")

    def plain(value: Any) -> Any:
        return value.array() if isinstance(value, pickles.ARRAYS) else value

    with containers.understanding(name, "a pickle of proposals"):
        rows, scores = (
            [np.asarray(plain(each), np.float64) for each in plain(content[key])]
            for key in keys[:2]
        )
        ids = [_key(plain(each)) for each in plain(content[keys[2]])]
        mode = content.get("bbox_mode", XYXY)
        mode = mode.arguments[0] if isinstance(mode, pickles.Foreign) else mode
        if mode not in (XYXY, XYWH):
            raise ValueError(f"boxes of the mode {mode}")
        found = []
        for each, values in zip(rows, scores, strict=True):
            boxes = each.reshape(-1, 4) + ([0, 0, 0, 0] if ours else [0, 0, 1, 1])
            if mode == XYWH:
                boxes = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
            if len(values.ravel()) != len(boxes):
                raise ValueError(f"{len(boxes)} boxes and {len(values.ravel())} scores")
            order = np.argsort(-values.ravel(), kind="stable")
            found.append(Boxes(boxes[order], values.ravel()[order]))
    return Source(name, found, ids)


def _key(value: Any) -> str | int:
    """Return what a pickle calls an image: a text, or a whole number."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode()
    if type(value) not in (str, int):
        raise ValueError(f"an image called {value!r:.40}")
    return value
