"""Features of images: layers of a frozen trunk, averaged to about 9,000 numbers each."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import containers, legible, records, streams, tasks
from ssl_common.data.batches import batches
from ssl_common.data.datasets import FingerprintedImages
from ssl_common.data.images import read
from ssl_common.data.manifest import Manifest
from ssl_common.data.pixels import resize, resize_short
from ssl_common.models import networks, registry, timm_backbones
from ssl_common.models.foreign import conversion
from ssl_common.models.trunk import Trunk
from ssl_common.processes import Stopped, deferring_stop
from ssl_common.progress import Progress, silent
from ssl_common.ranks import collectives, mailbox
from ssl_common.ranks.launch import Launch
from ssl_common.ranks.placement import IS_RANK, LOCAL_RANKS, RANK, RANKS
from ssl_common.stored import Filled
from ssl_common.streams import DataError

SHORT_SIDE = 256  # pixels at least, before the image is warped to the network's input size
RANDOM, TORCHVISION = "random:", "torchvision:"
SIZES = tuple(size.field for size in tasks.PRETEXT_SIZES)
OF_THE_MODEL = ("arch", "pretext", "seed", *SIZES, "images", "data", "data_name")


class Warp:
    """Turn uint8 H x W x 3 into 3 x SIZE x SIZE: short side 256, then warped, not cropped.

    The short side of what is larger than that is SIZE.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        image = resize_short(image, max(SHORT_SIDE, self.size))
        return resize(image, (self.size, self.size)).permute(2, 0, 1)


def network(model: str, seed: int) -> tuple[Trunk, dict[str, Any]]:
    """Return (trunk, settings) of MODEL, a word of the command line.

    random:ARCH is untrained and drawn from SEED; torchvision:ARCH:FILE and timm:NAME:FILE have the
    weights of a file of others, and "left_out" in its settings says what is not of the trunk; else
    it is a file of ours, or one that says itself what it is. Raises DataError for a model that does
    not exist, and for weights that do not fit it.
    """
    if model.startswith(RANDOM):
        trunk = registry.build(model.removeprefix(RANDOM), seed)
        return trunk, {"arch": trunk.name, "pretext": "random", "seed": seed}
    if model.startswith(TORCHVISION):
        arch, _colon, path = model.removeprefix(TORCHVISION).partition(":")
        return conversion.torchvision(arch, path)
    if model.startswith(timm_backbones.THEIRS):
        name, _colon, path = model.removeprefix(timm_backbones.THEIRS).partition(":")
        return conversion.timm(name, path)
    if conversion.speaks_for_itself(model):
        return conversion.told(model)
    content = networks.load_network(model)
    settings = content["settings"]
    return registry.restored(settings, content["trunk"], model), settings


