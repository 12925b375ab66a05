"""How a command runs: alone, as the parent of ranks, or as one of them."""

import contextlib
import os
from collections.abc import Iterable

import torch

from ssl_common.ranks import collectives, devices, mailbox, parent
from ssl_common.ranks.placement import IS_RANK, LOCAL_RANKS, RANK
from ssl_common.streams import DataError


class Launch:
    """How a command runs on GPUS, on DEVICE or on a GPU if there is one.

    `leads` tells that it is the parent of ranks, `device` is "cpu" or "cuda". Raises DataError for
    GPUs that are not there.
    """

    def __init__(self, gpus: int, device: str | None) -> None:
        mailbox.enter()
        self.gpus = gpus
        self.leads = gpus > 1 and not IS_RANK
        self.device = devices.choose(device, gpus if self.leads else LOCAL_RANKS, self.leads)

    @property
    def speaks(self) -> bool:
        """Whether this process writes the messages: it is the only one, or the first rank."""
        return RANK == 0 and not self.leads

    def share(self, inputs: Iterable[str | None]) -> None:
        """Let every rank read the files INPUTS, standard input (-) among them.

        Raises DataError for a pipe, which one rank alone could read.
        """
        named = [path for path in inputs if path is not None]
        for path in named if self.leads else ():
            if path != "-" and os.path.exists(path) and not os.path.isfile(path):
                message = "every rank reads it: give a file, or - for standard input"
                raise DataError(f"{path}: {message}")
        if "-" in named:
            mailbox.share_input(self.leads)

    def lead(
        self,
        stopping: parent.Stopping,
        restarts: int = 0,
        message: object = None,
        resumable: bool = True,
    ) -> Exception | None:
        """Run the ranks, as parent.lead() does; return the error that ended them, or None."""
        return parent.lead(self.gpus, restarts, stopping, message, resumable)

    def join(self) -> contextlib.AbstractContextManager[torch.device]:
        """Join the other ranks, if any; the value of the context is the device of this one."""
        return collectives.join(self.device)
