"""Batches of a data set, read in parallel; the same with any number of workers."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from ssl_common import streams
from ssl_common.crew import side_by_side
from ssl_common.data import images, shards
from ssl_common.data.datasets import Dataset
from ssl_common.streams import DataError


def batches(
    dataset: Dataset, sampler: Iterable[Sequence[Any]], workers: int, pin: bool
) -> Generator[Any, None, None]:
    """Yield batches of DATASET in the order of SAMPLER, which yields lists of items.

    A batch is what the data set's `collate` makes of the items; without one, a list with a tensor
    for each part of an item, whose first axis is the items, or that tensor where an item has one
    part alone. WORKERS processes read, or this one if 0. PIN puts the tensors where a GPU can fetch
    them by itself. Close it: that ends the processes.
    """
    shards.look_anew()
    dataset.prepare()  # before there are workers: each would take as long

    def room(size: int) -> np.ndarray:
        if pin:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return np.empty(size, np.uint8)  # of large pages, where torch has small ones

    work = functools.partial(_batch, dataset)
    with contextlib.closing(side_by_side(work, sampler, workers, _use_one_thread, room)) as parts:
        for arrays in parts:
            batch = mapped(arrays, np.ndarray, torch.from_numpy)
            if pin and not workers:
                batch = mapped(batch, torch.Tensor, torch.Tensor.pin_memory)
            yield batch


def _batch(dataset: Dataset, items: Sequence[Any]) -> Any:
    """Return the batch of ITEMS of DATASET, with arrays for its tensors."""
    collate = getattr(dataset, "collate", default_collate)
    try:
        at_once = getattr(dataset, "__getitems__", None)
        batch = collate(at_once(items) if at_once else [dataset[item] for item in items])
    except (MemoryError, OSError, RuntimeError) as error:
        if lacks := images.lacking(error):
            raise DataError(f"{streams.name(dataset.manifest.path)}: {lacks}") from error
        raise
    return mapped(batch, torch.Tensor, torch.Tensor.numpy)


def mapped(tree: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Return TREE, as a batch: lists, tuples and dicts, with FUNCTION(each) of those of KIND."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, list | tuple):
        parts = [mapped(each, kind, function) for each in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: mapped(each, kind, function) for key, each in tree.items()}
    return tree


def _use_one_thread() -> None:
    """Let torch use one thread in a worker: an image is too small to divide."""
    torch.set_num_threads(1)
