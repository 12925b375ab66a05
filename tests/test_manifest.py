"""The image list: by line number, in any size, against a plain split of the file."""

import os
import pickle
import sys

import numpy as np
import pytest

from ssl_common import streams
from ssl_common.data.manifest import BLOCK, Manifest, Row, format_row, label_matrix
from ssl_common.streams import DataError


def manifest(tmp_path, content):
    path = tmp_path / "list.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Manifest(str(path))


def plainly(content):
    """Return the rows of CONTENT as the format's description says, line by line."""
    rows = []
    for line in content.removesuffix("\n").split("\n"):
        path, _tab, labels = line.partition("\t")
        labels = labels.split(",") if labels else []
        sure = tuple(label for label in labels if not label.startswith("?"))
        rows.append(Row(path, sure, tuple(x[1:] for x in labels if x.startswith("?"))))
    return rows


def lines(count):
    kinds = ["a/{}.jpg", "b/{}.jpg\tcat", "ünïcödé/{}.jpg\tcat,?dog", "日本/{} x.jpg\t?Straße"]
    return "".join(kinds[n % len(kinds)].format(n) + "\n" for n in range(count))


@pytest.mark.parametrize("end", ["", "\n"], ids=["no newline at the end", "newline"])
@pytest.mark.parametrize(
    "count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 5 * BLOCK + 3]
)
def test_rows_equal_a_plain_split(tmp_path, count, end):
    content = lines(count).removesuffix("\n") + end
    found = manifest(tmp_path, content)
    expected = plainly(content)
    assert len(found) == len(expected) == count
    assert list(found) == expected
    assert [found[index] for index in range(count)] == expected
    assert [found[index] for index in reversed(range(count))][::-1] == expected
    for index in (-1, count):
        with pytest.raises(IndexError):
            found[index]


@pytest.mark.parametrize("shift", range(6))
def test_a_character_across_the_reading_boundary(tmp_path, shift):
    """The index reads 4 MiB at a time; the boundary falls at every byte of a character."""
    start = "x" * (50 - shift) + "\n"
    line = "漢" * 33 + ".jpg\n"  # 104 bytes
    count = (1 << 22) // len(line.encode()) + 300
    content = start + line * count
    boundary = content.encode()[: 1 << 22]
    found = manifest(tmp_path, content)
    assert len(found) == count + 1
    assert found[count].path == "漢" * 33 + ".jpg"
    near = boundary.count(b"\n")
    for index in range(near - BLOCK, near + BLOCK):
        assert found[index].path == "漢" * 33 + ".jpg"


def test_the_boundary_does_cut_characters():
    """What the test above is worth: some of its shifts cut a character, and some do not."""
    cuts = set()
    for shift in range(6):
        content = ("x" * (50 - shift) + "\n" + ("漢" * 33 + ".jpg\n") * 50_000).encode()
        cuts.add(content[1 << 22] & 0xC0 == 0x80)
    assert cuts == {True, False}


def test_a_newline_at_the_reading_boundary(tmp_path):
    for extra in (-1, 0, 1):
        width = (1 << 22) // 1024
        content = ("y" * (width - 1) + "\n") * 1023 + "y" * (width - 1 + extra) + "\n" + "z\n" * 70
        found = manifest(tmp_path, content)
        assert len(found) == 1024 + 70
        assert found[1023].path == "y" * (width - 1 + extra)
        assert found[1024].path == "z" and found[1093].path == "z"


@pytest.mark.parametrize("line", [1, 2, BLOCK, BLOCK + 1, 40_000, 80_000])
def test_bytes_that_are_not_utf8_are_found_on_their_line(tmp_path, line):
    rows = ["漢" * 33 + ".jpg"] * 80_000  # over 4 MiB
    content = [row.encode() for row in rows]
    content[line - 1] = b"caf\xe9.jpg"
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, b"\n".join(content) + b"\n")


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_broken_character_across_the_reading_boundary(tmp_path, cut):
    content = bytearray(b"x" * 99 + b"\n") * 42_000
    content[(1 << 22) - cut : (1 << 22) - cut + 4] = b"\xe6\xbcxx"  # its third byte is missing
    line = content[: (1 << 22) - cut + 2].count(b"\n") + 1
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, bytes(content))


@pytest.mark.parametrize("cut", range(1, 3))
def test_a_bad_byte_after_a_character_across_the_reading_boundary(tmp_path, cut):
    content = bytearray(b"x" * 99 + b"\n") * 42_000
    content[(1 << 22) - cut : (1 << 22) - cut + 6] = "漢".encode() + b"\xff\n\n"
    line = content[: content.index(b"\xff")].count(b"\n") + 1
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, bytes(content))


