"""The command line: what every command shares. It knows nothing of what the commands do."""

from ssl_common.cli.options import (
    allow_seen_option,
    declared,
    declared_by_kind,
    device_option,
    gpus_option,
    input_argument,
    max_bad,
    output_option,
    root_option,
    seed_option,
    tag_option,
    workers,
    workers_option,
)
from ssl_common.cli.talk import Progress, conversation, say
from ssl_common.cli.tool import command

__all__ = [
    "Progress",
    "allow_seen_option",
    "command",
    "conversation",
    "declared",
    "declared_by_kind",
    "device_option",
    "gpus_option",
    "input_argument",
    "max_bad",
    "output_option",
    "root_option",
    "say",
    "seed_option",
    "tag_option",
    "workers",
    "workers_option",
]
