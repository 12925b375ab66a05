"""The image list: by line number, in any size, against a plain split of the file."""

import bz2
import contextlib
import gzip
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import Bomb
from torch.utils.data import Dataset

from ssl_common import streams
from ssl_common.data import lines as module
from ssl_common.data.batches import batches
from ssl_common.data.lines import BLOCK, PIECE, index_files
from ssl_common.data.manifest import (
    Manifest,
    Row,
    format_row,
    label_matrix,
)
from ssl_common.data.order import ShuffleSampler
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
    """The index reads PIECE bytes at a time; the boundary falls at every byte of a character."""
    start = "x" * (50 - shift) + "\n"
    line = "漢" * 33 + ".jpg\n"  # 104 bytes
    count = PIECE // len(line.encode()) + 300
    content = start + line * count
    boundary = content.encode()[:PIECE]
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
        cuts.add(content[PIECE] & 0xC0 == 0x80)
    assert cuts == {True, False}


def test_a_newline_at_the_reading_boundary(tmp_path):
    for extra in (-1, 0, 1):
        width = PIECE // 1024
        content = ("y" * (width - 1) + "\n") * 1023 + "y" * (width - 1 + extra) + "\n" + "z\n" * 70
        found = manifest(tmp_path, content)
        assert len(found) == 1024 + 70
        assert found[1023].path == "y" * (width - 1 + extra)
        assert found[1024].path == "z" and found[1093].path == "z"


@pytest.mark.parametrize("line", [1, 2, BLOCK, BLOCK + 1, 40_000, 80_000])
def test_bytes_that_are_not_utf8_are_found_on_their_line(tmp_path, line):
    rows = ["漢" * 33 + ".jpg"] * 80_000  # over a PIECE
    content = [row.encode() for row in rows]
    content[line - 1] = b"caf\xe9.jpg"
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, b"\n".join(content) + b"\n")


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_broken_character_across_the_reading_boundary(tmp_path, cut):
    content = bytearray(b"x" * 99 + b"\n") * 42_000
    content[PIECE - cut : PIECE - cut + 4] = b"\xe6\xbcxx"  # its third byte is missing
    line = content[: PIECE - cut + 2].count(b"\n") + 1
    with pytest.raises(DataError, match=rf"list\.tsv:{line}: not UTF-8"):
        manifest(tmp_path, bytes(content))


@pytest.mark.parametrize("cut", range(1, 3))
def test_a_bad_byte_after_a_character_across_the_reading_boundary(tmp_path, cut):
    content = bytearray(b"x" * 99 + b"\n") * 42_000
    content[PIECE - cut : PIECE - cut + 6] = "漢".encode() + b"\xff\n\n"
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
        ("a\rb.jpg", "carriage return"),
        ("a\0.jpg", "zero byte"),
        ("?a.jpg", "a path may not start with a question mark"),
        ("\ufeffa.jpg", "byte-order mark"),
        ("a.jpg\t??dog", "a label may not start with a question mark"),
        ("a.jpg\tcat,??dog", "a label may not start with a question mark"),
        ("a.jpg\tcat\tdog", "more than one TAB"),
        ("a.jpg\tcat,,dog", "empty label"),
        ("a.jpg\t?", "empty label"),
        ("a.jpg\tcat,", "empty label"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, message):
    for before in (1, 30_000):  # in the first piece, and in another
        with pytest.raises(DataError, match=rf"list\.tsv:{before + 1}: .*{message}"):
            manifest(tmp_path, "fine/photo/of/a/cat.jpg\tcat\n" * before + f"{line}\nlast.jpg\n")
    with pytest.raises(DataError, match=rf"list\.tsv:1: .*{message}"):
        manifest(tmp_path, f"{line}\n")


@pytest.mark.parametrize(
    "line", ["a,,b.jpg", "./?a", "a.jpg\t?b?", "a\ufeff.jpg", " ", "a\t\u2028"]
)
def test_a_line_that_looks_wrong_and_is_not(tmp_path, line):
    content = f"fine.jpg\n{line}\nlast.jpg\tcat\n"
    assert list(manifest(tmp_path, content)) == plainly(content)


