"""The manifest of a data set on disk, by the name of its layout."""

import collections
import contextlib
from collections.abc import Sequence
from typing import Any, BinaryIO

from ssl_common import streams
from ssl_common.data import coco, layouts, shardlists
from ssl_common.progress import Progress, silent


def write(
    stream: BinaryIO,
    layout: str,
    operands: Sequence[str],
    split: str | None,
    workers: int,
    progress: Progress = silent,
    wids: str | None = None,
    image: str | None = None,
    **options: Any,
) -> str:
    """Write to STREAM the manifest of what OPERANDS name, a data set of LAYOUT, or shards.

    SPLIT is that of voc; the others are of shards: WORKERS, IMAGE and OPTIONS as shardlists.Options
    has them, and WIDS, a file for wids' list of them. Return what was written, in words.
    """
    if layout == "shards":
        paths = shardlists.named(operands)
        chosen = shardlists.Options(image.lower().encode() if image else None, **options)
        with contextlib.ExitStack() as stack:
            listing = stack.enter_context(streams.writing(wids, binary=False)) if wids else None
            said, counts = shardlists.write(stream, paths, chosen, workers, progress)
            if listing and wids:
                shardlists.write_wids(listing, wids, paths, counts)
        return said
    others: collections.Counter[str] = collections.Counter()
    rows: dict[str, Any] = {
        "voc": lambda: layouts.voc(operands[0], split or ""),
        "coco": lambda: coco.coco(*operands),
        "places205": lambda: layouts.places205(*operands),
        "folder": lambda: layouts.folder(operands[0], others),
    }
    return layouts.write(stream, rows[layout](), progress, others)
