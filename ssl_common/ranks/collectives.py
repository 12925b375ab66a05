"""What the ranks of a run do together; a process without others is the first rank of one."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed

from ssl_common.ranks.placement import LOCAL_RANK, RANK, RANKS

T = TypeVar("T")


@contextlib.contextmanager
def join(device: str) -> Iterator[torch.device]:
    """Join the ranks of this run, where there are any; yield the torch.device of this one.

    DEVICE is what devices.choose() gave.
    """
    here = torch.device(device)
    if here.type == "cuda":
        here = torch.device("cuda", LOCAL_RANK)
        torch.cuda.set_device(here)
    if RANKS == 1:
        yield here
        return
    # gloo is for what the ranks agree on: it travels between processors.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo")
    yield here
    # DistributedDataParallel lies in a cycle, and holds the group: gloo would abort at the end.
    gc.collect()
    distributed.destroy_process_group()


def parallel(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return NETWORK, with its gradients averaged over the ranks, if there are several."""
    if RANKS == 1:
        return network
    return torch.nn.parallel.DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def from_first(make: Callable[[], T]) -> T:
    """Return on every rank what MAKE() returns on the first."""
    box: list[Any] = [make() if RANK == 0 else None]
    if RANKS > 1:
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def total(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over the ranks of VALUES, which may be overwritten."""
    if RANKS > 1:
        distributed.all_reduce(values)
    return values


def totals(*numbers: int) -> list[int]:
    """Return the sum over the ranks of each of NUMBERS, whole, without waiting for a GPU."""
    if RANKS == 1:
        return list(numbers)
    return total(torch.tensor(numbers, dtype=torch.int64)).tolist()


def least(number: torch.Tensor) -> int | float:
    """Return the minimum over the ranks of NUMBER, a tensor of one element."""
    number = number.cpu()
    if RANKS > 1:
        distributed.all_reduce(number, distributed.ReduceOp.MIN)
    return number.item()


def gather(value: T) -> list[T]:
    """Return the VALUE, of any type, of each rank, as a list."""
    values = [value] * RANKS
    if RANKS > 1:
        distributed.all_gather_object(values, value)
    return values


def random_states() -> list[list[torch.Tensor]]:
    """Return the states of torch's random numbers on each rank: its processor's, and its GPU's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return gather(states)


def set_random_states(states: list[list[torch.Tensor]]) -> None:
    """Restore the result of random_states(), on as many ranks of the same kind."""
    if len(states) != RANKS:
        return  # fewer ranks with more micro-batches each: nothing that they draw is the same
    own = states[RANK]
    torch.set_rng_state(own[0])
    if own[1:] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(own[1])
