"""pack-images: tars that webdataset reads, of the same bytes each time."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from ssl_common.data import images, shards
from ssl_common.data.manifest import Manifest
from ssl_common.data.packing import pack
from ssl_common.streams import DataError


@pytest.fixture(autouse=True)
def there(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    shards.look_anew()


def packed(output, per_shard=5, label="txt", manifest="train.tsv", root="."):
    """Return (rows of the manifest of the shards, what is said)."""
    stream = io.BytesIO()
    said = pack(Manifest(manifest), root, output, per_shard, label, stream)
    Path("packed.tsv").write_bytes(stream.getvalue())
    return list(Manifest("packed.tsv")), said


def test_shards_hold_the_images_and_labels_of_the_list():
    rows, said = packed("x-%05d.tar")
    given = list(Manifest("train.tsv"))
    assert said == "12 images in 3 shards"
    assert [row[1:] for row in rows] == [row[1:] for row in given]
    assert rows[5].path == "x-00001.tar/000000005.jpg"
    for row, old in zip(rows, given, strict=True):
        assert images.read(row.path).equal(images.read(old.path))
        shard, name = row.path.split("/")
        with tarfile.open(shard) as archive:
            assert archive.extractfile(name).read() == Path(old.path).read_bytes()
            text = archive.extractfile(name.replace("jpg", "txt")).read()
            assert text.decode() == ",".join(old.labels)
            for member in archive:
                assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)


def test_the_same_images_give_the_same_bytes_wherever_they_lie():
    packed("x-%d.tar")
    first = [Path(f"x-{n}.tar").read_bytes() for n in range(3)]
    for path in Path("photos").rglob("*.jpg"):
        os.utime(path, (1, 1))
    packed("y-%d.tar")
    assert [Path(f"y-{n}.tar").read_bytes() for n in range(3)] == first
    shutil.copy("packed.tsv", "again.tsv")
    packed("z-%d.tar", manifest="again.tsv")  # of shards
    assert [Path(f"z-{n}.tar").read_bytes() for n in range(3)] == first


def test_webdataset_reads_them():
    samples = pytest.importorskip("webdataset.tariterators")
    packed("x.tar", 100, "cls")
    with open("x.tar", "rb") as stream:
        files = samples.tar_file_expander([{"url": "x.tar", "stream": stream}])
        found = list(samples.group_by_keys(files))
    rows = list(Manifest("train.tsv"))
    assert [each["__key__"] for each in found] == [f"{n:09}" for n in range(12)]
    assert [each["jpg"] for each in found] == [Path(row.path).read_bytes() for row in rows]
    assert [int(each["cls"]) for each in found] == [row.labels == ("dog",) for row in rows]


def test_labels_as_the_manifest_has_them(run):
    Path("l.tsv").write_text("photos/cat/0.jpg\tcat,?dog\nphotos/cat/1.jpg\n")
    done = run("pack-images", "l.tsv", "-o", "x-%05d.tar", "--per-shard", "1", check=0)
    assert done.stderr == b"pack-images: 2 images in 2 shards\n"
    done = run("list-images", "shards", "x-{00000..00001}.tar", "--label", "txt", check=0)
    assert done.stdout == b"x-00000.tar/000000000.jpg\tcat,?dog\nx-00001.tar/000000001.jpg\n"
    packed("y.tar", manifest="l.tsv", label="none")
    with tarfile.open("y.tar") as archive:
        assert archive.getnames() == ["000000000.jpg", "000000001.jpg"]
    with pytest.raises(DataError, match=r"l.tsv:1: cat,\?dog, where one class is needed"):
        packed("y.tar", manifest="l.tsv", label="cls")


def test_names_say_the_format():
    with Image.open("photos/cat/0.jpg") as photograph:
        for name, form in (("a.JPEG", "JPEG"), ("b", "PNG"), ("c.PNG", "PNG"), ("d.bin", "JPEG")):
            photograph.save(name, form)
    Path("l.tsv").write_text("a.JPEG\nb\nc.PNG\nd.bin\n")
    rows, _said = packed("x.tar", manifest="l.tsv")
    names = ["000000000.jpeg", "000000001.png", "000000002.png", "000000003.jpg"]
    assert [row.path for row in rows] == [f"x.tar/{name}" for name in names]


def test_what_cannot_be_packed():
    Path("l.tsv").write_text("photos/cat/0.jpg\nphotos/cat/gone.jpg\n")
    with pytest.raises(DataError, match="l.tsv:2: ./photos/cat/gone.jpg: No such file"):
        packed("x-%d.tar", 1, manifest="l.tsv")
    assert Path("x-0.tar").exists() and not Path("x-1.tar").exists()
    assert not list(Path(".").glob("*.partial"))
    Path("l.tsv").write_text("p4.npy\n")
    with pytest.raises(DataError, match="l.tsv:1: ./p4.npy: not an image"):
        packed("y.tar", manifest="l.tsv")
    Path("l.tsv").write_text("x-0.tar/gone.jpg\n")
    with pytest.raises(DataError, match="l.tsv:1: ./x-0.tar/gone.jpg: no such member"):
        packed("y.tar", manifest="l.tsv")
    wrong = {
        "x.tar": "x.tar: one shard for 12 images, of 5 each: write x-%05d.tar",
        "x-%d-%d.tar": "one %05d stands for the number",
        "x-%s.tar": "one %05d stands for the number",
        "x-%05d": "a shard is called .tar",
        "no/x-%05d.tar": "No such file or directory",
    }
    for output, message in wrong.items():
        with pytest.raises((DataError, OSError), match=message):
            packed(output)
    packed("x-%d.tar", 3)
    assert packed("x-%d.tar")[1] == (
        "12 images in 3 shards; x-3.tar and any after it are of another time: remove them"
    )


def test_every_command_reads_members(run):
    """The same bytes of a picture, and of features, as from files."""
    rows, _said = packed("x-%d.tar")
    puzzle = ("show-pretext", "jigsaw", "--permutations", os.path.abspath("p4.npy"), rows[7].path)
    unpacked = Path("files") / rows[7].path
    unpacked.parent.mkdir(parents=True)
    shutil.copy("photos/dog/1.jpg", unpacked)
    pictures = [
        run(*puzzle, cwd=os.path.abspath(folder), check=0).stdout for folder in (".", "files")
    ]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG")
    words = ("extract-features", "random:alexnet", "--layer", "conv1", "-j", "2")
    features = [run(*words, name, check=0).stdout for name in ("packed.tsv", "train.tsv")]
    assert features[0] == features[1] and len(features[0]) > 1000
    gone = run(*words, stdin=b"x-0.tar/000000000.jpg\nx-0.tar/5.jpg\n", check=1).stderr.decode()
    assert "standard input:2: ./x-0.tar/5.jpg: no such member of the shard" in gone