def of_the_model(trunk: Trunk, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sidecar says of TRUNK and its SETTINGS, of network()."""
    said = {"format": 1, "model": trunk.digest()}
    said |= {key: settings.get(key) for key in OF_THE_MODEL}
    if settings.get("inferred"):  # fields that the file does not say, and --tag may
        said["inferred"] = settings["inferred"]
    return said


@torch.no_grad()
def maps(trunk: Trunk, names: Sequence[str], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return {layer: its map} for the layers NAMES of TRUNK and PIXELS, uint8 N x 3 x H x W."""
    images = trunk.prepare(pixels).contiguous(memory_format=torch.channels_last)
    return trunk.maps(names, images)


@torch.no_grad()
def pooled_maps(trunk: Trunk, whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return {layer: features, N x C x h x w} of the WHOLE maps of layers of TRUNK."""
    return {name: trunk.pooled(name, each) for name, each in whole.items()}


class Layers:
    """The layers NAMES, or all, of MODEL as network() takes it.

    `shapes` is {layer: what it gives for an image, channels x height x width}, in the order of the
    network, and `sizes` the same of its map. Raises DataError for a model or layer that does not
    exist.
    """

    def __init__(self, model: str, names: Sequence[str] = (), seed: int = 0) -> None:
        self.trunk, settings = network(model, seed)
        for name in names:
            if name not in self.trunk.pooling:
                there = ", ".join(self.trunk.pooling)
                raise DataError(f"{model} has no layer {name}: it has {there}")
        self.names = [name for name in self.trunk.pooling if name in names or not names]
        self.trunk.eval().to(memory_format=torch.channels_last)
        size = self.trunk.input_size
        whole = maps(self.trunk, self.names, torch.zeros(1, 3, size, size, dtype=torch.uint8))
        self.sizes, self.shapes = (
            {name: tuple(found.shape[1:]) for name, found in each.items()}
            for each in (whole, pooled_maps(self.trunk, whole))
        )
        self.of_the_model = of_the_model(self.trunk, settings)
        self.left_out = settings.get("left_out", "")

    def __call__(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: features} of uint8 PIXELS (N x 3 x H x W), float32 N x its shape."""
        return pooled_maps(self.trunk, maps(self.trunk, self.names, pixels))

    def table(self) -> Iterator[bytes]:
        """Yield a line of bytes a layer: its name, the size of its map, that of its features."""
        for name, shape in self.shapes.items():
            sizes = (" x ".join(map(str, size)) for size in (self.sizes[name], shape))
            yield "\t".join([legible.text(name), *sizes]).encode() + b"\n"


@dataclass(frozen=True)
class Reading:
    """How images are read and written: BATCH at a time, as DTYPE, by WORKERS, below ROOT."""

    root: str = "."
    batch: int = 64
    dtype: str = "float32"
    workers: int = 0
    progress: Progress = silent


def extract(
    layers: Layers, manifest: str, output: str, launch: Launch, reading: Reading
) -> str | None:
    """Write the features of LAYERS for the images of MANIFEST to OUTPUT.

    In one pass; each layer is a .npy (N, D). Returns what was written, in words; None in a rank:
    where LAUNCH is of more GPUS than one they are ranks of a torchrun, which write into the same
    files. Raises DataError for what Manifest refuses, and naming the line of an unreadable image.
    """
    images = Manifest(manifest)
    warp = Warp(layers.trunk.input_size)
    if IS_RANK:
        with launch.join() as here:
            outputs: list[Any] = [Filled(path) for path in mailbox.message()]
            write_rows(outputs, layers, images, warp, here, reading)
        return None
    filled = streams.is_folder(output) or not streams.is_special(output)
    if launch.leads and not filled:
        asked = f"--gpus {launch.gpus}"
        raise DataError(f"{asked}: every rank writes into the output: name a file with -o")
    of_images = {"manifest": images.digest()}
    fields = {
        name: layers.of_the_model | {"layer": name, "shape": shape} | of_images
        for name, shape in layers.shapes.items()
    }
    widths = {name: math.prod(shape) for name, shape in layers.shapes.items()}
    with records.writing_features(output, fields) as files:
        shapes = [(len(images), width) for width in widths.values()]
        arrays: list[Any] = [(reading.dtype, shape) for shape in shapes]
        arrays += [("uint64", (len(images),))] * len(shapes)
        partials = begin(zip(files, arrays, strict=False), filled)
        if launch.leads:
            with deferring_stop(patient=True) as stopping:
                error = launch.lead(stopping, message=partials, resumable=False)
                if stopping():
                    raise Stopped(stopping())
            if error:
                raise error
        else:
            with launch.join() as here:
                outputs = [Filled(path) for path in partials] if filled else files
                write_rows(outputs, layers, images, warp, here, reading)
    written = ", ".join(f"{name} {width:,}" for name, width in widths.items())
    return f"{len(images):,} images, features: {written}{layers.left_out}"


def image_features(
    layers: Layers, pictures: Sequence[str | np.ndarray], root: str = ".", batch: int = 64
) -> dict[str, np.ndarray]:
    """Return {layer: features, float32 (N, D)} that LAYERS give for PICTURES.

    A picture is a path below ROOT, or RGB, uint8 H x W x 3; each is shown as extract-features shows
    it, so many in a BATCH, on the device of the network. Raises DataError for an unreadable file.
    """
    warp, device = Warp(layers.trunk.input_size), next(layers.trunk.parameters()).device
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers.names}
    for first in range(0, len(pictures), batch):
        shown = [
            warp(read(each, root) if isinstance(each, str) else torch.from_numpy(np.array(each)))
            for each in pictures[first : first + batch]
        ]
        for name, values in layers(torch.stack(shown).to(device)).items():
            parts[name].append(values.flatten(1).cpu().numpy())
    return {
        name: np.concatenate(blocks)
        if blocks
        else np.empty((0, math.prod(layers.shapes[name])), np.float32)
        for name, blocks in parts.items()
    }


def fill(
    reserve: Callable[[contextlib.ExitStack], list[str]],
    write: Callable[[list[Filled]], None],
) -> None:
    """WRITE arrays that the first rank makes by RESERVE, on all ranks: each writes its rows.

    RESERVE(stack) gives the names that they have until the stack ends, when they get their own.
    Raises Stopped on all ranks where WRITE does on any.
    """
    with contextlib.ExitStack() as stack:
        partials = collectives.from_first(lambda: reserve(stack))
        stopped = False
        try:
            write([Filled(path) for path in partials])
        except Stopped:
            stopped = True
        if any(collectives.gather(stopped)):  # here all ranks have written theirs
            raise Stopped
    collectives.gather(None)  # the first has put the files in their place


def begin(files: Iterable[tuple[BinaryIO, tuple[str, tuple[int, ...]]]], filled: bool) -> list[str]:
    """Write the headers of arrays into FILES, (stream, (dtype, shape)); return the names of these.

    Those that are to be FILLED in any order get their full size now: a disk without room for them
    is told before the work.
    """
    names = []
    for stream, (dtype, shape) in files:
        containers.write_array_header(stream, dtype, shape)
        if filled:
            stream.flush()
            size = math.prod(shape) * np.dtype(dtype).itemsize
            os.posix_fallocate(stream.fileno(), stream.tell(), size)
        names.append(stream.name)
    return names


def write_rows(
    outputs: Sequence[Any],
    layers: Layers,
    images: Manifest,
    transform: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    reading: Reading,
) -> None:
    """Put what rows() gives into OUTPUTS: an array or stream a layer, then the arrays of contents.

    Those are as many as layers, or none.
    """
    for first, blocks, contents in rows(layers, images, transform, device, reading):
        for output, block in zip(
            outputs, [*blocks.values(), *[contents] * len(blocks)], strict=False
        ):
            if isinstance(output, Filled):
                output.write(first, block)
            else:
                output.write(np.ascontiguousarray(block).data)


def rows(
    layers: Layers,
    images: Manifest,
    transform: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    reading: Reading,
) -> Iterator[tuple[int, dict[str, np.ndarray], np.ndarray]]:
    """Yield (line, {layer: features of it and the next, N x D}, contents) of this rank.

    Lines are from 0; contents, uint64 (N,), are by what the files are known. TRANSFORM makes of an
    image, uint8 H x W x 3, what LAYERS reads.
    """
    batch, dtype = reading.batch, reading.dtype
    layers.trunk.to(device)
    dataset = FingerprintedImages(images, reading.root, transform)
    # Every RANKS-th batch of the manifest: the same batches, and so the same bytes, on any number.
    every = BatchSampler(SequentialSampler(dataset), batch, drop_last=False)
    order = itertools.islice(every, RANK, None, RANKS)
    workers = -(-reading.workers // LOCAL_RANKS)
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        for number, (pixels, contents) in enumerate(loaded):
            first = (number * RANKS + RANK) * batch
            features = layers(pixels.to(device, non_blocking=True))
            blocks = {}
            for name, whole in features.items():
                with np.errstate(over="ignore"):
                    block = whole.flatten(1).cpu().numpy().astype(np.dtype(dtype))
                bad = np.flatnonzero(~np.isfinite(block).all(1))
                if len(bad):
                    message = f"{name} is NaN, or too large for {dtype}: see the network"
                    raise images.error(first + bad[0] + 1, message)
                blocks[name] = block
            yield first, blocks, contents.numpy().view(np.uint64)
            reading.progress(first + len(pixels), len(images))
    if layers.trunk.digest() != layers.of_the_model["model"]:
        raise AssertionError("the network changed while its features were taken")
