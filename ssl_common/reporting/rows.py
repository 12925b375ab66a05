"""A row of the report: the values of a network on a task and data set, by layer."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_common import tasks
from ssl_common.fields import Record
from ssl_common.tasks import Metric

NO_LAYER = "-"  # the column of a value that belongs to no layer
BEST = "best"  # where a published row gives only the best layer
UNKNOWN = tasks.UNKNOWN


@functools.cache
def _measure(task: str, metric: str) -> Metric:
    """Return METRIC of TASK: a report asks it for every number."""
    return tasks.find(task).metric(metric)


class Row(NamedTuple):
    """A row of the report: VALUES {layer: number}, RECORDS {layer: the record it was taken from}.

    PLACES {layer: file:line} are where those stand.
    IDENTITY is what decided the values, with the version and where the first record stands. A
    published row has a SOURCE, where it was read; its records and identity are its setting.
    """

    task: str
    data_set: str
    metric: str
    label: str
    values: Mapping[str, float]
    records: Mapping[str, Record]
    identity: Mapping[str, Any]
    source: str | None = None
    places: Mapping[str, str] = {}

    @property
    def measure(self) -> Metric:
        """The metric, with its unit and direction."""
        return _measure(self.task, self.metric)

    @property
    def panel(self) -> tuple[str, str, str]:
        """Task, data set and metric: rows that have them in common can be compared."""
        return self.task, self.data_set, self.metric

    def best(self) -> tuple[str | None, float]:
        """Return (layer, value) of the best layer, the first of equals; no layer: (None, value)."""
        layers = {k: value for k, value in self.values.items() if k not in (NO_LAYER, BEST)}
        key = self.measure.best(layers or self.values)
        return (key if layers else None), self.values[key]

    @property
    def untrained(self) -> bool:
        """Whether the network, one of ours, is as it was drawn: others are to be better."""
        first = next(iter(self.records.values()), {})
        return self.source is None and first.get("pretext") == "random"

    def interval(self, layer: str | None) -> tuple[float, float] | None:
        """Return the 95% interval of the value of LAYER, None where its record has none."""
        found = self.records.get(layer or NO_LAYER, {}).get("interval")
        return tuple(found) if found else None

    def place(self, layer: str | None) -> str:
        """Return where the record of LAYER stands, "" where that is not known."""
        return self.places.get(layer or NO_LAYER, "")

    def beats(self, layer: str | None, other: "Row") -> bool:
        """Tell whether the value of LAYER is better than the best of OTHER, beyond the intervals.

        True where one of the two has no interval: nothing is known to the contrary.
        """
        own, theirs = self.interval(layer), other.interval(other.best()[0])
        if own is None or theirs is None:
            return True
        merit = self.measure.merit
        return min(map(merit, own)) > max(map(merit, theirs))
