"""Testing of a predictor of normals: one record, with what needs no network beside it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ssl_common import records, streams
from ssl_common.data import identity
from ssl_common.data.batches import batches
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.targets import PairList, decode_normals, format_pair
from ssl_common.evaluation.normals import codes, showing
from ssl_common.evaluation.normals.labels import Check, Label, Truth
from ssl_common.evaluation.normals.metrics import Angles, angles, in_fields
from ssl_common.evaluation.normals.pyramid import Body, Pyramid
from ssl_common.models import networks, registry, states
from ssl_common.progress import Progress
from ssl_common.ranks import devices
from ssl_common.streams import DataError

# What a record calls a setting, or that it has from elsewhere: from the network, or the test.
CALLED = {"seed": "normals_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"labels": "train_labels"}
ELSEWHERE = ("task", "arch", "model", "data_name", "code_error")


class Predictor:
    """The predictor that the file MODEL of train-normals holds, on DEVICE.

    `book` are its codes (K, 3), `mean` and `mean_image` those of the training labels.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        self.content = networks.load_normals(model)
        self.settings, self.device = self.content["settings"], device
        trunk = registry.unchanged(self.content, model, "train it again")
        self.body = Body(trunk, model)
        self.book = self.content["codes"]
        self.network = Pyramid(self.body.top, self.body.channels, len(self.book))
        states.fill(self.network, self.content["network"], model, f"normals on {trunk.name}")
        for network in (trunk, self.network):
            network.to(device).to(memory_format=torch.channels_last).eval()
        self.mean, self.mean_image = (
            self.content[name].numpy().astype(np.float64) for name in ("mean", "mean_image")
        )

    def shown(self, image: torch.Tensor) -> torch.Tensor:
        """Return IMAGE, uint8 H x W x 3, as it is shown in testing."""
        return showing.shown(image, self.settings["test_side"], self.settings["longest"])

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor, size: Sequence[int]) -> np.ndarray:
        """Return the normals, float32 3 x H x W of SIZE (H, W), of PIXELS, an image as shown()."""
        whole = showing.padded(pixels, showing.full_size([pixels]))
        scores = self.network(self.body(whole[None].to(self.device)))[0]
        normals = showing.normals_of(
            scores, self.book.to(self.device), pixels.shape[:2], size, self.body.stride,
            self.body.first,
        )  # fmt: skip
        return normals.cpu().numpy()

    def mean_at(self, size: Sequence[int]) -> np.ndarray:
        """Return the mean image at SIZE (H, W), float64 3 x H x W, of any length above 0."""
        rows, columns = (
            showing.spreading(there, there, count, there / count, there / count / 2 - 0.5)
            for there, count in zip(size, self.mean_image.shape[:2], strict=True)
        )
        whole = np.einsum("yh,hwc,xw->cyx", rows, self.mean_image, columns)
        nothing = ~whole.any(0)
        return np.where(nothing, self.mean[:, None, None], whole)


class Tested(SequentialImages):
    """The images of PAIRS as PREDICTOR is shown them, with their labels, in order."""

    def __init__(self, pairs: PairList, root: str, predictor: Predictor) -> None:
        super().__init__(pairs, root, torch.Tensor.contiguous)
        self.pairs = pairs
        self.side, self.longest = (predictor.settings[n] for n in ("test_side", "longest"))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, tuple[Any, Any]]:
        image = self.read(index)
        picture = showing.picture_of(self.pairs, index, self.store, image)
        truth = picture.truth.ground_truth, picture.truth.rule
        pixels = showing.shown(image, self.side, self.longest).contiguous()
        return pixels, torch.from_numpy(decode_normals(picture.pixels)), truth

    def collate(self, items: Sequence[Any]) -> Any:
        """Return the only one of ITEMS: images have all sizes."""
        return items[0]


