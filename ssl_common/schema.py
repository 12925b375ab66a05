"""The language in which formats are declared, and the check of a file against its format.

A format is a table: names, and what stands there. In a shape such as "C D" a letter is the same
number wherever it stands in the table, at least 1, or with a star, "C*", 0; a star alone is any
number, a number itself; "" is a single value.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ssl_common import containers, legible, streams
from ssl_common.streams import DataError

if TYPE_CHECKING:
    import numpy as np

LARGEST = 2**63 - 1  # of a whole number of Python's own
FARTHEST = 1e300  # from 0 that a number of Python's own may be: sums of them are finite
Limits = dict[str, tuple[int, int]]  # {letter: (least, most)}
# Of a table's entries: what is wrong with them, or None.
Check = Callable[[dict[str, Any]], str | None]
DEEPEST = 32  # lists in lists, and tables in tables


class Wrong(Exception):
    """What is wrong with the content of a file, in words that begin with the entry."""


class Letters(dict):
    """The numbers that the letters of shapes stand for: {letter: (number, where it was seen)}.

    LIMITS, {letter: (least, most)}, are those of letters not known yet.
    """

    def __init__(
        self,
        known: dict[str, tuple[int, str]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(known or {})
        self.limits = limits or {}

    def fit(self, name: str, shape: Sequence[int], wanted: str) -> bool:
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
            if letter and not side.isdigit():
                self.setdefault(letter, (number, f"of {name}"))
        return True

    def phrase(self, wanted: str, several: str) -> str:
        """Return in words what is WANTED, a shape, of SEVERAL: C x D texts (C = 3 of classes)."""
        if wanted == "*":
            return f"a list of {several}"
        sides = [side.rstrip("*") or "any" for side in wanted.split()]
        known = [f"{side} = {self[side][0]} {self[side][1]}" for side in sides if side in self]
        limits = {side: self.limits[side] for side in sides if side in self.limits}
        known += [f"{side} from {least} to {most}" for side, (least, most) in limits.items()]
        notes = f" ({', '.join(dict.fromkeys(known))})" if known else ""
        return f"{' x '.join(sides)} {several}{notes}"


# ---- Entries ------------------------------------------------------------------------------------


class Entry:
    """What may stand under a name. A MAYBE one may be absent, or None."""

    maybe: bool = False
    repeats: ClassVar[bool] = False  # it stands for entries of other names: names() has them

    def requirement(self, letters: Letters) -> str:
        """Return in words what it must be, with what is known of LETTERS."""
        raise NotImplementedError

    def passes(self, _value: Any) -> bool:
        """Tell whether VALUE is at once seen to be right: for the many fields of many records."""
        return False

    def read(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        """Return VALUE, which stands under NAME, in the form in which it is used.

        LETTERS are the numbers known so far, EARLIER the entries before it. Raises Wrong.
        """
        raise NotImplementedError

    def take(
        self, name: str, content: dict[str, Any], letters: Letters, earlier: dict[str, Any]
    ) -> Any:
        """Return what read() makes of what stands in CONTENT under NAME."""
        value = content.get(name)
        if (value is None and self.maybe) or self.passes(value):
            return value
        if name not in content:
            raise Wrong(f"{name} is missing")
        return self.read(name, value, letters, earlier)

    def names(self, _value: Any) -> list[str]:
        """Return the names in the file of what it stands for, where it repeats."""
        return []

    @property
    def words(self) -> str:
        """What it must be, in words."""
        return self.requirement(Letters())

    def holds(self, value: Any) -> bool:
        """Tell whether VALUE, alone, is right."""
        try:
            self.read("it", value, Letters(), {})
        except Wrong:
            return False
        return True

    def other(self, name: str, value: Any, letters: Letters) -> Wrong:
        """Return what is Wrong with VALUE under NAME where it is something else."""
        return Wrong(f"{name} is {display(value)}, not {self.requirement(letters)}")


NOUNS = {"iu": "whole number", "f": "real number", "iuf": "number"}


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
    called: str = ""  # one of them, with its limits
    below: str = ""  # a letter: these are indices
    letter: str = ""  # the one that this number is
    of: tuple[float, ...] = ()  # the only ones
    order: str = ""  # "rising", no two alike, or "sorted"
    unique: bool = False  # no row stands there twice
    holes: tuple = ()
    maybe: bool = False
    lazy: bool = False

    def requirement(self, letters: Letters) -> str:
        if self.letter in letters:
            return " ".join(map(str, letters[self.letter]))
        return letters.phrase(self.shape, self._several) if self.shape else self._one

    @property
    def _one(self) -> str:
        return self.called or f"a {NOUNS[self.kinds]}{self._limits}"

    @property
    def _several(self) -> str:
        limits = f", each {self.called}" if self.called else self._limits
        return f"{NOUNS[self.kinds]}s{limits}"

    @property
    def _limits(self) -> str:
        if self.of:
            return f" of {', '.join(map(str, self.of))}"
        if self.below:
            return f" below {self.below}"
        begins = f" above {self.above:g}" if self.above > -math.inf else ""
        begins += f" from {self.least:g}" if self.least > -math.inf else ""
        return begins + (f" to {self.most:g}" if self.most < math.inf else " on" * ("f" in begins))

    def passes(self, value: Any) -> bool:
        return not self.shape and not self.letter and self._allows(value)

    def _allows(self, value: Any) -> bool:
        """Tell whether VALUE, a single one of Python's own, is within all limits."""
        if type(value) is int and "u" in self.kinds:
            right = abs(value) <= (FARTHEST if "f" in self.kinds else LARGEST)
        else:
            right = type(value) in (int, float) and "f" in self.kinds and abs(value) <= FARTHEST
        right = right and self.above < value <= self.most and self.least <= value
        return right and (not self.of or value in self.of)

    def read(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        if hasattr(value, "dtype"):
            return self._array(name, value, letters, earlier)
        sides, inner = _sides(value, len(self.shape.split())), self.shape.split()[1:]
        if sides == (0,) and all(side.isdigit() for side in inner):
            sides = (0, *map(int, inner))  # an empty list is as wide as it is to be
        right = letters.fit(name, sides, self.shape) and all(map(self._allows, _leaves(value)))
        if not right or (self.letter and not letters.fit(name, (value,), self.letter)):
            raise self.other(name, value, letters)
        return value

    def _array(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        """Return VALUE, an array or a tensor, which stands under NAME; a single one as Python's."""
        import numpy as np

        array = value if self.lazy else _numpy(name, value)
        if array.dtype.kind not in self.kinds or not letters.fit(name, array.shape, self.shape):
            raise self.other(name, value, letters)
        if self.letter and not letters.fit(name, (array.item(),), self.letter):
            raise self.other(name, array.item(), letters)
        if self.type and not np.can_cast(array.dtype, self.type, "safe"):
            raise Wrong(f"{name} is {display(value)}, more than {self.type} can hold")
        if not self.lazy:
            self._within(name, self._without_holes(name, array, earlier), letters)
            self._arranged(name, array)
        if array.ndim == 0:
            return array.item()
        if self.type and array.dtype != self.type:
            array = array.astype(self.type)
            return sys.modules["torch"].from_numpy(array) if _is_tensor(value) else array
        return value

    def _without_holes(self, name: str, array: np.ndarray, earlier: dict[str, Any]) -> np.ndarray:
        """Return the numbers of ARRAY but for the rows that are to be NaN."""
        import numpy as np

        if array.dtype.kind != "f":
            return array
        if self.holes:
            entry, words = self.holes
            empty = np.isin(earlier[entry], words)
            holes = np.isnan(array).reshape(len(array), -1)
            wrong = np.flatnonzero((holes.all(axis=1) != empty) | (holes.any(axis=1) != empty))
            if len(wrong):
                row, there = wrong[0], "numbers" if empty[wrong[0]] else "NaN"
                why = f"whose {entry} is {earlier[entry][row]}"
                raise Wrong(f"{name} holds {there} in row {row}, {why}")
            array = array[~empty]
        if not np.isfinite(array).all():
            raise Wrong(f"{name} holds NaN or infinity")
        return array

    def _within(self, name: str, values: np.ndarray, letters: Letters) -> None:
        """Raise Wrong where one of VALUES is outside of the limits."""
        import numpy as np

        if not values.size or not self._limits:
            return
        low, high = values.min().item(), values.max().item()
        most = letters[self.below][0] - 1 if self.below else self.most
        wrong = [low] if low < self.least or low <= self.above else []
        wrong += [high] if high > most else []
        wrong += values[~np.isin(values, self.of)].ravel()[:1].tolist() if self.of else []
        if wrong:
            raise Wrong(f"{name} holds {wrong[0]}, not {self._one}")

    def _arranged(self, name: str, array: np.ndarray) -> None:
        """Raise Wrong where the rows of ARRAY are not in order, or one stands there twice."""
        import numpy as np

        if self.order == "rising" and not (array[:-1] < array[1:]).all():
            raise Wrong(f"{name} is not in order, or holds one twice")
        if self.order == "sorted" and not (array[:-1] <= array[1:]).all():
            raise Wrong(f"{name} is not in order")
        if self.unique and len(np.unique(array, axis=0)) < len(array):
            raise Wrong(f"{name} holds a row twice")


@dataclass(frozen=True)
class Texts(Entry):
    """A text, or texts of SHAPE: those OF a few, or of a PATTERN, CALLED so; as Python's own."""

    shape: str = ""
    of: tuple[str, ...] = ()
    pattern: str = ""
    called: str = "text"
    order: str = ""  # "rising": by their bytes, no two alike
    maybe: bool = False

    def requirement(self, letters: Letters) -> str:
        return letters.phrase(self.shape, f"{self.called}s") if self.shape else self._one

    @property
    def _one(self) -> str:
        if self.of:
            return f"one of {', '.join(self.of)}"
        return f"a {self.called}" if self.pattern else self.called

    def passes(self, value: Any) -> bool:
        free = not (self.shape or self.of or self.pattern)
        return free and isinstance(value, str) and value.isascii()

    def read(self, name: str, value: Any, letters: Letters, _earlier: dict[str, Any]) -> Any:
        plain = _plain_texts(name, value)
        texts = [plain] if isinstance(plain, str) else plain
        shape = () if isinstance(plain, str) else (len(plain or ()),)
        if texts is None or not letters.fit(name, shape, self.shape):
            raise self.other(name, value, letters)
        for text in texts:
            _whole(name, text)
            unknown = self.of and text not in self.of
            if unknown or (self.pattern and not re.fullmatch(self.pattern, text)):
                raise Wrong(f"{name} holds {legible.quoted(text)}, not {self._one}")
        keys = [text.encode() for text in texts] if self.order else []
        if keys != sorted(set(keys)):
            raise Wrong(f"{name} is not in the order of its bytes, or holds one twice")
        return plain


@dataclass(frozen=True)
class Flag(Entry):
    """True or false, or a list of these, of SHAPE."""

    shape: str = ""
    maybe: bool = False

    def requirement(self, letters: Letters) -> str:
        return letters.phrase(self.shape, "of true or false") if self.shape else "true or false"

    def passes(self, value: Any) -> bool:
        return not self.shape and isinstance(value, bool)

    def read(self, name: str, value: Any, letters: Letters, _earlier: dict[str, Any]) -> Any:
        right = all(isinstance(each, bool) for each in _leaves(value))
        if not right or not letters.fit(name, _sides(value, len(self.shape.split())), self.shape):
            raise self.other(name, value, letters)
        return value


@dataclass(frozen=True)
class Version(Entry):
    """The number of the form that a file has: the one that is read."""

    number: int
    maybe: bool = False

    def read(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        number = integers().read(name, value, letters, earlier)
        if number != self.number:
            raise Wrong(f"{name} {number}, where this version reads {self.number}")
        return number


@dataclass(frozen=True)
class Either(Entry):
    """What one of several ENTRIES says."""

    entries: tuple[Entry, ...]
    maybe: bool = False

    def requirement(self, letters: Letters) -> str:
        return ", or ".join(entry.requirement(letters) for entry in self.entries)

    def read(self, name: str, value: Any, letters: Letters, _earlier: dict[str, Any]) -> Any:
        if not any(entry.holds(value) for entry in self.entries):
            raise self.other(name, value, letters)
        return value


@dataclass(frozen=True)
class Plain(Entry):
    """A value of Python's own and all that it holds: no tensor and no object; FINITE numbers."""

    finite: bool = True
    maybe: bool = False

    def read(self, name: str, value: Any, _letters: Letters, _earlier: dict[str, Any]) -> Any:
        _check_plain(name, value, self.finite)
        return value


@dataclass(frozen=True)
class Opaque(Entry):
    """What another library wrote and is to read: what it is, that library says.

    Its tensors are plain ones all the same: of another kind, many an operation is an error.
    """

    def read(self, name: str, value: Any, _letters: Letters, _earlier: dict[str, Any]) -> Any:
        _check_all_dense(name, value)
        return value


@dataclass(frozen=True)
class State(Entry):
    """The state of a module: {name: tensor}, all of them there and finite."""

    maybe: bool = False

    def requirement(self, _letters: Letters) -> str:
        return "names with tensors"

    def read(self, name: str, value: Any, letters: Letters, _earlier: dict[str, Any]) -> Any:
        torch = sys.modules["torch"]  # which read them
        _check_names(name, value)
        for key, tensor in value.items():
            where = f"{name}: {_short(key)}"
            if not _is_tensor(tensor):
                raise Wrong(f"{where} is {display(tensor)}, not a tensor")
            _check_dense(where, tensor)
            if not bool(torch.isfinite(tensor).all()):
                raise Wrong(f"{where} holds NaN or infinity")
        return value


@dataclass(frozen=True)
class Table(Entry):
    """A dict with the ENTRIES; CHECKS say of them what else is wrong, or None.

    OTHERS are what else it may hold: a kind of entry, or nothing. Letters that are known outside of
    it are known in it.
    """

    entries: dict[str, Entry]
    checks: tuple[Check, ...] = ()
    others: Entry | None = field(default_factory=lambda: Plain(maybe=True))
    maybe: bool = False
    repeated: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        repeated = tuple(key for key, entry in self.entries.items() if entry.repeats)
        object.__setattr__(self, "repeated", repeated)

    def read(self, name: str, value: Any, letters: Letters, _earlier: dict[str, Any]) -> Any:
        letters = Letters(letters, letters.limits)
        earlier: dict[str, Any] = {}
        _check_names(name or "it", value)
        try:
            for key, entry in self.entries.items():
                if key in value or not entry.maybe:
                    earlier[key] = entry.take(key, value, letters, earlier)
            others = value.keys() - earlier.keys()
            for key in self.repeated:
                others -= set(self.entries[key].names(earlier[key]))
            for key in sorted(others):
                if self.others is None:
                    raise Wrong(f"{_short(key)} is none of its entries")
                if value[key] is not None:
                    self.others.read(_short(key), value[key], letters, earlier)
            for check in self.checks:
                if wrong := check(earlier):
                    raise Wrong(wrong)
        except Wrong as error:
            raise Wrong(f"{name}.{error}" if name else str(error)) from None
        return value | earlier


@dataclass(frozen=True)
class Mapping(Entry):
    """A dict of any names, each with what ENTRY says."""

    entry: Entry
    maybe: bool = False

    def requirement(self, letters: Letters) -> str:
        return f"names, each with {self.entry.requirement(letters)}, or null"

    def read(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        if not isinstance(value, dict):
            raise self.other(name, value, letters)
        _check_names(name, value)
        for key, each in value.items():
            if each is not None and not self.entry.passes(each):
                self.entry.read(f"{name}.{_short(key)}", each, letters, earlier)
        return value


@dataclass(frozen=True)
class Json(Entry):
    """A text that is JSON, and as ENTRY says."""

    entry: Entry
    maybe: bool = False

    def read(self, name: str, value: Any, letters: Letters, earlier: dict[str, Any]) -> Any:
        text = Texts().read(name, value, letters, earlier)
        try:
            content = containers.parse(text)
        except ValueError as error:
            raise Wrong(f"{name}: not JSON ({legible.line(error)})") from error
        if isinstance(self.entry, Table) and not isinstance(content, dict):
            raise Wrong(f"{name}: not a JSON object")
        return self.entry.read(name, content, letters, earlier)


@dataclass(frozen=True)
class Each(Entry):
    """Entries that stand there for each row of the array under OVER: {row: what TABLE says}.

    NAMING makes the name in the file of {name} in TABLE and of the numbers of the row.
    """

    over: str
    naming: str
    table: Table
    repeats: ClassVar[bool] = True

    def take(
        self, _name: str, content: dict[str, Any], letters: Letters, earlier: dict[str, Any]
    ) -> Any:
        rows = map(tuple, earlier[self.over].tolist())
        return {row: self._of(row, content, letters) for row in rows}

    def names(self, rows: Any) -> list[str]:
        """Return the names in the file of what stands there for the ROWS."""
        return [name for row in rows for name in self._named(row).values()]

    def _named(self, row: tuple) -> dict[str, str]:
        return {key: self.naming.format(*row, name=key) for key in self.table.entries}

    def _of(self, row: tuple, content: dict[str, Any], letters: Letters) -> dict[str, Any]:
        names = self._named(row)
        there = {key: content[name] for key, name in names.items() if name in content}
        try:
            return self.table.read("", there, letters, {})
        except Wrong as error:
            key, rest = str(error).split(" ", 1)
            raise Wrong(f"{names.get(key, key)} {rest}") from None


def integers(shape: str = "", type: str | None = None, **rules: Any) -> Numbers:
    """Return an entry of whole numbers; of Numbers, without its kinds."""
    return Numbers("iu", shape, type, **rules)


def reals(shape: str = "", type: str | None = None, **rules: Any) -> Numbers:
    """Return an entry of real numbers; of Numbers, without its kinds."""
    return Numbers("f", shape, type, **rules)


def numbers(shape: str = "", type: str | None = None, **rules: Any) -> Numbers:
    """Return an entry of numbers, whole or real; of Numbers, without its kinds."""
    return Numbers("iuf", shape, type, **rules)


# ---- Values -------------------------------------------------------------------------------------

PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


def display(value: Any) -> str:
    """Return VALUE as messages show it: as JSON has it, cut short; or 3 x 20 of bool."""
    if hasattr(value, "dtype"):
        shape = " x ".join(map(str, value.shape)) or "one"
        return f"{shape} of {str(value.dtype).removeprefix('torch.')}"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return _short(text)


def _short(text: str) -> str:
    """Return TEXT as messages show it, cut short."""
    return legible.text(text if len(text) <= legible.WIDE else f"{text[: legible.WIDE - 1]}\u2026")


def _numpy(name: str, value: Any) -> np.ndarray:
    """Return VALUE, an array or tensor, as an array that shares its memory where it can."""
    import numpy as np

    if not _is_tensor(value):
        return np.asarray(value)
    _check_dense(name, value)
    if value.dtype == sys.modules["torch"].bfloat16:
        return np.empty(value.shape, "V2")  # a type that NumPy has not
    return value.detach().numpy()


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what stands in VALUE, lists in lists."""
    if not isinstance(value, list | tuple):
        yield value
        return
    for each in value:
        yield from _leaves(each)


def _sides(value: Any, deepest: int) -> tuple[int, ...]:
    """Return the shape of lists in lists, -1 where it lies below DEEPEST or is of several."""
    if not isinstance(value, list | tuple):
        return ()
    inside = {_sides(each, deepest - 1) for each in value} if deepest else {(-1,)}
    return (len(value), *(inside.pop() if len(inside) == 1 else (-1,) if inside else ()))


def _plain_texts(name: str, value: Any) -> str | list[str] | None:
    """Return VALUE, of texts, as a str or a list of them; None for another."""
    import numpy as np

    if hasattr(value, "dtype"):
        if _is_tensor(value) or value.dtype.kind != "U":
            return None
        codes = np.array(value, f"=U{max(1, value.dtype.itemsize // 4)}", ndmin=1).view("u4")
        if codes.max(initial=0) > sys.maxunicode:  # NumPy itself makes an error of the system
            raise Wrong(f"{name} holds what is no text")
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return list(value)
    return value if isinstance(value, str) else None


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # without it nothing is one
    return torch is not None and isinstance(value, torch.Tensor)


def _whole(name: str, text: str) -> None:
    """Raise Wrong where TEXT cannot be written: it holds half of a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"{name} holds what is no text: {legible.quoted(text)}") from None


def _check_dense(name: str, tensor: Any) -> None:
    """Raise Wrong where TENSOR is no plain one whose numbers all stand in the file."""
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise Wrong(f"{name} is a tensor of another kind than those of a network")
    # One that repeats itself could claim any size.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise Wrong(f"{name} is {display(tensor)}, more than its bytes hold")


def _check_all_dense(name: str, value: Any, deepest: int = DEEPEST) -> None:
    """Raise Wrong where a tensor in VALUE is none that _check_dense() passes."""
    if not deepest:
        raise Wrong(f"{name} is nested too deeply")
    if _is_tensor(value):
        _check_dense(name, value)
    elif isinstance(value, dict | list | tuple | set | frozenset):
        for each in value.values() if isinstance(value, dict) else value:
            _check_all_dense(name, each, deepest - 1)


def _check_names(name: str, value: Any) -> None:
    """Raise Wrong where VALUE is no dict whose keys are texts."""
    if not isinstance(value, dict):
        raise Wrong(f"{name} is {display(value)}, not names with values")
    for key in value:
        if type(key) is not str:
            raise Wrong(f"{name} has {display(key)} for a name")
        if not key.isascii():
            _whole(name, key)


def _check_plain(name: str, value: Any, finite: bool, deepest: int = DEEPEST) -> None:
    """Raise Wrong where something in VALUE is not plain, or a number in it is not FINITE."""
    if not deepest:
        raise Wrong(f"{name} holds {display(value)}, nested too deeply")
    if isinstance(value, dict):
        _check_names(name, value)
        for key, each in value.items():
            _check_plain(f"{name}.{_short(key)}", each, finite, deepest - 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_plain(name, each, finite, deepest - 1)
    elif isinstance(value, str):
        _whole(name, value)
    elif type(value) not in PLAIN:
        raise Wrong(f"{name} holds {display(value)}, not a plain value")
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
    entries: dict[str, Entry]
    checks: tuple[Check, ...] = ()
    others: Entry | None = None
    limits: Limits = field(default_factory=dict)
    known: ClassVar[list[Format]] = []
    table: Table = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", Table(self.entries, self.checks, self.others))
        self.known.append(self)

    def read(self, path: str, **sides: tuple[int, str]) -> dict[str, Any]:
        """Return what the file PATH holds, {name: value}, checked; see check()."""
        return self.check(self.container(path), path, **sides)

    def check(self, content: Any, path: str, **sides: tuple[int, str]) -> dict[str, Any]:
        """Return CONTENT, which was read from PATH, checked, in the form in which it is used.

        SIDES are letters of shapes known from elsewhere, as N=(12, "lines of train.tsv"). Raises
        DataError that names PATH, the entry that is wrong, and what to do.
        """
        try:
            return self.table.read("", content, Letters(sides, self.limits), {})
        except Wrong as error:
            wrong = str(error)
            if not self.known_by(content):
                others = (f for f in self.known if len(f.needed) > 1 and f.known_by(content))
                other = next(others, None)  # of a name alone nothing follows
                wrong = f"{other.what}, not {self.what}" if other else f"not {self.what}: {wrong}"
            raise DataError(f"{streams.name(path)}: {wrong}: {self.fix}") from None

    @property
    def version(self) -> int:
        """The number of the form, which its files hold."""
        plain = (e.entry if isinstance(e, Json) else e for e in self.entries.values())
        return next(entry.number for entry in plain if isinstance(entry, Version))

    @property
    def needed(self) -> set[str]:
        """The names that its files must have."""
        return {key for key, e in self.entries.items() if not (e.maybe or e.repeats)}

    def known_by(self, content: Any) -> bool:
        """Tell whether CONTENT has all the names that it must have."""
        return isinstance(content, dict) and self.needed <= content.keys()
