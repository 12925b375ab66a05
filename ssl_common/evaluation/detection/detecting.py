"""What a detector finds in images, one by one."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ssl_common import records, streams
from ssl_common.data import coco
from ssl_common.evaluation.detection import detections, networks, showing
from ssl_common.evaluation.detection.detections import Detections
from ssl_common.evaluation.detection.networks import Scene
from ssl_common.evaluation.detection.proposals import ImageList
from ssl_common.evaluation.detection.recipes import Design
from ssl_common.evaluation.detection.showing import of_this_rank, view
from ssl_common.models import networks as files
from ssl_common.processes import Stopped, deferring_stop
from ssl_common.progress import Progress, silent
from ssl_common.ranks import mailbox
from ssl_common.ranks.launch import Launch
from ssl_common.ranks.placement import IS_RANK, RANK
from ssl_common.streams import DataError


@dataclass(frozen=True)
class Writing:
    """Where detections go: to OUTPUT in the form FORMAT: jsonl, comp4 or coco.

    comp4 is a folder of files that are called by the class and SET; coco has the numbers of images
    and classes in the file ANNOTATIONS. A named file of jsonl gets a sidecar.
    """

    output: str = "-"
    format: str = "jsonl"
    set: str = "test"
    annotations: str | None = None

    def write(
        self, found: Iterable[Detections], content: Mapping[str, Any], images: Iterable[Any]
    ) -> tuple[int, int]:
        """Write FOUND in IMAGES by the detector CONTENT; return how many images and boxes."""
        counts = [0, 0]

        def counted() -> Iterator[Detections]:
            for each in found:
                counts[0] += 1
                counts[1] += len(each.boxes)
                yield each

        if self.format == "comp4":
            with streams.writing_folder(self.output) as folder:
                detections.write_comp4(folder, content["classes"], counted(), self.set)
        elif self.format == "coco":
            assert self.annotations is not None
            known = coco.ids((each.path for each in images), self.annotations)
            with streams.writing(self.output, binary=False) as stream:
                detections.write_coco(stream, *known, counted())
        elif streams.is_special(self.output):
            with streams.writing(self.output, binary=False) as stream:
                stream.writelines(map(detections.format_detections, counted()))
        else:
            both = [self.output, records.sidecar(self.output)]
            with streams.writing_together(both, removed=both[1:]) as (stream, beside):
                beside.write(records.sidecar_text(about(content)))
                stream.writelines(map(detections.format_detections, counted()))
        return counts[0], counts[1]


# What a record calls a setting, or that it has from elsewhere.
CALLED = {"seed": "detector_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"objects": "train_labels"}
ELSEWHERE = ("task", "arch", "classes", "model", "data_name")


def about(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sidecar of detections says of the detector CONTENT, as a record has it."""
    settings = content["settings"].items()
    of_training = {CALLED.get(key, key): value for key, value in settings if key not in ELSEWHERE}
    return dict(content["about"]) | of_training


@dataclass(frozen=True)
class Reading:
    """How images are read: by WORKERS, below ROOT; PROGRESS is told how many."""

    root: str = "."
    workers: int = 0
    progress: Progress = silent


def detect(
    detector: str,
    images: str,
    proposals: str | None,
    launch: Launch,
    reading: Reading,
    writing: Writing,
) -> str | None:
    """Write by WRITING what DETECTOR finds in IMAGES, a manifest or objects; return a message.

    It is None in a rank: where LAUNCH is of more GPUs than one, each is given every other image.
    Raises DataError for bad input, and where PROPOSALS are missing or of other images.
    """
    content = files.load_detector(detector)
    finder = Finder(content, detector, ImageList(images), proposals)
    if IS_RANK:
        with (
            launch.join() as device,
            open(os.path.join(mailbox.message(), str(RANK)), "wb") as stream,
        ):
            stream.writelines(map(detections.format_detections, finder.found(device, reading)))
        return None
    with contextlib.ExitStack() as stack:
        if launch.leads:
            found = _of_ranks(launch, stack.enter_context(streams.temporary_folder("detections")))
        else:
            found = finder.found(stack.enter_context(launch.join()), reading)
        count, boxes = writing.write(found, content, finder.images)
    return f"{count:,} images, {boxes:,} boxes"


def _of_ranks(launch: Launch, folder: str) -> Iterator[Detections]:
    """Run the ranks of LAUNCH, which write into FOLDER; yield what they found, image by image."""
    with deferring_stop(patient=True) as stopping:
        error = launch.lead(stopping, message=folder, resumable=False)
        if reason := stopping():
            raise Stopped(reason)
    if error:
        raise error
    with contextlib.ExitStack() as stack:
        parts = [
            stack.enter_context(open(os.path.join(folder, str(rank)), "rb"))
            for rank in range(launch.gpus)
        ]
        for part in itertools.cycle(parts):
            if not (line := part.readline()):
                return
            yield detections.parse(line, part.name)


class Finder:
    """The detector of CONTENT, of the file PATH, on IMAGES, with the file PROPOSALS if it is fast.

    Raises DataError where that is missing, or superfluous.
    """

    def __init__(
        self, content: dict[str, Any], path: str, images: ImageList, proposals: str | None
    ) -> None:
        settings, self.images, self.classes = content["settings"], images, content["classes"]
        known = [each.name for each in fields(Design) if settings.get(each.name) is not None]
        self.design = Design(**{name: settings[name] for name in known})
        if (self.design.head == "fast") != (proposals is not None):
            wanted = "leave out --proposals" if proposals else "give --proposals"
            raise DataError(f"{path}: trained with --head {self.design.head}: {wanted}")
        self.proposals = showing.proposed(proposals, images) if proposals else None
        self.made = networks.restored(content, self.design, path)

    def found(self, device: torch.device, reading: Reading) -> Iterator[Detections]:
        """Yield the Detections of every RANKS-th image, on DEVICE, in order.

        Each image goes through the network alone, so that what is found in it depends on nothing
        else.
        """
        for part in (self.made.frozen, self.made.network):
            part.to(device).to(memory_format=torch.channels_last).eval()
        shown = of_this_rank(self.images, reading.root, self.design, device, reading.workers)
        with contextlib.closing(shown) as pictures:
            for line, picture, height, width in pictures:
                yield self._of_image(line, picture, height, width)
                reading.progress(line + 1, len(self.images))

    def _of_image(self, line: int, picture: torch.Tensor, height: int, width: int) -> Detections:
        """Return the Detections in PICTURE, the image of LINE as shown, of HEIGHT x WIDTH."""
        how = view(height, width, self.design.size, self.design.max_size)
        proposals = None
        if self.proposals is not None:
            proposals = showing.given(self.proposals.of(line), how).to(picture.device)
        features = self.made.features(picture)
        boxes, labels, scores = self.made.network.detect(Scene(features, how.size, proposals))
        corners = how.original(boxes).cpu().numpy()
        return Detections(
            self.images[line].path,
            width,
            height,
            tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in map(_plain, corners)),
            tuple(self.classes[label - 1] for label in labels.tolist()),
            tuple(_plain(scores.cpu().numpy())),
        )


def _plain(values: np.ndarray) -> list[float]:
    """Return VALUES, float32, as the numbers of the fewest digits that are rounded to them."""
    return [float(str(value)) for value in values]
