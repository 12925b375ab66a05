"""What a release consists of: one version, and nothing that says another."""

import re

import pytest
from conftest import CHECKOUT, VERSION

from ssl_common import records


def text(name):
    return (CHECKOUT / name).read_text(encoding="utf-8")


def test_the_version_is_that_of_setup_py():
    assert records.version() == VERSION  # else: make setup
    assert re.findall(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE) == [VERSION]
    assert f"\n## {VERSION}\n" in text("CHANGES.md")


PLACES = ["README.md", "Makefile", "pyproject.toml", "ssl_common/__init__.py", ".ci/run"]
PLACES += [str(path.relative_to(CHECKOUT)) for path in sorted(CHECKOUT.glob("tools/*.py"))]


@pytest.mark.parametrize("place", PLACES)
def test_no_other_place_has_to_be_edited(place):
    """Where a version stands in code or tests, it says what that version wrote."""
    assert VERSION not in text(place)


@pytest.mark.parametrize("page", sorted(CHECKOUT.glob("man/*")), ids=lambda page: page.name)
def test_manual_pages_name_no_version(page):
    title = page.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r'\.TH \S+ [157] \d{4}-\d\d-\d\d "ssl-bench" "[\w -]+"', title)
