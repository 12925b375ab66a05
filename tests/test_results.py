"""The fields of results: what --tag may say of them, and what makes two measurements one."""

import importlib
import json
import os
import re
import shlex

import numpy as np
import pytest
from conftest import CHECKOUT
from test_contract import COMMANDS, EXAMPLES, module, one_line

from ssl_common import records, results
from ssl_common.data import samples as few
from ssl_common.data.manifest import Manifest
from ssl_common.evaluation.linear import testing
from ssl_common.evaluation.svm import classifiers, lowshot, scoring
from ssl_common.streams import DataError

TAGGED = [
    command
    for command in COMMANDS
    if any(
        p.name == "tags"
        for p in importlib.import_module(f"ssl_tools.{module(command)}").main.params
    )
]


def test_the_manual_has_the_same_fields():
    """Each once, with the words for its type; in the part whose fields --tag may say, or not."""
    page = (CHECKOUT / "man/ssl-formats.5").read_text(encoding="utf-8").replace("\\-", "-")
    tables = re.findall(
        r"^\.nf\n(.*?)^\.fi", page.partition("\n.SS Log and results")[2], re.M | re.S
    )
    words = {
        "text": "text", "whole 1": "whole numbers? from 1 on", "percent": "a percentage, 0 to 100",
        "whole 0": "whole numbers? from 0 on", "flag": "true or false",
        "angle": "an angle, 0 to 180 degrees",
    }  # fmt: skip
    kinds = {}
    for table in tables:
        for line in re.sub(r",\n\s+(?=\w)", ", ", table).splitlines():
            names, _gap, rest = line.strip().partition("  ")
            if rest and line[4:5] != " ":
                kinds |= dict.fromkeys(names.split(", "), rest.strip())
    assert set(kinds) == set(results.FIELDS) - {"manifest"}
    for name, said in kinds.items():
        kind = re.match(r"[\[{]*(text|whole [01]|percent|angle|flag|number)", said)[1]
        assert re.search(words.get(kind, "number"), results.FIELDS[name].words), name


