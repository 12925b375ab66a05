"""safetensors: the length of a header, the header in JSON, then the numbers of each tensor.

https://github.com/huggingface/safetensors, "Format": no holes between the tensors, and metadata is
of strings alone.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

from ssl_common import containers
from ssl_common.models.foreign import pickles

METADATA = "__metadata__"
ALIGNED = 8  # bytes that the numbers begin at a multiple of
# safetensors' words for types of numbers
TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16",
    "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "F64": "float64",
    "I64": "int64", "U64": "uint64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}  # fmt: skip
WORDS = {pickles.DTYPES[name]: word for word, name in TYPES.items()}


def read(data: bytes | memoryview) -> dict[str, Any]:
    """Return {name: tensor} of the file DATA, whose bytes they share; METADATA is {name: text}.

    Raises ValueError, LookupError, TypeError or struct.error for a damaged one.
    """
    (length,) = struct.unpack_from("<Q", data)
    header = containers.parse(bytes(data[8 : 8 + length]))
    numbers, used = memoryview(data)[8 + length :], 0
    values: dict[str, Any] = {}
    for name, about in header.items():
        if name == METADATA:
            values[name] = about
            continue
        kind, shape, (first, last) = about["dtype"], about["shape"], about["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (first, last - first, *shape)):
            raise ValueError(f"{name} of shape {shape} from {first} to {last}")
        piece, used = numbers[first:last], used + last - first
        if kind not in TYPES:
            values[name] = pickles.foreign(f"numbers of type {kind}")()
            continue
        dtype = pickles.DTYPES[TYPES[kind]]
        if len(piece) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{name} of shape {shape} in {len(piece)} bytes")
        values[name] = pickles.from_bytes(piece, dtype).reshape(shape)
    if used != len(numbers):
        raise ValueError(f"{used} bytes of numbers in its header, and {len(numbers)} behind it")
    return values


def write(stream: BinaryIO, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write STATE and METADATA to STREAM, tensor by tensor: the same bytes for the same.

    The widest numbers come first, as the library has them, so that each begins at a multiple of
    its size.
    """
    order = sorted(state, key=lambda name: (-state[name].dtype.itemsize, name))
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        tensor = state[name]
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": WORDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        flat = state[name].detach().cpu().contiguous().view(-1)
        if flat.numel():
            stream.write(flat.view(torch.uint8).numpy().data)
