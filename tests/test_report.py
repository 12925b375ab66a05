"""report as a process."""

import json

import pytest
from PIL import Image


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
        (b'{"task": "svm", "value": NaN}\n', ":1: not JSON (NaN is not a finite"),
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


# ---- --plot -----------------------------------------------------------------------------------

SEED = ["results.jsonl", "--plot", "new.png", "--against", "seed"]


def test_plot_beside_the_table(run, scratch):
    table = run("report", "results.jsonl", check=0).stdout
    done = run("report", "results.jsonl", "--plot", "new.png", check=0)
    assert done.stdout == table
    assert done.stderr == b"report: 1 records, 1 rows; new.png\n"
    with Image.open(scratch / "new.png") as image:
        assert image.format == "PNG" and len(image.getcolors(1 << 20)) > 10
    record = json.loads((scratch / "results.jsonl").read_text())
    record |= {"layer": "conv1", "images": 7, "model": "b"}
    more = json.dumps(record | {"value": 12.5}).encode()
    done = run("report", "results.jsonl", "-", "--plot", "n.svg", "--against", "images", stdin=more)
    assert done.stderr == b"report: 2 records, 2 rows; n.svg without 1 that lack images\n"
    assert ">alexnet random seed 0</text>" in (scratch / "n.svg").read_text()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_plot_whatever_the_day_and_place(run, scratch, suffix):
    (scratch / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.hashsalt: x\n")
    run("report", "results.jsonl", "--plot", f"a.{suffix}", check=0)
    env = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7"}
    env["MPLCONFIGDIR"] = str(scratch / "none")
    argv = ["report", scratch / "results.jsonl", "--plot", scratch / f"b.{suffix}"]
    (scratch / "elsewhere").mkdir()
    run(*argv, cwd=scratch / "elsewhere", env=env, check=0)
    assert (scratch / f"a.{suffix}").read_bytes() == (scratch / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--plot", "new.gif"], "'new.gif' does not end in .png, .svg, .pdf"),
        (["--plot", "png"], "'png' does not end in"),
        (["--plot", "-"], "'-' does not end in"),
        (["--against", "images"], "--against is for --plot"),
        (["--plot", "new.png", "-o", "./new.png"], "--plot and -o name the same file"),
    ],
)
def test_usage_of_plot(run, scratch, argv, said):
    done = run("report", "results.jsonl", *argv, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1 and said in done.stderr.decode()
    assert not list(scratch.glob("new.*"))


def failed(done, scratch, said):
    """Check that DONE failed with SAID in one line, and that new.png is what it was."""
    assert done.returncode == 1, done.stderr.decode()
    assert done.stderr.decode() == f"report: {said}\n"
    assert (scratch / "new.png").read_bytes() == b"before" and not list(scratch.glob("*.partial"))


def test_no_matplotlib(run, scratch):
    (scratch / "new.png").write_bytes(b"before")
    code = "import sys; sys.modules['matplotlib'] = None; import ssl_tools.report as r; r.main()"
    done = run("python", "-c", code, *SEED[:3])
    failed(done, scratch, "--plot needs matplotlib: pip install matplotlib")
    assert done.stdout == b""
    run("python", "-c", code, "results.jsonl", check=0)


def test_a_field_that_no_record_has(run, scratch):
    (scratch / "new.png").write_bytes(b"before")
    done = run("report", *SEED[:3], "--against", "epochs")
    there = "classes, fits, seed, svm_seed, test_images, train_images, unconverged"
    failed(done, scratch, f"no record has a number in 'epochs' (numbers: {there})")
    assert done.stdout == b""


def test_an_old_plot_survives_bad_records_and_a_full_disk(run, scratch):
    (scratch / "new.png").write_bytes(b"before")
    (scratch / "bad.jsonl").write_text("task\n")
    done = run("report", "bad.jsonl", *SEED)
    assert done.stdout == b"" and (scratch / "new.png").read_bytes() == b"before"
    done = run("report", *SEED, "-o", "/dev/full")
    failed(done, scratch, "/dev/full: No space left on device")
    (scratch / "full.png").symlink_to("/dev/full")
    done = run("report", "results.jsonl", "--plot", "full.png", "-o", "table.md", check=1)
    assert done.stderr == b"report: full.png: No space left on device\n"
    assert not (scratch / "table.md").exists()
    done = run("report", "results.jsonl", "--plot", "no/new.png", check=1)
    assert done.stderr == b"report: no/new.png: No such file or directory\n"
    assert done.stdout == b""


def test_low_shot_rows_stand_side_by_side(run, scratch):
    record = json.loads((scratch / "results.jsonl").read_text())
    lines = [
        json.dumps(record | {"task": "low-shot", "k": k, "samples": s})
        for k in (1, 2)
        for s in (3, 5)
    ]
    done = run("report", stdin="\n".join(lines).encode(), check=0)
    assert done.stderr == b"report: 4 records, 4 rows\n"
    assert b" k=2 (5 samples) |" in done.stdout
