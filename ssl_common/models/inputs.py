"""How a network takes images where that is not its usual way: a part of its name.

resnet50?mean=0.5,0.5,0.5&std=0.5,0.5,0.5 is resnet50 whose weights were trained on channels, from 0
to 1, less that mean and by that deviation; size=384 is another size of the image, in pixels. So a
name says all that it takes to build a network, wherever files and records hold one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ssl_common.data.pixels import MEAN, STD
from ssl_common.streams import DataError

LONGEST_SIDE = 4096  # pixels


class Input(NamedTuple):
    """What a name says of how images are taken; None for what is as usual.

    MEAN and STD are of the channels, red, green and blue from 0 to 1; SIZE is in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None

    def __str__(self) -> str:
        """Return it as it stands in a name, from the ? on; "" for the usual way."""
        parts = [
            f"{name}={','.join(f'{number!r}' for number in numbers)}"
            for name, numbers in (("mean", self.mean), ("std", self.std))
            if numbers
        ]
        parts += [f"size={self.size}"] * bool(self.size)
        return f"?{'&'.join(parts)}" if parts else ""


def usual() -> Input:
    """Return the mean and deviation of ImageNet, by which most networks take images."""
    return Input(MEAN, STD)


def parsed(name: str) -> tuple[str, Input]:
    """Return (the network, its Input) that NAME stands for; raise DataError for none."""
    arch, asked, query = name.partition("?")
    found: dict[str, str] = {}
    for part in query.split("&") if asked else ():
        key, _equals, value = part.partition("=")
        if key not in Input._fields or key in found:
            raise DataError(f"{name}: after the ? stand mean=, std= and size=, each once")
        found[key] = value
    try:
        return arch, checked(
            _numbers(found.get("mean")),
            _numbers(found.get("std")),
            int(found["size"]) if "size" in found else None,
        )
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def checked(
    mean: Sequence[float] | None, std: Sequence[float] | None, size: int | None = None
) -> Input:
    """Return the Input of MEAN, STD and SIZE; raise ValueError for what no network takes."""
    for word, numbers in (("mean", mean), ("std", std)):
        if numbers is None:
            continue
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{word} is three numbers, of red, green and blue from 0 to 1")
        if word == "std" and min(numbers) <= 0:
            raise ValueError("std is above 0")
    if size is not None and not 0 < size <= LONGEST_SIDE:
        raise ValueError(f"size is a number of pixels, up to {LONGEST_SIDE}")
    return Input(tuple(mean) if mean else None, tuple(std) if std else None, size)


def _numbers(text: str | None) -> list[float] | None:
    return None if text is None else [float(each) for each in text.split(",")]
