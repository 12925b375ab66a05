"""The language in which a format is declared, and the one check of what a file holds against it.

A format is a table: a name, and what stands there. In a shape such as "C D" a letter is the same
number wherever it stands in the table, and at least 1, or with a star, "C*", 0; a number is itself;
"" is a single value.
"""

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ssl_common import containers, streams
from ssl_common.streams import DataError

SHOWN = 60  # characters of a text in a message


class Wrong(Exception):
    """What is wrong with the content of a file, in words that begin with the entry."""


class Letters(dict):
    """The numbers that the letters of shapes stand for: {letter: (number, where it was seen)}.

    LIMITS, {letter: (least, most)}, are those of letters not known yet.
    """

    def __init__(self, known, limits):
        super().__init__(known)
        self.limits = limits

    def fit(self, name, shape, wanted):
        """Return whether SHAPE, of entry NAME, is as WANTED; take down the letters new in it."""
        sides = wanted.split()
        if len(sides) != len(shape):
            return False
        for number, side in zip(shape, sides, strict=True):
            letter = side.rstrip("*")
            known = int(side) if side.isdigit() else self.get(letter, (number,))[0]
            least, most = self.limits.get(letter, (letter == side, math.inf))
            if number != known or not least <= number <= most:
                return False
            if not side.isdigit():
                self.setdefault(letter, (number, f"of {name}"))
        return True

    def said(self, wanted, one, several):
        """Return in words what is WANTED, a shape, of ONE or SEVERAL: C x D texts (C = 3 of x)."""
        sides = [side.rstrip("*") for side in wanted.split()]
        if not sides:
            return one
        known = [f"{side} = {self[side][0]} {self[side][1]}" for side in sides if side in self]
        limits = {side: self.limits[side] for side in sides if side in self.limits}
        known += [f"{side} from {least} to {most}" for side, (least, most) in limits.items()]
        known = f" ({', '.join(dict.fromkeys(known))})" if known else ""
        return f"{' x '.join(sides)} {several}{known}"


# ---- Entries ------------------------------------------------------------------------------------


class Entry:
    """What may stand under a name. A MAYBE one may be absent, or None."""

    maybe = False
    repeats = False  # it stands in a table for entries of other names, which names() gives

    def passes(self, _value):
        """Tell whether VALUE is at once seen to be right: for the many fields of many records."""
        return False

    def take(self, name, content, letters, found):
        """Return what stands in CONTENT under NAME, checked, in the form in which it is used.

        LETTERS are the numbers known so far, FOUND the entries before it. Raises Wrong.
        """
        value = content.get(name)
        if (value is None and self.maybe) or self.passes(value):
            return value
        if name not in content:
            raise Wrong(f"{name} is missing")
        return self.read(name, value, letters, found)


