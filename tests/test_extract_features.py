"""extract-features as a real process, against the layers applied by hand."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as vision
from conftest import TINY, environment, picture, save_bomb, tiny
from PIL import Image
from tiny import Tiny

from ssl_common import records
from ssl_common.data.manifest import Manifest
from ssl_common.evaluation import features
from ssl_common.models import networks, registry
from ssl_common.ranks.launch import Launch

CONV3 = ["extract-features", "random:alexnet", "test.tsv", "--layer", "conv3"]


def by_hand(paths, seed, side=14, stride=3):
    """Features of conv3 by torchvision's transforms, numpy's average and the layers in turn."""
    trunk = registry.build("alexnet", seed).eval()
    rows = []
    for path in paths:
        image = vision.pil_to_tensor(Image.open(path))
        scale = 256 / min(image.shape[1:])
        image = vision.resize(image, [int(length * scale) for length in image.shape[1:]])
        image = vision.resize(image, [227, 227]).float() / 255
        image = vision.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]
        with torch.no_grad():
            for stage in (trunk.conv1, trunk.pool1, trunk.conv2, trunk.pool2, trunk.conv3):
                image = stage(image)
        found = image[0].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(found, (side, side), axis=(1, 2))
        rows.append(windows[:, ::stride, ::stride].mean((3, 4)).ravel())
    return np.stack(rows)


def test_features_and_sidecar(run, scratch):
    run(*CONV3, "--seed", "3", "-o", "f.npy", cwd=scratch, check=0)
    features = np.load(scratch / "f.npy")
    manifest = Manifest(str(scratch / "test.tsv"))
    want = by_hand([scratch / row.path for row in manifest], 3)
    assert features.shape == (4, 9600) and features.dtype == np.float32
    # On a processor without AVX2 torchvision resizes in floating point: pixels differ by up to 2
    # levels, features by 0.009. A crop in the place of the warp is 0.2 off.
    np.testing.assert_allclose(features, want, rtol=1e-3, atol=2e-2)
    sidecar = json.loads((scratch / "f.npy.json").read_text())
    assert sidecar["shape"] == [384, 5, 5] and sidecar["layer"] == "conv3"
    assert sidecar["manifest"] == manifest.digest() and sidecar["seed"] == 3
    assert (sidecar["arch"], sidecar["pretext"]) == ("alexnet", "random")
    assert sidecar["model"] == registry.build("alexnet", 3).digest()


def test_batch_workers_and_pipes_do_not_change_the_features(run, scratch):
    first = run(*CONV3, cwd=scratch, check=0).stdout
    again = run(*CONV3, "-j", "0", cwd=scratch, check=0).stdout
    assert first == again and first[:6] == b"\x93NUMPY"
    argv = ["extract-features", "random:alexnet", "-", "--layer", "conv3", "--batch", "1"]
    manifest = (scratch / "test.tsv").read_bytes()
    run(*argv, "-o", "one.npy", stdin=manifest, cwd=scratch, check=0)
    (scratch / "all.npy").write_bytes(first)
    one, whole = np.load(scratch / "one.npy"), np.load(scratch / "all.npy")
    np.testing.assert_allclose(one, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_root(run, scratch, tmp_path):
    here = run(*CONV3, cwd=scratch, check=0).stdout
    argv = [arg if arg != "test.tsv" else scratch / arg for arg in CONV3]
    assert run(*argv, "--root", scratch, cwd=tmp_path, check=0).stdout == here


@pytest.mark.parametrize("kind", ["cut.jpg", "empty.jpg", "text.jpg", "gone.jpg"])
def test_an_unreadable_image_is_named_with_its_line(run, scratch, kind):
    jpeg = (scratch / "photos/cat/0.jpg").read_bytes()
    contents = {"cut.jpg": jpeg[: len(jpeg) // 2], "empty.jpg": b"", "text.jpg": b"no image"}
    if kind in contents:
        (scratch / kind).write_bytes(contents[kind])
    (scratch / "f.npy").write_bytes(b"what stood here before")
    with open(scratch / "test.tsv", "a") as stream:
        stream.write(f"{kind}\n")
    done = run(*CONV3, "-o", "f.npy", cwd=scratch, check=1)
    message = done.stderr.decode()
    assert message.startswith("extract-features: test.tsv:5: ") and kind in message
    assert message.count("\n") == 1
    assert (scratch / "f.npy").read_bytes() == b"what stood here before"
    assert not list(scratch.glob("*.partial"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["random:alexnet", "test.tsv", "--layer", "conv9"], "has no layer conv9: it has conv1,"),
        (["random:lenet", "test.tsv", "--layer", "conv1"], "lenet: no such network"),
        (["gone.pt", "test.tsv", "--layer", "conv1"], "gone.pt: No such file"),
        (["test.tsv", "test.tsv", "--layer", "conv1"], "test.tsv: not a file of pretrain"),
        (["bomb.pt", "test.tsv", "--layer", "conv1"], "bomb.pt: not a file of pretrain"),
    ],
)
def test_bad_models(run, scratch, argv, message):
    save_bomb(scratch / "bomb.pt", scratch / "exploded")
    done = run("extract-features", *argv, cwd=scratch, check=1)
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert done.stdout == b"" and not (scratch / "exploded").exists()


# ---- All layers in one pass ---------------------------------------------------------------------

LAYERS = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]


def files(folder):
    return sorted(os.listdir(folder))


def test_a_folder_gets_every_layer(run, scratch):
    argv = ["extract-features", "random:alexnet", "test.tsv"]
    done = run(*argv, "-o", "new/", cwd=scratch, check=0)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert files(scratch / "new") == sorted(
        f"{n}.npy{e}" for n in LAYERS for e in ("", ".images", ".json")
    )
    widths = dict.fromkeys(LAYERS, 9216) | dict.fromkeys(["conv1", "pool1", "conv3", "conv4"], 9600)
    for layer in LAYERS:
        assert np.load(scratch / f"new/{layer}.npy").shape == (4, widths[layer])
        assert f"{layer} {widths[layer]:,}" in done.stderr.decode()
    for layer in ("conv3", "pool5"):
        run(*argv, "--layer", layer, "-o", "one.npy", cwd=scratch, check=0)
        for end in ("", ".json"):
            one = (scratch / f"one.npy{end}").read_bytes()
            assert one == (scratch / f"new/{layer}.npy{end}").read_bytes()


def test_some_layers_into_a_folder_that_is_there(run, scratch):
    (scratch / "old").mkdir()
    (scratch / "old/conv1.npy").write_bytes(b"of another run")
    layers = ["--layer", "conv5", "--layer", "conv3", "--layer", "conv5"]
    argv = ["extract-features", "random:alexnet", "test.tsv", *layers]
    done = run(*argv, "-o", "old", cwd=scratch, check=0)
    endings = (".npy", ".npy.images", ".npy.json")
    made = [layer + ending for layer in ("conv3", "conv5") for ending in endings]
    assert files(scratch / "old") == ["conv1.npy", *made]
    assert b"features: conv3 9,600, conv5 9,216" in done.stderr
    assert (scratch / "old/conv1.npy").read_bytes() == b"of another run"
    for layer in ("conv3", "conv5"):
        sidecar = json.loads((scratch / f"old/{layer}.npy.json").read_text())
        assert sidecar["layer"] == layer
        assert np.load(scratch / f"old/{layer}.npy").shape[1] == np.prod(sidecar["shape"])


TWO = ["--layer", "conv1", "--layer", "conv2"]


@pytest.mark.parametrize("argv", [[], ["-o", "f.npy"], TWO, [*TWO, "-o", "f.npy"]])
def test_a_file_takes_one_layer(run, scratch, argv):
    done = run("extract-features", "random:alexnet", "test.tsv", *argv, cwd=scratch, check=2)
    assert b"give one --layer, or a folder, -o DIR/" in done.stderr
    assert done.stderr.count(b"\n") == 1 and done.stdout == b"" and not (scratch / "f.npy").exists()


def test_an_unknown_layer_makes_no_folder(run, scratch):
    layers = ["--layer", "conv1", "--layer", "conv6"]
    argv = ["extract-features", "random:alexnet", "test.tsv", *layers, "-o", "new/"]
    done = run(*argv, cwd=scratch, check=1)
    names = ", ".join(LAYERS)
    said = f"random:alexnet has no layer conv6: it has {names}"
    assert done.stderr.decode() == f"extract-features: {said}\n"
    assert not (scratch / "new").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_failed_run_leaves_the_folder_as_it_was(run, scratch, there):
    with open(scratch / "test.tsv", "a") as stream:
        stream.write("gone.jpg\n")
    if there:
        (scratch / "new").mkdir()
        for name in ("conv1.npy", "conv1.npy.json"):
            (scratch / "new" / name).write_bytes(b"old")
    argv = ["extract-features", "random:alexnet", "test.tsv", "-o", "new/", "--batch", "2"]
    done = run(*argv, cwd=scratch, check=1)
    assert b"test.tsv:5: " in done.stderr and done.stderr.count(b"\n") == 1
    assert (scratch / "new").exists() == there
    if there:
        assert files(scratch / "new") == ["conv1.npy", "conv1.npy.json"]
        assert {(scratch / "new" / name).read_bytes() for name in files(scratch / "new")} == {
            b"old"
        }


def test_a_full_disk_names_the_folder(scratch):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    argv = [sys.executable, TINY, "extract-features", "random:tiny", "train.tsv", "-o", "new/"]
    argv += ["-j", "0"]  # the limit would be that of the workers' shared memory as well
    done = subprocess.run(
        argv, cwd=scratch, env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == "extract-features: new/: File too large\n"
    assert not (scratch / "new").exists()


@pytest.mark.parametrize("place", ["gone/new/", "test.tsv/"])
def test_a_folder_that_cannot_be_made(run, scratch, place):
    argv = ["extract-features", "random:alexnet", "test.tsv", "-o", place]
    done = run(*argv, cwd=scratch, check=1)
    assert done.stderr.decode().startswith(f"extract-features: {place}: ")
    assert done.stderr.count(b"\n") == 1 and not (scratch / "gone").exists()


def test_a_folder_in_the_place_of_a_file(run, scratch):
    (scratch / "new/conv3.npy").mkdir(parents=True)
    layers = ["--layer", "conv1", "--layer", "conv3"]
    argv = ["extract-features", "random:alexnet", "test.tsv", *layers, "-o", "new"]
    done = run(*argv, cwd=scratch, check=1)
    assert b"new/conv3.npy: Is a directory" in done.stderr and files(scratch / "new") == [
        "conv3.npy"
    ]


def test_interrupted_it_leaves_nothing(scratch):
    (scratch / "many.tsv").write_text((scratch / "train.tsv").read_text() * 5000)
    argv = [sys.executable, TINY, "extract-features", "random:tiny", "many.tsv", "-o", "new/"]
    process = subprocess.Popen(
        argv, cwd=scratch, env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )

    def written():
        return sum(path.stat().st_size for path in scratch.glob("new/conv1.npy.*.partial"))

    while not written() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 75 and err.count(b"\n") == 1, err.decode()
    assert not (scratch / "new").exists()


@pytest.mark.parametrize("stopped_at", range(7))
def test_no_sidecar_speaks_of_other_features(scratch, monkeypatch, stopped_at):
    """Stopped before any step of putting the files in place: a sidecar fits, or there is none."""
    folder = scratch / "new"
    folder.mkdir()
    layers = ("conv1", "conv2")
    for layer in layers:
        (folder / f"{layer}.npy").write_bytes(b"old")
        (folder / f"{layer}.npy.json").write_text('{"is": "old"}')
    left = [stopped_at]

    def stop(function):
        def step(*args):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*args)

        return step

    def write():
        with records.writing_features(str(folder), {n: {"is": "new"} for n in layers}) as opened:
            for stream in opened:
                stream.write(b"new")
            monkeypatch.setattr(os, "replace", stop(os.replace))
            monkeypatch.setattr(os, "unlink", stop(os.unlink))

    if stopped_at < 6:  # two sidecars are taken away, and four files put in place
        with pytest.raises(KeyboardInterrupt):
            write()
    else:
        left[0] = 99
        write()
    monkeypatch.undo()
    for layer in layers:
        features, sidecar = folder / f"{layer}.npy", folder / f"{layer}.npy.json"
        assert features.read_text() in ("old", "new")
        if sidecar.exists():
            assert json.loads(sidecar.read_text())["is"] == features.read_text()
        assert stopped_at < 6 or sidecar.exists() and features.read_text() == "new"


def test_a_device_has_no_sidecar(run, scratch):
    (scratch / "null").symlink_to("/dev/null")
    run(*CONV3, "-o", "null", cwd=scratch, check=0)
    assert not (scratch / "null.json").exists() and not os.path.exists("/dev/null.json")
    assert not os.path.isfile("/dev/null")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(scratch):
    """Ten times the rows, 72 MB of them: the pages of the mapped file are the disk's, not ours."""
    peaks = []
    body = f"import sys; sys.path.insert(0, {str(TINY.parent)!r}); import tiny;"
    body += "tiny.Tiny.pooling = {'conv1': (1, 1, 0)}; import ssl_tools.extract_features as tool;"
    body += "from ssl_common.data import datasets; datasets.MANY = 0;"  # one decoder for both
    body += "tool.main()"
    for rows in (1000, 10_000):
        lines = (scratch / "train.tsv").read_text().splitlines(keepends=True)
        (scratch / "many.tsv").write_text("".join(itertools.islice(itertools.cycle(lines), rows)))
        argv = [sys.executable, "-c", body, "random:tiny", "many.tsv", "-j", "0", "-o", "new/"]
        peak = 0
        with subprocess.Popen(argv, cwd=scratch, env=environment()) as process:
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                    anonymous = re.search(r"RssAnon:\s+(\d+) kB", status)
                    peak = max(peak, int(anonymous[1]) if anonymous else 0)
                time.sleep(0.02)
        assert process.returncode == 0 and len(np.load(scratch / "new/conv1.npy", "r")) == rows
        peaks.append(peak)
    assert os.path.getsize(scratch / "new/conv1.npy") > 70_000_000
    assert peaks[1] < peaks[0] + 20_000  # kB


