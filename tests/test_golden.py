"""What the commands wrote before: tests/golden/*.txt are command lines, *.json all they left.

`make golden` records it anew; the difference is to be read, and named in CHANGES. Text and whole
numbers are equal on any machine. Other numbers are near: processors round otherwise.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import BIN, CHECKOUT, TINY, environment
from PIL import Image

FOLDER = CHECKOUT / "tests/golden"
GROUPS = sorted(path.stem for path in FOLDER.glob("*.txt"))
# Of a number that is not whole, relative; on one machine GOLDEN_NEAR=1e-9 may be asked for.
NEAR = float(os.environ.get("GOLDEN_NEAR", "1e-2"))
SMALL = min(NEAR, 1e-5)  # differences below it are none
SAMPLES = 4  # numbers of a large array that are kept
NUMBER = re.compile(r"(-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)")
CLOCK = re.compile(r"[\d.,]+ (s|min|h|hours|images/s|\u00b5s|ms)\b")
LEVELS = 3  # of 256, that the mean of a part of a picture may differ by


# ---- What is kept of a file ----------------------------------------------------------------------


def array(values):
    """Return what is kept of an array: all of it, a digest of whole numbers, or samples."""
    values = np.asarray(values)
    about = {"dtype": str(values.dtype), "shape": list(values.shape)}
    if values.dtype.kind not in "fc":
        if values.size <= 16:
            return about | {"all": values.tolist()}
        return about | {"sha256": hashlib.sha256(values.tobytes()).hexdigest()[:16]}
    flat = values.astype(np.float64).ravel()
    some = flat[np.linspace(0, max(0, flat.size - 1), min(SAMPLES, flat.size)).astype(int)]
    about["spread"] = float(np.sqrt(np.nanmean(flat**2))) if flat.size else 0.0
    return about | {"samples": [None if math.isnan(each) else float(each) for each in some]}


def plain(value):
    """Return what is kept of VALUE, of a file of torch.save."""
    import torch

    if isinstance(value, torch.Tensor):
        return array(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy())
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items() if not skipped(str(key))}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def skipped(key):
    """Tell whether the field KEY says when, or by what, and not what came out."""
    return key.startswith("time_") or key in ("version", "digest", "threads", "model", "inputs")


def picture(path):
    """Return what is kept of a picture: its size, and the mean of each of 8 x 8 parts."""
    with Image.open(path) as image:
        parts = image.convert("RGB").resize((8, 8), Image.Resampling.BOX)
        return {"size": list(image.size), "parts": np.asarray(parts).reshape(-1).tolist()}


def text(data):
    """Return what is kept of text: its lines, of JSON as values."""
    with contextlib.suppress(ValueError):
        return plain(json.loads(data))
    lines = []
    for line in data.decode().splitlines():
        try:
            lines.append(plain(json.loads(line)) if line.startswith("{") else line)
        except ValueError:
            lines.append(line)
    return lines


def content(path):
    """Return what is kept of the file PATH."""
    if path.suffix in (".npy", ".images"):
        return array(np.load(path))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: kept(arrays[name]) for name in arrays.files}
    if path.suffix in (".pt", ".pth"):
        import torch

        return plain(torch.load(path, weights_only=True))
    if path.suffix == ".safetensors":
        from ssl_common.models.foreign import safetensors

        return plain(safetensors.read(path.read_bytes()))
    if path.suffix in (".png", ".jpg"):
        return picture(path)
    if path.suffix == ".svg":
        return {"texts": sorted(re.findall(r">([^<>\n]+)</text>", path.read_text()))}
    return text(path.read_bytes())


def kept(values):
    """Return what is kept of an array of an archive; one of text may hold JSON."""
    if values.dtype.kind == "U" and values.size == 1 and str(values).startswith("{"):
        return plain(json.loads(str(values)))
    return array(values) if values.dtype.kind != "U" else values.tolist()


def written(found):
    """Return what was FOUND as JSON: a line a name, but lists of numbers on one."""
    data = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
    numbers = re.compile(r"\[[-\d.e+,\snul]+\]")
    return numbers.sub(lambda found: re.sub(r"\s+", " ", found[0]), data) + "\n"


# ---- What a line does ----------------------------------------------------------------------------


def argv(words):
    if words[0] == "tiny":
        return [sys.executable, str(TINY), *words[1:]]
    return [str(BIN / words[0]), *words[1:]]


def until_log(process):
    """Send SIGINT once a line with a step has been logged; return (status, b"", what it said)."""
    for line in process.stdout:
        if b'"step"' in line and not line.startswith(b'{"step": 0'):
            process.send_signal(signal.SIGINT)
            break
    _out, err = process.communicate()
    return process.returncode, b"", err


def states(folder):
    """Return {name: (size, time)} of the files below FOLDER."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            found[str(path.relative_to(folder))] = (status.st_mtime_ns, status.st_ino)
    return found


def happened(line, folder):
    """Run LINE in FOLDER; return what is kept of its status, its streams and its files."""
    words = shlex.split(line)
    stopping = words[0] == "stop"
    words = words[stopping:]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    for sign, name, mode in (("<", "stdin", "rb"), (">>", "stdout", "ab"), (">", "stdout", "wb")):
        if sign in words:
            at = words.index(sign)
            streams[name] = open(folder / words[at + 1], mode)  # noqa: SIM115 closed below
            del words[at : at + 2]
    before = states(folder)
    process = subprocess.Popen(
        argv(words),
        cwd=folder,
        env=environment({"OMP_NUM_THREADS": "1"}),
        stderr=subprocess.PIPE,
        **streams,
    )
    with process:
        if stopping:
            status, out, err = until_log(process)
        else:
            out, err = process.communicate()
            status = process.returncode
    for stream in streams.values():
        if stream not in (subprocess.DEVNULL, subprocess.PIPE):
            stream.close()
    after = states(folder)
    files = {name for name in after if after[name] != before.get(name) and "/step-" not in name}
    files = set() if stopping else files
    lines = [each for each in err.decode().splitlines() if "steps left" not in each]  # by the clock
    said = [CLOCK.sub("TIME", each) for each in lines]
    return {
        "status": status,
        "stdout": text(out or b""),
        "stderr": said[-1:] if stopping else said,
        "files": {name: content(folder / name) for name in sorted(files)},
        "gone": sorted(name for name in before.keys() - after.keys() if "/step-" not in name),
    }