@dataclass(frozen=True)
class Numbers(Entry):
    """Numbers of SHAPE, of the NumPy KINDS, within limits; never infinite.

    A TYPE is that of arrays; those of another that it holds wholly are converted. Rows of NaN stand
    only where HOLES, (entry, words), says so: exactly where that entry is one of the words. LAZY
    arrays are looked at by type and shape alone: who uses the numbers looks at them.
    """

    kinds: str
    shape: str = ""
    type: str | None = None
    least: float = -math.inf
    above: float = -math.inf  # without it
    most: float = math.inf
    below: str = ""  # a letter: these are indices
    letter: str = ""  # the one that this number is
    of: tuple = ()  # the only ones
    order: str = ""  # "rising", no two alike, or "sorted"
    unique: bool = False  # no row stands there twice
    holes: tuple = ()
    maybe: bool = False
    lazy: bool = False

    def passes(self, value):
        return not self.shape and self._in_limits(value)

    def _in_limits(self, value):
        """Tell whether VALUE, a single one of Python's own, is within all limits."""
        kinds = (int,) if self.kinds == "iu" else (int, float)
        right = type(value) in kinds and self.above < value <= self.most and self.least <= value
        return right and value - value == 0 and not (self.of or self.letter or self.below)

    def read(self, name, value, letters, found):
        """Return VALUE, which stands under NAME: arrays as arrays, all else as it was given."""
        plain = isinstance(value, list | tuple) and not (self.order or self.unique)
        if plain and all(map(self._in_limits, _leaves(value))):
            if not letters.fit(name, _sides(value), self.shape):
                raise Wrong(f"{name} is {described(value)}, not {self._wanted(letters)}")
            return value
        array = _numbers(name, value)
        kinds = self.kinds + ("iu" if self.kinds == "f" and isinstance(value, int | list) else "")
        if array is None or array.dtype.kind not in kinds:
            raise Wrong(f"{name} is {described(value)}, not {self._wanted(letters)}")
        if not letters.fit(name, array.shape, self.shape):
            raise Wrong(f"{name} is {described(value)}, not {self._wanted(letters)}")
        if self.letter and not letters.fit(name, (array.item(),), self.letter):
            raise Wrong(f"{name} is {array.item()}, not {self._wanted(letters)}")
        if self.type and not _holds(self.type, array.dtype):
            raise Wrong(f"{name} is {described(value)}, more than {self.type} can hold")
        if not self.lazy:
            self._within(name, self._without_holes(name, array, found), letters)
            self._arranged(name, array)
        if not hasattr(value, "dtype"):
            return value
        if array.ndim == 0:
            return array.item()
        if self.type and array.dtype != self.type:
            array = array.astype(self.type)
            return array if not _is_tensor(value) else sys.modules["torch"].from_numpy(array)
        return value

    def _wanted(self, letters):
        if self.letter in letters:
            return " ".join(map(str, letters[self.letter]))
        return letters.said(self.shape, *CALLED[self.kinds])

    def _without_holes(self, name, array, found):
        """Return the numbers of ARRAY but for the rows that are to be NaN."""
        import numpy as np

        if array.dtype.kind != "f":
            return array
        holes = np.isnan(array).reshape(len(array), -1) if self.holes else np.zeros((1, 1), bool)
        if self.holes:
            entry, words = self.holes
            empty = np.isin(found[entry], words)
            wrong = np.flatnonzero((holes.all(axis=1) != empty) | (holes.any(axis=1) != empty))
            if len(wrong):
                row, there = wrong[0], "numbers" if empty[wrong[0]] else "NaN"
                why = f"whose {entry} is {found[entry][row]}"
                raise Wrong(f"{name} holds {there} in row {row}, {why}")
            array = array[~empty]
        if not np.isfinite(array).all():
            raise Wrong(f"{name} holds NaN or infinity")
        return array

    def _within(self, name, values, letters):
        """Raise Wrong where one of VALUES is outside of the limits."""
        import numpy as np

        if not values.size:
            return
        if self.of and not np.isin(values, self.of).all():
            other = values[~np.isin(values, self.of)].flat[0]
            raise Wrong(f"{name} holds {other}, none of {', '.join(map(str, self.of))}")
        low, high = values.min().item(), values.max().item()
        most = letters[self.below][0] - 1 if self.below else self.most
        if low < self.least or low <= self.above:
            limit = f"less than {self.least}" if low < self.least else f"not above {self.above}"
            raise Wrong(f"{name} holds {low}, {limit}")
        if high > most:
            raise Wrong(f"{name} holds {high}, more than {most}")

    def _arranged(self, name, array):
        """Raise Wrong where the rows of ARRAY are not in order, or one stands there twice."""
        import numpy as np

        before, after = array[:-1] if array.ndim else (), array[1:] if array.ndim else ()
        if self.order == "rising" and not (before < after).all():
            raise Wrong(f"{name} is not in order, or holds one twice")
        if self.order == "sorted" and not (before <= after).all():
            raise Wrong(f"{name} is not in order")
        if self.unique and len(np.unique(array, axis=0)) < len(array):
            raise Wrong(f"{name} holds a row twice")


