"""Types of option values: numbers in plain digits and within bounds, shares, intervals."""

import math
import re
from typing import Any

import click

from ssl_common import legible

MANY = 10**9  # the most of what a run may count: images, steps, epochs
BATCH = 10**6  # images
COUNTED = re.compile("[0-9]+")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


class Whole(click.IntRange):
    """A whole number from LEAST to MOST, in the digits 0 to 9 and nothing else."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value  # a default
        number = whole(value, self.most)
        if number is None or number < self.least:
            wanted = f"a whole number from {self.least:,} to {self.most:,}"
            self.fail(f"{legible.quoted(value)} is not {wanted}", param, ctx)
        return number


class WholeOrFile(Whole):
    """A whole number from LEAST to MOST, or the name of a file, which ends in one of ENDINGS."""

    def __init__(self, least: int, most: int, endings: tuple[str, ...]) -> None:
        super().__init__(least, most)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.endswith(self.endings):
            return value
        return super().convert(value, param, ctx)


def whole(digits: str, most: int) -> int | None:
    """Return the whole number that the text DIGITS is, None where it is none or above MOST."""
    digits = digits.lstrip("0") or digits[:1]
    if not COUNTED.fullmatch(digits) or len(digits) > len(str(most)):
        return None  # int() takes spaces, signs, underscores, and thousands of digits
    return int(digits) if int(digits) <= most else None


def real(decimal: str) -> float | None:
    """Return the finite number that the text DECIMAL is, None where it is none."""
    if not DECIMAL.fullmatch(decimal):
        return None  # float() takes spaces, underscores, nan and infinity
    return float(decimal) if math.isfinite(float(decimal)) else None


class Positive(click.FloatRange):
    """A number above 0, and at most MOST."""

    def __init__(self, most: float) -> None:
        super().__init__(0, most, min_open=True)
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = value if isinstance(value, float) else real(value)
        if number is None or not 0 < number <= self.most:
            wanted = f"a number above 0, at most {self.most:,}"
            self.fail(f"{legible.quoted(value)} is not {wanted}", param, ctx)
        return number


class Share(click.ParamType):
    """A share of all, 0 to 1: 1% or 0.01."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        share = real(value.removesuffix("%"))
        if share is not None:
            share /= 100 if value.endswith("%") else 1
        if share is None or not 0 <= share <= 1:
            self.fail(f"{legible.quoted(value)} is not like 1% or 0.01", param, ctx)
        return share


class Interval(click.ParamType):
    """An interval (count, unit): 500steps, 1epoch or 30min."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str]:
        match = re.fullmatch("([0-9]+)(step|epoch|min)s?", value)
        count = whole(match[1], MANY) if match else None
        if not match or not count:
            wanted = f"like 500steps, 1epoch or 30min, a count from 1 to {MANY:,}"
            self.fail(f"{legible.quoted(value)} is not {wanted}", param, ctx)
        return count, match[2]


class Wholes(click.ParamType):
    """Whole numbers from LEAST to MOST with commas between them, none twice, as LIKE."""

    name = "numbers"

    def __init__(self, least: int, most: int, like: str) -> None:
        self.least, self.most, self.like = least, most, like

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        words = value.split(",")
        wholes = (whole(word, self.most) for word in words)
        numbers = [number for number in wholes if number is not None and number >= self.least]
        if len(set(numbers)) < len(words):
            wanted = f"like {self.like}, numbers from {self.least} to {self.most:,}, none twice"
            self.fail(f"{legible.quoted(value)} is not {wanted}", param, ctx)
        return numbers


class Tag(click.ParamType):
    """A field of a record (key, value): layer=conv5."""

    name = "tag"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, _, said = value.partition("=")
        if not key or not said:
            self.fail(f"{legible.quoted(value)} is not like layer=conv5", param, ctx)
        return key, said
