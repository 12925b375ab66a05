"""The options of train-detector."""

from dataclasses import dataclass

from ssl_common.evaluation.detection.recipes import ANCHORS, HEADS, MAX_SIZE, POOLS, SIZE
from ssl_common.options import OptionError, option
from ssl_common.training.plan import TrainingOptions


@dataclass(frozen=True)
class DetectorOptions:
    """The options of train-detector that decide the detector."""

    head: str = option(
        "What says where to look: fast, the boxes of --proposals, as in the paper; or faster, a"
        " network that is trained with it.",
        "fast",
        of=HEADS,
    )
    proposals: str | None = option(
        "Boxes to look at, of make-proposals, for --head fast.", metavar="PROPOSALS.npz"
    )
    freeze: str | None = option(
        "Last stage that is not trained: res4, as in the paper; res2, its full fine-tuning; none.",
        usual="the last of the body, res4 or conv5",
        metavar="STAGE",
    )
    pool: str = option(
        "How the map below a box is read: roi-pool, as in the paper, or roi-align.",
        "roi-pool",
        of=POOLS,
    )
    anchors: str = option(
        "Boxes that --head faster begins with: as Detectron has them, or torchvision.",
        "detectron",
        of=ANCHORS,
    )
    cache: str | None = option(
        "Folder for the maps of the frozen body, which later runs use too: images are read once.",
        metavar="DIR",
    )
    size: int = option("Short side of an image, in pixels.", SIZE, least=32, most=4096)
    max_size: int = option(
        "Long side of an image at most, in pixels.", MAX_SIZE, least=32, most=8192
    )
    fc: int = option("Width of the layers of an AlexNet's head.", 4096, least=1, most=65_536)

    def __post_init__(self) -> None:
        if (self.head == "fast") != (self.proposals is not None):
            if self.proposals is None:
                raise OptionError("--head fast: give --proposals, or --head faster")
            raise OptionError("--proposals: --head faster makes its own")
        if self.size > self.max_size:
            raise OptionError(f"--size {self.size}: more than --max-size {self.max_size}")


@dataclass(frozen=True)
class Options(TrainingOptions):
    """TrainingOptions, with batches of one image too: no batch norm needs more."""

    batch: int | None = option(
        "Images in each step, over all GPUs.",
        least=1,
        most=1_000_000,
        usual="the recipe's",
        metavar="N",
    )
