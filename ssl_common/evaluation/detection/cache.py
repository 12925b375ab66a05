"""The maps of a frozen body for all images of a list, and mirrored: train-detector --cache."""

import contextlib
import os
from typing import Any

import numpy as np
import torch

from ssl_common import streams
from ssl_common.data.order import Item, draws
from ssl_common.data.targets import ObjectList
from ssl_common.evaluation import kept
from ssl_common.evaluation.detection.networks import Made
from ssl_common.evaluation.detection.recipes import Design
from ssl_common.evaluation.detection.showing import collated, of_this_rank, view
from ssl_common.evaluation.kept import Kept
from ssl_common.models import states


class Cache(Kept):
    """The maps in FOLDER of the body of MADE, of DESIGN, for IMAGES below ROOT.

    Two an image, of one shape: the second is that of its mirror image.
    """

    def __init__(
        self, folder: str, made: Made, design: Design, images: ObjectList, root: str
    ) -> None:
        self.made, self.design, self.root = made, design, root
        sizes = [(each.height, each.width) for each in images]
        fields: dict[str, Any] = {
            "body": states.digest(made.frozen),
            "size": [design.size, design.max_size],
            "manifest": images.digest(),
            "sizes": streams.digest(np.array(sizes, np.int64).tobytes()),
            "root": streams.utf8(os.path.realpath(root)),
        }
        shapes = [(self._shape(*size),) * 2 for size in sizes]
        super().__init__(folder, images, shapes, fields, " and their mirror images", "lower --size")

    def _shape(self, height: int, width: int) -> tuple[int, int, int]:
        shown = view(height, width, self.design.size, self.design.max_size).size
        rows, columns = (-(-length // self.made.stride) for length in shown)
        return self.made.channels, rows, columns

    def maps(self, device: torch.device, workers: int) -> kept.Blocks:
        reading = of_this_rank(self.images, self.root, self.design, device, workers)
        with contextlib.closing(reading) as pictures:
            for line, picture, _height, _width in pictures:
                both = (self.made.features(each) for each in (picture, picture.flip(2)))
                yield line, [each.half().cpu().contiguous().numpy() for each in both]


class Cached:
    """The maps in CACHE, in the place of pictures, of which SEED says which are mirrored.

    With the objective's place FLIP of that in its DRAWS numbers.
    """

    def __init__(self, cache: Cache, seed: int, draws: int, flip: int) -> None:
        self.manifest, self.seed = cache.images, seed
        self.draws, self.flip = draws, flip
        self.maps = kept.Reading(cache)

    def prepare(self) -> None:
        """Do nothing: these need no preparation for reading."""

    collate = staticmethod(collated)

    def __getitem__(self, item: Item) -> tuple[int, int, int, Any]:
        epoch, index = item
        drawn = draws(self.seed, [epoch], [index], self.draws)[0]
        found = self.maps(index, int(drawn[self.flip] < 0.5))  # the mirror image comes second
        image = self.manifest[index]
        return 0, epoch, index, (torch.from_numpy(found), image.height, image.width)