@dataclass(frozen=True)
class Texts(Entry):
    """A text, or texts of SHAPE: those OF a few, or of a PATTERN; given as Python's own."""

    shape: str = ""
    of: tuple = ()
    pattern: str = ""
    order: str = ""  # "rising": by their bytes, no two alike
    maybe: bool = False

    def passes(self, value):
        free = not (self.shape or self.of or self.pattern)
        return free and isinstance(value, str) and value.isascii()

    def read(self, name, value, letters, _found):
        """Return VALUE, which stands under NAME: a str, or a list."""
        plain = _texts(name, value)
        texts = [plain] if isinstance(plain, str) else plain
        shape = () if isinstance(plain, str) else (len(plain or ()),)
        if texts is None or not letters.fit(name, shape, self.shape):
            raise Wrong(f"{name} is {described(value)}, not {self._wanted(letters)}")
        for text in texts:
            self._check(name, text)
        keys = [text.encode() for text in texts] if self.order else []
        if keys != sorted(set(keys)):
            raise Wrong(f"{name} is not in the order of its bytes, or holds one twice")
        return plain

    def _wanted(self, letters):
        return letters.said(self.shape, *CALLED["U"])

    def _check(self, name, text):
        _whole(name, text)
        if self.of and text not in self.of:
            raise Wrong(f"{name} holds {text[:SHOWN]!r}, none of {', '.join(self.of)}")
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise Wrong(f"{name} holds {text[:SHOWN]!r}, which it may not")


@dataclass(frozen=True)
class Plain(Entry):
    """A value of Python's TYPES and all that it holds: no tensor and no object; FINITE numbers."""

    types: tuple = (bool, int, float, str, list, tuple, dict)
    called: str = "a plain value"
    finite: bool = True
    maybe: bool = False

    def read(self, name, value, _letters, _found):
        """Return VALUE, which stands under NAME."""
        if type(value) not in self.types:
            raise Wrong(f"{name} is {described(value)}, not {self.called}")
        _plain(name, value, self.finite)
        return value


@dataclass(frozen=True)
class Version(Entry):
    """The number of the form that a file has: the one that is read."""

    number: int
    maybe: bool = False

    def read(self, name, value, letters, found):
        """Return VALUE, which stands under NAME."""
        number = integers().read(name, value, letters, found)
        if number != self.number:
            raise Wrong(f"{name} {number}, where this version reads {self.number}")
        return number


@dataclass(frozen=True)
class State(Entry):
    """The state of a module: {name: tensor}, all of them there and finite."""

    maybe: bool = False

    def read(self, name, value, _letters, _found):
        """Return VALUE, which stands under NAME."""
        if not isinstance(value, dict):
            raise Wrong(f"{name} is {described(value)}, not names with tensors")
        for key, tensor in value.items():
            where = f"{name}: {str(key)[:SHOWN]}"
            if not isinstance(key, str) or not _is_tensor(tensor):
                raise Wrong(f"{where} is {described(tensor)}, not a tensor")
            _dense(where, tensor)
            if not bool(sys.modules["torch"].isfinite(tensor).all()):
                raise Wrong(f"{where} holds NaN or infinity")
        return value


@dataclass(frozen=True)
class Table(Entry):
    """A dict with the ENTRIES; CHECKS say of them what else is wrong, or None.

    OTHERS are what else it may hold: a kind of entry, or nothing. Letters that are known outside of
    it are known in it.
    """

    entries: dict
    checks: tuple = ()
    others: Entry | None = field(default_factory=lambda: Plain(maybe=True))
    maybe: bool = False
    repeated: tuple = field(init=False)

    def __post_init__(self):
        repeated = tuple(key for key, entry in self.entries.items() if entry.repeats)
        object.__setattr__(self, "repeated", repeated)

    def read(self, name, value, letters, _found):
        """Return VALUE, which stands under NAME ("" is the whole file), as a new dict."""
        prefix, found = f"{name}." if name else "", {}
        letters = Letters(letters, letters.limits)
        _names(name or "it", value)
        try:
            for key, entry in self.entries.items():
                if key in value or not entry.maybe:
                    found[key] = entry.take(key, value, letters, found)
            others = value.keys() - found.keys()
            for key in self.repeated:
                others -= set(self.entries[key].names(found[key]))
            for key in sorted(others):
                if self.others is None:
                    raise Wrong(f"{key[:SHOWN]} is none of its entries")
                self.others.take(key, value, letters, found)
            for check in self.checks:
                if wrong := check(found):
                    raise Wrong(wrong)
        except Wrong as error:
            raise Wrong(f"{prefix}{error}") from None
        return value | found


