"""Any network of timm (PyTorch Image Models), its stages as the layers that features come from."""

import inspect
from collections.abc import Collection
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common.data.pixels import MEAN, STD
from ssl_common.models import inputs
from ssl_common.models.backbones import grid
from ssl_common.models.inputs import Input
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

THEIRS = "timm:"  # before the name of a network of timm
CLASS = "cls"  # the layer that is the class token behind the last norm
USUAL = (224, MEAN, STD)


def library() -> ModuleType:
    """Return timm; raise DataError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        message = "timm: a network of timm needs it: pip install 'ssl-bench[timm]'"
        raise DataError(f"{message} ({error})") from error
    return timm


class TimmBackbone(Trunk):
    """timm's network NAME without its head: timm:ARCH, or timm:ARCH.TAG, as timm has them.

    TAG is the name of some of its weights: an image is given in their size, mean and deviation, or
    as NAME says after a ?; see inputs. None are loaded here, and nothing is fetched.

    The layers are the stages that timm's feature interface gives, by their names in feature_info;
    those of a transformer are the patches of each block, as a map. Its class token, behind the last
    norm, is the layer CLASS. A map is averaged over a square grid as those of Backbone.
    """

    pooling: dict[str, int]

    def __init__(self, name: str) -> None:
        super().__init__()
        arch, how = inputs.parsed(name.removeprefix(THEIRS))
        self.network: nn.Module = _made(arch, how)
        self.arch = arch
        self.input_size, self.mean, self.deviation = self._input(how)
        usual = self._input(Input())
        said = (self.mean, self.deviation) != usual[1:]
        size = self.input_size if self.input_size != usual[0] or how.size else None
        mean, std = (self.mean, self.deviation) if said else (None, None)
        self.name = f"{THEIRS}{arch}{Input(mean, std, size)}"
        config: Any = self.network.pretrained_cfg
        heads = config.get("classifier") or ()
        self.heads = (heads,) if isinstance(heads, str) else tuple(heads)
        self.stages = [info["module"] for info in list(_infos(self.network))]
        self.has_class_token = _has_class_token(self.network)
        self.pooling = self._grids()

    def _input(self, how: Input) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
        """Return (size, mean, deviation): what HOW says, or else timm's configuration."""
        config: Any = self.network.pretrained_cfg
        channels, height, width = config["input_size"]
        if channels != 3 or height != width:
            what = f"images of {channels} x {height} x {width}"
            raise DataError(f"{THEIRS}{self.arch}: it takes {what}: there is no such here")
        mean, deviation = how.mean or config["mean"], how.std or config["std"]
        return how.size or height, tuple(mean), tuple(deviation)

    @torch.no_grad()
    def _grids(self) -> dict[str, int]:
        """Return {layer: places along a side of its grid}, from a pass through the network."""
        training = self.training
        blank = torch.zeros(1, 3, self.input_size, self.input_size)
        final, found = self.eval()._pass(blank, None)
        self.train(training)
        if len(found) != len(self.stages):
            self.stages = [f"stage{number}" for number in range(len(found))]
        grids = {
            name: grid(each.shape[1], min(each.shape[2:]))
            for name, each in zip(self.stages, found, strict=True)
            if each.dim() == 4
        }
        self.has_class_token = self.has_class_token and final.dim() == 3
        return grids | ({CLASS: 1} if self.has_class_token else {})

    def take_any_size(self) -> None:
        """Take images of any whole patches from now on, where timm can: positions are resampled.

        Convolutions do so anyway; a transformer of which timm cannot stays as it is.
        """
        found = inspect.signature(type(self.network).__init__).parameters
        if "patch_embed" not in dict(self.network.named_children()) or "img_size" not in found:
            return
        try:
            made = _created(self.arch, img_size=self.input_size, dynamic_img_size=True)
        except DataError:
            return
        made.load_state_dict(self.network.state_dict())
        self.network = made.train(self.training)

    def _pass(self, images: torch.Tensor, places: list[int] | None) -> tuple[torch.Tensor, Any]:
        """Return (the last tokens or map, behind the norm; maps of the stages PLACES, or all)."""
        network: Any = self.network
        return network.forward_intermediates(images, indices=places, output_fmt="NCHW")

    def maps(self, names: Collection[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: its map} as Trunk says; what follows the last of NAMES does not run."""
        places = [place for place, name in enumerate(self.stages) if name in names]
        network: Any = self.network
        if CLASS in names and self.has_class_token:
            final, found = self._pass(images, places or [len(self.stages) - 1])
        else:
            found = network.forward_intermediates(
                images, indices=places, output_fmt="NCHW", intermediates_only=True, stop_early=True
            )
        maps = {self.stages[place]: each for place, each in zip(places, found, strict=False)}
        if CLASS in names:
            maps[CLASS] = final[:, 0, :, None, None]
        return maps

    def pooled(self, name: str, feature_map: torch.Tensor) -> torch.Tensor:
        """Return the FEATURE_MAP of the layer NAME averaged over its grid."""
        return functional.adaptive_avg_pool2d(feature_map, self.pooling[name])

    def _unusual(self) -> list[bytes]:
        how = (self.input_size, self.mean, self.deviation)
        return [] if how == USUAL else [repr(how).encode()]


def _made(arch: str, how: Input) -> nn.Module:
    """Return timm's network ARCH without a head, untrained; raise DataError where there is none."""
    timm, model = library(), arch.partition(".")[0]
    if not timm.is_model(model):
        raise DataError(f"{THEIRS}{arch}: no such network in timm {timm.__version__}")
    if model != arch and arch not in timm.list_pretrained(f"{model}.*"):
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{model}.*")]
        there = f"there are {', '.join(tags)}" if tags else "it has none: leave out what follows ."
        raise DataError(f"{THEIRS}{arch}: no such weights of {model}: {there}")
    made = _created(arch)
    if how.size and "img_size" in inspect.signature(type(made).__init__).parameters:
        made = _created(arch, img_size=how.size)
    if not hasattr(made, "forward_intermediates"):
        raise DataError(f"{THEIRS}{arch}: its stages are not known to timm {timm.__version__}")
    return made


def _created(arch: str, **options: Any) -> nn.Module:
    """Return timm's network ARCH with OPTIONS, untrained; raise DataError where it cannot be."""
    timm = library()
    try:
        made: nn.Module = timm.create_model(arch, pretrained=False, num_classes=0, **options)
    except (RuntimeError, ValueError, TypeError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split())[:199]
        raise DataError(
            f"{THEIRS}{arch}: timm {timm.__version__} cannot make it: {reason}"
        ) from error
    return made


def _infos(network: nn.Module) -> Any:
    infos: Any = network.feature_info
    return getattr(infos, "info", infos)


def _has_class_token(network: nn.Module) -> bool:
    """Tell whether the first token of NETWORK is that of the class."""
    return isinstance(getattr(network, "cls_token", None), torch.Tensor)
