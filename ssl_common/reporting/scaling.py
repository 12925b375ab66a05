"""Curves of records over a number, as images, with the law of each, a forecast and its interval."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_common import legible
from ssl_common.fields import PERCENT
from ssl_common.reporting import laws
from ssl_common.reporting.panels import Line, Panel, panels
from ssl_common.reporting.plots import short
from ssl_common.reporting.rows import Row
from ssl_common.tasks import Metric

FEWEST = 4  # sizes: three have a law of three numbers, whatever they are
DECADE = 10
TAILS = 0.025, 0.975
Z = 1.959964  # standard deviations on each side of 95% of a normal distribution
SHARE = 0.5  # of what the sizes gained: a limit whose interval is wider is not known
FACTOR = 2  # ends of an exponent's interval farther apart tell nothing of it
LEAST = 1e-3  # percent or degrees: no error that is drawn is smaller


class Noise(NamedTuple):
    """Standard deviations of single values, how they are known, and on how many degrees of freedom.

    FREEDOM is infinite where they are not estimated from the spread of a few values.
    """

    deviation: float
    source: str
    freedom: float = math.inf


def fits(
    rows: Iterable[Row],
    against: str = "images",
    noise: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield what is known of the law of each curve of ROWS over the number AGAINST.

    NOISE is the standard deviation of a value, in its unit; None: as its seeds tell, else as the
    intervals of the records do. Raises DataError where no record has a number AGAINST.
    """
    for panel in panels(rows, against)[0]:
        for line in panel.lines:
            yield of_line(panel, line, against, noise, draws, seed)


def of_line(
    panel: Panel, line: Line, against: str, noise: float | None, draws: int, seed: int
) -> dict[str, Any]:
    """Return what is known of the law of LINE, of PANEL, as an object of fit-scaling's output."""
    sizes = sorted(line.points)
    values = [line.means[size] for size in sizes]
    found: dict[str, Any] = {
        "task": panel.task,
        "data_set": panel.data_set,
        "metric": panel.metric.name,
        "label": line.label,
        "against": against,
        "sizes": sizes,
        "values": values,
        "seeds": [len(line.points[size]) for size in sizes],
    }
    if len(sizes) < FEWEST or sizes[0] <= 0:
        few = f"{len(sizes)} size{'s' * (len(sizes) > 1)}: a law needs {FEWEST}"
        return found | {"text": few if sizes[0] > 0 else "a size of 0 has no law"}
    if panel.metric.unit is None and panel.metric.better == "higher":
        return found | {"text": f"{panel.metric.name} has no best value: no error, no law"}
    known = Noise(noise, "--noise") if noise else _noise(line, panel.metric)
    if known is None:
        text = "neither seeds nor intervals tell the noise: give --noise"
        return found | {"text": text}
    errors = np.array([_error(panel.metric, value) for value in values])
    if errors.min() <= 0:
        return found | {"text": "a value without error has no law"}
    counts = np.array(found["seeds"])
    ahead = DECADE * sizes[-1]
    rng = np.random.default_rng(seed)
    whole = _drawn(np.array(sizes), errors, counts, known, ahead, draws, rng)
    before = _drawn(np.array(sizes[:-1]), errors[:-1], counts[:-1], known, sizes[-1], draws, rng)
    gain = abs(values[-1] - values[0])
    found |= {
        "noise": known.deviation,
        "noise_from": known.source,
        "law": {
            "limit": float(whole.best.limit[0]),
            "scale": float(whole.best.scale[0]),
            "exponent": float(whole.best.exponent[0]),
            "unit": whole.best.unit,
        },
        "forecast": {"at": ahead} | _estimate(panel.metric, whole.error, whole.errors),
        "held_out": {"at": sizes[-1], "seen": values[-1]}
        | _estimate(panel.metric, before.error, before.errors),
        "limit": _estimate(panel.metric, float(whole.best.limit[0]), whole.drawn.limit),
        "exponent": _interval(float(whole.best.exponent[0]), whole.drawn.exponent),
    }
    found["limit"]["identified"] = bool(np.ptp(found["limit"]["interval"]) <= SHARE * gain)
    low, high = found["exponent"]["interval"]
    found["exponent"]["identified"] = bool(high <= FACTOR * low and high < laws.EXPONENTS[1])
    return found | {"text": sentence(found)}


