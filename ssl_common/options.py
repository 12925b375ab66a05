"""Options of a command as a dataclass: each field is an option with its range and help.

A room declares them without a word of the command line, which cli.options.declared() makes of them;
a notebook makes the dataclass itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class OptionError(ValueError):
    """Options that do not go together: status 2 of a command."""


@dataclass(frozen=True)
class Option:
    """How an option is asked for.

    HELP is its line; NAMES are what it is called by, by default --field-name; a number lies between
    LEAST and MOST, a word is one OF; METAVAR stands for its value, and USUAL for its default, in
    the help. SHARED is the name of one that several commands take, which cli.options has.
    """

    help: str = ""
    names: tuple[str, ...] = ()
    least: int | None = None
    most: float | None = None
    of: tuple[str, ...] = ()
    metavar: str | None = None
    usual: str | None = None
    required: bool = False
    shared: str | None = None


def option(help: str, default: Any = None, names: Sequence[str] = (), **rules: Any) -> Any:
    """Return a field of a dataclass that is an Option with these RULES, DEFAULT by default."""
    return field(default=default, metadata={"option": Option(help, tuple(names), **rules)})


def shared(name: str, default: Any = None) -> Any:
    """Return a field that is the option NAME of cli.options."""
    return field(default=default, metadata={"option": Option(shared=name)})
