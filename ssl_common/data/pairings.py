"""Layouts of images with dense targets on disk -> pairs. Files are listed, never opened."""

import json
import os
import re
from collections.abc import Iterator, Sequence

from ssl_common import containers, streams
from ssl_common.data.suffixes import SUFFIXES
from ssl_common.data.targets import Pair
from ssl_common.streams import DataError

IMAGE, NORMAL = "_img", "_normal"  # how the names of DSINE end, before the suffix
NUMBER = re.compile(r"[0-9]+")  # an image of NYUv2, by its place in nyu_depth_v2_labeled.mat


def folder(images: str, targets: str) -> Iterator[Pair]:
    """Yield a Pair for each image below IMAGES, sorted: its target has the same name in TARGETS.

    Suffixes may differ. Raises DataError for an image without a target, and where there is none.
    """
    there = _by_name(targets)
    for name, path in _by_name(images).items():
        if name not in there:
            raise DataError(f"{path}: no target of that name in {targets}: move the image away")
        yield Pair(path, there[name])


def dsine(root: str, split: str) -> Iterator[Pair]:
    """Yield a Pair for each NAME_img and NAME_normal in ROOT/SPLIT, sorted, as DSINE has them."""
    part = os.path.join(root, split)
    files = _by_name(part)
    images = [name for name in files if name.endswith(IMAGE)]
    if not images:
        raise DataError(f"{part}: no 000000{IMAGE}.png or the like: see --split")
    for name in images:
        normal = name.removesuffix(IMAGE) + NORMAL
        if normal not in files:
            raise DataError(f"{files[name]}: no {normal}.png beside it: move the image away")
        yield Pair(files[name], files[normal])


def nyuv2(
    images: str, targets: str, splits: str, split: str | None, first: int = 1
) -> Iterator[Pair]:
    """Yield a Pair for each image of SPLIT, train or test, that is in IMAGES, by its number.

    Its target has the same number in TARGETS; the FIRST image of all has that number. SPLITS is the
    authors' splits.mat, or a list of one split as is_list() tells, where SPLIT is None. Raises
    DataError where a target is missing, or no image is there.
    """
    ours, theirs = _by_number(images), _by_number(targets)
    found = [number - 1 + first for number in split_numbers(splits, split)]
    found = [number for number in found if number in ours]
    if not found:
        what = split or splits
        raise DataError(f"{images}: no image of {what}: they are called by numbers, as 0001.png")
    for number in found:
        if number not in theirs:
            raise DataError(f"{ours[number]}: no target of that number in {targets}")
        yield Pair(ours[number], theirs[number])


def is_list(splits: str) -> bool:
    """Tell whether the file SPLITS is a list of one split, by its name, and not splits.mat."""
    return splits.endswith(".json")


def split_numbers(path: str, split: str | None) -> list[int]:
    """Return the numbers, from 1, of the images of SPLIT, train or test, in splits.mat at PATH.

    Or those in a list of one split, as is_list() tells: its `img` begin with them.
    """
    if is_list(path):
        with (
            streams.regular(path) as stream,
            containers.understanding(path, "the test_SN40.json of NYUv2"),
        ):
            names = [os.path.basename(each["img"]) for each in json.load(stream)]
            found = [NUMBER.match(name) for name in names]
            if not names or not all(found):
                raise ValueError("an img that begins with no number")
            return sorted({int(match[0]) for match in found if match})
    import numpy as np
    from scipy import io  # scikit-learn needs it too

    with (
        streams.regular(path) as stream,
        containers.understanding(path, "the splits.mat of NYUv2"),
    ):
        numbers = np.asarray(io.loadmat(stream)[f"{split}Ndxs"]).ravel()
        if numbers.dtype.kind not in "iuf" or not numbers.size or (numbers < 1).any():
            raise ValueError(f"{split}Ndxs holds no numbers from 1")
    return sorted({int(number) for number in numbers})


def _by_name(root: str) -> dict[str, str]:
    """Return {path below ROOT without its suffix: path} of the images there, sorted by bytes."""
    found: dict[str, str] = {}
    for path in _images(root):
        name = os.path.splitext(os.path.relpath(path, root))[0]
        if name in found:
            raise DataError(f"{path}: {found[name]} has the same name: move one of them away")
        found[name] = path
    if not found:
        raise DataError(f"{root}: no image below it: their names end in {' '.join(SUFFIXES)}")
    return found


def _by_number(root: str) -> dict[int, str]:
    """Return {number: path} of the images below ROOT that are called by one."""
    return {
        int(name): path
        for name, path in ((os.path.basename(key), path) for key, path in _by_name(root).items())
        if NUMBER.fullmatch(name)
    }


def _images(root: str) -> Sequence[str]:
    def failed(error: OSError) -> None:
        raise error

    return sorted(
        (
            os.path.join(where, name)
            for where, _folders, names in os.walk(root, onerror=failed)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ),
        key=os.fsencode,
    )
