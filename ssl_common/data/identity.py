"""Whether two lists show the same images: by what their files hold, by where they lie, or by path.

An image is known by the first 8 bytes, little endian, of a SHA-256: of its file, of the path that
was opened, or of the path in the list.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_common.data.manifest import Manifest

SEEN = {  # how it was told -> what a message says of an image of both lists
    "contents": "holds the bytes of an image that {} was trained on",
    "places": "is an image that {} was trained on",
    "paths": "is the path of an image that {} was trained on",
}
ADVICE = {
    "contents": "leave them out, or measure on them too with --allow-seen",
    "places": "leave them out, or measure on them too with --allow-seen",
    "paths": "leave them out, or give --allow-seen if they are other images",
}


class Images(NamedTuple):
    """By what the images of a list are known, uint64 (N,) each; None where it is not."""

    paths: np.ndarray  # as the list has them
    places: np.ndarray | None = None  # where they lie, whatever the spelling
    contents: np.ndarray | None = None  # the bytes of the files

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is known, by its name."""
        return {name: known for name, known in self._asdict().items() if known is not None}


def ordered(images: Images) -> Images:
    """Return IMAGES in no order of theirs: what is left of a training."""
    return Images(*(known if known is None else np.sort(known) for known in images))


def known(data: bytes) -> int:
    """Return by what DATA is known, 64 bits."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def known_file(stream: BinaryIO) -> int:
    """Return by what the bytes of STREAM, a file, are known: known(), as a signed number."""
    data = hashlib.file_digest(stream, "sha256").digest()[:8]
    return int.from_bytes(data, "little", signed=True)  # torch has no arrays of unsigned ones


def _all_known(texts: Iterable[str], count: int) -> np.ndarray:
    return np.fromiter((known(os.fsencode(text)) for text in texts), np.uint64, count)


def paths(manifest: Manifest) -> np.ndarray:
    """Return by what the images of MANIFEST are known by path, uint64 (N,)."""
    return _all_known((row.path for row in manifest), len(manifest))


def places(manifest: Manifest, root: str) -> np.ndarray:
    """Return by what the images of MANIFEST, read from ROOT, are known by place, uint64 (N,).

    A place is a path without detours, from the current folder on if it lies in it: what is written
    of it does not depend on where that folder is. Links are not resolved, for the same reason.
    """
    here = os.path.join(os.getcwd(), root)
    current = os.path.join(os.getcwd(), "")
    places = (os.path.normpath(os.path.join(here, row.path)) for row in manifest)
    return _all_known((place.removeprefix(current) for place in places), len(manifest))


def check_unseen(
    manifest: Manifest, ours: Images, theirs: Images, source: str, allowed: bool = False
) -> dict[str, object]:
    """Raise DataError naming a line of MANIFEST, OURS, that is among THEIRS: what SOURCE saw.

    What the files hold decides where it is known of both, then where they lie, then the paths. If
    it is ALLOWED, return instead what a record says of it: how many, and by what they were told.
    """
    for by in SEEN:
        mine, trained = getattr(ours, by), getattr(theirs, by)
        if mine is not None and trained is not None:
            break
    lines = np.flatnonzero(np.isin(mine, trained))
    if not len(lines):
        return {}
    if allowed:
        return {"seen": len(lines), "seen_by": by}
    line = int(lines[0]) + 1
    message = f"{manifest[line - 1].path} {SEEN[by].format(source)} ({len(lines)} such lines)"
    raise manifest.error(line, f"{message}: {ADVICE[by]}")
