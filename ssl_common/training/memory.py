"""How much memory there is for a training."""

import os
import re
import resource

import torch

from ssl_common.training import torchrun

MEMBERSHIPS = "/proc/self/cgroup"
GROUPS = {  # of control groups, by which batch systems hold a job to its share
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    "": ("/sys/fs/cgroup", "memory.max"),
}


def available(device):
    """Return how many bytes a rank may still take on DEVICE: its GPU, or its share of this machine.

    What others on the machine let go of, or swap out, may count: with more it cannot work.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo", encoding="ascii") as stream:
        sizes = dict(re.findall(r"(\w+): *(\d+) kB", stream.read()))
    free = 1024 * sum(int(sizes[name]) for name in ("MemAvailable", "SwapFree"))
    return min(free, *_limits()) // torchrun.LOCAL_RANKS


def _limits():
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
