"""The device that work runs on, what it can do and how much memory it has."""

import os
import re
import resource

import torch

from ssl_common.ranks.placement import LOCAL_RANKS
from ssl_common.streams import DataError

MEMBERSHIPS = "/proc/self/cgroup"
GROUPS = {  # of control groups, by which batch systems hold a job to its share
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    "": ("/sys/fs/cgroup", "memory.max"),
}


def choose(device: str | None, count: int, leads: bool) -> str:
    """Return DEVICE, or cuda where there is one; raise DataError where COUNT ranks lack GPUs.

    A process that LEADS is asked for GPUs: processors are not what it makes of it by itself.
    """
    gpus = torch.cuda.device_count()
    if leads and not gpus and device is None:
        raise DataError(f"--gpus {count}: no GPU here: --device cpu runs on processors")
    if device == "cuda" and not gpus:
        raise DataError("--device cuda: no GPU here that torch can use: see nvidia-smi")
    device = device or ("cuda" if gpus else "cpu")
    if device == "cuda" and count > gpus:
        raise DataError(f"{count} ranks on a machine with {gpus} GPUs: give --gpus {gpus}")
    return device


def lacks_bf16() -> bool:
    """Return whether the processor has no instructions to multiply bf16."""
    has = torch.cpu.get_capabilities()
    return not any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def available(device: torch.device) -> int:
    """Return how many bytes a rank may still take on DEVICE: its GPU, or its share of the memory.

    What others on the machine let go of, or swap out, may count: with more it cannot work.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo", encoding="ascii") as stream:
        sizes = dict(re.findall(r"(\w+): *(\d+) kB", stream.read()))
    free = 1024 * sum(int(sizes[name]) for name in ("MemAvailable", "SwapFree"))
    return min(free, *_limits()) // LOCAL_RANKS


def _limits() -> list[int]:
    """Return the limits, in bytes, of this process and of the control groups it is in."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    limits = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    with open(MEMBERSHIPS, encoding="utf-8") as stream:
        memberships = [line.rstrip("\n").split(":", 2) for line in stream]
    for _number, controller, group in memberships:
        if controller not in GROUPS:
            continue
        root, name = GROUPS[controller]
        while group.strip("/"):
            if os.path.exists(path := os.path.join(root, group.strip("/"), name)):
                with open(path, encoding="ascii") as stream:
                    limits += map(int, filter(str.isdigit, stream.read().split()))
            group = os.path.dirname(group)
    return limits
