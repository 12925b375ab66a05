"""The members of a ZIP by its central directory, and their bytes."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

from ssl_common.containers import ALWAYS, UNPACKED
from ssl_common.data.members import (
    DEFLATED,
    ENCRYPTED,
    LINK,
    OUTSIDE,
    PACKED,
    STORED,
    Broken,
    Entry,
    leads_out,
    plain_name,
)
from ssl_common.streams import DataError

LOCAL = struct.Struct("<4s5H3I2H")  # the header before a member


def walk(file: int) -> Iterator[list[Entry]]:
    """Yield the Entries of the files and links of the ZIP that FILE is; raise Broken if it is none.

    They are in the order of its directory, all at once.
    """
    with open(os.dup(file), "rb") as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise Broken(f"not a ZIP, or cut short ({error})") from error
        with archive:
            found = []
            for each in archive.infolist():
                name = plain_name(each.filename.encode("utf-8", "surrogateescape"))
                if each.is_dir() or not name:
                    continue
                kind = _kind(each, name)
                found.append(Entry(name, kind, each.header_offset, each.compress_size))
            yield found


def _kind(each, name):
    if leads_out(name):
        return OUTSIDE
    if stat.S_ISLNK(each.external_attr >> 16):
        return LINK
    if each.flag_bits & 1:
        return ENCRYPTED
    kinds = {zipfile.ZIP_STORED: STORED, zipfile.ZIP_DEFLATED: DEFLATED}
    return kinds.get(each.compress_type, PACKED)


def place(file: int, offset: int) -> int:
    """Return where the data begins of the member whose local header is at OFFSET of FILE."""
    return offset + begin(os.pread(file, LOCAL.size, offset))


def begin(header: bytes) -> int:
    """Return how many bytes the local HEADER takes, names and all."""
    if len(header) < LOCAL.size or header[:4] != b"PK\3\4":
        raise DataError("no member where the ZIP's directory says: it is damaged")
    *_others, name, extra = LOCAL.unpack_from(header)
    return LOCAL.size + name + extra


def inflate(data: bytes, header: bytes) -> bytes:
    """Return what DATA, compressed by Deflate, unpacks to; its local HEADER may say its CRC."""
    unpacking, most = zlib.decompressobj(-15), max(ALWAYS, UNPACKED * len(data))
    try:
        unpacked = unpacking.decompress(data, most)
    except zlib.error as error:
        raise DataError(f"damaged in its ZIP ({error})") from error
    if unpacking.unconsumed_tail:
        raise DataError(f"unpacks to more than {most:,} bytes")
    _magic, _version, flags, _method, _time, _date, crc, *_sizes = LOCAL.unpack_from(header)
    if not unpacking.eof or (not flags & 8 and zlib.crc32(unpacked) != crc):
        raise DataError("damaged in its ZIP: its checksum is another")
    return unpacked