# ---- Many processes, few bytes ------------------------------------------------------------------

RANKS = ["--gpus", "2", "--device", "cpu", "--batch", "5"]


def extract(scratch, *argv, **options):
    return tiny(scratch, "extract-features", "random:tiny", *argv, **options)


def test_ranks_write_the_bytes_of_one_process(scratch):
    """12 lines in batches of 5: two for the first rank, one for the second; and from a pipe."""
    one = extract(scratch, "train.tsv", "--batch", "5", "-o", "one/")
    two = extract(scratch, "-", *RANKS, "-o", "two/", given=(scratch / "train.tsv").read_bytes())
    assert (one.returncode, two.returncode) == (0, 0), two.stderr.decode()
    assert one.stderr == two.stderr and one.stderr.count(b"\n") == 1
    assert files(scratch / "one") == files(scratch / "two") and len(files(scratch / "one")) == 9
    for name in files(scratch / "one"):
        assert (scratch / "one" / name).read_bytes() == (scratch / "two" / name).read_bytes()


def test_a_rank_that_fails_speaks_through_the_parent(scratch):
    with open(scratch / "train.tsv", "a") as stream:
        stream.write("gone.jpg\n")
    done = extract(scratch, "train.tsv", *RANKS, "-o", "two/")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert b"train.tsv:13: ./gone.jpg: No such file" in done.stderr
    assert not (scratch / "two").exists()


