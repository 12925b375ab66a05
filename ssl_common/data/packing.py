"""A manifest -> tars of images and labels, as webdataset reads them, the same bytes each time."""

import io
import os
import re
import tarfile
from typing import BinaryIO

from PIL import Image

from ssl_common import streams
from ssl_common.data.manifest import Manifest, Row, format_row, single_labels
from ssl_common.data.stores import Store, store
from ssl_common.data.suffixes import FORMATS, SUFFIXES
from ssl_common.progress import Progress, silent
from ssl_common.streams import DataError

NUMBER = re.compile(r"%0?\d*d")
DIGITS = 9  # of the name of an image, which is its line


def check(output: str, per_shard: int, images: int) -> None:
    """Raise DataError where OUTPUT cannot name the shards of so many IMAGES, PER_SHARD each."""
    numbers = NUMBER.findall(output)
    if len(numbers) > 1 or output.count("%") > len(numbers):
        raise DataError(f"{output}: one %05d stands for the number of a shard: write x-%05d.tar")
    if not output.endswith(".tar"):
        raise DataError(f"{output}: a shard is called .tar: write x-%05d.tar")
    if not numbers and images > per_shard:
        message = f"one shard for {images:,} images, of {per_shard:,} each"
        raise DataError(f"{output}: {message}: write x-%05d.tar, or raise --per-shard")
    streams.check_output(shard_name(output, 0))


def shard_name(output: str, number: int) -> str:
    """Return the path of shard NUMBER by the pattern OUTPUT, which may hold one %05d."""
    return NUMBER.sub(lambda found: found[0] % number, output)


def pack(
    manifest: Manifest,
    root: str | Store,
    output: str,
    per_shard: int,
    label: str,
    stream: BinaryIO,
    progress: Progress = silent,
) -> str:
    """Write the images of MANIFEST, below ROOT, to shards OUTPUT; write their manifest to STREAM.

    LABEL says as what labels are written: "txt", names; "cls", the number of the one class each
    image has, in the order of their bytes; "none". Return what was written, in words. Raises
    DataError naming the line of an image that cannot be had.
    """
    check(output, per_shard, len(manifest))
    place = store(root)
    numbers = single_labels(manifest)[1] if label == "cls" else None
    shards = 0
    for shards, start in enumerate(range(0, len(manifest), per_shard), 1):
        path = shard_name(output, shards - 1)
        stop = min(start + per_shard, len(manifest))
        rows = []
        with (
            streams.writing(path) as target,
            tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for index in range(start, stop):
                row = manifest[index]
                data, extension = _image(manifest, index, row.path, place)
                name = f"{index:0{DIGITS}}"
                _add(archive, f"{name}.{extension}", data)
                text = _label(row) if numbers is None else str(numbers[index])
                if text and label != "none":
                    _add(archive, f"{name}.{label}", text.encode())
                rows.append(format_row(row._replace(path=f"{path}/{name}.{extension}")))
                progress(index + 1, len(manifest))
        stream.writelines(rows)
    said = f"{len(manifest):,} images in {shards:,} shards"
    if os.path.exists(left := shard_name(output, shards)) and left != output:
        said += f"; {left} and any after it are of another time: remove them"
    return said


def _image(manifest, index, path, place):
    """Return the bytes of the image PATH of line INDEX, and the extension that says its format."""
    try:
        with place.open(path) as stream:
            data = stream.read()
    except DataError as error:
        raise manifest.error(index + 1, f"{place.name(path)}: {error}: drop the line") from error
    except OSError as error:
        if error.errno in streams.SHORTAGE:
            raise
        reason = error.strerror or error
        raise manifest.error(index + 1, f"{place.name(path)}: {reason}: drop the line") from error
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return data, suffix[1:]
    try:
        with Image.open(io.BytesIO(data), formats=[*FORMATS]) as image:
            return data, FORMATS[image.format or ""][-1][1:]
    except Exception as error:  # decoders of broken files raise almost anything
        message = f"{place.name(path)}: not an image, or of a kind that is not read: drop the line"
        raise manifest.error(index + 1, message) from error


def _label(row: Row) -> str:
    return format_row(row).decode().rstrip("\n").partition("\t")[2]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of nobody, at no time
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
