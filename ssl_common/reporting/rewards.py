"""Curves of rewards against frames, from logs of train-navigator --method ppo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_common import fields, legible, records, streams
from ssl_common.reporting import plots
from ssl_common.streams import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """The rewards in a log: LABEL, FRAMES (F,), and REWARDS (runs, F); NaN where none is known."""

    label: str
    frames: np.ndarray
    rewards: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over the runs that are so far, (F,)."""
        return _over_runs(self.rewards)[0]

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation over these, of one run 0, (F,)."""
        return _over_runs(self.rewards)[1]


def _over_runs(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(rewards)
    count = known.sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, rewards, 0).sum(0) / count
        squares = np.where(known, (rewards - mean) ** 2, 0).sum(0)
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def read(path: str) -> Curve:
    """Return the Curve in the log PATH; raise DataError where it is none of PPO."""
    where, settings = streams.name(path), dict[str, Any]()
    found: dict[int, dict[int, float]] = {}
    for number, record in records.read(path):
        if number == 1:
            settings = record
        if settings.get("method") != "ppo" or settings.get("task") != "navigation":
            raise DataError(f"{where}: no log of train-navigator --method ppo: name one")
        if number == 1:
            continue
        run, at, reward = (record.get(name) for name in ("run", "frames", "reward"))
        right = fields.INDEX.holds(run) and fields.COUNT.holds(at)
        if not right or run is None or at is None or not fields.NUMBER.holds(reward):
            raise DataError(f"{where}:{number}: not a line of such a log: delete it")
        found.setdefault(int(run), {})[int(at)] = math.nan if reward is None else float(reward)
    frames = sorted({place for each in found.values() for place in each})
    if not frames:
        raise DataError(f"{where}: no update so far: wait for one")
    rewards = [[each.get(place, math.nan) for place in frames] for each in found.values()]
    names = [str(settings[name]) for name in ("arch", "layer") if settings.get(name)]
    label = f"{streams.stem(path) or where}: {' '.join(names)}"
    return Curve(label, np.array(frames), np.array(rewards))


def table(curves: Sequence[Curve]) -> bytes:
    """Return CURVES as a table in Markdown: their runs, frames, and rewards at the end."""
    lines = ["| log | runs | frames | reward at the end | deviation |", "|---|---:|---:|---:|---:|"]
    for curve in curves:
        known = np.flatnonzero(~np.isnan(curve.mean))
        last = (
            [f"{each[known[-1]]:.3f}" for each in (curve.mean, curve.deviation)]
            if len(known)
            else ["", ""]
        )
        cells = [legible.cell(curve.label), str(len(curve.rewards)), f"{curve.frames[-1]:,}", *last]
        lines.append(f"| {' | '.join(cells)} |")
    return ("\n".join(lines) + "\n").encode()


def figure(curves: Sequence[Curve]) -> "Figure":
    """Return a Figure of CURVES: the mean over runs, and a band of one standard deviation."""
    from matplotlib.figure import Figure

    sheet = Figure((6.8, 3.8), layout="constrained")
    axes = sheet.subplots()
    for number, curve in enumerate(curves):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        style = "-" if number < len(plots.COLOURS) else "--"
        known = ~np.isnan(curve.mean)
        frames, mean, band = (x[known] for x in (curve.frames, curve.mean, curve.deviation))
        axes.plot(frames, mean, style, color=colour, label=legible.text(curve.label))
        axes.fill_between(frames, mean - band, mean + band, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("frames")
    axes.set_ylabel("reward of an episode: mean of the runs, one deviation")
    axes.legend()
    return sheet


def write(paths: Sequence[str], picture: str, output: str) -> str:
    """Draw the logs PATHS to the file PICTURE; write their table to OUTPUT; say what was done."""
    curves = [read(path) for path in paths]
    content, _nothing = plots.drawn(picture, lambda: (figure(curves), None))
    with streams.writing(output, binary=False) as stream, streams.writing(picture) as plot:
        plot.write(content)
        stream.write(table(curves))
        stream.flush()  # a full disk leaves the picture that was there
    return f"{len(curves)} logs; {picture}"