def prepare(folder):
    """Write into FOLDER what the lines read and scratch has not."""
    import torch
    import torchvision

    boxes = [
        {"id": n + 1, "image_id": n % 4 + 1, "category_id": n % 2 + 1, "area": 900.0 * n + 1,
         "bbox": [4, 4, 30 * n + 1, 30], "iscrowd": 0}
        for n in range(5)
    ]  # fmt: skip
    images = [
        {"id": n + 1, "file_name": f"cat/{n}.jpg", "width": 96, "height": 80} for n in range(4)
    ]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = {"images": images, "annotations": boxes, "categories": names}
    (folder / "instances.json").write_text(json.dumps(coco))
    (folder / "places.csv").write_text("cat/0.jpg 0\ncat/1.jpg 0\ndog/0.jpg 1\n")
    for arch in ("resnet18", "resnet50"):
        torch.manual_seed(0)
        torch.save(
            getattr(torchvision.models, arch)(weights=None).state_dict(), folder / f"{arch}.pth"
        )


# ---- What differs --------------------------------------------------------------------------------


def differences(found, expected, where=""):
    """Yield a line for each place in which FOUND differs from what was EXPECTED."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if "parts" in expected and "parts" in found:
            if np.abs(np.subtract(found["parts"], expected["parts"])).max() > LEVELS:
                yield f"{where}: another picture"
            found, expected = {"size": found["size"]}, {"size": expected["size"]}
        loose = SMALL + NEAR * 2 * expected.get("spread", 0)  # of samples: they may be near 0
        for key in sorted(found.keys() | expected.keys()):
            if key not in found or key not in expected:
                yield f"{where}/{key}: {'new' if key in found else 'gone'}"
            elif key == "samples" and "spread" in expected:
                for a, b in zip(found[key], expected[key], strict=False):
                    if (a is None) != (b is None) or (a is not None and abs(a - b) > loose):
                        yield f"{where}/{key}: {a}, not {b}"
            else:
                yield from differences(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            yield f"{where}: {len(found)} entries, not {len(expected)}: {found!r:.300}"
            return
        for number, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from differences(a, b, f"{where}/{number}")
    elif isinstance(expected, float) and isinstance(found, float | int):
        loose = 2 * NEAR if where.endswith("accuracy") else SMALL  # it goes by whole images
        if not math.isclose(found, expected, rel_tol=NEAR, abs_tol=loose):
            yield f"{where}: {found}, not {expected}"
    elif isinstance(expected, str) and isinstance(found, str):
        yield from different_texts(found, expected, where)
    elif found != expected:
        yield f"{where}: {found!r:.300}, not {expected!r:.300}"


def different_texts(found, expected, where):
    """Yield a line where texts differ in more than the last digits of numbers with a point."""
    ours, theirs = NUMBER.split(found), NUMBER.split(expected)
    same = len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=False):
        if a != b and "." in a and "." in b and NUMBER.fullmatch(a) and NUMBER.fullmatch(b):
            a, b = (float(each.replace(",", "")) for each in (a, b))
            same = same and math.isclose(a, b, rel_tol=NEAR, abs_tol=min(NEAR, 0.011))
        else:
            same = same and a == b
    if not same:
        yield f"{where}: {found!r:.400}, not {expected!r:.400}"


# ---- The tests -----------------------------------------------------------------------------------


def lines_of(group):
    lines = (FOLDER / f"{group}.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_commands_write_what_they_wrote(scratch, group):
    prepare(scratch)
    found = {line: happened(line, scratch) for line in lines_of(group)}
    found = json.loads(json.dumps(found))
    path = FOLDER / f"{group}.json"
    if os.environ.get("GOLDEN") == "record":
        path.write_text(written(found))
    expected = json.loads(path.read_text())
    assert found.keys() == expected.keys()
    wrong = [
        f"{line}\n    {each}"
        for line in expected
        for each in differences(found[line], expected[line])
    ]
    assert not wrong, "\n".join(wrong)


def test_a_difference_is_seen():
    whole = {"a": [1, 2.0], "b": {"spread": 1.0, "samples": [0.5, None]}, "c": "mAP 51.20 of 20"}
    near = {"a": [1, 2.01], "b": {"spread": 1.0, "samples": [0.51, None]}, "c": "mAP 51.21 of 20"}
    if NEAR == 1e-2:  # as it is for all machines
        assert not list(differences(near, whole))
    others = {
        "a": [[2, 2.0], [1, 2.1], [1]],
        "b": [{"spread": 1.0, "samples": each} for each in ([0.6, None], [0.5, 0.5])],
        "c": ["mAP 51.20 of 21", "mAP 52.20 of 20"],
    }
    for key, values in others.items():
        for other in values:
            assert list(differences(whole | {key: other}, whole))
    assert list(differences({"a": 1}, {"b": 1})) == ["/a: new", "/b: gone"]
    with pytest.raises(AssertionError):
        assert not list(differences({"parts": [9], "size": [1, 1]}, {"parts": [0], "size": [1, 1]}))