def test_ranks_need_a_file(scratch):
    done = extract(scratch, "train.tsv", *RANKS, "--layer", "conv1")
    assert done.returncode == 1 and b"name a file with -o" in done.stderr and done.stdout == b""


def test_float16_is_the_nearest_of_float32(scratch):
    for dtype in ("float32", "float16"):
        assert extract(scratch, "train.tsv", "--dtype", dtype, "-o", f"{dtype}/").returncode == 0
    for layer in ("conv1", "conv2", "conv3"):
        whole, half = (
            np.load(scratch / f"{dtype}/{layer}.npy") for dtype in ("float32", "float16")
        )
        assert half.dtype == np.float16 and (half == whole.astype(np.float16)).all()


def test_a_number_that_is_none_is_named(scratch):
    """Weights of a thousandfold make features beyond the largest float16, 65,504."""
    extract(scratch, "train.tsv", "--layer", "conv1", "-o", "f.npy")
    torch.manual_seed(0)
    trunk = Tiny()
    with torch.no_grad():
        trunk.conv1[1].weight.fill_(1e6)
    settings = {"arch": "tiny", "pretext": "jigsaw"}
    content = {"format": 1, "settings": settings, "trunk": trunk.state_dict(), "head": {}}
    networks.save(str(scratch / "large.pt"), content)
    words = ["extract-features", "large.pt", "train.tsv", "--layer", "conv1"]
    for dtype, status in (("float32", 0), ("float16", 1)):
        done = tiny(scratch, *words, "--dtype", dtype, "-o", "f.npy")
        assert done.returncode == status
    assert b"train.tsv:1: conv1 is NaN, or too large for float16" in done.stderr
    assert np.load(scratch / "f.npy").dtype == np.float32  # that of the run before