def predicted(
    predictor: Predictor, pairs: PairList, root: str, workers: int, count: int | None = None
) -> Iterator[tuple[torch.Tensor, Label, np.ndarray]]:
    """Yield (image as it is shown, label, predicted normals) of the lines of PAIRS, or COUNT."""
    order = ([index] for index in range(count or len(pairs)))
    dataset = Tested(pairs, root, predictor)
    with contextlib.closing(batches(dataset, order, workers, False)) as loaded:
        for number, (pixels, normals, truth) in enumerate(loaded, 1):
            label = Label(normals.numpy(), Truth(*truth))
            found = predictor(pixels, label.normals.shape[1:])
            if not np.isfinite(found).all():
                raise pairs.error(number, "the predictor gives no finite numbers: train it again")
            yield pixels, label, found


def evaluate(
    model: str,
    pairs: str,
    ground_truth: str | None,
    tags: dict[str, str],
    root: str,
    device: str | None,
    workers: int,
    progress: Progress,
    allow_seen: bool = False,
) -> dict[str, Any]:
    """Return the record of MODEL, of train-normals, on PAIRS, without provenance.

    GROUND_TRUTH says what the labels are, where their pictures do not. Raises DataError for another
    file, for images it was trained on unless ALLOW_SEEN, and for labels that are refused.
    """
    listed, here = PairList(pairs), torch.device(devices.choose(device, 1, False))
    predictor = Predictor(model, here)
    seen = identity.unseen(listed, root, predictor.content, model, allow_seen)
    check, book = Check(listed.path), predictor.book.numpy()
    own, constant, mean_image, floor = (Angles() for _ in range(4))
    found = predicted(predictor, listed, root, workers)
    with contextlib.closing(found):  # type: ignore[type-var]
        for line, (_pixels, label, normals) in enumerate(found, 1):
            check.see(label, line)
            if line == 1:
                truth = _truth(label.truth, ground_truth, listed)
            known = label.known
            right = label.normals[:, known]
            own.add(angles(normals[:, known], right))
            constant.add(angles(predictor.mean[:, None], right))
            mean_image.add(angles(predictor.mean_at(known.shape)[:, known], right))
            floor.add(codes.errors(right, book))
            progress(line, len(listed))
    check.finish()
    pooled = own.pooled()
    figures = {"value": pooled["median"], "pixels": own.pixels, "code_error": floor.median()}
    figures |= in_fields(pooled) | in_fields(own.per_image(), "per_image_")
    figures |= in_fields(constant.pooled(), "constant_")
    figures |= in_fields(mean_image.pooled(), "mean_image_")
    return _common(predictor, model, listed, truth, tags) | seen | figures


def _truth(truth: Truth, said: str | None, pairs: PairList) -> Truth:
    """Return TRUTH, of the pictures of PAIRS, or what was SAID of them where they say nothing."""
    if truth.ground_truth is None and said is None:
        message = "its pictures do not say what their normals were made from: --ground-truth does"
        raise DataError(f"{streams.name(pairs.path)}: {message}")
    if said and truth.ground_truth not in (None, said):
        message = f"its pictures say {truth.ground_truth}"
        raise DataError(f"--ground-truth {said}: {streams.name(pairs.path)}: {message}")
    return replace(truth, ground_truth=truth.ground_truth or said)


def _common(
    predictor: Predictor, model: str, pairs: PairList, truth: Truth, tags: dict[str, str]
) -> dict[str, Any]:
    """Return the fields of a record that follow from its inputs and TAGS."""
    about, settings = predictor.content["about"], predictor.settings.items()
    said = {key: value for key, value in about.items() if key != "format"} | {
        "task": "normals",
        "data_set": records.data_set(pairs.path, tags),
        "metric": "median error",
        "ground_truth": truth.ground_truth,
        "rule": truth.rule,
        "layer": predictor.body.layer,
        **{CALLED.get(key, key): value for key, value in settings if key not in ELSEWHERE},
        "test_images": len(pairs),
        "test_manifest": pairs.digest(),
        "inputs": {
            "model": streams.file_digest(model),
            "manifest": streams.digest(map(format_pair, pairs)),
        },
    }
    return records.tagged(said, tags, model)
