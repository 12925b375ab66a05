"""Finished networks, MODEL.pt: tensors and plain values of torch.save; see ssl-formats(5)."""

import torch

from ssl_common import containers, streams
from ssl_common.streams import DataError

FORMAT = 1


def save(path, content):
    """Write CONTENT, tensors and plain values, to PATH whole or not at all."""
    with streams.writing(path) as stream:
        try:
            torch.save(content, stream)  # to a stream: given a name, torch stores it in the file
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch makes its own of a full disk
                raise error.__context__ from None
            raise


def load(path, command="pretrain"):
    """Return what save() wrote to PATH for COMMAND; run no code. Raises DataError for another."""
    content = containers.read_tensors(path, f"a file of {command}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not a file of {command}")
    return content


def load_network(path):
    """Return the finished network that PATH holds. Raises DataError for a checkpoint too."""
    content = load(path)
    if "trunk" not in content:
        raise DataError(f"{path}: a checkpoint: name the finished network that appears at the end")
    return content
