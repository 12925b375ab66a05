"""unpack-nyuv2 on files of the authors' forms: HDF5 with its axes in reverse, a gzipped pickle."""

import gzip
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ssl_common.data.targets import PairList, read_normals
from ssl_common.evaluation.normals import labels, nyuv2

RNG = np.random.default_rng(0)
SIZE = (48, 64)


@pytest.fixture
def labeled(tmp_path):
    """Return (path, images, metres) of a small nyu_depth_v2_labeled.mat of three images."""
    h5py = pytest.importorskip("h5py")
    images = RNG.integers(0, 256, (3, *SIZE, 3), np.uint8)
    metres = RNG.uniform(0.7, 9.9, (3, *SIZE)).astype(np.float32)
    raw = np.where(RNG.random(metres.shape) < 0.3, 0, metres)
    with h5py.File(tmp_path / "labeled.mat", "w", userblock_size=512) as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = metres.transpose(0, 2, 1)
        file["rawDepths"] = raw.transpose(0, 2, 1)
    return images, metres, raw


@pytest.mark.parametrize("raw", [False, True])
def test_images_and_depth(labeled, run, tmp_path, raw):
    images, metres, holes = labeled
    done = run("unpack-nyuv2", "labeled.mat", "-o", "nyu", *["--raw"] * raw, check=0)
    assert done.stdout.decode().splitlines() == [
        f"nyu/images/000{n}.png\tnyu/depth/000{n}.png" for n in (1, 2, 3)
    ]
    assert done.stderr == b"unpack-nyuv2: nyu: 3 images, depth\n"
    for number, (image, depth) in enumerate(zip(images, holes if raw else metres, strict=True), 1):
        found = Image.open(tmp_path / f"nyu/images/{number:04d}.png")
        assert np.array_equal(np.asarray(found), image)
        found = Image.open(tmp_path / f"nyu/depth/{number:04d}.png")
        assert np.abs(np.asarray(found) - 1000.0 * depth).max() <= 0.5 + 1e-3


def test_what_is_no_hdf5_is_one_line(run, tmp_path):
    (tmp_path / "a.mat").write_bytes(nyuv2.HDF5 + b"x" * 99)
    done = run("unpack-nyuv2", "a.mat", "-o", "nyu")
    if b"not installed" not in done.stderr:
        assert b"unpack-nyuv2: a.mat: not nyu_depth_v2_labeled.mat, or damaged" in done.stderr
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "nyu").exists() and not done.stdout
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0")
    done = run("unpack-nyuv2", "b.mat", "-o", "nyu", check=1)
    assert b"b.mat: neither nyu_depth_v2_labeled.mat, nor all_normals.pklz" in done.stderr


def made_normals(count, size):
    """Return normals (count, H, W, 3) that face the camera, and masks."""
    found = RNG.normal(size=(count, *size, 3))
    found[..., 2] = np.abs(found[..., 2]) + 0.1
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return found.astype(np.float32), RNG.random((count, *size)) < 0.8


def save(path, content, protocol=2):
    with gzip.open(path, "wb", 1) as stream:
        pickle.dump(content, stream, protocol)


def python_2(path, normals, masks):
    """Write what Python 2 pickles: strings of bytes, BINSTRING, as arrays' numbers."""

    def array(a):
        data = a.tobytes()
        code = {"float32": b"f4", "bool": b"b1"}[str(a.dtype)]
        shape = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in a.shape) + b"t"
        dtype = b"cnumpy\ndtype\n(U\x02" + code + b"K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        string = b"T" + len(data).to_bytes(4, "little") + data
        return head + b"(K\x01" + shape + dtype + b"\x89" + string + b"tb"

    def text(name):
        return b"U" + bytes([len(name)]) + name.encode()

    with gzip.open(path, "wb", 1) as stream:
        stream.write(b"\x80\x02}(" + text("all_normals") + array(normals))
        stream.write(text("all_valid_depth_masks") + array(masks))
        stream.write(b"u.")


