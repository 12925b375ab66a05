"""Every public function says the types of what it takes and gives."""

import ast

import pytest
from conftest import CHECKOUT

SOURCES = sorted(CHECKOUT.glob("ssl_common/**/*.py"))


def untyped(tree):
    """Yield the public functions of the module TREE, and the methods of its public classes, that
    do not say all their types; what stands in a function is its own."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f"{node.name}.{name}" for name in untyped(node))
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        said = all(a.annotation or a.arg in ("self", "cls") for a in arguments)
        if not said or not node.returns:
            yield node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_public_functions_have_types(path):
    assert not list(untyped(ast.parse(path.read_text(encoding="utf-8"))))


def test_one_without_is_seen():
    tree = ast.parse(
        "def f(a: int): ...\nclass C:\n    def g(self, a) -> int: ...\n    def _h(a): ..."
    )
    assert list(untyped(tree)) == ["f", "C.g"]
