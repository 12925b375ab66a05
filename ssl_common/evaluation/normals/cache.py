"""The maps of a frozen trunk for every image of a list, at every size: train-normals --cache.

Beside the map stand, as three channels more, the pixels of the picture of normals in the middle of
its places: whole numbers below 256, which float16 holds.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from ssl_common import streams
from ssl_common.data import images
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.order import Item, draws
from ssl_common.data.pixels import size_within
from ssl_common.data.targets import PairList, format_pair
from ssl_common.evaluation import kept
from ssl_common.evaluation.kept import Kept
from ssl_common.evaluation.normals import showing
from ssl_common.evaluation.normals.pyramid import Body
from ssl_common.evaluation.normals.recipes import DRAWS, NormalsRecipe

COLOURS = 3
FILLED = 320  # pixels a side of an image whose middle meets no border: more than res4 sees
View = tuple[int, bool]  # the short side in pixels, and whether mirrored


class Cache(Kept):
    """The maps in FOLDER of BODY for the images of PAIRS, below ROOT, as RECIPE shows them.

    Each is made of one image by itself. One for each of `views` an image.
    """

    def __init__(
        self, folder: str, body: Body, recipe: NormalsRecipe, pairs: PairList, root: str, model: str
    ) -> None:
        self.body, self.recipe, self.pairs, self.root = body, recipe, pairs, root
        self.views: list[View] = [
            (side, mirrored)
            for side in recipe.sides
            for mirrored in (False, True)[: 1 + recipe.flip]
        ]
        sizes = [_size(pairs, line, root) for line in range(len(pairs))]
        fields: dict[str, Any] = {
            "task": "normals",
            "model": model,
            "layer": body.ends,
            "sides": recipe.sides,
            "longest": recipe.longest,
            "flip": recipe.flip,
            "pairs": streams.digest(map(format_pair, pairs)),
            "sizes": streams.digest(np.array(sizes, np.int64).tobytes()),
            "root": streams.utf8(os.path.realpath(root)),
        }
        shapes = {size: self._shapes(*size) for size in set(sizes)}
        count = len(recipe.sides)
        each = f" at {count} size{'s' * (count > 1)}" + " and their mirror images" * recipe.flip
        of_images = [shapes[size] for size in sizes]
        super().__init__(folder, pairs, of_images, fields, each, "give fewer --sides")

    def _shapes(self, height: int, width: int) -> list[kept.Shape]:
        found = []
        for side, _mirrored in self.views:
            shown = size_within(height, width, side, self.recipe.longest)
            whole = (-(-length // showing.STRIDE) * showing.STRIDE for length in shown)
            channels, *places = self.body.shape(*whole)
            found.append((channels + COLOURS, *places))
        return found

    def maps(self, device: torch.device, workers: int) -> kept.Blocks:
        dataset = Viewed(self.pairs, self.root, self)
        reading = kept.of_this_rank(dataset, len(self.pairs), device, workers)
        with contextlib.closing(reading) as loaded:
            for line, views in loaded:
                yield line, [self._map(pixels.to(device), places) for pixels, places in views]

    def _map(self, pixels: torch.Tensor, places: torch.Tensor) -> np.ndarray:
        """Return the map of PIXELS, uint8 H x W x 3, and PLACES, float16 C + 3 x h x w."""
        found = self.body(showing.padded(pixels, showing.full_size([pixels]))[None])[0].half().cpu()
        fitted = showing.fitted(places.permute(2, 0, 1), found.shape[1:], 0)
        return torch.cat([found, fitted.half()]).numpy()


def _size(pairs: PairList, line: int, root: str) -> tuple[int, int]:
    """Return (height, width) of the image of LINE, from 0, of PAIRS."""
    try:
        return images.size(pairs[line].path, root)
    except images.Unreadable as error:
        raise pairs.error(line + 1, f"{error}: mend the file or drop the line") from None


class Viewed(SequentialImages):
    """The images of PAIRS in all views of CACHE: (uint8 H x W x 3, pixels of their places) each."""

    def __init__(self, pairs: PairList, root: str, cache: Cache) -> None:
        super().__init__(pairs, root, torch.Tensor.contiguous)
        self.pairs, self.views, self.longest = pairs, cache.views, cache.recipe.longest
        self.stride, self.first = cache.body.stride, cache.body.first

    def __getitem__(self, index: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        image = self.read(index)
        picture = showing.picture_of(self.pairs, index, self.store, image)
        return [self._viewed(image, picture.pixels, *view) for view in self.views]

    def _viewed(
        self, image: torch.Tensor, picture: np.ndarray, side: int, mirrored: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = showing.shown(image, side, self.longest)
        places = showing.places_of(picture, pixels.shape[:2], self.stride, self.first, mirrored)
        pixels = pixels.flip(1) if mirrored else pixels
        return pixels.contiguous(), torch.from_numpy(places.copy())

    def collate(self, items: Sequence[Any]) -> Any:
        """Return the only one of ITEMS."""
        return items[0]


class Cached:
    """The maps in CACHE with the codes of BOOK (K, 3), in the place of pictures.

    SEED says which side an image has, and whether it is mirrored. Maps of several sizes in a batch
    are filled up with what the trunk gives, far from every border, where images are filled up.
    """

    def __init__(self, cache: Cache, book: np.ndarray, seed: int) -> None:
        self.manifest, self.recipe = cache.pairs, cache.recipe
        self.views, self.book, self.seed = cache.views, book, seed
        self.maps = kept.Reading(cache)
        nothing = showing.padded(torch.empty(0, 0, 3, dtype=torch.uint8), (FILLED, FILLED))
        device = next(cache.body.trunk.parameters()).device
        filling = cache.body(nothing[None].to(device))[0].half().cpu()
        self.filling = filling[:, filling.shape[1] // 2, filling.shape[2] // 2, None, None]

    def prepare(self) -> None:
        """Do nothing: these need no preparation for reading."""

    def __getitem__(self, item: Item) -> tuple[int, int, int, Any]:
        epoch, index = item
        drawn = draws(self.seed, [epoch], [index], DRAWS)[0]
        side, mirrored = self.recipe.view(drawn)
        found = self.maps(index, self.views.index((side, mirrored)))
        feature_map, places = np.split(found, [-COLOURS])
        places = np.moveaxis(places, 0, 2).astype(np.uint8)
        codes = torch.from_numpy(showing.codes_of(places, self.book, mirrored))
        return 0, epoch, index, (torch.from_numpy(feature_map), codes)

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS: maps and codes are filled up to the largest."""
        *numbers, shown = zip(*items, strict=True)
        maps, places = zip(*shown, strict=True)
        size = showing.largest(maps, (1, 2))
        whole = self.filling.expand(-1, *size).repeat(len(maps), 1, 1, 1)
        for one, found in zip(whole, maps, strict=True):
            one[:, : found.shape[1], : found.shape[2]] = found
        return [*map(default_collate, map(list, numbers)), (whole, showing.filled(places, size))]
