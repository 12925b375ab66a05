"""The number of threads of torch, set for a block of code and then restored."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def sharing(count: int) -> Iterator[None]:
    """Let COUNT threads share each product of torch in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def side_by_side(count: int, each: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of COUNT threads; EACH threads share a product of one of them."""
    import torch

    # Setting it in a thread sets it for all that start later.
    with (
        sharing(torch.get_num_threads()),
        ThreadPoolExecutor(count, "", torch.set_num_threads, (each,)) as pool,
    ):
        yield pool