@pytest.mark.parametrize("name", sorted(results.COMMANDS_OWN | {"time_of_day"}))
def test_a_tag_cannot_say_what_a_command_finds_out(name):
    with pytest.raises(DataError, match=f"^--tag {name}=5: {name} is set by the command itself: "):
        records.tagged({}, {name: "5"}, "x.json")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("layer", "5", "5"),
        ("data_set", " a b ", " a b "),
        ("note", "[1]", "[1]"),
        ("images", "1000000", 1000000),
        ("seed", "0", 0),
        ("lr", "1e-3", 0.001),
        ("lr", "1", 1),
        ("cache", "true", True),
        ("shape", "[256, 6, 6]", [256, 6, 6]),
        ("momentum", "[0.9, 0.999]", [0.9, 0.999]),
        ("images", "many", None),
        ("images", "0", None),
        ("images", "-1", None),
        ("images", "1.0", None),
        ("images", "1_0", None),
        ("images", " 5", None),
        ("images", "5 ", None),
        ("images", "007", None),
        ("images", "9" * 400, None),
        ("images", "9" * 5000, None),
        ("images", "true", None),
        ("images", "", None),
        ("layer", "", None),
        ("note", "", None),
        ("lr", "nan", None),
        ("lr", "NaN", None),
        ("lr", "1e999", None),
        ("lr", "0", None),
        ("cache", "1", None),
        ("shape", "[" * 100_000, None),
        ("data_set", "caf\udce9", None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_the_value_of_a_tag(name, text, value):
    if value is None:
        with pytest.raises(DataError, match=f"^--tag {name}="):
            records.tagged({}, {name: text}, "x.json")
    else:
        found = records.tagged({name: None}, {name: text}, "x.json")
        assert found == {name: value} and type(found[name]) is type(value)


def test_a_tag_cannot_contradict_its_source():
    assert records.tagged({"seed": 3}, {"seed": "3"}, "x.json") == {"seed": 3}
    with pytest.raises(DataError, match="^--tag seed=4: x.json says 3$"):
        records.tagged({"seed": 3}, {"seed": "4"}, "x.json")
    with pytest.raises(DataError, match='^x.json: images is "12", not a whole number from 1 on$'):
        records.tagged({"images": "12"}, {}, "x.json")


@pytest.mark.parametrize("command", TAGGED)
def test_every_command_refuses_a_wrong_tag(command, run, scratch):
    """In one line, before anything is written."""
    (scratch / "new").write_bytes(b"before")
    argv = [command, *shlex.split(EXAMPLES[command].line)]
    done = run(*argv, "--tag", "value=99", "-o", "new", check=1)
    assert "--tag value=99: " in one_line(done, command)
    assert done.stdout == b"" and (scratch / "new").read_bytes() == b"before"


EVALUATE = {
    "eval-svm": lambda path, tags: scoring.evaluate("svm.npz", "test.npy", path, tags)[0],
    "eval-linear": lambda path, tags: next(
        testing.evaluate("linear.pt", path, tags, ".", "cpu", 0, print)
    ),
}


@pytest.mark.parametrize("evaluate", EVALUATE.values(), ids=EVALUATE)
def test_eval_svm_and_eval_linear_take_the_same_tags(evaluate, scratch, monkeypatch):
    """Text and numbers in their records, a contradiction refused; data_set is of the test."""
    monkeypatch.chdir(scratch)
    record = evaluate("test.tsv", {"images": "1000", "note": "1000", "data_set": "pets"})
    assert record["data_set"] == "pets" and (record["images"], record["note"]) == (1000, "1000")
    results.check(record, "the record")
    with pytest.raises(DataError, match="^--tag pretext=jigsaw: .* says random$"):
        evaluate("test.tsv", {"pretext": "jigsaw"})


@pytest.mark.parametrize("evaluate", EVALUATE.values(), ids=EVALUATE)
def test_a_list_without_a_name(evaluate, scratch, monkeypatch):
    """The number of /dev/fd/63 is none; a name that is not UTF-8 is spelled out."""
    monkeypatch.chdir(scratch)
    reading, writing = os.pipe()
    with open(reading), open(writing, "wb") as stream:
        stream.write((scratch / "test.tsv").read_bytes())
        stream.close()
        assert evaluate(f"/dev/fd/{reading}", {})["data_set"] is None
    (scratch / "test.tsv").rename(scratch / "caf\udce9.tsv")
    record = evaluate("caf\udce9.tsv", {})
    monkeypatch.setattr("sys.argv", ["eval", "caf\udce9.tsv"])
    record = json.loads(records.line(record | records.stamp("eval")))
    assert record["data_set"] == "caf\\xe9" and record["argv"] == ["eval", "caf\\xe9.tsv"]


def test_a_tag_of_the_test_cannot_contradict_the_training(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    (scratch / "test.npy.json").unlink()
    for name, text, said in (("layer", "conv1", "conv5"), ("arch", "x", "alexnet"), ("seed", 1, 0)):
        with pytest.raises(DataError, match=f"^--tag {name}={text}: svm.npz says {said}$"):
            EVALUATE["eval-svm"]("test.tsv", {name: str(text)})


def test_records_hold_what_decided_them(scratch, monkeypatch):
    """Other labels of the same images, and another type of the same numbers, too."""
    monkeypatch.chdir(scratch)

    def measured(train, labels, test):
        with open("svm.npz", "wb") as stream:
            classifiers.save(stream, classifiers.train(train, labels, {}, 0, 1, lambda *_: None))
        (record,) = scoring.evaluate("svm.npz", test, "test.tsv", {})
        results.check(record, "the record")
        return record

    lines = (scratch / "train.tsv").read_text().splitlines()
    (scratch / "other.tsv").write_text("\n".join([f"{lines[0]},dog", *lines[1:]]) + "\n")
    np.save("half.npy", np.load("train.npy").astype(np.float16))
    np.save("double.npy", np.load("test.npy").astype(np.float64))
    a = measured("train.npy", "train.tsv", "test.npy")
    b = measured("train.npy", "other.tsv", "test.npy")
    c = measured("half.npy", "train.tsv", "double.npy")
    assert a["train_manifest"] == b["train_manifest"] and a["train_labels"] != b["train_labels"]
    assert (a["train_dtype"], a["dtype"]) == ("float32", "float32")
    assert (c["train_dtype"], c["dtype"]) == ("float16", "float64")


def test_the_seed_of_low_shot_samples(scratch, monkeypatch):
    """It stands in the record, where the folder says it of these very samples."""
    monkeypatch.chdir(scratch)

    def sample(ks, seed, folder):
        few.write(Manifest("train.tsv"), ks, 2, seed, folder, None)

    def measured(folder):
        given = ("train.npy", "train.tsv", folder, {}, 0, 1, lambda *_: None)
        with open("few.npz", "wb") as stream:
            lowshot.save(stream, lowshot.train(*given))
        given = ("few.npz", "test.npy", "test.tsv", {})
        found = scoring.evaluate(*given, train_features="train.npy")
        assert not [record for record in found if "drawn" in record]
        assert {r["sample_rule"] for r in found if r["sample_seed"] is not None} <= {"single"}
        return {r["k"]: (r["sample_seed"], r["samples_digest"]) for r in found}

    sample([1, 2], 7, "a")
    sample([2], 7, "b")
    sample([1, 2], 8, "c")
    a, b, c = map(measured, "abc")
    assert (a[2], b[2][0], c[2][0]) == (b[2], 7, 8)
    assert len({digest for found in (a, c) for _seed, digest in found.values()}) == 4
    (scratch / "c/sample1_k1.npy").replace(scratch / "a/sample1_k1.npy")
    mixed = measured("a")
    assert mixed[2] == a[2] and mixed[1][0] is None and mixed[1][1] not in (a[1][1], c[1][1])
    (scratch / "a/samples.json").unlink()
    assert measured("a") == {1: (None, mixed[1][1]), 2: (None, a[2][1])}
    (scratch / "a/samples.json").write_text('{"seed": "7", "digests": {}}')
    with pytest.raises(DataError, match="^a/samples.json: not what is known of low-shot samples"):
        measured("a")
