"""Files of training, MODEL.pt: tensors and plain values of torch.save; see ssl-formats(5)."""

import errno
import json
import os
import zipfile

import torch

from ssl_common import streams
from ssl_common.streams import DataError

FORMAT = 1
HOLDS = {"pretrain": "trunk", "train-linear": "heads"}  # what each command trains


def save(path, content):
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


def load(path, command="pretrain"):
    """Return what save() wrote to PATH for COMMAND, every byte of it checked; run no code.

    Raises DataError for another file, and for one that is no longer what was written.
    """
    kind = f"a file of {command}"
    _check_sums(path, kind)
    content = streams.read_tensors(path, kind)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not {kind}")
    if "digest" in content and content.pop("digest") != digest(content):  # 0.2.0 wrote none
        raise DataError(f"{path}: damaged, or changed by hand: it is not what its digest tells")
    return content


def load_network(path):
    """Return the finished network that PATH holds. Raises DataError for a checkpoint too."""
    content = load(path)
    if not is_finished(content, "pretrain"):
        raise DataError(f"{path}: a checkpoint: name the finished network that appears at the end")
    return content


def load_checkpoint(path, command):
    """Return the checkpoint of COMMAND that PATH holds. Raises DataError for a finished network."""
    content = load(path, command)
    if "optimizer" not in content:
        raise DataError(f"{path}: not a checkpoint of {command}")
    return content


def is_finished(content, command):
    """Tell whether CONTENT, of load(), is what COMMAND writes at its end, and no checkpoint."""
    return HOLDS[command] in content and "optimizer" not in content


def digest(content):
    """Return the digest of all that CONTENT holds: names, values, and types, shapes and bytes."""
    try:
        return streams.digest(_pieces(content))
    except (TypeError, RuntimeError) as error:
        return f"none: {error}"  # nothing of ours: no digest is its own


def _pieces(value):
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


def _check_sums(path, kind):
    """Raise DataError where PATH is no archive whose sums are right: torch looks at none of them.

    So it is given no damaged file, of which it says now this, now that.
    """
    with streams.regular(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                wrong = archive.testzip()
                damaged = wrong and f"the sum of {wrong} in it is another one"
        except (OSError, MemoryError) as error:
            if getattr(error, "errno", None) != errno.EINVAL:  # a place before the file's start
                raise
            damaged = error
        except Exception as error:  # whatever a damaged directory of the archive leads to
            damaged = error
    if damaged:
        reason = damaged if os.path.getsize(path) else "it is empty"
        raise DataError(f"{path}: not {kind}, or damaged ({reason})")