@dataclass(frozen=True)
class Mapping(Entry):
    """A dict of any names, each with what ENTRY says."""

    entry: Entry
    maybe: bool = False

    def read(self, name, value, letters, found):
        """Return VALUE, which stands under NAME."""
        _names(name, value)
        return {key: self.entry.take(key, value, letters, found) for key in value}


@dataclass(frozen=True)
class Json(Entry):
    """A text that is JSON: an object as TABLE says."""

    table: Table

    def read(self, name, value, letters, found):
        """Return the object in VALUE, which stands under NAME, as a dict."""
        text = Texts().read(name, value, letters, found)
        try:
            content = containers.read_object(text.encode(), name)
        except DataError as error:
            raise Wrong(str(error)) from error
        return self.table.read(name, content, letters, found)


@dataclass(frozen=True)
class Each(Entry):
    """Entries that stand there for each row of the array under OVER: {row: what TABLE says}.

    NAMING makes the name in the file of {name} in TABLE and of the numbers of the row.
    """

    over: str
    naming: str
    table: Table
    repeats: ClassVar = True

    def take(self, _name, content, letters, found):
        """Return {row: {name: value}} of CONTENT; see Entry."""
        rows = map(tuple, found[self.over].tolist())
        return {row: self._of(row, content, letters) for row in rows}

    def names(self, rows):
        """Return the names in the file of what stands there for the ROWS."""
        return [name for row in rows for name in self._named(row).values()]

    def _named(self, row):
        return {key: self.naming.format(*row, name=key) for key in self.table.entries}

    def _of(self, row, content, letters):
        names = self._named(row)
        there = {key: content[name] for key, name in names.items() if name in content}
        try:
            return self.table.read("", there, letters, {})
        except Wrong as error:
            key, rest = str(error).split(" ", 1)
            raise Wrong(f"{names.get(key, key)} {rest}") from None


def integers(shape="", type=None, **rules):
    """Return an entry of whole numbers; of Numbers, without its kinds."""
    return Numbers("iu", shape, type, **rules)


def reals(shape="", type=None, **rules):
    """Return an entry of real numbers; of Numbers, without its kinds."""
    return Numbers("f", shape, type, **rules)


def numbers(shape="", type=None, **rules):
    """Return an entry of numbers, whole or real; of Numbers, without its kinds."""
    return Numbers("iuf", shape, type, **rules)


# ---- Values -------------------------------------------------------------------------------------

PLAIN = {dict: "a table", list: "a list", tuple: "a list", str: "a text", bool: "true or false"}
PLAIN |= {int: "a whole number", float: "a real number", type(None): "nothing"}
CALLED = {  # kinds of NumPy, one and several
    "iu": ("a whole number", "whole numbers"),
    "f": ("a real number", "real numbers"),
    "iuf": ("a number", "numbers"),
    "U": ("a text", "texts"),
}


def described(value):
    """Return in words what VALUE is: 3 x 20 of bool, a text."""
    if not hasattr(value, "dtype"):
        return PLAIN.get(type(value), f"a {type(value).__name__}")
    shape = " x ".join(map(str, value.shape)) or "one"
    return f"{shape} of {str(value.dtype).removeprefix('torch.')}"


def _numbers(name, value):
    """Return VALUE, of numbers, as an array, which shares its memory where it can; else None."""
    import numpy as np

    if _is_tensor(value):
        _dense(name, value)
        return value.detach().numpy() if value.dtype != sys.modules["torch"].bfloat16 else None
    if not hasattr(value, "dtype"):
        if not all(type(leaf) in (int, float) for leaf in _leaves(value)):
            return None
        try:
            value = np.asarray(value)
        except (ValueError, OverflowError):  # of other lengths
            return None
    return value if value.dtype.kind in "iuf" else None


def _texts(name, value):
    """Return VALUE, of texts, as a str or a list of them; None for another."""
    import numpy as np

    if hasattr(value, "dtype"):
        if _is_tensor(value) or value.dtype.kind != "U":
            return None
        letters = np.array(value, f"=U{max(1, value.dtype.itemsize // 4)}", ndmin=1).view("u4")
        if letters.max(initial=0) > sys.maxunicode:  # NumPy itself makes an error of the system
            raise Wrong(f"{name} holds what is no text")
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return list(value)
    return value if isinstance(value, str) else None


