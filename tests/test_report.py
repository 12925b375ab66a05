"""report as a process."""

import json

import pytest


def test_table(run, scratch):
    done = run("report", "results.jsonl", check=0)
    head, rule, row = done.stdout.decode().splitlines()
    assert head == "| task | data set | metric | model | conv5 | best |"
    assert rule.count("---") == 6
    assert row.startswith("| svm | test | mAP | alexnet random seed 0 | ")
    assert done.stderr == b"report: 1 records, 1 rows\n"


def test_formats(run, scratch):
    tsv = run("report", "--format", "tsv", "results.jsonl", check=0).stdout.decode()
    assert tsv.split("\n")[0].split("\t")[:5] == ["task", "data_set", "metric", "model", "conv5"]
    (row,) = json.loads(run("report", "--format", "json", "results.jsonl", check=0).stdout)
    assert row["values"] == {"conv5": row["best"]}
    assert run("report", "--format", "html", "results.jsonl").returncode == 2


def test_several_files_and_a_pipe(run, scratch):
    record = json.loads((scratch / "results.jsonl").read_text())
    (scratch / "more.jsonl").write_text(json.dumps(record | {"layer": "conv1", "value": 12.5}))
    named = run("report", "results.jsonl", "more.jsonl", "results.jsonl", check=0)
    assert named.stderr == b"report: 3 records, 1 rows; 1 replaced by a later one\n"
    both = b"".join((scratch / f"{f}.jsonl").read_bytes() for f in ("results", "more"))
    assert run("report", stdin=both, check=0).stdout == named.stdout
    assert run("report", "results.jsonl", "-", stdin=both, check=0).stdout == named.stdout
    run("report", "-q", "-o", "table.md", stdin=both, check=0)
    assert (scratch / "table.md").read_bytes() == named.stdout


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no record"),
        (b"task\n", ":1: not JSON"),
        (b"[]\n", ":1: not a JSON object"),
        (b'{"step": 1, "loss": 2}\n', ":1: not a result"),
        (b'{"task": "svm", "value": NaN}\n', ":1: the value is nan"),
        (b"\xff\n", ":1: not JSON"),
    ],
)
def test_what_is_no_record(run, scratch, content, said):
    (scratch / "bad.jsonl").write_bytes(content)
    (scratch / "table.md").write_bytes(b"before")
    done = run("report", "bad.jsonl", "-o", "table.md", check=1)
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.decode().startswith("report: bad.jsonl:") and said in done.stderr.decode()
    assert (scratch / "table.md").read_bytes() == b"before"


def test_missing_file(run, scratch):
    done = run("report", "none.jsonl", check=1)
    assert done.stderr == b"report: none.jsonl: No such file or directory\n"