@pytest.mark.parametrize("end", [b"\xe6", b"\xe6\xbc", b"a\n\xc3"])
def test_a_file_that_ends_within_a_character(tmp_path, end):
    line = end.count(b"\n") + 2
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, b"ok.jpg\n" + end)


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "no path"),
        ("\tcat", "no path"),
        ("a.jpg\r", "carriage return"),
        ("a.jpg\tcat\r", "carriage return"),
        ("a.jpg\tcat\tdog", "more than one TAB"),
        ("a.jpg\tcat,,dog", "empty label"),
        ("a.jpg\t?", "empty label"),
        ("a.jpg\tcat,", "empty label"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, message):
    found = manifest(tmp_path, f"fine.jpg\n{line}\nlast.jpg\n")
    for read in (lambda: found[1], lambda: list(found)):
        with pytest.raises(DataError, match=rf"list\.tsv:2: .*{message}"):
            read()
    assert (found[0].path, found[2].path) == ("fine.jpg", "last.jpg")


def test_no_line_at_all(tmp_path):
    with pytest.raises(DataError, match=r"list\.tsv: no line"):
        manifest(tmp_path, "")
    with pytest.raises(FileNotFoundError):
        Manifest(str(tmp_path / "absent.tsv"))


def test_a_tab_without_labels_is_no_label(tmp_path):
    assert list(manifest(tmp_path, "a.jpg\t\n")) == [Row("a.jpg")]


def test_pickling_maps_the_file_again(tmp_path):
    found = manifest(tmp_path, lines(100_000))
    pickled = pickle.dumps(found)
    assert len(pickled) < 20_000  # the offsets of the blocks, not the lines
    again = pickle.loads(pickled)
    assert again[99_999] == found[99_999] and len(again) == 100_000


def test_standard_input(tmp_path, monkeypatch):
    content = lines(BLOCK + 5)
    read_end, write_end = os.pipe()
    os.write(write_end, content.encode())
    os.close(write_end)
    with open(read_end) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        found = Manifest("-")
    assert list(found) == plainly(content)
    assert list(pickle.loads(pickle.dumps(found))) == plainly(content)
    assert found.digest() == manifest(tmp_path, content).digest()
    assert "standard input:3" in str(found.error(3, "x"))


def test_the_digest_is_that_of_the_paths_alone(tmp_path):
    one = manifest(tmp_path, "a.jpg\tcat\nb.jpg\n").digest()
    assert one == streams.digest(b"a.jpg\nb.jpg\n")
    assert one == manifest(tmp_path, "a.jpg\nb.jpg\tdog").digest()
    assert one != manifest(tmp_path, "b.jpg\na.jpg\tcat\n").digest()


def test_a_written_row_reads_back(tmp_path):
    rows = [Row("a b.jpg", ("zebra", "Äpfel", "ape"), ("cat",)), Row("b.jpg"), Row("c", (), ("x",))]
    content = b"".join(map(format_row, rows))
    # The labels stand in the order of their bytes, difficult or not.
    assert content.splitlines()[0].decode() == "a b.jpg\tape,?cat,zebra,Äpfel"
    found = list(manifest(tmp_path, content))
    assert [(row.path, set(row.labels), row.difficult) for row in found] == [
        (row.path, set(row.labels), row.difficult) for row in rows
    ]


@pytest.mark.parametrize(
    "row",
    [Row("a\tb"), Row("a\nb"), Row("a\rb"), Row("?a"), Row(""), Row("a", ("b,c",))]
    + [Row("a", ("?b",)), Row("a", ("",)), Row("a", (), ("b\t",)), Row("a", (), ("b,c",))],
)
def test_a_name_that_the_format_cannot_hold_is_refused(row):
    with pytest.raises(DataError):
        format_row(row)


def test_label_matrix(tmp_path):
    found = manifest(tmp_path, "1\tdog,?cat\n2\n3\tape\n4\tcat,ape\n")
    classes, labels = label_matrix(found)
    assert classes == ["ape", "cat", "dog"]
    expected = [[-1, 0, 1], [-1, -1, -1], [1, -1, -1], [1, 1, -1]]
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int8
    classes, labels = label_matrix(found, ["dog", "cat", "emu"])
    np.testing.assert_array_equal(labels, [[1, 0, -1], [-1] * 3, [-1] * 3, [-1, 1, -1]])


def test_classes_are_in_the_order_of_their_bytes(tmp_path):
    classes, _labels = label_matrix(manifest(tmp_path, "1\tb,Z,é,a\n2\tz\U0001f600,z\uffee\n"))
    assert classes == ["Z", "a", "b", "z\uffee", "z\U0001f600", "é"]


def test_a_repeated_path_names_both_lines(tmp_path):
    with pytest.raises(DataError, match=r"list\.tsv:3: a stands on line 1"):
        label_matrix(manifest(tmp_path, "a\nb\na\tcat\n"))


@pytest.mark.parametrize("labels", ["cat,cat", "cat,?cat", "?cat,?cat"])
def test_a_label_that_stands_twice(tmp_path, labels):
    with pytest.raises(DataError, match=r"list\.tsv:2: a label stands twice"):
        label_matrix(manifest(tmp_path, f"a\nb\t{labels}\n"))
