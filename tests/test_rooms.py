"""The house: a room uses the rooms before it, never one after it, and tools stay thin.

Below the rooms lies the ground floor, modules that each use only those before them.
"""

import ast

import pytest
from conftest import CHECKOUT

ROOMS = ["data", "scenes", "pretext", "models", "training", "evaluation", "reporting"]
FLOOR = ["legible", "options", "progress", "recipe", "processes", "threads", "shortage"]
FLOOR += ["locks", "partials", "streams", "crew", "stored", "containers", "schema", "fields"]
FLOOR += ["tasks", "results", "formats", "records", "objective", "ranks"]
TOOLS = ["values", "cli"]  # for the tools alone: a room talks to the user by what it is given
ORDER = FLOOR + ROOMS
SOURCES = sorted([*CHECKOUT.glob("ssl_common/**/*.py"), *CHECKOUT.glob("tools/*.py")])


def imported(path):
    """Return the dotted names PATH imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def place(name):
    """Return the room, or module of the ground floor, of the dotted NAME, ssl_common.x.y: x.

    None for the door, ssl_common itself, and for what is not ours. A room within a room is of it.
    """
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if first == "ssl_common" else None


def module(path):
    """Return the dotted name of the module in the file PATH."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_room_uses_a_later_one(path):
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] in ("ssl_tools", "tools")]
    here = place(module(path))
    if here is None:  # a tool, or the door
        return
    used = {place(name) for name in names} - {None, here}
    if here in TOOLS:
        assert used <= {*FLOOR, *TOOLS[: TOOLS.index(here)]}
        return
    assert used <= set(ORDER[: ORDER.index(here)])
    assert here in FLOOR or not [name for name in names if name.split(".")[0] == "click"]


def test_every_room_and_module_has_its_place():
    there = {place(module(path)) for path in SOURCES} - {None}
    assert there == {*ORDER, *TOOLS}


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("tools/*.py")), ids=lambda path: path.name)
def test_tools_are_thin(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


def test_the_rule_sees_an_import_inside_a_function_and_a_room_within_a_room(tmp_path):
    late = tmp_path / "late.py"
    late.write_text("def f():\n    from ssl_common.training.plans import a\n    import numpy\n")
    assert {place(name) for name in imported(late)} == {"training", None}
    assert place(module(CHECKOUT / "ssl_common/evaluation/svm/solver.py")) == "evaluation"
    assert place(module(CHECKOUT / "ssl_common/streams.py")) == "streams"