def test_a_network_that_changes_is_found_out(scratch, monkeypatch):
    """A trunk in training mode moves the statistics of its batch norm."""
    monkeypatch.setitem(registry.TRUNKS, "tiny", Tiny)
    monkeypatch.setattr(Tiny, "eval", lambda self: self.train())
    layers, reading = (
        features.Layers("random:tiny", ["conv1"], 0),
        features.Reading(str(scratch), 4),
    )
    files = (str(scratch / "train.tsv"), str(scratch / "f.npy"))
    with pytest.raises(AssertionError, match="network changed"):
        features.extract(layers, *files, Launch(1, "cpu"), reading)
    assert not (scratch / "f.npy").exists()


# ---- Readable oddities --------------------------------------------------------------------------


def oddities(folder):
    """Write one photograph and its gray version in every form; return {odd file: plain file}."""
    rng = np.random.default_rng(5)
    photo, other = (picture(rng, name, (150, 110)) for name in ("cat", "dog"))
    gray = photo.convert("L")
    made = {"rgb.png": photo, "other.png": other, "gray-as-rgb.png": gray.convert("RGB")}
    wanted = {}

    def odd(name, image, plain, **options):
        image.save(folder / name, **options)
        wanted[name] = plain

    odd("cmyk.jpg", photo.convert("CMYK"), "rgb.png", quality=100, subsampling=0)
    odd("cmyk.tif", photo.convert("CMYK"), "rgb.png")
    odd("palette.png", photo.quantize(256), "rgb.png")
    odd("palette.gif", photo.quantize(256), "rgb.png")
    odd("alpha.png", photo.convert("RGBA"), "rgb.png")
    odd("gray.png", gray, "gray-as-rgb.png")
    odd("la.png", gray.convert("LA"), "gray-as-rgb.png")
    odd("gray.jpg", gray, "gray-as-rgb.png", quality=100)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    odd("deep.png", deep, "gray-as-rgb.png")
    odd("deep.tif", deep, "gray-as-rgb.png")
    for orientation, turn in ((3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = photo.transpose(Image.Transpose[turn])
        odd(f"turned-{orientation}.png", turned, "rgb.png", exif=exif)
    odd("turned.jpg", turned, "rgb.png", exif=exif, quality=100, subsampling=0)

    made["not-turned.png"] = photo.transpose(Image.Transpose.ROTATE_90)

    pixel, line = photo.crop((60, 50, 61, 51)), np.asarray(photo)[:, 40:41]
    made["flat.png"] = pixel.resize((90, 70))
    odd("pixel.png", pixel, "flat.png")
    made["stripes.png"] = Image.fromarray(line.repeat(110, 1))
    odd("column.png", Image.fromarray(line), "stripes.png")
    made["bars.png"] = Image.fromarray(line.repeat(110, 1).transpose(1, 0, 2))
    odd("row.png", Image.fromarray(line.transpose(1, 0, 2)), "bars.png")
    for name, image in made.items():
        image.save(folder / name)
    return wanted


def test_odd_files_have_the_features_of_the_plain_picture(run, tmp_path):
    wanted = oddities(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "odd.tsv").write_text("".join(f"{name}\n" for name in names))
    run("extract-features", "random:alexnet", "odd.tsv", "--layer", "conv5", "-o", "f.npy", check=0)
    row = dict(zip(names, np.load(tmp_path / "f.npy"), strict=True))
    modes = {}
    for name in wanted:
        with Image.open(tmp_path / name) as image:
            modes[name] = image.mode
    assert set(modes.values()) >= {"CMYK", "P", "RGBA", "L", "LA", "I;16", "RGB"}

    def distance(one, two):
        return np.linalg.norm(row[one] - row[two]) / np.linalg.norm(row[two])

    for name, plain in wanted.items():
        assert distance("other.png", plain) > 0.5  # so far apart are two pictures
        exact = modes[name] != "P" and name not in ("column.png", "row.png")
        exact = exact and not name.endswith(".jpg")
        assert distance(name, plain) < (1e-6 if exact else 0.02), name
    assert distance("not-turned.png", "rgb.png") > 0.1