def sentence(found: Mapping[str, Any]) -> str:
    """Return what FOUND, of a curve with a law, says, in words."""
    held, ahead = found["held_out"], found["forecast"]
    texts = [
        f"{short(held['at'])} held out: predicted {held['value']:.1f}"
        f" ({_range(held['interval'])}), seen {held['seen']:.1f}",
        f"forecast at {short(ahead['at'])}: {ahead['value']:.1f} ({_range(ahead['interval'])})",
    ]
    for name, digits in (("limit", 1), ("exponent", 2)):
        of = found[name]
        text = f"{of['value']:.{digits}f}" if of["identified"] else "not identified"
        texts.append(f"{name}: {text} ({_range(of['interval'], digits)})")
    return "; ".join(texts)


def _range(interval: Sequence[float], digits: int = 1) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


class _Drawn(NamedTuple):
    """The law of the values, those of DRAWS of them, and the errors of both at a size."""

    best: laws.Laws
    drawn: laws.Laws
    error: float
    errors: np.ndarray


def _drawn(
    sizes: np.ndarray,
    errors: np.ndarray,
    counts: np.ndarray,
    noise: Noise,
    ahead: float,
    draws: int,
    rng: np.random.Generator,
) -> _Drawn:
    """Return the law of ERRORS at SIZES, means of COUNTS values, and those of draws around it.

    A draw is the law with NOISE. Where that is estimated from few values, its size is drawn too, as
    Student's distribution is made.
    """
    deviations = noise.deviation / np.sqrt(counts)
    best = laws.fit(sizes, errors, deviations)
    scale = np.ones(draws)
    if math.isfinite(noise.freedom):
        scale = np.sqrt(noise.freedom / rng.chisquare(noise.freedom, draws))
    drawn = best.at(sizes) + scale[:, None] * rng.normal(0, deviations, (draws, len(sizes)))
    fitted = laws.fit(sizes, np.maximum(drawn, LEAST), deviations)
    there = np.array([ahead])
    return _Drawn(best, fitted, float(best.at(there)[0, 0]), fitted.at(there)[:, 0])


def _error(metric: Metric, value: float) -> float:
    """Return how far VALUE of METRIC is from perfect, in its unit."""
    if metric.better == "lower":
        return value
    return (metric.unit or PERCENT).most - value


def _estimate(metric: Metric, error: float, errors: np.ndarray) -> dict[str, Any]:
    """Return {value, interval} of a value of METRIC, of its ERROR and the ERRORS of draws."""
    # What is left of perfect is an error again, so this is its own inverse.
    return _interval(_error(metric, error), np.array([_error(metric, each) for each in errors]))


def _interval(value: float, drawn: np.ndarray) -> dict[str, Any]:
    # Weibull's quantiles leave 5% outside on average, however few the draws.
    return {"value": value, "interval": np.quantile(drawn, TAILS, method="weibull").tolist()}


def _noise(line: Line, metric: Metric) -> Noise | None:
    """Return the noise of a single value of LINE: of its seeds, else of the records' intervals."""
    several = [values for values in line.points.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if freedom >= 2:
        squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
        if squares > 0:
            text = f"the spread of seeds, {freedom} degrees of freedom"
            return Noise(math.sqrt(squares / freedom), text, freedom)
    widths = [high - low for low, high in line.intervals.values() if high > low]
    if widths:
        return Noise(statistics.median(widths) / (2 * Z), "the records' 95% intervals")
    return None


def jsonl(found: Sequence[Mapping[str, Any]]) -> str:
    """Return FOUND, of fits(), as JSON lines."""
    return "".join(legible.dumps(each) + "\n" for each in found)


def text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return FOUND, of fits(), as a line a curve."""
    return "".join(
        legible.text(f"{each['task']}, {each['data_set']}, {each['label']}: {each['text']}") + "\n"
        for each in found
    )


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what fit-scaling says of FOUND, of fits()."""
    laws_found = sum("law" in each for each in found)
    return f"{len(found)} curves, {laws_found} with a law"


FORMS: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {"jsonl": jsonl, "text": text}
