"""Image files without their metadata, for files whose metadata Pillow cannot read.

Text, profiles and notes of cameras are often odd, cut or large where the pixels are whole. What
turns a picture is kept; where a file is broken otherwise, it stays so.
"""

import re
import struct
import zlib

# The tags that pixels are read by, and 274, Orientation (TIFF 6.0 and its supplements).
TAGS = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320,
        322, 323, 324, 325, 332, 338, 339, 347, *range(512, 522), 529, 530, 531, 532}  # fmt: skip


def bare(data: bytes) -> bytes | None:
    """Return the bytes DATA of an image file without metadata; None for a kind that has none."""
    for mark, without in (
        (rb"\x89PNG", _png),
        (rb"\xff\xd8", _jpeg),
        (rb"II\*\0|MM\0\*", _tiff),
        (rb".{4}ftypavi", _avif),
    ):
        if re.match(mark, data, re.DOTALL):
            return without(data)
    return None


def _png(data):
    """Keep the chunks whose name begins with a capital, which the PNG standard calls critical."""
    kept, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])  # length, name, content, CRC
        chunk = data[start:end]
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if chunk[4:5].isupper() or (chunk[4:8] == b"eXIf" and sound):
            kept.append(chunk)
        start = end
    return b"".join(kept)


def _jpeg(data):
    """Leave out APPn, save Adobe's, which tells the colours, and EXIF; and comments."""
    kept, start = [data[:2]], 2
    while data[start : start + 1] == b"\xff" and data[start + 1 : start + 2] != b"\xda":  # the scan
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        segment = data[start:end]
        if not re.match(rb"\xff([\xe0-\xed\xef\xfe]..(?!Exif\0))", segment, re.DOTALL):
            kept.append(segment)
        start = end
    return b"".join(kept) + data[start:]


def _tiff(data):
    """Let the file begin with a directory of its TAGS alone, put at its end."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    rows = [data[start + 2 + 12 * row :][:12] for row in range(count)]
    kept = [row for row in rows if struct.unpack_from(f"{order}H", row)[0] in TAGS]
    data += b"\0" * (len(data) % 2)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[8:] + directory


def _avif(data):
    """Call the item of EXIF by another name; a picture that HEIF itself turns is turned."""
    return re.sub(rb"(infe\x02.{3}.{4})Exif", rb"\1none", data, flags=re.DOTALL)
