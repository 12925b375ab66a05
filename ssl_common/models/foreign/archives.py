"""Files of weights, whatever holds them: what torch.save wrote at any time, safetensors, pickles.

Nothing in them is run; what asks for more than tensors and arrays is kept by its name alone.
"""

import io
import re
import struct
import tarfile
import zipfile
import zlib
from typing import IO, Any, BinaryIO, cast

import torch

from ssl_common import containers
from ssl_common.models import states
from ssl_common.models.foreign import pickles, safetensors
from ssl_common.models.foreign.pickles import Storage, Tensor
from ssl_common.streams import DataError

KINDS = "a file of torch.save, of safetensors or a pickle of arrays"
# How files begin that are no weights, what each is, and what to do.
OTHERS = (
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file: git lfs pull fetches it"),
    (rb"(\.\.)?/annex/objects/", "a pointer of git-annex, not the file: git annex get fetches it"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", "a web page: download the file itself"),
    (rb"\x1f\x8b", "packed by gzip: gunzip it"),
    (rb"BZh", "packed by bzip2: bunzip2 it"),
    (rb"\xfd7zXZ\x00", "packed by xz: unxz it"),
    (rb"\x28\xb5\x2f\xfd", "packed by zstd: unzstd it"),
    (rb"7z\xbc\xaf\x27\x1c", "packed by 7-Zip: unpack it"),
    (rb"Rar!\x1a\x07", "packed by RAR: unpack it"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it: save the weights with torch.save"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF|%PDF", "a picture or a document: name a file of weights"),
    (rb"\Z", "empty: get it again"),
)
MOST, DEEPEST = 1_000_000, 64  # names in a file, and dicts in one another
ADVICE = "save model.state_dict() with torch.save"
DAMAGED = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, EOFError,
    NotImplementedError, struct.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


def read(stream: BinaryIO, path: str) -> tuple[dict[str, Any], bytes]:
    """Return ({name: tensor or other value}, the bytes) of the file of weights open as STREAM.

    The tensors share the memory of the bytes: they are not to be written to. Names of dicts in
    dicts, and of the parts of objects, are joined by dots. What is neither tensor nor plain is a
    stand-in. PATH is what messages call the file. Raises DataError for what is no file of weights.
    """
    data = stream.read()
    whole = content(data, path)
    values = _flat(whole, path)
    if not any(isinstance(value, torch.Tensor) for value in values.values()):
        strangers = (v.name for v in (whole, *values.values()) if isinstance(v, pickles.Foreign))
        if stranger := next(strangers, None):
            asks = f"a pickle that asks for {stranger}, and has no weights; nothing of it was run"
            raise DataError(f"{path}: {asks}: {ADVICE}")
        raise DataError(f"{path}: no weights, but {states.kind(whole)}: {ADVICE}")
    return values, data


def _flat(whole: Any, path: str) -> dict[str, Any]:
    """Return the WHOLE of PATH as one dict by dotted names, its numbers as tensors."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [
        ("", whole, ())
    ]  # name, value, what holds it
    seen = 0
    while waiting:
        name, value, above = waiting.pop()
        inside, seen = _inside(value), seen + 1
        if seen > MOST or len(above) > DEEPEST:
            raise DataError(f"{path}: no weights: names are too many or too deep, as {name[:99]}")
        if inside is None:
            value = _numbers(value) if isinstance(value, pickles.Numbers) else value
            if name in flat and all(isinstance(v, torch.Tensor) for v in (value, flat[name])):
                raise DataError(f"{path}: two weights have the name {name[:99]}")
            if not isinstance(flat.get(name), torch.Tensor):
                flat[name] = value
        elif id(value) not in above:  # objects may hold one another
            parts = [(_joined(name, key), part) for key, part in inside.items()]
            waiting += [(key, part, (*above, id(value))) for key, part in reversed(parts)]
    return flat


def _inside(value: Any) -> dict[Any, Any] | None:
    """Return {key: part} of what is in VALUE, None where it is one thing."""
    if isinstance(value, dict):
        return value
    if isinstance(value, pickles.Foreign):
        return value.contents() or None
    if isinstance(value, (list, tuple)):
        holds = any(isinstance(part, (dict, pickles.Foreign)) for part in value)
        return dict(enumerate(value)) if holds else None
    return None


def _joined(name: str, key: Any) -> str:
    key = getattr(key, "name", None) or str(key)
    return f"{name}.{key}" if name else key


def _numbers(value: pickles.Numbers) -> Any:
    """Return the tensor, or for one number that, of a stand-in; itself where it makes none."""
    try:
        tensor = value.tensor()
    except ValueError:
        return value
    is_one = isinstance(value, pickles.ARRAYS) and tensor.numel() == 1 and tensor.dim() < 2
    return tensor.item() if is_one else tensor


def content(data: bytes, path: str) -> Any:
    """Return what the bytes DATA of a file of weights hold: containers with stand-ins and tensors.

    PATH is what messages call it. Raises DataError for another kind of file, told by name where it
    is known, and for a damaged one.
    """
    for begins, what in OTHERS:
        if re.match(begins, data[:512], re.DOTALL):
            raise DataError(f"{path}: {what}")
    try:
        if data.startswith(b"\x93NUMPY"):
            return pickles.read_npy(io.BytesIO(data), path)
        if data.startswith(b"PK\x03\x04"):
            return _of_zip(data, path)
        if pickles.MAGIC in data[:64]:
            return pickles.read_saved(io.BytesIO(data), path)
        if data[257:262] == b"ustar":
            return _of_tar(data, path)
        if containers.is_safetensors(data[: containers.SAFETENSORS_BEGIN]):
            return safetensors.read(data)
        if data[:1] == b"\x80" or data[:1] in b"(}]cl" and data.endswith(b"."):
            return pickles.read(io.BytesIO(data), path)
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:99] or type(error).__name__
        raise DataError(f"{path}: not a file of weights, or damaged ({reason})") from error
    if re.fullmatch(rb"[\t\n\r -~]+", data[:64]):
        text = data[:24].decode().splitlines()[0]
        raise DataError(f"{path}: not a file of weights, but text: {text!r} ...")
    raise DataError(f"{path}: not a file of weights, or damaged: {KINDS}")


# ---- torch.save, since 1.6 ----------------------------------------------------------------------


def _of_zip(data: bytes, path: str) -> Any:
    """Return what the zip archive DATA of torch.save, or torch.jit.save, holds."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
    pickled = min((n for n in members if n.endswith("data.pkl")), key=len, default=None)
    if not pickled:
        names = ", ".join(list(members)[:3])
        raise DataError(f"{path}: a zip archive of {names} ...: unpack it")
    folder, checked = pickled.removesuffix("data.pkl"), any(m.CRC for m in members.values())

    def member(name: str) -> memoryview:
        return _member(data, members[folder + name], checked)

    storages: dict[str, Storage] = {}
    whole = pickles.read(
        io.BytesIO(member("data.pkl")), path, lambda saved: pickles.storage(saved, storages)
    )
    swapped = f"{folder}byteorder" in members and member("byteorder") == b"big"
    for key, storage in storages.items():
        storage.take(member(f"data/{key}"), swapped)
    return whole


def _member(data: bytes, member: zipfile.ZipInfo, checked: bool) -> memoryview:
    """Return the part of the zip archive DATA that is MEMBER, by its checksum unless none was made.

    No copy: a network has hundreds of megabytes.
    """
    start = member.header_offset
    if data[start : start + 4] != b"PK\x03\x04" or member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is damaged, or packed")
    start += 30 + sum(struct.unpack_from("<HH", data, start + 26))  # behind its name
    inside = memoryview(data)[start : start + member.file_size]
    if len(inside) < member.file_size or checked and zlib.crc32(inside) != member.CRC:
        raise ValueError(f"the checksum of {member.filename} is wrong")
    return inside


# ---- torch.save, before 0.2 ---------------------------------------------------------------------


def _of_tar(data: bytes, path: str) -> Any:
    """Return what the tar archive DATA of torch.save holds: storages, tensors and a pickle."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        names = archive.getnames()
        if not {"storages", "tensors", "pickle"} <= set(names):
            raise DataError(f"{path}: a tar archive of {', '.join(names[:3])} ...: unpack it")
        storages, tensors, pickled = (
            io.BytesIO(cast(IO[bytes], archive.extractfile(name)).read())  # None: DAMAGED
            for name in ("storages", "tensors", "pickle")
        )
    known: dict[Any, Any] = {}  # storages and tensors, by their keys
    for _ in range(pickles.read(storages, path)):
        key, _where, kind = pickles.read(storages, path)
        (count,) = struct.unpack_from("<q", storages.getbuffer(), storages.tell())
        known[key] = Storage(kind.name, count)
        known[key].read(storages)
    for key, root, start, count in pickles.read(storages, path):
        whole = known[root]
        known[key] = Storage(whole.name, count, whole, start)
    for _ in range(pickles.read(tensors, path)):
        key, storage, _kind = pickles.read(tensors, path)
        (sides,) = struct.unpack("<i4x", tensors.read(8))
        shape, strides = (struct.unpack(f"<{sides}q", tensors.read(8 * sides)) for _ in range(2))
        (offset,) = struct.unpack("<q", tensors.read(8))
        known[key] = Tensor(known[storage], offset, shape, strides)

    def persistent(saved: Any) -> Any:
        return saved[0] if isinstance(saved, tuple) else known[int(saved)]

    return pickles.read(pickled, path, persistent)
