"""The items of a data set in batches, read side by side: any number of workers gives the same."""

import contextlib
import functools
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from ssl_common import streams
from ssl_common.crew import side_by_side
from ssl_common.data import images
from ssl_common.data.datasets import Dataset
from ssl_common.streams import DataError


def batches(
    dataset: Dataset, sampler: Iterable[Sequence[Any]], workers: int, pin: bool
) -> Generator[Any, None, None]:
    """Yield batches of DATASET in the order of SAMPLER, which yields lists of items.

    A batch is a list with a tensor for each part of an item, whose first axis is the items; where
    an item has one part alone, it is that tensor. WORKERS processes read, or this one if 0. PIN
    puts the tensors where a GPU can fetch them by itself. Close it: that ends the processes.
    """
    dataset.prepare()  # before there are workers: each would take as long

    def room(size: int) -> np.ndarray:
        if pin:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return np.empty(size, np.uint8)  # of large pages, where torch has small ones

    work = functools.partial(_batch, dataset)
    with contextlib.closing(side_by_side(work, sampler, workers, _use_one_thread, room)) as parts:
        for arrays in parts:
            batch = [torch.from_numpy(array) for array in arrays]
            if pin and not workers:
                batch = [tensor.pin_memory() for tensor in batch]
            yield batch if len(batch) > 1 else batch[0]


def _batch(dataset: Dataset, items: Sequence[Any]) -> list[np.ndarray]:
    """Return ITEMS of DATASET as arrays, one of each part of an item, whose first axis they are."""
    try:
        at_once = getattr(dataset, "__getitems__", None)
        batch = default_collate(at_once(items) if at_once else [dataset[item] for item in items])
    except (MemoryError, OSError, RuntimeError) as error:
        if lacks := images.lacking(error):
            raise DataError(f"{streams.name(dataset.manifest.path)}: {lacks}") from error
        raise
    return [tensor.numpy() for tensor in (batch if isinstance(batch, list) else [batch])]


def _use_one_thread() -> None:
    """Let torch use one thread in a process that reads: an image is too small to share."""
    torch.set_num_threads(1)
