"""How the paper trains detectors: FAIR's configurations for Detectron, as data."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ssl_common.recipe import Recipe

HEADS, POOLS = ("fast", "faster"), ("roi-pool", "roi-align")
ANCHORS = ("detectron", "torchvision")
SIZE, MAX_SIZE = 600, 1000  # pixels, of the short and of the long side
SIZES = (64.0, 128.0, 256.0, 512.0)  # of anchors, in an image with a short side of SIZE


@dataclass(frozen=True)
class Proposing:
    """How an RPN proposes: its ANCHORS and what it is trained on, and what is kept of its boxes.

    ANCHORS is of those above, of these SIZES in pixels. DRAWN anchors of an image are trained on,
    a SHARE of them on objects, which they overlap by HIGH or more; those of background do by less
    than LOW. KEPT are (boxes before, after) suppression of those that overlap a better one by more
    than NMS.
    """

    anchors: str = "detectron"
    sizes: tuple[float, ...] = SIZES
    drawn: int = 256
    share: float = 0.5
    high: float = 0.7
    low: float = 0.3
    nms: float = 0.7
    kept_in_training: tuple[int, int] = (12_000, 2_000)
    kept: tuple[int, int] = (2_000, 1_000)


@dataclass(frozen=True)
class Heading:
    """How the head of a detector is trained, and what is kept of its boxes.

    DRAWN proposals of an image, and its objects among them, are trained on, a SHARE of them on
    objects, which they overlap by HALF or more. In testing boxes of one class that overlap a better
    one by more than NMS are left out, those of a score up to LEAST, and all but the best MOST.
    """

    drawn: int = 64
    share: float = 0.25
    half: float = 0.5
    proposals: int = 2_000  # that are read of a file, of an image
    nms: float = 0.3
    least: float = 0.05
    most: int = 100


@dataclass(frozen=True)
class Design:
    """What decides a detector, besides its trunk and its weights.

    HEAD is one of HEADS: "fast" is given proposals, "faster" makes its own. FREEZE is the last
    stage that is frozen, or "none"; POOL is one of POOLS, ANCHORS of ANCHORS. An image
    is shown with a short side of SIZE pixels, or a long one of MAX_SIZE. FC is the width of the
    layers of an AlexNet's head.
    """

    head: str = "fast"
    freeze: str = "res4"
    pool: str = "roi-pool"
    anchors: str = "detectron"
    size: int = SIZE
    max_size: int = MAX_SIZE
    fc: int = 4096

    @property
    def proposing(self) -> Proposing:
        """The numbers of its RPN: the sizes of anchors go with that of the images."""
        sizes = tuple(size * self.size / SIZE for size in SIZES)
        return Proposing(anchors=self.anchors, sizes=sizes)

    def settings(self, wide: bool) -> dict[str, Any]:
        """Return what of it decides a result, plain values; the width of an AlexNet's if WIDE."""
        left_out = set() if wide else {"fc"}
        left_out |= {"anchors"} if self.head == "fast" else set()
        return {key: value for key, value in asdict(self).items() if key not in left_out}


# Batch 4 is 2 GPUs x 2 images; biases learn at twice the rate, and do not decay. The rate rises
# from a third in the first 500 steps.
USUAL = Recipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    decay_biases=False,
    bias_rate=2.0,
    batch=4,
    lr=0.002,
    steps=30_000,
    drops=[[22 / 30, 0.1]],
    warm_up=[500 / 30_000, 1 / 3],
)


def _of(steps: int, drop: int) -> Recipe:
    return replace(USUAL, steps=steps, drops=[[drop / steps, 0.1]], warm_up=[500 / steps, 1 / 3])


RECIPES = {
    ("voc07", "fast"): USUAL,
    ("voc07", "faster"): _of(50_000, 38_000),
    ("voc07+12", "fast"): _of(80_000, 66_000),
    ("voc07+12", "faster"): _of(100_000, 65_000),
}
NAMES = tuple(dict.fromkeys(name for name, _head in RECIPES))
