"""The members of a tar by their headers alone, an eighth of what Python's tarfile takes for them.

Read are ustar, pax ("x" and "g": path, size) and GNU's long names ("L"); tars in a tar too, whose
members lie uncompressed in it. As tarfile does, a walk ends with the first block of zeros.
"""

import os
import re
from collections.abc import Iterator

import numpy as np

from ssl_common import processes
from ssl_common.data.members import (
    LINK,
    OUTSIDE,
    PLAIN,
    SPARSE,
    Broken,
    Entry,
    leads_out,
    plain_name,
)

BLOCK = 512
ZERO = bytes(BLOCK)
LONGEST = 1 << 20  # bytes of a name, or of the records of a pax header
LOOKED_AT = 1 << 16  # bytes: a tar is filled up with zeros to some multiple of blocks
DEPTH = 4  # tars in tars in ...
TOGETHER = 512  # headers whose checksums are looked at together
# What needs more than to be taken as it is: names to be made plain, that lead out, or of tars.
ODD = re.compile(rb"\./|//|\.\.|(?:^|\n)/|/\.(?:\n|$)|\.tar(?:\n|$)", re.IGNORECASE)
ALONE = 16  # fewer than so many do not repay that
EIGHTS = 8 ** np.arange(5, -1, -1)
EXTENDING = frozenset(b"LxXgK")
REGULAR = frozenset(b"0\x007")
LINKS = frozenset(b"12")
WITHOUT_DATA = frozenset(b"123456")  # whatever size they say, as tarfile has it
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def walk(
    file: int, start: int, stop: int, above: bytes = b"", depth: int = 0
) -> Iterator[list[Entry]]:
    """Yield the Entries, several at a time, of the files and links of the tar in FILE.

    It lies there from START to STOP. Their names follow ABOVE. Raises Broken, after the entries
    before, where it is cut short or damaged; what that says lacks the name of the shard.
    """
    at, last = start, b""
    everywhere: dict[bytes, bytes] = {}  # what pax headers say of all members to come
    own: dict[bytes, bytes] = {}  # and of the next one
    one_by_one = 0  # headers until several are read together again
    while at < stop:
        one_by_one -= 1
        if one_by_one < 0 and not everywhere and not own:
            processes.heed()
            found, at, good = _usual(file, at, stop)
            one_by_one = ALONE if len(found) < ALONE else 0
            last = plain_name(found[-1].name) if found else last
            if ODD.search(b"\n".join([each.name for each in found])):
                for each in found:
                    yield from _entries(file, each, above, stop, depth)
            elif found:
                yield [each._replace(name=above + each.name) for each in found] if above else found
            if at > stop:
                raise _cut(above, last)
            if good:
                continue
        header = os.pread(file, min(BLOCK, stop - at), at)
        if len(header) < BLOCK:
            raise _cut(above, last)
        if header == ZERO:
            return
        if not _is_header(header):
            if at > start:
                raise Broken(f"damaged after {_text(above + last)}")
            by = next((name for mark, name in PACKED.items() if header.startswith(mark)), None)
            raise Broken(f"packed with {by}: unpack it" if by else "not a tar")
        kind, size = header[156], _number(header[124:136])
        at += BLOCK
        if kind in EXTENDING:
            if not 0 <= size <= LONGEST:
                raise Broken(f"damaged after {_text(above + last)}")
            data = os.pread(file, size, at)
            at += _blocks(size)
            if len(data) < size or at > stop:
                raise _cut(above, last)
            if kind == ord("L"):
                own[b"path"] = data.split(b"\0", 1)[0]
            elif kind != ord("K"):
                (everywhere if kind == ord("g") else own).update(_records(data))
            continue
        said, own = everywhere | own, {}
        name = said.get(b"path") or _name(header)
        if kind not in WITHOUT_DATA and b"size" in said:
            size = _decimal(said[b"size"])
        if size < 0:
            raise Broken(f"damaged after {_text(above + last)}")
        sparse = kind == ord("S") or any(key.startswith(b"GNU.sparse") for key in said)
        extended = kind == ord("S") and header[482]
        while extended:
            block = os.pread(file, BLOCK, at)
            if len(block) < BLOCK:
                raise _cut(above, last)
            extended, at = block[504], at + BLOCK
        if (kind in REGULAR and not name.endswith(b"/")) or sparse or kind in LINKS:
            last = plain_name(name)
            lies = LINK if kind in LINKS else SPARSE if sparse else PLAIN
            yield from _entries(file, Entry(name, lies, at, size), above, stop, depth)
        if kind not in WITHOUT_DATA:
            at += _blocks(size)
            if at - _blocks(size) + size > stop:
                raise _cut(above, last)


