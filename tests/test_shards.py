"""Members of tars and ZIPs: against tarfile, zipfile and webdataset, and odd or hostile shards."""

import fcntl
import io
import os
import random
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_common.data import images, shards, stores, tars, zips
from ssl_common.data.batches import batches
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import Manifest
from ssl_common.data.members import Broken
from ssl_common.streams import DataError


@pytest.fixture(autouse=True)
def afresh(tmp_path, monkeypatch):
    """Work in a folder of one's own, with nothing open from before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards.look_anew()
    yield
    shards.look_anew()


def jpeg(shade):
    stream = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), shade % 256, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def tar(path, members, form=tarfile.PAX_FORMAT, mode="w"):
    """Write MEMBERS, (name or TarInfo, bytes), as a tar of FORM."""
    with tarfile.open(path, mode, format=form) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def walked(path):
    with open(path, "rb") as stream:
        return [e for some in tars.walk(stream.fileno(), 0, os.path.getsize(path)) for e in some]


def read(path, root="."):
    with stores.store(root).open(path) as stream:
        return stream.read()


def why(path):
    with pytest.raises(images.Unreadable) as caught:
        images.read(path)
    return str(caught.value)


# ---- Tars ---------------------------------------------------------------------------------------


def names(rng):
    """Return names of every length that some format writes in another way."""
    parts = ["a", "b.c", "d" * 60, "e" * 99, "f" * 155, "g" * 200, "é" * 20, "with space"]
    found = ["/".join(rng.choices(parts, k=rng.randrange(1, 5))) + f"/{n}.jpg" for n in range(200)]
    return found + [f"{n:09}.jpg" for n in range(1200)] + [f"./h/{n}.jpg" for n in range(50)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_walk_is_that_of_tarfile(form):
    rng = random.Random(form)
    members = []
    for name in names(rng):
        if form == tarfile.USTAR_FORMAT and max(len(part) for part in name.split("/")) > 90:
            continue
        if form == tarfile.USTAR_FORMAT and len(name.encode()) > 99:
            continue
        members.append((name, rng.randbytes(rng.choice([0, 1, 511, 512, 513, 3000]))))
        if rng.random() < 0.1:
            members.append((special(f"{name}.d", tarfile.DIRTYPE), b""))
            members.append((special(f"{name}.f", tarfile.FIFOTYPE), b""))
    tar("x.tar", members, form)
    with tarfile.open("x.tar") as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    found = [(os.fsdecode(e.name), e.offset, e.size) for e in walked("x.tar")]
    assert found == [(name.removeprefix("./"), *rest) for name, *rest in expected]
    given = {name: data for name, data in members if isinstance(name, str)}
    for name in rng.sample(sorted(given), 200):
        assert read(f"x.tar/{name}") == given[name]
    index = shards.shard("x.tar").index
    assert index.count == len(given)
    assert all(index.find(name.encode()) is None for name in ("0.jpg", "", "a", "000000001.jp"))


def test_headers_that_tarfile_reads_and_does_not_write():
    """The old format without a magic, a size in base 256, ustar's prefix, pax's size."""
    data = b"x" * 700
    old = bytearray(tarfile.TarInfo("old.jpg").tobuf(tarfile.USTAR_FORMAT))
    old[124:136], old[257:512] = b"%011o\0" % len(data), bytes(255)
    big = bytearray(tarfile.TarInfo("big.jpg").tobuf(tarfile.GNU_FORMAT))
    big[124:136] = b"\x80" + len(data).to_bytes(11, "big")
    long = tarfile.TarInfo(f"{'p' * 80}/{'q' * 80}.jpg")
    long.size = len(data)
    signed = bytearray(tarfile.TarInfo("caf\xe9.jpg").tobuf(tarfile.USTAR_FORMAT, "latin1"))
    signed[124:136] = b"%011o\0" % len(data)
    pax = tarfile.TarInfo("pax.jpg")
    pax.pax_headers = {"size": str(len(data)), "comment": "1 = 1\n2"}
    blocks = []
    for header in (old, big, bytearray(long.tobuf(tarfile.USTAR_FORMAT)), signed):
        header[148:156] = b" " * 8
        total = sum(header) - (256 if header is signed else 0)  # as signed bytes, of one above 127
        header[148:156] = b"%06o\0 " % total
        blocks += [bytes(header), data.ljust(1024, b"\0")]
    blocks += [pax.tobuf(tarfile.PAX_FORMAT), data.ljust(1024, b"\0"), bytes(1024)]
    Path("x.tar").write_bytes(b"".join(blocks))
    with tarfile.open("x.tar", encoding="utf-8") as archive:
        expected = [(os.fsencode(m.name), m.offset_data, m.size) for m in archive]
    assert [(e.name, e.offset, e.size) for e in walked("x.tar")] == expected
    assert len(expected) == 5 and all(size == 700 for *_, size in expected)


def test_times_in_a_header_of_gnu_are_no_part_of_a_name():
    """As GNU tar --incremental writes them; tarfile takes them for the beginning of the name."""
    header = bytearray(tarfile.TarInfo("d/a.jpg").tobuf(tarfile.GNU_FORMAT))
    header[345:369] = b"15303136534\0" * 2
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    Path("x.tar").write_bytes(bytes(header) + bytes(1024))
    assert [entry.name for entry in walked("x.tar")] == [b"d/a.jpg"]


def test_tars_in_a_tar():
    """As ILSVRC2012_img_train.tar: a tar of a tar for each class."""
    tar("n01.tar", [(f"n01_{n}.JPEG", jpeg(n)) for n in range(3)])
    tar("n02.tar", [("deep/n02.JPEG", jpeg(9))])
    tar("odd.tar", [("a.jpg", jpeg(4))])
    inner = [(name, Path(name).read_bytes()) for name in ("n01.tar", "n02.tar")]
    tar("train.tar", [*inner, ("x/odd.tar", b"no tar, whatever it is called" * 50)])
    assert read("train.tar/n01.tar/n01_2.JPEG") == jpeg(2)
    assert read("train.tar/n02.tar/deep/n02.JPEG") == jpeg(9)
    assert read("train.tar/x/odd.tar").startswith(b"no tar")
    tar("all.tar", [("train.tar", Path("train.tar").read_bytes())])
    assert read("all.tar/train.tar/n01.tar/n01_1.JPEG") == jpeg(1)
    assert not stores.store(".").exists("train.tar/n02.tar/n02.JPEG")


def test_a_folder_called_like_a_shard_is_a_folder():
    os.makedirs("x.tar/y.zip")
    Path("x.tar/y.zip/a.jpg").write_bytes(jpeg(3))
    assert read("x.tar/y.zip/a.jpg") == jpeg(3)
    tar("x.tar/z.tar", [("a.jpg", jpeg(4))])
    assert read("x.tar/z.tar/a.jpg") == read("z.tar/a.jpg", "x.tar") == jpeg(4)
    os.mkfifo("f.tar")
    assert why("f.tar/a.jpg") == "./f.tar/a.jpg: Not a directory"
    assert why("no.tar/a.jpg") == "./no.tar/a.jpg: No such file or directory"


# ---- ZIPs ---------------------------------------------------------------------------------------


def test_a_zip_is_that_of_zipfile():
    rng = random.Random(0)
    given = {f"{'é/' * (n % 3)}d{n % 5}/{n}.jpg": rng.randbytes(n * 37) for n in range(300)}
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.comment = b"a comment"
        for number, (name, data) in enumerate(given.items()):
            info = zipfile.ZipInfo(name)
            info.extra = bytes(number % 7 and 4) if number % 7 else b""
            with archive.open(info, "w", force_zip64=number % 4 == 0) as stream:
                stream.write(data)
    with zipfile.ZipFile("y.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in given.items():
            archive.writestr(name, data)
    with open("z.zip", "wb") as stream:  # as those that unpack themselves
        stream.write(b"#!/bin/sh\n" * 100 + Path("x.zip").read_bytes())
    for shard in "xyz":
        with zipfile.ZipFile(f"{shard}.zip") as archive:
            for name in given:
                assert read(f"{shard}.zip/{name}") == archive.read(name) == given[name]
    assert not stores.store(".").exists("x.zip/d1/300.jpg")


def test_members_of_zips_that_are_not_read():
    with zipfile.ZipFile("x.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../out.jpg", jpeg(1))
        archive.writestr("/etc/abs.jpg", jpeg(1))
        archive.writestr("secret.jpg", jpeg(2))
        archive.writestr("bz.jpg", jpeg(2) * 9, zipfile.ZIP_BZIP2)
        archive.writestr("flat.jpg", bytes(1 << 20), zipfile.ZIP_DEFLATED)
        archive.writestr("good.jpg", jpeg(5), zipfile.ZIP_DEFLATED)
    data = bytearray(Path("x.zip").read_bytes())
    at = data.rindex(b"secret.jpg") - 46  # its entry in the directory
    data[at + 8] |= 1
    at = data.index(b"flat.jpg") + 8 + 5  # what it is compressed to
    data[at] ^= 0xFF
    Path("x.zip").write_bytes(data)
    assert why("x.zip/link.jpg") == "./x.zip/link.jpg: a link, and no link of a shard is followed"
    assert "encrypted: unpack it" in why("x.zip/secret.jpg")
    assert "a name that leads out of its shard" in why("x.zip/../out.jpg")
    assert "a name that leads out of its shard" in why("x.zip//etc/abs.jpg")
    assert "compressed by a method that is not read" in why("x.zip/bz.jpg")
    assert "damaged in its ZIP" in why("x.zip/flat.jpg")
    assert read("x.zip/good.jpg") == jpeg(5)


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(zips, "ALWAYS", 1000)
    with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1 << 20))
        archive.writestr("b.jpg", bytes(1000))
    assert "unpacks to more than" in why("x.zip/a.jpg")
    assert read("x.zip/b.jpg") == bytes(1000)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("claimed", [100_000, 2**31 - 1])
def test_a_zip_whose_directory_claims_more_than_is_there(kind, claimed):
    with zipfile.ZipFile("x.zip", "w", kind) as archive:
        archive.writestr("a.jpg", jpeg(1))
    data = bytearray(Path("x.zip").read_bytes())
    at = data.rindex(b"a.jpg") - 46 + 20
    data[at : at + 4] = claimed.to_bytes(4, "little")
    Path("x.zip").write_bytes(data)
    assert why("x.zip/a.jpg") == "./x.zip/a.jpg: its shard is cut short"


# ---- Odd and hostile tars -----------------------------------------------------------------------


def test_members_of_tars_that_are_not_read(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(7))
    os.mkdir("in")
    sparse = special("sparse.jpg", tarfile.GNUTYPE_SPARSE)
    tar(
        "in/x.tar",
        [
            (special("hard.jpg", tarfile.LNKTYPE, "a.jpg"), b""),
            (special("soft.jpg", tarfile.SYMTYPE, "../secret.jpg"), b""),
            (sparse, b""),
            ("../secret.jpg", jpeg(8)),
            (str(tmp_path / "secret.jpg"), jpeg(8)),
            ("a.jpg", jpeg(1)),
        ],
    )
    for name in ("hard.jpg", "soft.jpg"):
        assert why(f"in/x.tar/{name}") == f"./in/x.tar/{name}: {shards.REFUSED[3]}"
    assert "a sparse file" in why("in/x.tar/sparse.jpg")
    assert "a name that leads out" in why("in/x.tar/../secret.jpg")
    assert "a name that leads out" in why(f"in/x.tar/{tmp_path}/secret.jpg")
    assert "no such member of the shard" in why("in/x.tar/../../secret.jpg")
    assert read("in/x.tar/a.jpg") == jpeg(1)


def test_of_a_name_that_comes_again_the_last_counts_as_in_unpacking(tmp_path):
    tar("x.tar", [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("./a.jpg", jpeg(3))])
    with tarfile.open("x.tar") as archive:
        archive.extractall("unpacked", filter="data")
    assert read("x.tar/a.jpg") == (tmp_path / "unpacked/a.jpg").read_bytes() == jpeg(3)
    assert shards.shard("./x.tar").index.count == 2


@pytest.mark.parametrize("at", range(0, 4 * 2048, 173))
def test_a_tar_that_is_cut_short_gives_what_is_whole(at):
    tar("whole.tar", [(f"{n}.jpg", jpeg(n) * 2) for n in range(4)], tarfile.USTAR_FORMAT)
    data = Path("whole.tar").read_bytes()
    Path("x.tar").write_bytes(data[:at])
    with tarfile.open("whole.tar") as archive:
        ends = [member.offset_data + member.size for member in archive]
    for number, end in enumerate(ends):
        if end <= at:
            assert read(f"x.tar/{number}.jpg") == jpeg(number) * 2
        else:
            said = why(f"x.tar/{number}.jpg")
            assert said.startswith(f"./x.tar/{number}.jpg: ")
            assert "cut short" in said or "no such member" in said or "empty" in said


@pytest.mark.parametrize("wanted", range(300, 512 + 156, 60))
def test_a_header_that_is_damaged_ends_a_tar(wanted):
    tar("x.tar", [(f"{n}.jpg", jpeg(n)) for n in range(3)], tarfile.USTAR_FORMAT)
    data = bytearray(Path("x.tar").read_bytes())
    second = data.index(b"1.jpg")
    data[second + wanted % 512] ^= 1
    Path("x.tar").write_bytes(data)
    entries = []
    with open("x.tar", "rb") as stream, pytest.raises(Broken, match="damaged after 0.jpg"):
        for some in tars.walk(stream.fileno(), 0, len(data)):
            entries += [entry.name for entry in some]
    assert entries == [b"0.jpg"]
    assert read("x.tar/0.jpg") == jpeg(0)
    assert "no such member of the shard, which is cut short or damaged" in why("x.tar/1.jpg")


def test_what_is_no_shard_at_all():
    Path("empty.tar").touch()
    Path("zeros.tar").write_bytes(bytes(10240))
    Path("text.tar").write_bytes(b"text " * 1000)
    Path("text.zip").write_bytes(b"text " * 1000)
    tar("packed.tar", [("a.jpg", jpeg(1))], mode="w:gz")
    assert why("empty.tar/a.jpg") == "./empty.tar/a.jpg: empty"
    assert why("zeros.tar/a.jpg") == "./zeros.tar/a.jpg: no such member of the shard"
    assert why("text.tar/a.jpg") == "./text.tar/a.jpg: not a tar"
    assert "not a ZIP, or cut short" in why("text.zip/a.jpg")
    assert why("packed.tar/a.jpg") == "./packed.tar/a.jpg: packed with gzip: unpack it"


def test_random_bytes_in_headers_end_in_one_line():
    """Whatever stands there, a walk ends, and by no other error."""
    tar("whole.tar", [(n * 40, jpeg(len(n))) for n in ("abc.", "é", "f")], tarfile.PAX_FORMAT)
    whole, rng = Path("whole.tar").read_bytes(), random.Random(1)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            block = rng.randrange(len(data) // 512) * 512
            header = data[block : block + 512]
            header[rng.choice([*range(0, 5), *range(124, 160), 257, 345, 482])] = rng.randrange(256)
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            data[block : block + 512] = header
        Path("x.tar").write_bytes(data)
        try:
            for entry in walked("x.tar"):
                assert entry.offset + entry.size <= len(data)
        except Broken as error:
            assert "\n" not in str(error)


# ---- The index ----------------------------------------------------------------------------------


def test_an_index_is_made_once_and_anew_when_its_shard_changed():
    tar("x.tar", [("a.jpg", jpeg(1))])
    assert read("x.tar/a.jpg") == jpeg(1)
    made = os.stat("x.tar.index.npy")
    words = np.load("x.tar.index.npy")
    assert words.dtype == np.uint64 and words.ndim == 1
    shards.look_anew()
    assert read("x.tar/a.jpg") == jpeg(1)
    assert os.stat("x.tar.index.npy").st_mtime_ns == made.st_mtime_ns
    tar("x.tar", [("0.jpg", jpeg(2)), ("a.jpg", jpeg(3))])
    shards.look_anew()
    assert read("x.tar/a.jpg") == jpeg(3)
    assert not [name for name in os.listdir(".") if "partial" in name]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\1\0", b"x" * 1000, None])
def test_an_index_that_is_damaged_is_made_anew(damage):
    tar("x.tar", [("a.jpg", jpeg(1))])
    read("x.tar/a.jpg")
    whole = Path("x.tar.index.npy").read_bytes()
    Path("x.tar.index.npy").write_bytes(whole[:140] if damage is None else damage)
    shards.look_anew()
    assert read("x.tar/a.jpg") == jpeg(1)
    assert Path("x.tar.index.npy").read_bytes() == whole


def test_an_index_without_a_place_beside_is_kept_in_the_cache_or_in_memory(tmp_path, monkeypatch):
    tar("x.tar", [("a.jpg", jpeg(1))])
    os.mkdir("x.tar.index.npy")  # nothing can be written there, whoever we are
    assert read("x.tar/a.jpg") == jpeg(1)
    (kept,) = (tmp_path / "cache/ssl-bench").iterdir()
    assert kept.name.startswith("x.tar-") and kept.name.endswith(".index.npy")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    shards.look_anew()
    assert read("x.tar/a.jpg") == jpeg(1)
    assert "no such member" in why("x.tar/b.jpg")


def test_one_process_waits_for_the_index_that_another_makes(monkeypatch):
    tar("x.tar", [("a.jpg", jpeg(1))])
    read("x.tar/a.jpg")
    index = Path("x.tar.index.npy").read_bytes()
    os.unlink("x.tar.index.npy")
    shards.look_anew()
    lock = os.open("x.tar", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def end():
        time.sleep(0.2)
        Path("x.tar.index.npy").write_bytes(index)
        os.close(lock)

    monkeypatch.setattr(shards, "_made", lambda *_: pytest.fail("it is made twice"))
    other = threading.Thread(target=end)
    other.start()
    assert read("x.tar/a.jpg") == jpeg(1)
    other.join()


def test_a_shard_that_changes_or_is_lost_in_use(monkeypatch):
    for name in "xy":
        tar(f"{name}.tar", [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2))])
        read(f"{name}.tar/a.jpg")
    with open("x.tar", "r+b") as stream:
        stream.truncate(1024)
    os.unlink("y.tar")
    changed = "./x.tar/b.jpg: its shard changed while it was in use: start again"
    assert why("x.tar/b.jpg") == changed
    assert read("y.tar/b.jpg") == jpeg(2)  # it is still open
    monkeypatch.setattr(shards, "_most", lambda: 1)
    tar("w.tar", [("a.jpg", jpeg(1))])
    read("w.tar/a.jpg")  # in their place
    assert why("y.tar/b.jpg") == "./y.tar/b.jpg: No such file or directory"
    assert why("x.tar/b.jpg") == changed
    shards.look_anew()
    assert "cut short" in why("x.tar/b.jpg")


def test_few_shards_stay_open(monkeypatch):
    monkeypatch.setattr(shards, "_most", lambda: 2)
    for number in range(20):
        tar(f"{number}.tar", [("a.jpg", jpeg(number))])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for number in range(20):
            assert read(f"{number}.tar/a.jpg") == jpeg(number)
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_a_large_member_is_read_as_a_file_is(monkeypatch):
    monkeypatch.setattr(shards, "AT_ONCE", 100)
    data = random.Random(0).randbytes(300_000)
    tar("x.tar", [("0.jpg", jpeg(1)), ("a.bin", data), ("c.jpg", jpeg(2))])
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("a.bin", data)
    for shard in ("x.tar", "x.zip"):
        with stores.store(".").open(f"{shard}/a.bin") as stream:
            assert stream.seek(0, os.SEEK_END) == len(data)
            assert stream.seek(-10, os.SEEK_END) and stream.read() == data[-10:]
            assert stream.seek(1000) == 1000 and stream.read(50_000) == data[1000:51_000]
            assert stream.seek(0) == 0 and stream.read() == data
    assert torch.equal(images.read("x.tar/c.jpg"), images.decode(io.BytesIO(jpeg(2)), "c.jpg"))


# ---- Training -----------------------------------------------------------------------------------


class Task:
    draws = 2

    def crop(self, image, drawn):
        return np.array([int(image[0, 0, 0]), *drawn])


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_of_shards_are_those_of_files(tmp_path, workers):
    """Also of one shard for three workers, and of one that a worker finds broken."""
    given = [(f"{n}.jpg", jpeg(3 * n)) for n in range(24)]
    rows = []
    for number in range(2):
        tar(f"s{number}.tar", given[number::2])
        os.makedirs(f"files/s{number}.tar")
        for name, data in given[number::2]:
            (tmp_path / f"files/s{number}.tar/{name}").write_bytes(data)
            rows.append(f"s{number}.tar/{name}\n")
    (tmp_path / "list.tsv").write_text("".join(rows))
    manifest = Manifest("list.tsv")
    order = [[(0, i) for i in range(start, start + 6)] for start in range(0, 24, 6)]
    made = [
        list(batches(RandomCrops(manifest, root, Task(), 5), order, workers, False))
        for root in (".", "files")
    ]
    for ours, theirs in zip(*made, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    with open("s1.tar", "r+b") as stream:
        stream.truncate(512 * 7)
    passed = [part[0] for part in batches(RandomCrops(manifest, ".", Task(), 5), order, 0, False)]
    assert torch.cat(passed).count_nonzero() > 8
    with pytest.raises(DataError, match="no image can be read here"):
        os.unlink("s1.tar")
        os.unlink("s0.tar")
        list(batches(RandomCrops(manifest, ".", Task(), 5), order, workers, False))
