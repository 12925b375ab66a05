"""NYUv2 as its authors packed it -> files: images and depth, or the normals of Ladicky et al.

nyu_depth_v2_labeled.mat is HDF5, its axes in reverse; all_normals.pklz, of the paper's authors, is
a gzipped pickle. Of either one image is in memory at a time.
"""

import gzip
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from ssl_common import containers, streams
from ssl_common.data.targets import Pair
from ssl_common.evaluation.normals import labels
from ssl_common.evaluation.normals.labels import Check, Truth
from ssl_common.models.foreign import pickles
from ssl_common.processes import heed
from ssl_common.streams import DataError

HDF5, GZIP = b"\x89HDF\r\n\x1a\n", b"\x1f\x8b"
MILLIMETRES = 1000.0
LADICKY = Truth("ladicky", "nyuv2_surfacenormal_metadata")
LARGE = 1 << 20  # bytes of a string of a pickle that is kept on the disk
AXES = "xyz"


def kind(path: str) -> str:
    """Return what PATH holds by its first bytes, "labeled" or "normals"; DataError for neither."""
    with streams.regular(path) as stream:
        start = stream.read(len(HDF5))
        stream.seek(512)  # a MATLAB file has a block of its own before HDF5's
        after = stream.read(len(HDF5))
    if HDF5 in (start, after):
        return "labeled"
    if start.startswith(GZIP):
        return "normals"
    wanted = "nyu_depth_v2_labeled.mat, nor all_normals.pklz"
    raise DataError(f"{path}: neither {wanted}: unpack a .zip first")


# ---- nyu_depth_v2_labeled.mat -------------------------------------------------------------------


def unpack_labeled(path: str, folder: str, prefix: str, raw: bool = False) -> Iterator[Pair]:
    """Write images/0001.png and depth/0001.png ... of PATH into FOLDER; yield their pairs.

    Paths begin with PREFIX. Depth is in millimetres, uint16; with RAW that of the sensor, 0 where
    it saw nothing. Raises DataError where h5py is missing, or PATH is not that file.
    """
    try:
        import h5py
    except ImportError:
        missing = "nyu_depth_v2_labeled.mat is read by h5py, which is not installed"
        raise DataError(f"{path}: {missing}: pip install 'ssl-bench[nyuv2]'") from None
    for part in ("images", "depth"):
        os.mkdir(os.path.join(folder, part))
    with containers.understanding(path, "nyu_depth_v2_labeled.mat"), h5py.File(path, "r") as file:
        pictures, depths = file["images"], file["rawDepths" if raw else "depths"]
        count, colours, width, height = pictures.shape  # MATLAB's height x width x 3 x count
        if colours != 3 or depths.shape != (count, width, height) or pictures.dtype != np.uint8:
            raise ValueError(f"images {pictures.shape} and depths {depths.shape}")
        for index in range(count):
            heed()
            millimetres = np.rint(depths[index].astype(np.float64).T * MILLIMETRES)
            fits = (millimetres > 0) & (millimetres < 1 << 16)
            both = {
                "images": Image.fromarray(np.ascontiguousarray(pictures[index].transpose(2, 1, 0))),
                "depth": Image.fromarray(np.where(fits, millimetres, 0).astype(np.uint16)),
            }
            for part, image in both.items():
                _save(image, os.path.join(folder, part, name(index + 1)))
            yield Pair(*(os.path.join(prefix, part, name(index + 1)) for part in both))


def name(number: int) -> str:
    """Return what the picture NUMBER, from 1, is called."""
    return f"{number:04d}.png"


def _save(image: Image.Image, path: str) -> None:
    with streams.naming(path), open(path, "wb") as stream:
        image.save(stream, "PNG", compress_level=3)


# ---- all_normals.pklz ---------------------------------------------------------------------------


def unpack_normals(path: str, folder: str, prefix: str, negated: str = "") -> Iterator[str]:
    """Write the normals of PATH as 0001.png ... into FOLDER; yield their paths, after PREFIX.

    NEGATED are the axes, of x, y and z, that have the other sign there. Raises DataError for
    another file, and at the end where most normals turn their back on the camera.
    """
    signs = np.array([-1.0 if axis in negated else 1.0 for axis in AXES]).reshape(3, 1, 1)
    check = Check(path)
    with tempfile.TemporaryFile() as spool:
        with streams.regular(path) as raw, containers.understanding(path, "all_normals.pklz"):
            packed = gzip.GzipFile(fileobj=raw)
            content = _Spooling(packed, spool).load()
            if not isinstance(content, dict):
                raise ValueError("it holds no names")
            normals, masks = (_Frames(content[n], spool) for n in _NAMES[:2])
            numbers = _numbers(content.get(_NAMES[2]), len(normals))
            if len(masks) != len(normals):
                raise ValueError(f"{len(normals)} normals and {len(masks)} masks")
        for index, number in enumerate(numbers):
            heed()
            with containers.understanding(path, "all_normals.pklz"):
                found = np.moveaxis(normals[index].astype(np.float64), 2, 0) * signs
                length = np.sqrt((found**2).sum(0))
                known = masks[index].astype(bool) & (np.abs(length - 1) < 0.5)
                found = found / np.where(known, length, 1)
            check.count(found[:, known])
            target = os.path.join(folder, name(number))
            with streams.naming(target), open(target, "xb") as stream:
                stream.write(labels.written(np.where(known, found, 0), known, LADICKY))
            yield os.path.join(prefix, name(number))
    check.finish("see --negate")


