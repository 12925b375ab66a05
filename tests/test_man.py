"""The manual: it is clean, and its examples run."""

import re
import shutil
import subprocess

import pytest
from conftest import CHECKOUT, environment

PAGES = sorted((CHECKOUT / "man").glob("*.[157]"))

SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES"]
SECTIONS += ["EXAMPLES", "NOTES", "DEPARTURES", "SEE ALSO"]


def examples(page):
    """Return the command lines of PAGE: those after `$ ` within .EX and .EE, `\\` joined."""
    found, inside, joined = [], False, False
    for line in page.splitlines():
        if line.startswith((".EX", ".EE")):
            inside = line.startswith(".EX")
        elif inside and (joined or line.startswith("$ ")):
            text = unescaped(line)
            found.append(text.removeprefix("$ ")) if not joined else None
            if joined:
                found[-1] = found[-1][:-1] + text.lstrip()
            joined = found[-1].endswith("\\")
    return found


def unescaped(line):
    """Return a LINE of roff as it is shown."""
    for escape, shown in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\(ti", "~")):
        line = line.replace(escape, shown)
    line = re.sub(r"\\f[BIRP]|\\&", "", line)
    return line.replace("\\(rs", "\\").replace("\\e", "\\")


def test_examples_are_found_and_unescaped():
    page = (
        ".EX\n$ list\\-images voc \\e\n      A | awk \\(aq{ print }\\(aq\nshown\n$ b\n.EE\n$ no\n"
    )
    assert examples(page) == ["list-images voc A | awk '{ print }'", "b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.suffix == ".1"], ids=lambda page: page.name
)
def test_the_examples_run(page, scratch):
    """In one folder and in their order: an example may use what the one before it made."""
    lines = examples(page.read_text(encoding="utf-8"))
    assert lines, "no example"
    for line in lines:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=scratch,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr.decode()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lint(page):
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    done = subprocess.run(
        ["mandoc", "-Tlint", "-W", "warning", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sections_stand_in_their_order(page):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'^\.SH "?([A-Z ]+)"?$', text, re.MULTILINE)
    assert found[0] == "NAME" and found[-1] == "SEE ALSO"
    if page.suffix == ".1":
        assert found[:2] == ["NAME", "SYNOPSIS"]
        assert {"DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES"} <= set(found)
        assert found == [name for name in SECTIONS if name in found]
        assert f".TH {page.stem.upper().replace('-', chr(92) + '-')} " in text.replace('"', "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_see_also_leads_somewhere(page):
    """A page it refers to is ours, or one of the system named here."""
    text = page.read_text(encoding="utf-8").replace("\\-", "-")
    named = re.findall(r"^\.BR ([\w-]+) \(([157])\)", text, re.MULTILINE)
    assert named
    ours = {tuple(page.name.rsplit(".", 1)) for page in PAGES}
    elsewhere = "cat dos2unix grep head iconv jq make shuf sort split tar torchrun"
    system = {(name, "1") for name in elsewhere.split()}
    assert set(named) <= ours | system