def followed(file: int, end: int) -> bool:
    """Tell whether behind the END of the last member of FILE a tar ends and another begins."""
    blocks = os.pread(file, LOOKED_AT, _blocks(end))
    rest = blocks.lstrip(b"\0")
    start = (len(blocks) - len(rest)) // BLOCK * BLOCK
    header = blocks[start : start + BLOCK]
    return start > 0 and len(header) == BLOCK and _is_header(header)


def at(file: int, offset: int) -> Entry | None:
    """Return the regular file whose data begins at OFFSET of FILE, by the one header before it."""
    header = os.pread(file, BLOCK, offset - BLOCK) if offset >= BLOCK else b""
    if len(header) < BLOCK or not _is_header(header) or header[156] not in REGULAR:
        return None
    return Entry(plain_name(_name(header)), PLAIN, offset, _number(header[124:136]))


def _usual(file, at, stop):
    """Return what begins at AT: the Entries of regular files of one plain header each.

    Then where they end, and whether all that were read are of that kind. The checksums are looked
    at together, which is what makes it fast.
    """
    headers, places = [], []
    good = False
    while len(headers) < TOGETHER:
        header = os.pread(file, BLOCK, at)
        # The size ends with a NUL or a space, but for one that is written in another way.
        if len(header) < BLOCK or header[156] not in REGULAR or header[135] not in b"\0 ":
            break
        try:
            size = int(header[124:135], 8)
        except ValueError:
            break
        if size < 0 or at + BLOCK > stop:
            break
        headers.append(header)
        places.append((at + BLOCK, size))
        at += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        if places[-1][0] + size > stop:
            break
    else:
        good = True
    count = _leading(headers)
    if count < len(headers):
        good, at = False, places[count][0] - BLOCK
    names = map(_name, headers[:count])
    found = [Entry(name, PLAIN, *place) for name, place in zip(names, places, strict=False)]
    if found and found[-1].offset + found[-1].size > stop:
        at = stop + 1
    return [each for each in found if not each.name.endswith(b"/")], at, good


def _leading(headers):
    """Return how many of HEADERS, at the beginning, are right by checksums of the usual form."""
    if not headers:
        return 0
    all_bytes = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, BLOCK)
    said = all_bytes[:, 148:156]
    digits = said[:, :6] - np.uint8(ord("0"))
    total = all_bytes.sum(axis=1, dtype=np.int64) - said.sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    right = (digits < 8).all(axis=1) & (digits @ EIGHTS == total)
    return len(headers) if right.all() else int(right.argmin())


def _entries(file, entry, above, stop, depth):
    """Yield ENTRY, as the header has it, or what is in it if it is a tar, as walk() does."""
    name, kind, offset, size = entry
    name = plain_name(name)
    if leads_out(name):
        yield [Entry(above + name, OUTSIDE, 0, 0)]
    elif kind != PLAIN:
        yield [Entry(above + name, kind, 0, 0)]
    elif _is_tar(file, name, offset, size, depth):
        yield from walk(file, offset, min(offset + size, stop), above + name + b"/", depth + 1)
    else:
        yield [Entry(above + name, PLAIN, offset, size)]


def _is_tar(file, name, at, size, depth):
    """Tell whether the member called NAME, of SIZE bytes from AT, is a tar to look into."""
    if name[-4:].lower() != b".tar" or depth >= DEPTH or size < BLOCK:
        return False
    header = os.pread(file, BLOCK, at)
    return header == ZERO or (len(header) == BLOCK and _is_header(header))


def _is_header(header):
    """Tell whether the checksum of HEADER is right, of unsigned or signed bytes."""
    said = _number(header[148:156])
    rest = header[:148] + b"        " + header[156:]
    total = sum(rest)
    return said == total or said == total - 256 * sum(byte > 127 for byte in rest)


def _number(field):
    """Return the number of FIELD, octal text or, where the first bit is set, bytes; -1 if none."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    digits = field.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else -1


def _decimal(text):
    return int(text) if text.isdigit() and len(text) < 20 else -1


def _name(header):
    """Return the name in HEADER; that of ustar may have its beginning apart."""
    name = header[:100].split(b"\0", 1)[0]
    if header[345] and header[257:263] == b"ustar\0":  # GNU has times there
        return header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _records(data):
    """Return the records of a pax header, "LENGTH KEY=VALUE\\n" each, as a dict of bytes."""
    records, at = {}, 0
    while at < len(data) and data[at]:
        length, _space, _rest = data[at : at + 21].partition(b" ")
        if not length.isdigit() or int(length) <= len(length) + 1:
            raise Broken("damaged: a pax header that is none")
        key, _equals, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        records[key] = value
        at += int(length)
    return records


def _blocks(size):
    return -(-size // BLOCK) * BLOCK


def _cut(above, last):
    where = above + last
    return Broken(f"cut short at or after {_text(where)}" if where else "cut short")


def _text(name):
    return name.decode("utf-8", "replace")
