"""Whether two lists share images: by the content of the files, their places, or their paths.

The fingerprint of an image is the first 8 bytes, little endian, of a SHA-256: of its file, of the
path that was opened, or of the path in the list.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_common.data.lines import Lines

REASONS = {  # what both are known by -> what a message says of an image of both lists
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
    """The fingerprints of the images of a list, uint64 (N,) each; None where there are none."""

    paths: np.ndarray  # as the list has them
    places: np.ndarray | None = None  # where they lie, whatever the spelling
    contents: np.ndarray | None = None  # the bytes of the files

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fingerprints that are known, by name."""
        return {name: each for name, each in self._asdict().items() if each is not None}

    def tensors(self) -> dict[str, Any]:
        """Return arrays() as a file of torch.save holds them: int64, as torch has no others."""
        import torch  # here: who compares lists needs none

        return {name: torch.from_numpy(each.view(np.int64)) for name, each in self.arrays().items()}


def of_list(manifest: Lines[Any], root: str) -> Images:
    """Return what the images of MANIFEST, below ROOT, are known by without opening them."""
    return Images(paths(manifest), places(manifest, root))


def of_tensors(content: Mapping[str, Any]) -> Images:
    """Return the Images whose tensors() are among CONTENT; files of 0.2.0 have no places."""
    places = content.get("places")
    return Images(
        content["paths"].numpy().view(np.uint64),
        None if places is None else places.numpy().view(np.uint64),
    )


def sort(images: Images) -> Images:
    """Return IMAGES sorted by number, which hides their order in the list."""
    places, contents = (None if part is None else np.sort(part) for part in images[1:])
    return Images(np.sort(images.paths), places, contents)


def fingerprint(data: bytes) -> int:
    """Return the fingerprint of DATA: the first 64 bits of its SHA-256, little endian."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def file_fingerprint(stream: Any) -> int:
    """Return the fingerprint of the rest of STREAM, as a signed number."""
    data = hashlib.file_digest(stream, "sha256").digest()[:8]
    return int.from_bytes(data, "little", signed=True)  # torch has no arrays of unsigned ones


def _fingerprints(texts: Iterable[str], count: int) -> np.ndarray:
    return np.fromiter((fingerprint(os.fsencode(text)) for text in texts), np.uint64, count)


def paths(manifest: Lines[Any]) -> np.ndarray:
    """Return the fingerprints of the paths of MANIFEST, as they stand there, uint64 (N,)."""
    return _fingerprints((row.path for row in manifest), len(manifest))


def places(manifest: Lines[Any], root: str) -> np.ndarray:
    """Return the fingerprints of where the images of MANIFEST lie, read from ROOT, uint64 (N,).

    A place is a path without detours, from the current folder on if it lies in it: what is written
    of it does not depend on where that folder is. Links are not resolved, for the same reason.
    """
    here = os.path.join(os.getcwd(), root)
    current = os.path.join(os.getcwd(), "")
    places = (os.path.normpath(os.path.join(here, row.path)) for row in manifest)
    return _fingerprints((place.removeprefix(current) for place in places), len(manifest))


def unseen(
    manifest: Lines[Any], root: str, content: Mapping[str, Any], source: str, allowed: bool
) -> dict[str, object]:
    """Return what check_unseen() does of the images of MANIFEST, which lie below ROOT.

    Those that SOURCE was trained on are in its CONTENT, as of_tensors() reads them.
    """
    return check_unseen(manifest, of_list(manifest, root), of_tensors(content), source, allowed)


def check_unseen(
    manifest: Lines[Any], ours: Images, theirs: Images, source: str, allowed: bool = False
) -> dict[str, object]:
    """Raise DataError naming the first line of MANIFEST whose image SOURCE was trained on.

    OURS are the images of MANIFEST, THEIRS those that SOURCE was trained on. They are compared by
    the contents of the files if both have these fingerprints, else by places, else by paths. If it
    is ALLOWED, return instead the fields of a record: how many lines, and by what; {} for none.
    """
    for by in REASONS:
        mine, trained = getattr(ours, by), getattr(theirs, by)
        if mine is not None and trained is not None:
            break
    lines = np.flatnonzero(np.isin(mine, trained))
    if not len(lines):
        return {}
    if allowed:
        return {"seen": len(lines), "seen_by": by}
    line = int(lines[0]) + 1
    message = f"{manifest[line - 1].path} {REASONS[by].format(source)} ({len(lines)} such lines)"
    raise manifest.error(line, f"{message}: {ADVICE[by]}")