def _whole(name, text):
    """Raise Wrong where TEXT cannot be written: it holds half of a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"{name} holds what is no text: {text[:SHOWN]!a}") from None


def _leaves(value):
    """Yield what stands in VALUE, lists in lists."""
    if not isinstance(value, list | tuple):
        yield value
        return
    for each in value:
        yield from _leaves(each)


def _sides(value):
    """Return the shape of lists in lists; "various" for a side that is not the same everywhere."""
    if not isinstance(value, list | tuple):
        return ()
    inside = {_sides(each) for each in value}
    return (len(value), *(inside.pop() if len(inside) == 1 else ("various",) if inside else ()))


def _holds(wide, narrow):
    """Tell whether the type WIDE holds all numbers of the type NARROW."""
    import numpy as np

    return np.can_cast(narrow, wide, "safe")


def _is_tensor(value):
    torch = sys.modules.get("torch")  # without it nothing is one
    return torch is not None and isinstance(value, torch.Tensor)


def _dense(name, tensor):
    """Raise Wrong where TENSOR is no plain one whose numbers all stand in the file."""
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise Wrong(f"{name} is a tensor of another kind than torch.save writes for a network")
    # One that repeats itself could claim any size.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise Wrong(f"{name} is {described(tensor)}, more than its bytes hold")


def _names(name, value):
    """Raise Wrong where VALUE is no dict whose keys are texts."""
    if not isinstance(value, dict):
        raise Wrong(f"{name} is {described(value)}, not names with values")
    for key in value:
        if type(key) is not str:
            raise Wrong(f"{name} has {described(key)} for a name")
        if not key.isascii():
            _whole(name, key)


def _plain(name, value, finite=True):
    """Raise Wrong where something in VALUE is not plain, or a number in it is not FINITE."""
    if isinstance(value, dict):
        _names(name, value)
        for key, each in value.items():
            _plain(f"{name}.{str(key)[:SHOWN]}", each, finite)
    elif isinstance(value, list | tuple):
        for each in value:
            _plain(name, each, finite)
    elif isinstance(value, str):
        _whole(name, value)
    elif type(value) not in PLAIN:
        raise Wrong(f"{name} holds {described(value)}, not a plain value")
    elif finite and isinstance(value, float) and not math.isfinite(value):
        raise Wrong(f"{name} holds {value}")


# ---- Formats ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """A format: WHAT it holds and how one gets it again (FIX), its CONTAINER and its table.

    LIMITS are those of letters, {letter: (least, most)}; CHECKS and OTHERS are as in Table.
    """

    what: str
    fix: str
    container: Callable[[str], Any]
    entries: dict
    checks: tuple = ()
    others: Entry | None = None
    limits: dict = field(default_factory=dict)
    known: ClassVar[list] = []
    table: Table = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "table", Table(self.entries, self.checks, self.others))
        self.known.append(self)

    def read(self, path, **sides):
        """Return what the file PATH holds, {name: value}, checked; see check()."""
        return self.check(self.container(path), path, **sides)

    def check(self, content, path, **sides):
        """Return CONTENT, which was read from PATH, checked, in the form in which it is used.

        SIDES are letters of shapes known from elsewhere, as N=(12, "lines of train.tsv"). Raises
        DataError that names PATH, the entry that is wrong, and what to do.
        """
        where, letters = streams.name(path), Letters(sides, self.limits)
        try:
            return self.table.read("", content, letters, {})
        except Wrong as error:
            others = [each.what for each in self.known if each.names(content)]
            known = self.names(content) or not others
            wrong = error if known else f"{others[0]}, not {self.what}"
            raise DataError(f"{where}: {wrong}: {self.fix}") from None

    @property
    def version(self):
        """The number of the form, which its files hold."""
        return next(e.number for e in self.entries.values() if isinstance(e, Version))

    def names(self, content):
        """Tell whether CONTENT has all the names that this format must have."""
        needed = {key for key, entry in self.entries.items() if not entry.maybe}
        return isinstance(content, dict) and bool(needed) and needed <= set(content)
