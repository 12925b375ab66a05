"""Jigsaw as a picture: the puzzle that the network sees, and its answer."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from ssl_common.data import images
from ssl_common.data.order import draws
from ssl_common.data.pixels import MEAN, STD
from ssl_common.pretext import jigsaw
from ssl_common.pretext.jigsaw import CELL, CROP, GRID, TILE, TILES
from ssl_common.pretext.options import JigsawOptions
from ssl_common.pretext.pretext import Pretext
from ssl_common.reporting.captions import FONT, INK, LINE, MARGIN, SPACE, caption, fitting, sheet
from ssl_common.training import pretraining

GAP = 18  # pixels between tiles, room for a number
BOARD = GRID * (TILE + GAP)  # pixels, side of a board of tiles
# Okabe and Ito's colours: the colour-blind tell right from wrong.
RIGHT, WRONG, CUT = "#009E73", "#D55E00", "#E69F00"


class Puzzle(NamedTuple):
    """A puzzle of an image, and the answer of a network: (label, probability), or None.

    PIXELS (255 x 255 x 3) is the crop, JITTER (9 x 2) where the tiles lie in their cells, TILES
    (9 x 3 x 64 x 64) what the network sees, in pixels again.
    """

    name: str
    pixels: np.ndarray
    jitter: np.ndarray
    tiles: np.ndarray
    gray: bool
    label: int
    answer: tuple[int, float] | None


def solve(
    paths: Iterable[str], permutations: np.ndarray, seed: int, network: nn.Module | None = None
) -> Iterator[Puzzle]:
    """Yield a Puzzle for each image file of PATHS: line k as pretrain draws it in its first epoch.

    NETWORK is a JigsawNet in eval mode, if one shall answer. Raises Unreadable naming the file.
    """
    task = jigsaw.Jigsaw(permutations)
    for k, path in enumerate(paths):
        randoms = draws(seed, [0], [k], task.draws)
        pixels = task.crop(images.read(path, ""), randoms[0])
        (label,), (jitter,), (gray,) = task.draw(randoms)
        (inputs,), _label = task.puzzle(pixels[None], randoms)
        answer = None
        if network:
            with torch.inference_mode():
                probability, best = network(inputs[None])[0].softmax(0).max(0)
            answer = int(best), float(probability)
        tiles = in_pixels(inputs.numpy(), gray)
        yield Puzzle(path, pixels.numpy(), jitter, tiles, bool(gray), int(label), answer)


def in_pixels(tiles: np.ndarray, gray: bool) -> np.ndarray:
    """Return standardised TILES (9 x 3 x 64 x 64) as uint8, standardize() undone.

    The three channels of a GRAY puzzle are equal: it is shown neutral, by their mean MEAN and STD.
    """
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (MEAN, STD))
    if gray:
        mean, std = mean.mean(), std.mean()
    return np.rint(255 * (tiles * std + mean)).clip(0, 255).astype(np.uint8)


def draw(puzzles: Sequence[Puzzle], permutations: np.ndarray) -> Image.Image:
    """Return the picture of PUZZLES over PERMUTATIONS: a row each.

    The crop with its cells and tiles; the board that the network sees; what its answer makes of
    it. Places and tiles are numbered column by column, as the permutations number them.
    """
    boards = 2 if puzzles[0].answer else 1
    size = 2 * MARGIN + CROP + boards * (SPACE + BOARD), 2 * MARGIN + CROP + 3 * LINE
    picture, pen = sheet((size[0], size[1] * len(puzzles)))
    for row, puzzle in enumerate(puzzles):
        top = row * size[1] + MARGIN
        x = MARGIN
        _crop(picture, pen, puzzle, (x, top))
        colour = "shown in gray" if puzzle.gray else "shown in colour"
        caption(
            pen,
            [fitting(pen, puzzle.name, CROP), f"crop, cells and tiles; {colour}"],
            (x, top + CROP),
        )
        x += CROP + SPACE
        true = permutations[puzzle.label]
        _board(picture, pen, puzzle.tiles, true, [CUT] * TILES, (x, top))
        lines = ["as the network sees it", f"true: no. {puzzle.label} of {len(permutations)}"]
        caption(pen, [*lines, f"order {_order(true)}"], (x, top + CROP))
        if puzzle.answer:
            x += BOARD + SPACE
            best, probability = puzzle.answer
            back = np.argsort(permutations[best])
            hues = [RIGHT if tile == place else WRONG for place, tile in enumerate(true[back])]
            _board(picture, pen, puzzle.tiles[back], true[back], hues, (x, top))
            verdict, hue = ("right", RIGHT) if best == puzzle.label else ("wrong", WRONG)
            chance = f"probability {probability:.1%}, chance {1 / len(permutations):.2%}"
            lines = [
                f"predicted: no. {best}, {verdict}",
                chance,
                f"order {_order(permutations[best])}",
            ]
            caption(pen, lines, (x, top + CROP), hue)
    return picture


def _order(permutation: np.ndarray) -> str:
    return " ".join(map(str, permutation))


def _crop(
    picture: Image.Image, pen: ImageDraw.ImageDraw, puzzle: Puzzle, corner: tuple[int, int]
) -> None:
    """Draw the crop at CORNER, and on it its cells and the tiles, numbered."""
    picture.paste(Image.fromarray(puzzle.pixels), corner)
    for index, jitter in enumerate(puzzle.jitter):
        cell = np.add(corner, np.multiply(divmod(index, GRID), CELL))
        pen.rectangle([*cell, *(cell + CELL - 1)], outline="black")
        pen.rectangle([*(cell + 1), *(cell + CELL - 2)], outline="white")
        x, y = (int(v) for v in cell + jitter)
        pen.rectangle([x, y, x + TILE - 1, y + TILE - 1], outline=CUT, width=2)
        pen.rectangle([x, y, x + FONT, y + FONT + 2], fill=CUT)
        pen.text((x + 3, y), str(index), INK)


def _board(
    picture: Image.Image,
    pen: ImageDraw.ImageDraw,
    tiles: np.ndarray,
    numbers: np.ndarray,
    hues: Sequence[str],
    corner: tuple[int, int],
) -> None:
    """Draw TILES (9 x 3 x 64 x 64) at CORNER, with their NUMBERS, framed in HUES."""
    for place, (tile, number, hue) in enumerate(zip(tiles, numbers, hues, strict=True)):
        column, row = divmod(place, GRID)
        x, y = corner[0] + column * (TILE + GAP), corner[1] + row * (TILE + GAP) + GAP
        picture.paste(Image.fromarray(tile.transpose(1, 2, 0)), (x, y))
        pen.rectangle([x - 2, y - 2, x + TILE + 1, y + TILE + 1], outline=hue, width=2)
        pen.text((x, y - GAP + 1), str(number), INK if hue == CUT else hue)


def show(
    paths: Iterable[str], model: str | None, seed: int, permutations: str | None
) -> tuple[Image.Image, str]:
    """Return (picture, a line that says what it shows) of the image files PATHS.

    MODEL, a finished network, holds its permutations; without one that file does.
    """
    network: nn.Module | None = None
    task: Pretext
    if model:
        network, task = pretraining.load(model, "jigsaw")
    else:
        assert permutations, "without a network there are permutations"
        task = jigsaw.Jigsaw.load(JigsawOptions(permutations))
    assert isinstance(task, jigsaw.Jigsaw)
    puzzles = list(solve(paths, task.permutations, seed, network))
    summary = f"{len(puzzles)} puzzles of {len(task.permutations)} permutations"
    if network:
        summary += (
            f", {sum(p.answer is not None and p.answer[0] == p.label for p in puzzles)} right"
        )
    return draw(puzzles, task.permutations), summary
