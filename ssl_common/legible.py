"""Text made safe to display: nothing in it moves the cursor, breaks a line or is hidden."""

import json
import re
import unicodedata
from typing import Any

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats (of direction too), surrogates, breaks
BREAK = re.compile(r"\s*[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")
WIDE = 60  # characters that a message shows of a value
LONG = 6000  # ... and of a whole message: a name of a file has up to 4096


def text(value: object) -> str:
    r"""Return VALUE as text; what a terminal would obey, or nobody would see, as \x1b or \u202e."""
    plain = str(value)
    if plain.isprintable():
        return plain
    return "".join(_escape(each) if _hides(each) else each for each in plain)


def line(message: object) -> str:
    """Return MESSAGE, which may have lines, as one line of text(), not without end."""
    whole = text(BREAK.sub(" ", str(message).strip()))
    return whole if len(whole) <= LONG else f"{whole[: LONG - 300]} ... {whole[-300:]}"


def cell(value: object) -> str:
    """Return VALUE as a cell of a Markdown table: text(), which ends no cell and begins no tag."""
    return re.sub(r"(\\*)([|<])", r"\1\1\\\2", text(value))


def dumps(value: object, **extra: Any) -> str:
    """Return VALUE as JSON that means the same as that of json.dumps; NaN is refused."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, **extra)
    if written.isprintable():
        return written
    return "".join(json.dumps(c)[1:-1] if c != "\n" and _hides(c) else c for c in written)


def quoted(value: object) -> str:
    """Return VALUE in quotes as messages show it: its beginning, where it is long."""
    whole = text(value)
    return f"'{whole}'" if len(whole) <= WIDE else f"'{whole[:WIDE]}...'"


def _hides(character: str) -> bool:
    code = ord(character)
    nothing = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF  # no characters: XML bars two
    return nothing or unicodedata.category(character) in HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return repr(character)[1:-1]
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
