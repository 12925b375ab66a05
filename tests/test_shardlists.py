"""list-images shards: samples and labels by webdataset's rule, and the lists of others."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_shards import afresh, jpeg, read, special, tar  # noqa: F401 (a fixture)

from ssl_common.data import lists, shardlists, shards
from ssl_common.streams import DataError


def listed(*operands, workers=0, **options):
    """Return (lines, what is said) of list-images shards OPERANDS."""
    stream = io.BytesIO()
    said = lists.write(stream, "shards", operands, None, workers, **options)
    return stream.getvalue().decode().splitlines(), said


def wrong(*operands, **options):
    with pytest.raises(DataError) as caught:
        listed(*operands, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ODD_NAMES = [
    *("a/1.jpg", "a/1.cls", "b.d/1.jpg", "b.d/1.cls", "a/2.JPG", "a/2.cls", "a/2.seg.png"),
    *("x.y.jpg", "x.z.jpg", "x.cls", "__meta__/a.jpg", "__info__.json", "README", "last.cls"),
    *("last.jpg", "one/__x__/k.jpg", "one/__x__/k.cls", "alone.jpg", "alone.txt", "a/1.JSON"),
]


def test_samples_are_those_of_webdataset():
    samples = pytest.importorskip("webdataset.tariterators")
    tar("x.tar", [(name, str(n).encode()) for n, name in enumerate(ODD_NAMES)])
    with open("x.tar", "rb") as stream:
        files = samples.tar_file_expander([{"url": "x.tar", "stream": stream}])
        theirs = [
            (sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")})
            for sample in samples.group_by_keys(files)
        ]
    ours: list = []
    for number, name in enumerate(ODD_NAMES):
        if parts := shardlists.key(name.encode()):
            key, extension = (part.decode() for part in parts)
            if not ours or ours[-1][0] != key:
                ours.append((key, {}))
            ours[-1][1][extension] = str(number).encode()
    assert ours == theirs and len(ours) == 9
    expected = [
        (f"x.tar/{key}.jpg".replace("2.jpg", "2.JPG"), files.get("cls", b"").decode())
        for key, files in theirs
        if "jpg" in files
    ]
    lines, said = listed("x.tar", image="jpg", label="cls")
    assert [tuple(f"{line}\t".split("\t")[:2]) for line in lines] == expected
    assert said == (
        "6 images of 1 shards, 5 classes; 1 images without that label, the first x.tar/alone.jpg"
    )


def test_all_images_are_listed_where_none_is_chosen():
    tar("x.tar", [(name, b"") for name in [*ODD_NAMES, "._1.jpg", "a/._2.jpg"]])
    lines, said = listed("x.tar")
    assert "x.tar/x.y.jpg" in lines and "x.tar/a/2.seg.png" in lines and len(lines) == 9
    assert (
        "2 samples of several images (--image EXT takes one of each), the first x.tar/a/2" in said
    )


def test_labels():
    fields = {"a": "cat", "b": ["cat", "?dog"], "n": 3, "none": None, "deep": {"x": 1}}
    with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", jpeg(1))
        archive.writestr("1.json", json.dumps(fields))
        archive.writestr("1.txt", "dog,?cat\n")
    tar("n01.tar", [("n.JPEG", jpeg(1))])
    tar("x.tar", [("n01.tar", Path("n01.tar").read_bytes()), ("cat/n.jpg", jpeg(2))])
    labels = {"json:a": "cat", "json:b": "cat,?dog", "json:n": "3", "txt": "?cat,dog"}
    for label, expected in labels.items():
        lines, said = listed("x.zip", label=label)
        assert lines == [f"x.zip/1.jpg\t{expected}"]
        assert "3 compressed, slower to read (zip -0), the first x.zip/1.jpg" in said
    assert listed("x.zip", label="json:none")[0] == ["x.zip/1.jpg"]
    assert wrong("x.zip", label="json:deep").startswith("x.zip/1.json: deep is no text or number")
    lines, _said = listed("x.tar", "n01.tar", label="folder")
    assert lines == ["x.tar/n01.tar/n.JPEG\tn01", "x.tar/cat/n.jpg\tcat", "n01.tar/n.JPEG\tn01"]


def test_ranges_and_gaps():
    for number in (8, 9, 10, 13):
        tar(f"x-{number:05}.tar", [(f"{number:05}0001.jpg", jpeg(1))])
    lines, said = listed("x-{00008..00010}.tar", "x-00013.tar", workers=2)
    assert lines == [f"x-{n:05}.tar/{n:05}0001.jpg" for n in (8, 9, 10, 13)]
    assert said.endswith("; 2 numbers without a shard, the first after x-00010.tar")
    assert wrong("x-{00000..00010}.tar") == (
        "x-00000.tar: no such file, nor 7 more of 11 shards: add it, or leave it out"
    )
    assert shardlists.expand("{a,b}{9..11}.tar") == [
        f"{a}{n}.tar" for a in "ab" for n in (9, 10, 11)
    ]
    assert shardlists.expand("{10..8}") == ["10", "9", "8"]
    assert "more than 1,048,576: give less" in wrong("{0..99999999}.tar")
    assert "is no range" in wrong("x-{0000}.tar")
    tar("{a,b}.tar", [("a.jpg", jpeg(1))])
    assert listed("{a,b}.tar")[0] == ["{a,b}.tar/a.jpg"]


@pytest.mark.parametrize("name", ["a..b", "{1..3}.tar", "{01..10}", "{8..11}", "x{a,b,}y{3..1}"])
def test_ranges_are_those_of_braceexpand(name):
    braceexpand = pytest.importorskip("braceexpand")
    assert shardlists.expand(name) == list(braceexpand.braceexpand(name))


def test_nothing_is_run_and_nothing_fetched(tmp_path):
    for operand in (
        "pipe:touch ran.tar",
        "PIPE:touch ran.tar",
        "https://host/x.tar",
        "s3://b/x.tar",
    ):
        assert "which is not followed: name a file" in wrong(operand)
        Path("l.json").write_text(json.dumps({"shardlist": [{"url": operand, "nsamples": 1}]}))
        assert "which is not followed: name a file" in wrong("l.json")
    assert not (tmp_path / "ran.tar").exists()
    tar("pipe:touch ran.tar", [("a.jpg", jpeg(1))])
    assert listed("./pipe:touch ran.tar")[0] == ["./pipe:touch ran.tar/a.jpg"]
    assert read("pipe:touch ran.tar/a.jpg") == jpeg(1)
    assert not (tmp_path / "ran.tar").exists()


def test_what_is_left_out_is_said():
    tar(
        "x.tar",
        [
            (special("soft.jpg", tarfile.SYMTYPE, "a.jpg"), b""),
            ("../b.jpg", jpeg(1)),
            ("a.jpg", jpeg(1)),
            ("c.jpg", jpeg(1)),
            ("a.jpg", jpeg(2)),
        ],
    )
    Path("z.tar").write_bytes(bytes(10240))
    lines, said = listed("x.tar", "z.tar")
    assert lines == ["x.tar/c.jpg", "x.tar/a.jpg"]
    assert said == (
        "2 images of 2 shards, 0 classes; 1 links, left out, the first x.tar/soft.jpg;"
        " 1 names that lead out of their shard, left out, the first x.tar/../b.jpg;"
        " 1 names that come again, of which the last counts, the first x.tar/a.jpg;"
        " 1 shards without an image, the first z.tar"
    )
    assert wrong("z.tar") == "z.tar: no image in 1 shards: is --image right?"


def test_a_tar_behind_the_end_of_another_is_told():
    """As cat makes them: tarfile, and so webdataset, says nothing of the second."""
    for name in "ab":
        tar(f"{name}.tar", [(f"{name}.jpg", jpeg(1))])
    Path("c.tar").write_bytes(Path("a.tar").read_bytes() + Path("b.tar").read_bytes())
    lines, said = listed("c.tar")
    assert lines == ["c.tar/a.jpg"]
    assert "1 shards with another tar behind their end (cat), which is not read" in said
    assert "behind" not in listed("a.tar")[1]


def test_shards_that_are_broken_are_all_named():
    for name in "abc":
        tar(f"{name}.tar", [("1.jpg", jpeg(1)), ("2.jpg", jpeg(2))])
    for name in "ac":
        with open(f"{name}.tar", "r+b") as stream:
            stream.truncate(512 + 1024 + 512 + 100)
    Path("e.tar").touch()
    assert wrong("a.tar", "b.tar", "c.tar", "e.tar") == (
        "a.tar: cut short at or after 2.jpg; as are c.tar, e.tar: fetch such shards again,"
        " or leave them out"
    )
    os.mkdir("d.tar")
    assert "not a file, which a shard is" in wrong("d.tar")
    assert "named twice" in wrong("b.tar", "b.tar")
    assert "a shard is called .tar or .zip" in wrong(__file__)
    tar("t.tar", [("a\tb.jpg", jpeg(1))])
    assert "'t.tar/a\\tb.jpg': a name may not" in wrong("t.tar")


def test_the_list_of_wids():
    os.mkdir("sub")
    for number in range(2):
        tar(f"sub/{number}.tar", [(f"{n}.jpg", jpeg(n)) for n in range(number + 1)])
    lines, _said = listed("sub/0.tar", "sub/1.tar", wids="lists.json")
    assert json.loads(Path("lists.json").read_text()) == {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": f"sub/{n}.tar", "nsamples": n + 1, "filesize": os.stat(f"sub/{n}.tar").st_size}
            for n in range(2)
        ],
    }
    assert listed("lists.json")[0] == lines
    os.rename("lists.json", "sub/lists.json")
    assert "no such file" in wrong("sub/lists.json")
    for text in ("", "[]", '{"shardlist": [{}]}', '{"shardlist": 3}', "[" * 10**5):
        Path("l.json").write_text(text)
        assert wrong("l.json").startswith("l.json: not a list of wids")
    Path("l.json").write_text('{"shardlist": [{"url": 3}]}')
    assert "a url that is no text" in wrong("l.json")


def test_the_index_of_dali():
    """Against what wds2idx says of the same tar: extension, offset, size, name, a line a sample."""
    members = [(name, bytes(n * 100)) for n, name in enumerate(("a.jpg", "a.b.Cls", "d/c.jpg"))]
    tar("x.tar", members)
    lines, _said = listed("x.tar", dali=True)
    with tarfile.open("x.tar") as archive:
        there = {m.name: f"{m.offset_data} {m.size} {m.name}" for m in archive}
    first = f"jpg {there['a.jpg']} b.Cls {there['a.b.Cls']}\n"
    assert Path("x.idx").read_text() == f"v1.2 2\n{first}jpg {there['d/c.jpg']}\n"
    os.unlink("x.tar.index.npy")
    assert listed("x.idx")[0] == lines
    assert read("x.tar/d/c.jpg") == bytes(200)
    numbers = [" ".join(there[name].split()[:2]) for name in there]
    Path("x.idx").write_text(f"v1.1 2\njpg {numbers[0]} b.Cls {numbers[1]}\njpg {numbers[2]}\n")
    assert listed("x.idx")[0] == lines
    damage = {
        "v1.2 3\njpg 512 0 a.jpg\n": "x.idx:1: not an index of DALI",
        "v9\n": "x.idx:1: not an index",
        "v1.2 1\njpg 512 0 a b.jpg\n": "x.idx:2: not like jpg 512 4096 a.jpg",
        "v1.2 1\njpg 512 999999 a.jpg\n": "x.idx:2: leads out of its tar",
        "v1.2 1\njpg -1 1 a.jpg\n": "x.idx:2: leads out of its tar",
        "v1.2 1\njpg 512 0 b.jpg\n": "x.idx:2: another file lies there",
        "v1.1 1\njpg 100 0\n": "x.idx:2: another file lies there",
    }
    for text, message in damage.items():
        Path("x.idx").write_text(text)
        assert wrong("x.idx").startswith(message)
    long = [("./d/a.jpg", b"1"), ("n" * 120 + ".jpg", b"22"), ("é.jpg", b"333")]
    tar("x.tar", long)
    shards.look_anew()
    lines, _said = listed("x.tar", dali=True)
    assert listed("x.idx")[0] == lines and read(f"x.tar/{long[1][0]}") == b"22"
    text = Path("x.idx").read_text()
    Path("x.idx").write_text(text.replace("é.jpg", "../é.jpg").replace(" d/a", " ./d/a"))
    lines, said = listed("x.idx")
    assert len(lines) == 2 and "1 names that lead out of their shard" in said
    Path("x.idx").write_text(f"v1.1 1\n{' '.join(text.splitlines()[2].split()[:3])}\n")
    assert wrong("x.idx").startswith("x.idx:2: another file lies there")
    tar("x.tar", [("a b.jpg", b"")])
    assert "without spaces in names" in wrong("x.tar", dali=True)


def test_workers_do_not_change_the_list():
    for number in range(5):
        tar(f"{number}.tar", [(f"{n}.jpg", jpeg(n)) for n in range(number)])
    names = [f"{number}.tar" for number in range(5)]
    assert listed(*names, workers=3) == listed(*names, workers=0)


# ---- The commands -------------------------------------------------------------------------------


def test_list_images_shards_as_a_process(run):
    tar("x-00000.tar", [("1.jpg", jpeg(1)), ("1.cls", b"7")])
    done = run("list-images", "shards", "x-{00000..00000}.tar", "--label", "cls", check=0)
    assert done.stdout == b"x-00000.tar/1.jpg\t7\n"
    assert done.stderr == b"list-images: 1 images of 1 shards, 1 classes\n"
    done = run("list-images", "folder", ".", "--label", "cls", check=2)
    assert b"--label is of shards, not of folder" in done.stderr
    done = run("list-images", "shards", "x-00000.tar", "--label", "a b", check=2)
    assert b"is not folder, cls, txt or json:FIELD" in done.stderr
