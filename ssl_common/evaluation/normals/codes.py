"""A book of normals: the codes that a predictor chooses among, learned from training labels.

The labels of the list are looked at once, at the same places of every image; what is there gives
the codes, the mean normal and the mean image, against which a predictor is measured.
"""

from dataclasses import dataclass

import numpy as np

from ssl_common import containers, streams
from ssl_common.data.targets import PairList, decode_normals
from ssl_common.evaluation.normals import labels
from ssl_common.evaluation.normals.labels import Check, Label, Truth
from ssl_common.evaluation.normals.metrics import angles
from ssl_common.streams import DataError

MOST = 1000  # codes

SURVEYED = 1000  # images at most, evenly over the list
ROWS, COLUMNS = 24, 32  # places of each
LEARNED = 100_000  # normals at most that the codes are learned from
ROUNDS = 100  # of k-means at most


@dataclass(frozen=True)
class Survey:
    """What the labels of a list hold: NORMALS (3, n), their TRUTH, and the MEAN_IMAGE.

    That is the mean normal of each place, ROWS x COLUMNS x 3, of any length; `mean` is that of all,
    of length 1.
    """

    normals: np.ndarray
    truth: Truth
    mean_image: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The direction of the mean normal, (3,)."""
        return unit(self.normals.astype(np.float64).mean(1))


def survey(pairs: PairList, root: str) -> Survey:
    """Return the Survey of the labels of PAIRS, below ROOT.

    Raises DataError for labels of two kinds, or that turn their back on the camera.
    """
    check, found = Check(pairs.path), list[np.ndarray]()
    total = np.zeros((3, ROWS, COLUMNS))
    for line in range(0, len(pairs), -(-len(pairs) // SURVEYED)):
        pixels, truth = labels.read_picture(pairs, line, root)
        rows, columns = (
            ((np.arange(n) + 0.5) * size / n).astype(int)
            for n, size in zip((ROWS, COLUMNS), pixels.shape[:2], strict=True)
        )
        places = decode_normals(pixels[rows[:, None], columns])
        check.see(Label(places, truth), line + 1)
        total += places
        found.append(places[:, np.asarray(places.any(0))])
    check.finish()
    normals = np.concatenate(found, axis=1)
    return Survey(normals, check.truth, np.moveaxis(total / len(found), 0, 2))


def learn(normals: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return COUNT codes for NORMALS (3, n): spherical k-means (Dhillon and Modha, 2001).

    float32 (COUNT, 3), of length 1, drawn from SEED. It begins as k-means++ does, with the distance
    1 - cosine, and ends where no normal changes its code. Raises DataError for fewer normals.
    """
    every = normals[:, :: -(-normals.shape[1] // LEARNED)].T.astype(np.float64)
    if len(np.unique(every.round(6), axis=0)) < count:
        raise DataError(f"the labels have fewer than {count} normals: give a smaller --codes")
    rng = np.random.default_rng(seed)
    codes = every[rng.integers(len(every))][None]
    nearest = 1 - every @ codes[0]
    for _ in range(count - 1):
        chances = nearest.clip(0)
        chosen = every[rng.choice(len(every), p=chances / chances.sum())]
        codes = np.vstack([codes, chosen])
        nearest = np.minimum(nearest, 1 - every @ chosen)
    before: np.ndarray | None = None
    for _ in range(ROUNDS):
        own = (every @ codes.T).argmax(1)
        if before is not None and (own == before).all():
            break
        sums = np.stack([np.bincount(own, axis, count) for axis in every.T], axis=1)
        empty = np.asarray(~sums.any(1))  # a code of no normal stays where it is
        codes, before = np.where(empty[:, None], codes, unit(sums.T).T), own
    return codes.astype(np.float32)


def read(path: str) -> np.ndarray:
    """Return the codes in the file PATH, float32 (K, 3), of length 1.

    It is a .npy of K x 3 numbers, or the authors' vocab40.mat. Raises DataError for another file,
    for what is no direction, and for codes that turn their back on the camera.
    """
    name = streams.name(path)
    found = _read_mat(path) if path.endswith(".mat") else np.asarray(containers.read_array(path))
    if found.ndim != 2 or found.shape[1] != 3 or found.dtype.kind not in "fiu":
        raise DataError(f"{name}: {found.dtype} {found.shape}, where codes are K x 3 numbers")
    codes = found.astype(np.float64).T
    lengths = np.sqrt((codes**2).sum(0))
    if not (1 < len(found) <= MOST and np.isfinite(lengths).all() and (lengths > 0).all()):
        raise DataError(f"{name}: codes are 2 to {MOST:,} rows of numbers, none of them 0, 0, 0")
    if np.median(angles(codes, labels.AXIS[:, None])) > 90:
        raise DataError(f"{name}: most codes have their back to the camera: negate the z of all")
    return unit(codes).T.astype(np.float32)


def _read_mat(path: str) -> np.ndarray:
    """Return vocabs{1}.normals of the MATLAB file PATH, where the authors' vocab40.mat has them."""
    from scipy import io  # scikit-learn needs it too

    with (
        streams.regular(path) as stream,
        containers.understanding(path, "the authors' vocab40.mat"),
    ):
        return np.asarray(io.loadmat(stream)["vocabs"].flat[0]["normals"].flat[0])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return VECTORS (3, ...) at length 1; those of length 0 as they are."""
    length = np.sqrt((vectors**2).sum(0))
    return vectors / np.where(length > 0, length, 1)


def nearest(normals: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the number of the code, of CODES (K, 3), that is nearest to each of NORMALS (3, n)."""
    return np.asarray((codes @ normals).argmax(0))


def errors(normals: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return how far the nearest of CODES is from each of NORMALS (3, n), in degrees.

    No predictor by these codes can be sure of less.
    """
    return angles(codes[nearest(normals, codes)].T, normals)
