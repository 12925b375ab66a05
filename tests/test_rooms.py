"""The house: a room uses the rooms before it, never one after it, and tools stay thin."""

import ast

import pytest
from conftest import CHECKOUT

ORDER = ["data", "scenes", "pretext", "models", "training", "evaluation", "reporting"]
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


def place(parts):
    """Return how late in the experiment the room PARTS lead to comes; -1 is below them all."""
    return ORDER.index(parts[0]) if parts[0] in ORDER else -1


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_room_uses_a_later_one(path):
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] in ("ssl_tools", "tools")]
    if path.parent.name == "tools":
        return
    here = place(path.relative_to(CHECKOUT / "ssl_common").parts)
    used = [name.split(".")[1:] for name in names if name.startswith("ssl_common.")]
    assert not [parts for parts in used if place(parts) > here]
    # A room talks to the user by what it is given, so it can be used without a command.
    speaks = ("click.", "ssl_common.cli.", "ssl_common.values.")
    assert here < 0 or not [name for name in names if f"{name}.".startswith(speaks)]


def test_every_room_has_its_place():
    rooms = {path.parent.name for path in CHECKOUT.glob("ssl_common/*/*.py")}
    assert rooms <= set(ORDER)


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("tools/*.py")), ids=lambda path: path.name)
def test_tools_are_thin(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


def test_the_rule_sees_an_import_inside_a_function(tmp_path):
    late = tmp_path / "late.py"
    late.write_text("def f():\n    from ssl_common.training import loop\n")
    assert [place(name.split(".")[1:]) for name in imported(late)] == [ORDER.index("training")]
