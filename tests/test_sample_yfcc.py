"""sample-yfcc as a process."""

import bz2
import gzip

import pytest

from ssl_common.data import yfcc


def test_the_manifest_and_the_one_line(scratch, run):
    done = run("sample-yfcc", "-n", 10, "listing.tsv", check=0)
    paths, _tally = yfcc.sample([str(scratch / "listing.tsv")], 10, 0)
    assert done.stdout.decode().splitlines() == list(paths)
    assert done.stderr == b"sample-yfcc: drew 10 of 50 photos, 60 lines\n"


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
    message = b"sample-yfcc: listing.tsv: 50 photos, not 51: ask for -n 50 or less\n"
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
    assert b"listing.tsv:61: 2 fields, not 25 (1 of 61 lines are bad)" in done.stderr


@pytest.mark.parametrize("wrong", [[], ["-n", 0], ["-n", "ten"], ["-n", 1, "--seed", -1]])
def test_a_bad_command_line_is_2(scratch, run, wrong):
    done = run("sample-yfcc", *wrong, "listing.tsv", check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
