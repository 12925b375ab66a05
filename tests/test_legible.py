"""Text for people: whatever a name holds, no terminal obeys it and no table or picture breaks."""

import ast
import json
import re
import xml.etree.ElementTree as ET

import pytest
from conftest import CHECKOUT
from PIL import Image

from ssl_common import legible
from ssl_common.reporting import captions, plots, report, tables

EVIL = [
    *(
        "a\x1b[2J\x1b]0;title\x07b",
        "a\r\nused\tb",
        "a\tb",
        "\x9b31mred",
        "\x00",
        "\x7f",
        "\x08\x08",
    ),
    *("\u202edcba", "a\u2028b", "a\u2029b", "a\u200bb", "\u2066x\u2069", "\ufeffa", "a\x85b"),
    *("\udcff.jpg", "\ud83d", "a\ufffeb", "a\uffffb", "\ufdd0", "\U0001ffff", "\U000e0041"),
]
FINE = [
    "a b",
    "caf\u00e9",
    "\u5199\u771f",
    "\u0645\u0631\u062d\u0628\u0627",
    "\U0001f600",
    "C:\\x",
    "a\u00a0b",
    "",
]


def is_safe(text):
    """Tell whether TEXT has nothing that XML bars, a terminal obeys, or that changes the order."""
    barred = (
        "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]"
    )
    return not re.search(barred, text) and bool(text.encode())  # which no surrogate can


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_what_is_hidden_becomes_visible(evil):
    said = legible.text(evil)
    assert is_safe(said) and "\\" in said and said != evil
    assert legible.text(said) == said  # once or twice is the same
    assert (
        is_safe(legible.line(evil))
        and is_safe(legible.quoted(evil))
        and is_safe(legible.cell(evil))
    )


@pytest.mark.parametrize("fine", FINE, ids=ascii)
def test_letters_of_any_script_stay(fine):
    assert legible.text(fine) == legible.line(fine) == legible.cell(fine) == fine


def test_it_reads_as_python_would_write_it():
    assert legible.text("\x1b\t\n\r\x7f\u202e\U000e0041") == r"\x1b\t\n\r\x7f\u202e\U000e0041"
    assert legible.text(b"a\xff".decode("utf-8", "surrogateescape")) == r"a\xff"  # as bytes
    assert legible.line("two\n  lines\n") == "two lines"
    assert legible.line(f"{'a' * 4096}: no such file") == f"{'a' * 4096}: no such file"
    assert len(legible.line(f"a{'b' * 99_999}: mend it")) < 7000
    assert legible.quoted("9" * 400) == f"'{'9' * 60}...'"


@pytest.mark.parametrize("name", ["a|b", "a\\|b", "a\\\\|b", "<b>", "a\\<b", "|", "\\"])
def test_a_cell_holds_its_name(name):
    r"""By the rules of Markdown: a \ takes the meaning of what stands after it, of a \ too."""
    cell = legible.cell(name)
    assert not re.search(r"(?<!\\)(\\\\)*[|<]", cell)
    assert re.sub(r"\\([\\|<])", r"\1", cell) == name or name == "\\"


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_json_means_the_same(evil):
    value = {"name": [evil, 1.5, None], "\u5199": "\u5199"}
    for extra in ({}, {"indent": 1}):
        written = legible.dumps(value, **extra)
        assert is_safe(written.replace("\n", "")) and json.loads(written) == value
        assert "\u5199" in written
    with pytest.raises(ValueError):
        legible.dumps(float("nan"))


# ---- Where it is used -------------------------------------------------------------------------


def reported(tmp_path, evil):
    about = {"task": "svm", "data_set": evil, "metric": evil, "arch": evil, "value": 1.0}
    record = about | {"layer": evil, "images": 5, "data_name": f"x{evil}"}
    try:
        (tmp_path / "r.jsonl").write_text(json.dumps(record) + "\n")
        return report.gather([str(tmp_path / "r.jsonl")])[0]
    except report.DataError:  # half a character: no JSON
        return None


@pytest.mark.parametrize("evil", [*EVIL, "a|b", "<script>"], ids=ascii)
def test_no_table_breaks(tmp_path, evil):
    if (rows := reported(tmp_path, evil)) is None:
        pytest.skip("a record cannot hold it")
    markdown, tsv, text = (tables.FORMATS[form](rows) for form in ("markdown", "tsv", "json"))
    lines = markdown.splitlines()
    assert len(lines) == 3 and all(map(is_safe, lines))
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {7}
    assert [line.count("\t") for line in tsv.splitlines()] == [7, 7]
    assert is_safe(re.sub("[\t\n]", "", tsv)) and is_safe(text.replace("\n", ""))
    assert json.loads(text)[0]["data_set"] == evil


@pytest.mark.parametrize("against", [None, "images"])
def test_a_plot_is_xml(tmp_path, against):
    evil = "".join(each for each in EVIL if reported(tmp_path, each))
    svg, _left_out = plots.render(reported(tmp_path, evil), "a.svg", against)
    said = "".join(ET.fromstring(svg).itertext())
    assert is_safe(said.replace("\n", "")) and r"\x1b[2J" in said


def test_a_caption_is_one_line():
    _picture, pen = captions.sheet((900, 40))
    for evil in EVIL:
        assert captions.fitting(pen, f"{evil}.jpg", 800) == legible.text(f"{evil}.jpg")
    assert captions.fitting(pen, "a" * 99, 100).endswith("aaa")
    assert isinstance(_picture, Image.Image)


def test_nothing_is_printed_past_it():
    """Only cli/talk.py and cli/tool.py write by click."""
    for path in sorted([*CHECKOUT.glob("ssl_common/**/*.py"), *CHECKOUT.glob("tools/[a-z]*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.fullmatch(r"print|.*\becho|secho|.*std(err|out)\.write(lines)?", called):
                assert path.parent.name == "cli", f"{path}:{node.lineno}"