@pytest.mark.parametrize("form", ["one", "list", "protocol 4", "protocol 5", "python 2"])
def test_normals_of_every_form(form, run, tmp_path):
    """Large enough that their bytes are kept on the disk."""
    normals, masks = made_normals(4, (160, 200))
    assert normals.nbytes > nyuv2.LARGE
    if form == "python 2":
        python_2(tmp_path / "n.pklz", normals, masks)
    else:
        lists = form == "list"
        content = {
            "all_normals": list(normals) if lists else normals,
            "all_valid_depth_masks": list(masks) if lists else masks,
            "all_filenames": [f"{n}_a.jpg" for n in (7, 2, 9, 1)] if lists else None,
        }
        protocol = int(form.partition(" ")[2] or 2)
        save(tmp_path / "n.pklz", content, protocol)
    done = run("unpack-nyuv2", "n.pklz", "-o", "out", check=0)
    numbers = [7, 2, 9, 1] if form == "list" else [1, 2, 3, 4]
    assert done.stdout.decode().splitlines() == [f"out/{n:04d}.png" for n in numbers]
    assert done.stderr == b"unpack-nyuv2: out: 4 images, normals\n"
    (tmp_path / "pairs.tsv").write_text("".join(f"a\tout/{n:04d}.png\n" for n in numbers))
    pairs = PairList(str(tmp_path / "pairs.tsv"))
    for index in range(4):
        found, mask = read_normals(pairs, index, tmp_path), masks[index]
        assert np.array_equal(found.any(0), mask)
        cosine = (np.moveaxis(normals[index], 2, 0) * found).sum(0)[mask]
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.5
    assert labels.read(pairs, 0, tmp_path).truth == nyuv2.LADICKY


def test_the_wrong_sign_is_refused_and_mended(run, tmp_path):
    normals, masks = made_normals(2, (20, 30))
    save(tmp_path / "n.pklz", {"all_normals": -normals, "all_valid_depth_masks": masks})
    done = run("unpack-nyuv2", "n.pklz", "-o", "out", check=1)
    assert b"n.pklz: the median normal is 1" in done.stderr
    assert b"z is to point towards it: see --negate" in done.stderr and not done.stdout
    assert not (tmp_path / "out").exists()
    run("unpack-nyuv2", "n.pklz", "--negate", "xyz", "-o", "out", check=0)
    save(tmp_path / "right.pklz", {"all_normals": normals, "all_valid_depth_masks": masks})
    run("unpack-nyuv2", "right.pklz", "-o", "same", check=0)
    for number in (1, 2):
        files = [(tmp_path / where / f"000{number}.png").read_bytes() for where in ("out", "same")]
        assert files[0] == files[1]


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/ssl-bench-bomb-went-off",)


@pytest.mark.parametrize("where", ["all_normals", "all_valid_depth_masks", "all_filenames"])
def test_no_pickle_runs(where, run, tmp_path):
    normals, masks = made_normals(1, (4, 5))
    content = {"all_normals": normals, "all_valid_depth_masks": masks, where: Bomb()}
    save(tmp_path / "n.pklz", content)
    run("unpack-nyuv2", "n.pklz", "-o", "out", check=0 if where == "all_filenames" else 1)
    assert not os.path.exists("/tmp/ssl-bench-bomb-went-off")


@pytest.mark.parametrize("damage", ["cut", "size", "text"])
def test_damaged_ones_are_one_line(damage, run, tmp_path):
    normals, masks = made_normals(3, (200, 200))
    if damage == "size":
        masks = masks[:2]
    save(tmp_path / "n.pklz", {"all_normals": normals, "all_valid_depth_masks": masks}, 4)
    data = (tmp_path / "n.pklz").read_bytes()
    if damage == "cut":
        (tmp_path / "n.pklz").write_bytes(data[: len(data) // 2])
    if damage == "text":
        (tmp_path / "n.pklz").write_bytes(gzip.compress(b"not a pickle"))
    done = run("unpack-nyuv2", "n.pklz", "-o", "out", check=1)
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("unpack-nyuv2: n.pklz: not all_normals.pklz, or damaged (")


@pytest.mark.slow
def test_memory_is_that_of_one_image(tmp_path):
    """120 images of 1.4 MB of normals each, with no room for a tenth of all."""
    normals, masks = made_normals(1, (300, 400))
    count = 120
    shape = (count, *normals.shape[1:])
    save(tmp_path / "n.pklz", {
        "all_normals": np.broadcast_to(normals, shape).copy(),
        "all_valid_depth_masks": np.broadcast_to(masks, shape[:3]).copy(),
    }, 4)  # fmt: skip
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    assert len(list(nyuv2.unpack_normals(str(tmp_path / "n.pklz"), tmp_path / "out", ""))) == count
    _kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.2 * count * normals.nbytes
