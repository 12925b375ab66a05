"""Whether two lists show the same images: contents before places before paths."""

import hashlib

import numpy as np
import pytest

from ssl_common.data.identity import Images, check_unseen, fingerprint, paths, places
from ssl_common.data.manifest import Manifest
from ssl_common.streams import DataError


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Return a function that writes a list of paths and reads it; the current folder is new."""
    monkeypatch.chdir(tmp_path)

    def listed(*names):
        (tmp_path / "m.tsv").write_text("".join(f"{name}\n" for name in names))
        return Manifest("m.tsv")

    return listed


def test_an_image_is_known_by_sha256(listed):
    found = paths(listed("a.jpg", "b/c.jpg"))
    assert found.dtype == np.uint64 and len(found) == 2
    assert found[1].tobytes() == hashlib.sha256(b"b/c.jpg").digest()[:8]  # as earlier files have it
    assert fingerprint(b"b/c.jpg") == found[1]


def test_a_place_is_where_the_file_lies(listed, tmp_path):
    spellings = ["real/a.jpg", "./real//a.jpg", "x/../real/a.jpg", f"{tmp_path}/real/a.jpg"]
    found = places(listed(*spellings), ".")
    assert set(found.tolist()) == {fingerprint(b"real/a.jpg")}
    assert places(listed("a.jpg"), "real") == found[0] == places(listed("a.jpg"), "./x/../real/")
    assert places(listed("a.jpg"), ".") != found[0]
    assert places(listed("/bin/sh"), ".") == fingerprint(b"/bin/sh") == places(listed("sh"), "/bin")


NONE, ONE, TWO, FOUR = None, [7, 1], [7, 2], [9, 4]


@pytest.mark.parametrize(
    "ours, theirs, by",
    [
        # (paths, places, contents) of two lists; the second image is the same where all it has is
        ((ONE, NONE, NONE), (FOUR, NONE, NONE), None),
        ((ONE, NONE, NONE), (ONE, NONE, NONE), "paths"),
        ((ONE, ONE, NONE), (ONE, NONE, NONE), "paths"),  # of one it is not known where it lies
        ((ONE, ONE, NONE), (ONE, FOUR, NONE), None),  # equal names in train/ and val/
        ((FOUR, ONE, NONE), (ONE, ONE, NONE), "places"),  # another spelling
        ((ONE, ONE, ONE), (ONE, ONE, FOUR), None),  # a file that was replaced
        ((FOUR, FOUR, ONE), (ONE, ONE, ONE), "contents"),  # a copy
        ((ONE, NONE, ONE), (ONE, NONE, NONE), "paths"),
    ],
)
def test_what_decides(listed, ours, theirs, by):
    manifest = listed("a.jpg", "b.jpg")
    both = [
        Images(*(each and np.array(each, np.uint64) for each in side)) for side in (ours, theirs)
    ]
    if by is None:
        assert check_unseen(manifest, *both, "svm.npz") == {}
        return
    with pytest.raises(
        DataError, match=r"^m.tsv:1: a.jpg .*svm.npz was trained on \(2 such lines\)"
    ):
        check_unseen(manifest, *both, "svm.npz")
    assert check_unseen(manifest, *both, "svm.npz", allowed=True) == {"seen": 2, "seen_by": by}
