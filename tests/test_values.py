"""What options take: of every option of every command, found by asking click."""

import importlib
import math
import re

import click
import pytest
from conftest import CHECKOUT

from ssl_common import values

TOOLS = [
    importlib.import_module(f"ssl_tools.{path.stem}").main
    for path in sorted(CHECKOUT.glob("tools/*.py"))
    if path.stem != "__init__"
]
NUMBERS = (values.Whole, values.Positive, values.Share, values.Interval, values.Wholes)
# What else an option may be; one of a new kind belongs here, or among NUMBERS.
OTHERS = (click.Choice, click.Path, values.Tag, click.types.StringParamType)
ODD = [
    *(
        "0",
        "-1",
        "1",
        "7",
        "320",
        "007",
        "0.5",
        ".5",
        "5.",
        "1e9",
        "1E-3",
        "1e400",
        "1e-400",
        "0x10",
    ),
    *("nan", "NaN", "inf", "-inf", "infinity", "none", "true", "1j", "1/2", "10" * 12),
    *(" 5", "5 ", "5\n", "+5", "1_0", "1,000", "5,5", "0,1", "1,", "\u0665", "\uff15", "\u00b2"),
    *(
        "50%",
        "5 %",
        "%",
        "101%",
        "1_0%",
        "nan%",
        "5steps",
        "0steps",
        "5 steps",
        "-1epoch",
        "1e9min",
    ),
    *("9" * 19, "9" * 400, "0" * 400 + "3", "9" * 5000, "9" * 400 + "steps", "9" * 400 + "%"),
    *("1," + "9" * 400, "9" * 400 + ".5", "0." + "9" * 400),
]


def parameters(kinds):
    """Return (tool, option or operand) for each of every tool whose type is among KINDS."""
    return [
        pytest.param(tool, param, id=f"{tool.name} {param.opts[0]}")
        for tool in TOOLS
        for param in tool.get_params(click.Context(tool))
        if isinstance(param.type, kinds)
    ]


def parsed(tool, param, value):
    """Return what PARAM is on a command line of TOOL where it is VALUE; raise its UsageError."""
    words, params = [], tool.get_params(click.Context(tool))
    operands = [each for each in params if isinstance(each, click.Argument) and each.nargs == 1]
    before = operands[: operands.index(param)] if param in operands else []
    for each in params:
        if each is not param and not each.required and each not in before:
            continue
        said = value if each is param else usual(each)
        words += [said] if isinstance(each, click.Argument) else [each.opts[-1], said]
    return tool.make_context(tool.name, words).params[param.name]


def usual(param):
    if isinstance(param.type, click.Choice):
        return param.type.choices[0]
    return str(param.type.min) if isinstance(param.type, values.Whole) else "x"


def refused(tool, param, value):
    """Check that TOOL refuses VALUE in one line of a sensible length that names PARAM."""
    with pytest.raises(click.UsageError) as caught:
        parsed(tool, param, value)
    line = caught.value.format_message()
    assert caught.value.exit_code == 2
    assert param.get_error_hint(caught.value.ctx) in line, line
    assert len(line) < 300 and line.isprintable(), line


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_option_has_a_type_of_ours_or_is_no_number(tool):
    for param in tool.get_params(click.Context(tool)):
        flag = isinstance(param, click.Option) and param.is_flag
        assert flag or isinstance(param.type, (*NUMBERS, *OTHERS)), param.opts


@pytest.mark.parametrize("tool, param", parameters((*NUMBERS, *OTHERS)))
def test_an_empty_value_is_refused_by_name(tool, param):
    """An unset variable must not choose something else."""
    refused(tool, param, "")


@pytest.mark.parametrize("tool, param", parameters((*NUMBERS, *OTHERS)))
def test_an_option_is_no_value(tool, param):
    """A variable that is not set and not quoted lets the next option take its place."""
    if isinstance(param, click.Option):
        for name in ("-q", "--debug"):
            refused(tool, param, name)


def meaning(kind, text):
    """Return what TEXT means as a value of KIND, by plain arithmetic; None where it means none."""
    digits = "[0-9]+"
    if isinstance(kind, values.Whole):
        number = int(text[-30:]) if re.fullmatch(digits, text) and not text[:-30].strip("0") else -1
        return number if kind.min <= number <= kind.max else None
    if isinstance(kind, values.Wholes):
        parts = text.split(",")
        whole = [int(part) for part in parts if re.fullmatch("0*[0-9]{1,12}", part)]
        right = len(whole) == len(parts) == len(set(whole))
        return whole if right and all(kind.least <= n <= kind.most for n in whole) else None
    if isinstance(kind, values.Interval):
        found = re.fullmatch(f"({digits})(step|epoch|min)s?", text)
        count = int(found[1][:30]) if found else 0
        return (count, found[2]) if 0 < count <= values.MANY else None
    decimal = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
    share = isinstance(kind, values.Share)
    found = re.fullmatch(f"({decimal})(%?)" if share else f"({decimal})()", text, re.ASCII)
    number = float(found[1]) / (100 if found[5] else 1) if found else math.nan
    return number if (0 <= number <= 1 if share else 0 < number <= kind.max) else None


@pytest.mark.parametrize("tool, param", parameters(NUMBERS))
def test_a_number_is_what_it_says_or_refused(tool, param):
    taken = 0
    for text in ODD:
        wanted = meaning(param.type, text)
        if text == "all" or wanted is None:
            refused(tool, param, text)
        else:
            found = parsed(tool, param, text)
            assert (found[0] if param.multiple else found) == wanted, text
            taken += 1
    assert 0 < taken < len(ODD) / 2


@pytest.mark.parametrize("tool, param", parameters(values.Whole))
def test_the_bounds_of_a_whole_number_are_in(tool, param):
    least, most = param.type.min, param.type.max
    assert (parsed(tool, param, str(least)), parsed(tool, param, str(most))) == (least, most)
    refused(tool, param, str(most + 1))
    if least:
        refused(tool, param, str(least - 1))


@pytest.mark.parametrize("tags", [["a"], ["=b"], ["a="], ["a=1", "a=2"], ["a=1", "b=2", "a=1"]])
def test_a_tag_is_a_field_and_a_value_once(tags):
    tool = next(tool for tool in TOOLS if tool.name == "eval-svm")
    words = [word for tag in tags for word in ("--tag", tag)]
    with pytest.raises(click.UsageError) as caught:
        tool.make_context(tool.name, [*words, "s", "f", "m"])
    assert "--tag" in caught.value.format_message()
    made = tool.make_context(tool.name, ["--tag", "a=b=c", "s", "f", "m"])
    assert made.params["tags"] == {"a": "b=c"}