_NAMES = ("all_normals", "all_valid_depth_masks", "all_filenames")


def _numbers(names: Any, count: int) -> Sequence[int]:
    """Return the numbers of COUNT images, by which their NAMES begin; those from 1 without."""
    if not isinstance(names, list) or len(names) != count:
        return range(1, count + 1)
    found = [re.match("[0-9]+", os.path.basename(each)) for each in names if isinstance(each, str)]
    numbers = [int(match[0]) for match in found if match]
    if len(set(numbers)) < count:
        return range(1, count + 1)
    return numbers


class _Spooled(NamedTuple):
    """SIZE bytes of the spool from START on: a large string of a pickle."""

    start: int
    size: int


class _Frames:
    """The arrays of images, by number from 0: FOUND is a list of them, or one array of all."""

    def __init__(self, found: Any, spool: BinaryIO) -> None:
        self.spool = spool
        self.each = found if isinstance(found, list) else None
        self.shape: tuple[int, ...] = ()
        if self.each is None:
            self.dtype, self.shape, self.data = self._opened(found)
        elif not all(isinstance(each, pickles.ARRAYS) for each in self.each):
            raise ValueError("a list of something else than arrays")

    def __len__(self) -> int:
        return self.shape[0] if self.each is None else len(self.each)

    def __getitem__(self, index: int) -> np.ndarray:
        if self.each is None:
            return self._part(self.dtype, self.shape[1:], self.data, index)
        dtype, shape, data = self._opened(self.each[index])
        return self._part(dtype, shape, data, 0)

    def _opened(self, array: Any) -> tuple[np.dtype, tuple[int, ...], Any]:
        """Return (type, shape, bytes or _Spooled) of what a pickle has as ARRAY, checked."""
        if not isinstance(array, pickles.ARRAYS):
            raise ValueError("something else than arrays")
        state: Any = array.state or (None,) * 5
        _version, shape, kind, fortran, data = state
        if not isinstance(data, _Spooled):
            plain = array.array()
            return plain.dtype, plain.shape, np.ascontiguousarray(plain).tobytes()
        dtype, shape = kind.dtype(), tuple(shape)
        if fortran or any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"an array of {shape}, or its columns first")
        if data.size != dtype.itemsize * int(np.prod(shape)):
            raise ValueError(f"an array of {shape} in {data.size} bytes")
        return dtype, shape, data

    def _part(self, dtype: np.dtype, shape: tuple[int, ...], data: Any, index: int) -> np.ndarray:
        size = dtype.itemsize * int(np.prod(shape))
        if isinstance(data, _Spooled):
            part = os.pread(self.spool.fileno(), size, data.start + index * size)
        else:
            part = data[index * size : (index + 1) * size]
        return np.frombuffer(part, dtype).reshape(shape)


class _Spooling(pickles.Reader):
    """The reader of stand-ins, which keeps LARGE strings in SPOOL, a file, as _Spooled."""

    def __init__(self, stream: Any, spool: BinaryIO) -> None:
        super().__init__(stream)
        self._spool = spool

    dispatch: ClassVar[Any] = dict(pickles.Reader.dispatch)

    def _load(self, size: int, usual: Callable[[bytes], Any]) -> None:
        if size < LARGE:
            self.append(usual(self.read(size)))  # type: ignore[attr-defined]
            return
        start, left = self._spool.seek(0, os.SEEK_END), size
        while left:
            heed()
            piece = self.read(min(left, LARGE))  # type: ignore[attr-defined]
            if not piece:
                raise EOFError("cut short")
            self._spool.write(piece)
            left -= len(piece)
        self._spool.flush()
        self.append(_Spooled(start, size))  # type: ignore[attr-defined]


def _string(length: int, signed: bool, decoded: bool) -> Callable[[_Spooling], None]:
    """Return what reads a string whose size is a number of LENGTH bytes before it."""

    def load(reader: Any) -> None:
        size = int.from_bytes(reader.read(length), "little", signed=signed)
        if size < 0:
            raise ValueError("a string of a size below 0")
        reader._load(size, (lambda data: data.decode("latin1")) if decoded else bytes)

    return load


_Spooling.dispatch[pickle.BINSTRING[0]] = _string(4, True, True)
_Spooling.dispatch[pickle.BINBYTES[0]] = _string(4, False, False)
_Spooling.dispatch[pickle.BINBYTES8[0]] = _string(8, False, False)
