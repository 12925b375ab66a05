"""Types of the fields of results, and the units of what they measure."""

from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import Any

from ssl_common.schema import (
    FARTHEST,
    Either,
    Entry,
    Flag,
    Mapping,
    Numbers,
    Texts,
    integers,
    numbers,
)

Record = Map[str, Any]  # a result: {field: value}
Fields = dict[str, Entry]  # {field: its type}

SLACK = 1e-11  # of the largest value of a unit: a mean of hundreds may exceed it by rounding

# Null, as if the field were absent, is allowed for each of them.
TEXT, FLAG = Texts(maybe=True), Flag(maybe=True)
NUMBER, POSITIVE = numbers(maybe=True), numbers(above=0, maybe=True)
COUNT, INDEX = integers(least=1, maybe=True), integers(least=0, maybe=True)
DIGESTS = Mapping(TEXT, maybe=True)
TEXTS = Texts("*", maybe=True)
MOMENTUM = Either((numbers(), numbers("*")), maybe=True)


@dataclass(frozen=True)
class Unit:
    """A unit of measurement: its name in captions, and the values from 0 to MOST that it allows.

    WORDS say in an error message what a value must be.
    """

    name: str
    most: float
    words: str

    def entry(self, shape: str = "") -> Numbers:
        """Return the type of a field that holds numbers of SHAPE in this unit."""
        slack = self.most * SLACK
        return numbers(shape, least=-slack, most=self.most + slack, called=self.words, maybe=True)


PERCENT = Unit("%", 100, "a percentage, 0 to 100")
DEGREES = Unit("degrees", 180, "an angle, 0 to 180 degrees")


def table(names: Map[Entry, str]) -> Fields:
    """Return {field: type} of NAMES, {type: names of fields with spaces between them}."""
    return {name: entry for entry, text in names.items() for name in text.split()}


def is_number(value: object) -> bool:
    """Return whether VALUE is a number (True and False are none) within 1e300 of 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= FARTHEST
