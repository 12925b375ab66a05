"""sample-yfcc as a process."""

import bz2
import gzip
import os
import signal
import subprocess

import pytest
from conftest import BIN, environment

from ssl_common.data import yfcc
from ssl_common.data.manifest import Manifest


def test_the_manifest_and_the_one_line(scratch, run):
    done = run("sample-yfcc", "-n", 10, "listing.tsv", check=0)
    lines, _tally = yfcc.sample([str(scratch / "listing.tsv")], 10, 0)
    assert done.stdout == b"".join(lines)
    assert len(Manifest(written(scratch / "m.tsv", done.stdout))) == 10
    assert done.stderr == b"sample-yfcc: drew 10 of 50 photos, 60 lines\n"


def written(path, content):
    path.write_bytes(content)
    return str(path)


def test_all_photos(scratch, run):
    done = run("sample-yfcc", "-n", "all", "listing.tsv", "listing.tsv", check=0)
    assert done.stdout == run("sample-yfcc", "-n", 50, "listing.tsv", check=0).stdout
    assert done.stderr == b"sample-yfcc: drew 50 of 100 photos, 120 lines\n"


def test_formats_say_the_same_photos(scratch, run):
    def drawn(form):
        done = run("sample-yfcc", "-n", 20, "--format", form, "listing.tsv", check=0)
        return done.stdout.decode().splitlines()

    fields = [line.split("\t") for line in drawn("line")]
    assert {line for line in drawn("line")} < set((scratch / "listing.tsv").read_text().split("\n"))
    assert drawn("id") == [each[1] for each in fields]
    assert drawn("url") == [each[16] for each in fields]
    names = [each[2] for each in fields]
    assert drawn("path") == [f"data/images/{n[:3]}/{n[3:6]}/{n}.jpg" for n in names]
    assert drawn("shard") == [f"{path[12:15]}.zip/{path}" for path in drawn("path")]


def test_shards_merge_in_a_pipe(scratch, run):
    lines = (scratch / "listing.tsv").read_bytes().splitlines(keepends=True)
    shards = []
    for number in range(3):
        written(scratch / f"shard{number}", b"".join(lines[number::3]))
        words = ("--format", "line", f"shard{number}")
        shards.append(run("sample-yfcc", "-n", 10, *words, check=0).stdout)
    merged = run("sample-yfcc", "-n", 10, stdin=b"".join(shards), check=0)
    assert merged.stdout == run("sample-yfcc", "-n", 10, "listing.tsv", check=0).stdout


def test_videos_are_not_drawn(scratch, run):
    lines = (scratch / "listing.tsv").read_text().splitlines()
    videos = {fields[2] for fields in (line.split("\t") for line in lines) if fields[24] == "1"}
    drawn = run("sample-yfcc", "-n", 50, "listing.tsv", check=0).stdout.decode().split()
    assert len(videos) == 10 and len(drawn) == 50
    assert not videos & {path.rsplit("/", 1)[1].removesuffix(".jpg") for path in drawn}


def test_the_seed_and_nesting(scratch, run):
    def drawn(*options):
        return run("sample-yfcc", *options, "listing.tsv", check=0).stdout

    assert drawn("-n", 20) == drawn("-n", 20, "--seed", 0)
    assert drawn("-n", 20) != drawn("-n", 20, "--seed", 1)
    assert drawn("-n", 20).startswith(drawn("-n", 10))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_every_way_in(scratch, run, pack):
    expected = run("sample-yfcc", "-n", 10, "listing.tsv", check=0).stdout
    content = pack((scratch / "listing.tsv").read_bytes())
    (scratch / "packed").write_bytes(content)
    for operands in ([], ["-"], ["packed"]):
        given = run("sample-yfcc", "-n", 10, *operands, stdin=content, check=0)
        assert given.stdout == expected


def test_several_listings(scratch, run):
    expected = run("sample-yfcc", "-n", 10, "listing.tsv", check=0).stdout
    lines = (scratch / "listing.tsv").read_bytes().splitlines(keepends=True)
    (scratch / "a").write_bytes(b"".join(lines[40:]))
    first = bz2.compress(b"".join(lines[:40]))
    assert run("sample-yfcc", "-n", 10, "a", "-", stdin=first, check=0).stdout == expected


