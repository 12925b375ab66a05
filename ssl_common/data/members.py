"""What a member of a shard is: its name, where it lies, and how, or why it is not read."""

from typing import NamedTuple

from ssl_common.streams import DataError

# How a member lies in its shard; the numbers stand in indices.
PLAIN, STORED, DEFLATED, LINK, OUTSIDE, SPARSE, ENCRYPTED, PACKED = range(8)
REFUSED = {
    LINK: "a link, and no link of a shard is followed",
    OUTSIDE: "a name that leads out of its shard",
    SPARSE: "a sparse file, which is not read: pack it without --sparse",
    ENCRYPTED: "encrypted: unpack it",
    PACKED: "compressed by a method that is not read: unpack it, or pack it with zip -0",
}


class Broken(DataError):
    """A shard that is cut short or damaged; its entries before that are good."""


class Entry(NamedTuple):
    """A member: its name, its kind, and where it lies: `size` bytes from `offset` on.

    Of a member of a ZIP `offset` is that of its local header, and `size` what it takes there.
    """

    name: bytes
    kind: int
    offset: int
    size: int


def plain_name(name: bytes) -> bytes:
    """Return NAME without "." among its parts: ./a//b is a/b. An absolute one stays absolute."""
    if b"./" not in name and b"//" not in name and not name.endswith(b"/."):
        return name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return (b"/" if name.startswith(b"/") else b"") + b"/".join(parts)


def leads_out(name: bytes) -> bool:
    """Tell whether NAME is absolute, or climbs."""
    return name.startswith(b"/") or (b".." in name and b".." in name.split(b"/"))
