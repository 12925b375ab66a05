"""Files of training, MODEL.pt: tensors and plain values of torch.save; see ssl-formats(5)."""

import json
from collections.abc import Iterator
from typing import Any

import torch

from ssl_common import containers, formats, streams
from ssl_common.streams import DataError

FORMAT = formats.NETWORK.version
FINISHED = {  # what each writes
    "pretrain": formats.NETWORK,
    "train-linear": formats.LINEAR,
    "train-detector": formats.DETECTOR,
    "train-normals": formats.NORMALS,
    "finetune": formats.TUNED,
    "train-navigator": formats.NAVIGATOR,
}


def save(path: str, content: dict[str, Any]) -> None:
    """Write CONTENT, tensors and plain values, to PATH whole or not at all.

    What says its format, as all files of ours, gets a digest by which load() knows it again.
    """
    if "format" in content:
        content = content | {"digest": digest(content)}
    with streams.writing(path) as stream:
        try:
            torch.save(content, stream)  # to a stream: given a name, torch stores it in the file
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch makes its own of a full disk
                raise error.__context__ from None
            raise


def load(path: str, command: str = "pretrain") -> dict[str, Any]:
    """Return what save() wrote to PATH for COMMAND, finished or a checkpoint; run no code.

    Every byte is checked. Raises DataError for another file, and for one that is no longer what was
    written.
    """
    content = _content(path, command)
    is_checkpoint = formats.CHECKPOINT.known_by(content)
    table = formats.CHECKPOINT if is_checkpoint else FINISHED[command]
    return table.check(content, path)


def load_network(path: str) -> dict[str, Any]:
    """Return the finished network that PATH holds, fine-tuned or not; see load()."""
    content = _content(path, "pretrain")
    table = formats.TUNED if formats.TUNED.known_by(content) else formats.NETWORK
    return table.check(content, path)


def load_tuned(path: str) -> dict[str, Any]:
    """Return the fine-tuned network that PATH holds; see load()."""
    return formats.TUNED.check(_content(path, "finetune"), path)


def load_linear(path: str) -> dict[str, Any]:
    """Return the linear classifiers that PATH holds; see load()."""
    return formats.LINEAR.check(_content(path, "train-linear"), path)


def load_detector(path: str) -> dict[str, Any]:
    """Return the detector that PATH holds; see load()."""
    return formats.DETECTOR.check(_content(path, "train-detector"), path)


def load_normals(path: str) -> dict[str, Any]:
    """Return the predictor of normals that PATH holds; see load()."""
    return formats.NORMALS.check(_content(path, "train-normals"), path)


def load_navigator(path: str) -> dict[str, Any]:
    """Return the navigator that PATH holds; see load()."""
    return formats.NAVIGATOR.check(_content(path, "train-navigator"), path)


def load_checkpoint(path: str, command: str) -> dict[str, Any]:
    """Return the checkpoint of COMMAND that PATH holds; see load()."""
    return formats.CHECKPOINT.check(_content(path, command), path)


def is_finished(content: Any, command: str) -> bool:
    """Tell whether CONTENT, of load(), is what COMMAND writes at its end, and no checkpoint."""
    return FINISHED[command].known_by(content)


def _content(path: str, command: str) -> Any:
    """Return what the file PATH of COMMAND holds, less its digest, which is checked."""
    content = containers.read_tensors(path, f"a file of {command}")
    saved = content.pop("digest", None) if isinstance(content, dict) else None  # 0.2.0: none
    if saved is not None and saved != digest(content):
        raise DataError(f"{path}: damaged, or changed by hand: it is not what its digest tells")
    return content


def digest(content: Any) -> str:
    """Return the digest of all that CONTENT holds: names, values, and types, shapes and bytes."""
    try:
        return streams.digest(_pieces(content))
    except (TypeError, RuntimeError) as error:
        return f"none: {error}"  # nothing of ours: no digest is its own


def _pieces(value: Any) -> Iterator[Any]:
    """Yield the bytes, and what else a hash takes, that tell VALUE from any other."""
    if isinstance(value, dict):
        yield b"dict %d\n" % len(value)
        for pair in value.items():
            yield from (piece for each in pair for piece in _pieces(each))
    elif isinstance(value, list | tuple):
        yield b"list %d\n" % len(value)
        yield from (piece for each in value for piece in _pieces(each))
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {list(value.shape)}\n".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    else:
        yield json.dumps(value).encode() + b"\n"