def test_fewer_photos_than_asked_for(scratch, run):
    (scratch / "old.tsv").write_bytes(b"old")
    done = run("sample-yfcc", "-n", 51, "listing.tsv", "-o", "old.tsv", check=1)
    message = b"sample-yfcc: listing.tsv: 50 photos, not 51: ask for -n all\n"
    assert (done.stdout, done.stderr) == (b"", message)
    assert (scratch / "old.tsv").read_bytes() == b"old"


def test_a_truncated_archive(scratch, run):
    content = bz2.compress((scratch / "listing.tsv").read_bytes())[:-10]
    done = run("sample-yfcc", "-n", 10, stdin=content, check=1)
    assert done.stderr == b"sample-yfcc: standard input: the archive is cut short\n"
    assert done.stdout == b""


def test_a_bad_line_is_named(scratch, run):
    with open(scratch / "listing.tsv", "a") as stream:
        stream.write("half a line\t1")
    done = run("sample-yfcc", "-n", 10, "listing.tsv", check=1)
    assert b"listing.tsv:61: 2 fields, not 25 or 23 (1 of 61 lines are bad" in done.stderr
    done = run("sample-yfcc", "-n", 10, "listing.tsv", "--max-bad", 0.02, check=0)
    said = b"61 lines; bad lines left out: 1, the first listing.tsv:61: 2 fields, not 25 or 23\n"
    assert done.stderr.endswith(said)


WRONG = "", "-n 0", "-n ten", "-n 1 --seed -1", "-n 1 --max-bad 2", "-n 1 --format jpg"


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_command_line_is_2(scratch, run, wrong):
    done = run("sample-yfcc", *wrong.split(), "listing.tsv", check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_a_closed_standard_input_is_1_in_one_line(scratch):
    line = f"{BIN}/sample-yfcc -n 10 -o new.tsv <&-"
    done = subprocess.run(["sh", "-c", line], cwd=scratch, env=environment(), capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"sample-yfcc: standard input") and done.stderr.count(b"\n") == 1
    assert not list(scratch.glob("new.tsv*"))


@pytest.fixture
def working(scratch):
    """Start it with 30 MB of lines in a pipe that stays open; its threads are at work then."""
    lines = (scratch / "listing.tsv").read_bytes() * 1500
    with subprocess.Popen(
        [str(BIN / "sample-yfcc"), "-n", "all", "--format", "line", "-o", "new.tsv"],
        cwd=scratch, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdin.write(lines)
        process.stdin.flush()
        yield process
        process.kill()


def test_a_signal_while_lines_come(working, scratch):
    working.send_signal(signal.SIGINT)
    said = working.stderr.read()
    assert (working.wait(), said) == (
        75,
        b"sample-yfcc: stopped by SIGINT: run it again to go on\n",
    )
    assert not list(scratch.glob("new.tsv*"))


def test_a_writer_that_leaves_in_a_line(working, scratch):
    """A plain listing has no end of its own: half a line is a bad line, counted and said."""
    working.stdin.write(b"90000\t6000")
    working.stdin.close()
    said = working.stderr.read()
    assert working.wait() == 0
    assert b"drew 50 of 75,000 photos, 90,001 lines; bad lines left out: 1, " in said
    assert b"standard input:90001: 2 fields" in said


def test_a_reader_that_leaves_in_the_middle(scratch):
    """As head does; the sample is larger than what a pipe holds."""
    lines = [f"{n}\t{n}\t{n:032x}{chr(9) * 14}u{chr(9) * 8}0" for n in range(20_000)]
    (scratch / "many.tsv").write_text("\n".join(lines))
    command = [str(BIN / "sample-yfcc"), "-n", "all", "many.tsv"]
    reader, writer = os.pipe()
    with subprocess.Popen(
        command, cwd=scratch, env=environment(), stdout=writer, stderr=subprocess.PIPE
    ) as process:
        os.close(writer)
        assert os.read(reader, 12) == b"data/images/"
        os.close(reader)
        assert process.stderr.read() == b""
    assert process.returncode == 1