@pytest.mark.parametrize("pack, by", [(gzip.compress, "gzip"), (bz2.compress, "bzip2")])
def test_a_packed_manifest_is_named(tmp_path, pack, by):
    with pytest.raises(DataError, match=rf"list\.tsv:\d+: packed: unpack it with {by} -dc"):
        manifest(tmp_path, pack(b"".join(b"%d.jpg\n" % (i * i) for i in range(999))))


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


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Return the file an index is kept in; let every manifest be large enough for one."""
    monkeypatch.setattr(module, "SMALL", 0)
    (path,) = index_files(tmp_path / "list.tsv", str(tmp_path / "made/index"))
    return pathlib.Path(path)


def indexing(monkeypatch):
    """Return a list that grows by an item whenever a file is read for its index."""
    made, make = [], Manifest._make_index
    monkeypatch.setattr(Manifest, "_make_index", lambda self: made.append(self.path) or make(self))
    return made


def test_the_index_is_kept_and_mapped(tmp_path, kept, monkeypatch):
    made = indexing(monkeypatch)
    content = lines(3000)
    path = tmp_path / "list.tsv"
    path.write_text(content)
    for _ in range(3):
        found = Manifest(str(path), [str(kept)])
        assert list(found) == [found[k] for k in range(len(found))] == plainly(content)
        assert found.digest() == streams.digest(r.path.encode() + b"\n" for r in plainly(content))
    assert len(made) == 1
    pickled = pickle.dumps(found)
    assert len(pickled) < 1000 and pickle.loads(pickled)[2999] == found[2999]
    assert os.listdir(kept.parent) == [kept.name]


def test_a_small_manifest_leaves_no_index(tmp_path, kept, monkeypatch):
    (tmp_path / "list.tsv").write_text(lines(100))
    monkeypatch.setattr(module, "SMALL", os.path.getsize(tmp_path / "list.tsv"))
    assert Manifest(str(tmp_path / "list.tsv"), [str(kept)])[99].path == "日本/99 x.jpg"
    assert not kept.exists()


@pytest.mark.parametrize("change", ["longer", "same size", "replaced", "older"])
def test_an_index_of_another_file_is_made_anew(tmp_path, kept, monkeypatch, change):
    made = indexing(monkeypatch)
    path = tmp_path / "list.tsv"
    path.write_text("a.jpg\nb.jpg\n" * 100)
    before = os.stat(path)
    Manifest(str(path), [str(kept)])
    time.sleep(0.02)  # the clock of a file system ticks
    content = "c.jpg\nddd.jpg\n" * 100 if change == "longer" else "a\nbbb.jpg.jpg\n"[:12] * 100
    if change == "replaced":
        (tmp_path / "new").write_text(content)
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "new", path)
    else:
        path.write_text(content)
    if change == "older":
        os.utime(path, ns=(0, 0))
    for _ in range(2):
        assert list(Manifest(str(path), [str(kept)])) == plainly(content)
    assert len(made) == 2


def spoil(kept, how):
    whole = kept.read_bytes()
    if how == "pickle":
        with open(kept, "wb") as stream:
            np.save(stream, np.array([Bomb(f"touch {kept.parent}/exploded")], object))
        return
    if how == "float":
        return np.save(kept, np.load(kept).astype(float))
    if how == "short":
        return np.save(kept, np.load(kept)[:3])
    cut = {"empty": whole[:0], "header": whole[:90], "cut": whole[:-8], "text": b"a.jpg\n" * 99}
    flipped = bytearray(whole)
    flipped[-5] ^= 4
    kept.write_bytes(cut.get(how, bytes(flipped)))


@pytest.mark.parametrize(
    "how", ["flipped", "empty", "header", "cut", "text", "float", "short", "pickle"]
)
def test_a_spoilt_index_is_made_anew(tmp_path, kept, monkeypatch, how):
    made = indexing(monkeypatch)
    content = lines(1000)
    (tmp_path / "list.tsv").write_text(content)
    for number in (1, 2, 2):
        assert list(Manifest(str(tmp_path / "list.tsv"), [str(kept)])) == plainly(content)
        assert len(made) == number
        if number == 1:
            spoil(kept, how)
    assert not (kept.parent / "exploded").exists()


def test_where_an_index_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [tmp_path / "one", tmp_path / "other"]
    places = []
    for folder in folders:
        folder.mkdir()
        (folder / "list.tsv").write_text("a.jpg\n")
        beside, cached = index_files(str(folder / "list.tsv"))
        assert os.path.dirname(beside) == str(folder)
        places += [cached, *index_files(str(folder / "list.tsv"), "/index")]
    assert len(set(places)) == 4  # the same name in two folders are two indices
    assert {os.path.dirname(p) for p in places} == {str(tmp_path / "cache/ssl-bench"), "/index"}


def test_the_next_place_where_one_cannot_be_written(tmp_path, kept, monkeypatch):
    made = indexing(monkeypatch)
    path = tmp_path / "list.tsv"
    path.write_text(lines(100))
    for places in (["/proc/nowhere/i.npy", str(kept)], [str(tmp_path / "not"), str(kept)]):
        assert len(Manifest(str(path), places)) == 100
        assert len(made) == 1 and kept.exists()
    assert len(Manifest(str(path), ["/proc/nowhere/i.npy", "/proc/i.npy"])) == 100  # in memory
    with pytest.raises(OSError, match="nowhere"):  # the only one that was asked for
        Manifest(str(path), ["/proc/nowhere/i.npy"])


def test_processes_that_index_at_once(tmp_path, kept):
    content = lines(50_000)
    (tmp_path / "list.tsv").write_text(content)
    code = "import sys; from ssl_common.data import lines, manifest as m; lines.SMALL = 0;"
    code += "x = m.Manifest(sys.argv[1], sys.argv[2:]); print(x.digest(), x[49_999].path)"
    argv = [sys.executable, "-c", code, str(tmp_path / "list.tsv"), str(kept)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(4)]
    said = {process.communicate()[0].decode() for process in running}
    expected = streams.digest(row.path.encode() + b"\n" for row in plainly(content))
    assert said == {f"{expected} 日本/49999 x.jpg\n"}
    assert os.listdir(kept.parent) == [kept.name]


def private():
    """Return the memory of this process alone (USS), in KiB."""
    with open("/proc/self/smaps_rollup") as stream:
        return sum(int(line.split()[1]) for line in stream if line.startswith("Private"))


class Weighed(Dataset):
    """Lines of a manifest, and what the process that read them weighs."""

    def __init__(self, manifest):
        self.manifest = manifest

    def prepare(self):
        pass

    def __getitem__(self, item):
        _epoch, index = item
        return len(self.manifest[index].path), private() if index % 500 == 0 else 0


def test_a_worker_is_as_large_for_many_lines_as_for_few(tmp_path, kept):
    weights = []
    for count in (1000, 2_000_000):  # 110 MB
        with open(tmp_path / "list.tsv", "w") as stream:
            stream.writelines(f"a/folder/as/yfcc/has/them/{n:020}.jpg\n" for n in range(count))
        found = Manifest(str(tmp_path / "list.tsv"), [str(kept)])
        order = ShuffleSampler(count, 500, 20, 0, 0)
        with contextlib.closing(batches(Weighed(found), order, 1, False)) as loaded:
            weights.append(max(int(batch[1].max()) for batch in loaded))
    assert weights[1] - weights[0] < 4000


def test_a_file_that_is_cut_in_use_is_named(tmp_path):
    found = manifest(tmp_path, lines(1000))
    os.truncate(tmp_path / "list.tsv", 100)
    with pytest.raises(DataError, match=r"list\.tsv: cut short"):
        found[500]
    with pytest.raises(DataError, match=r"list\.tsv"):
        list(manifest(tmp_path, b"\n"))


@pytest.mark.parametrize("change", ["longer", "as long"])
def test_a_manifest_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch, change):
    """Half of its lines would be those of one file, half those of another."""
    content = lines(3 * PIECE // 20).encode()  # of more than one piece
    pieces = Manifest._pieces

    def changing(self):
        for number, piece in enumerate(pieces(self)):
            yield piece
            if number == 0 and change == "longer":
                with open(tmp_path / "list.tsv", "ab") as stream:
                    stream.write(b"one more.jpg\n")
            elif number == 0 and change == "as long":
                with open(tmp_path / "list.tsv", "r+b") as stream:
                    stream.write(b"b")

    monkeypatch.setattr(Manifest, "_pieces", changing)
    with pytest.raises(DataError, match=r"list\.tsv: it changed while it was read: run it again"):
        len(manifest(tmp_path, content))


def test_a_manifest_that_is_replaced_is_read_as_it_was(tmp_path):
    rows = manifest(tmp_path, lines(1000))
    (tmp_path / "new.tsv").write_text("another.jpg\n")
    (tmp_path / "new.tsv").rename(tmp_path / "list.tsv")
    assert list(rows) == plainly(lines(1000))


def test_a_named_pipe_is_kept_in_a_temporary_file(tmp_path):
    content = lines(50_000)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["sh", "-c", 'cat > "$0"', tmp_path / "pipe"], stdin=-1) as writer:
        feed = threading.Thread(target=lambda: writer.communicate(content.encode()))
        feed.start()
        found = Manifest(str(tmp_path / "pipe"))
        feed.join()
    assert list(found) == plainly(content) and found[49_999].path == "日本/49999 x.jpg"
    assert pickle.loads(pickle.dumps(found))[49_999] == found[49_999]


@pytest.mark.parametrize("read", [0, 6])
def test_a_file_as_standard_input_is_read_from_where_it_stands(tmp_path, monkeypatch, read):
    (tmp_path / "list.tsv").write_text("a.jpg\nb.jpg\nc.jpg\n")
    with open(tmp_path / "list.tsv") as stream:
        os.lseek(stream.fileno(), read, os.SEEK_SET)
        monkeypatch.setattr(sys, "stdin", stream)
        assert [row.path for row in Manifest("-")] == ["a.jpg", "b.jpg", "c.jpg"][read // 6 :]


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
