"""Which rank of a torchrun this process is, and the folder of the command that leads it.

A process knows it by its environment, and that may be left over from another: it is believed where
it is whole.
"""

import contextlib
import os
import pathlib
import re
from typing import NamedTuple

from ssl_common.streams import DataError

RUN = "TORCHELASTIC_RUN_ID"
FOLDER = "SSL_BENCH_RANKS"  # the folder of the command that leads; its name is the id of the run
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
UNSURE = "unsure"  # the ending of last words where the reason may lie with another rank


class Place(NamedTuple):
    """The place of a process among RANKS, of which LOCAL_RANKS are on this machine.

    A rank died RESTARTED times.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    restarted: int


ALONE = Place(0, 1, 0, 1, 0)


def place() -> Place | None:
    """Return the Place that torchrun gave this process, None if no torchrun started it.

    Raises DataError where the environment is only in part that of a rank.
    """
    if not os.environ.get(RUN):
        return None
    given = {name: os.environ.get(name, "") for name in NUMBERS}
    wrong = [name for name, text in given.items() if not re.fullmatch("[0-9]{1,9}", text)]
    wrong += [name for name in ADDRESS if not os.environ.get(name)]
    fault = f"{', '.join(wrong)} is not what it gives them"
    if not wrong:
        here = Place(*map(int, given.values()))
        if here.local_rank <= here.rank < here.ranks and here.local_rank < here.local_ranks:
            return here
        fault = f"{', '.join(f'{name}={text}' for name, text in given.items())} is no rank"
    message = f"{RUN} is set, as by torchrun for its ranks, but {fault}"
    raise DataError(f"{message}: unset it, or start the command by torchrun")


def folder() -> pathlib.Path | None:
    """Return the folder of the mailbox of the command that leads this rank, or None."""
    path = os.environ.get(FOLDER, "")
    if not path or os.path.basename(path) != os.environ.get(RUN):
        return None  # left over from another run
    return pathlib.Path(path)


def last_words(sure: bool) -> pathlib.Path | None:
    """Return the file in which this rank reports its error, None for a process by itself.

    Unless it is SURE, the reason may be that another rank died.
    """
    with contextlib.suppress(DataError):
        if (here := place()) and (listens := folder()):
            return listens / f"{here.rank}.{'said' if sure else UNSURE}"
    return None


def _known() -> Place | None:
    with contextlib.suppress(DataError):  # mailbox.enter() says it, where it matters
        return place()
    return None


IS_RANK = _known() is not None
RANK, RANKS, LOCAL_RANK, LOCAL_RANKS, RESTARTED = _known() or ALONE
