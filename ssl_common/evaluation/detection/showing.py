"""How an image is shown to a detector: made larger or smaller, and mirrored."""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate

from ssl_common.data import pixels
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.lines import Lines
from ssl_common.data.targets import Objects
from ssl_common.evaluation import kept
from ssl_common.evaluation.detection import boxes, proposals
from ssl_common.evaluation.detection.proposals import Proposals
from ssl_common.evaluation.detection.recipes import Design, Heading


class View(NamedTuple):
    """An image of HEIGHT x WIDTH as it is shown: of SIZE (height, width), and MIRRORED or not."""

    height: int
    width: int
    size: tuple[int, int]
    mirrored: bool = False

    def shown(self, found: torch.Tensor) -> torch.Tensor:
        """Return where the boxes FOUND (n, 4) of the image are as it is shown."""
        height, width = self.size
        found = boxes.scaled(found, width / self.width, height / self.height)
        return boxes.mirrored(found, width) if self.mirrored else found

    def original(self, found: torch.Tensor) -> torch.Tensor:
        """Return where in the image the boxes FOUND (n, 4) are, that shown() would move there."""
        height, width = self.size
        found = boxes.mirrored(found, width) if self.mirrored else found
        found = boxes.scaled(found, self.width / width, self.height / height)
        return boxes.clip(found, self.height, self.width)


def view(height: int, width: int, size: int, max_size: int, mirrored: bool = False) -> View:
    """Return how an image of HEIGHT x WIDTH is shown: its short side is SIZE pixels.

    Or its long side MAX_SIZE, if that would be longer. Sides are rounded; each scales its boxes.
    """
    return View(height, width, pixels.size_within(height, width, size, max_size), mirrored)


def picture(image: torch.Tensor, how: View) -> torch.Tensor:
    """Return IMAGE, uint8 H x W x 3, as HOW says: 3 x height x width."""
    if how.size != tuple(image.shape[:2]):
        image = pixels.resize(image, how.size)
    image = image.permute(2, 0, 1)
    return (image.flip(2) if how.mirrored else image).contiguous()


def learned(objects: Objects, classes: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the boxes (M, 4) and labels, int64 from 1 in CLASSES, of OBJECTS that are learned.

    All but those that are difficult, and crowds: Detectron leaves out both.
    """
    rows = zip(objects.boxes, objects.labels, objects.ignored, strict=True)
    kept = [(box, name) for box, name, ignored in rows if not ignored]
    found = np.array([box for box, _name in kept], np.float32).reshape(-1, 4)
    labels = [classes.index(name) + 1 for _box, name in kept]
    return torch.from_numpy(found), torch.tensor(labels, dtype=torch.int64)


def check_size(listed: Any, line: int, objects: Objects, height: int, width: int) -> None:
    """Raise DataError if OBJECTS, of LINE of LISTED, are of an image not HEIGHT x WIDTH."""
    if (objects.width, objects.height) != (width, height):
        said = f"{objects.path} is {width} x {height} pixels"
        message = f"{said}, not {objects.width} x {objects.height}: list its objects again"
        raise listed.error(line + 1, message)


def given(proposals: np.ndarray, how: View) -> torch.Tensor:
    """Return the first of PROPOSALS (n, 4) of an image where they are as HOW shows it.

    Without those outside of it, or without an area.
    """
    found = torch.from_numpy(np.array(proposals[: Heading.proposals], np.float32))
    found = boxes.clip(how.shown(found.reshape(-1, 4)), *how.size)
    return found[boxes.with_area(found)]


def collated(items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
    """Return the batch of ITEMS, (passed, epoch, line, (picture, height, width)).

    Pictures, of several sizes, stay a list.
    """
    numbers = default_collate([item[:3] for item in items])
    pictures, heights, widths = zip(*[item[3] for item in items], strict=True)
    return [*numbers, (list(pictures), torch.tensor(heights), torch.tensor(widths))]


def proposed(path: str, images: Lines[Any]) -> Proposals:
    """Return the proposals in the file PATH; raise DataError where they are not of IMAGES."""
    found = proposals.read(path)
    proposals.match(found, images)  # type: ignore[arg-type]
    return found


class Pictures(SequentialImages):
    """The images of a list as a detector of DESIGN is shown them: (uint8 3 x h x w, its size)."""

    def __init__(self, images: Lines[Any], root: str, design: Design) -> None:
        super().__init__(images, root, Shown(design.size, design.max_size))

    def collate(self, items: Sequence[Any]) -> Any:
        """Return the only one of ITEMS."""
        return items[0]


def of_this_rank(
    images: Lines[Any], root: str, design: Design, device: torch.device, workers: int
) -> Generator[tuple[int, torch.Tensor, int, int], None, None]:
    """Yield (line, picture on DEVICE, height, width) of every RANKS-th of IMAGES below ROOT.

    In order, one by one, as a detector of DESIGN is shown them; all WORKERS of a machine read.
    Raises DataError where the list says another size of an image.
    """
    reading = kept.of_this_rank(Pictures(images, root, design), len(images), device, workers)
    with contextlib.closing(reading) as loaded:
        for line, (shown, size) in loaded:
            height, width = size.tolist()
            if isinstance(image := images[line], Objects):
                check_size(images, line, image, height, width)
            yield line, shown.to(device), height, width


class Shown:
    """Turn uint8 H x W x 3 into (3 x h x w, (H, W)), by view() of SIZE and MAX_SIZE."""

    def __init__(self, size: int, max_size: int) -> None:
        self.size, self.max_size = size, max_size

    def __call__(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = image.shape[:2]
        how = view(height, width, self.size, self.max_size)
        return picture(image, how), torch.tensor([height, width])
