"""What every test shares: the real processes, the real test data, a folder of small made files."""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys

import caffe2
import numpy as np
import pytest
from PIL import Image
from warm import COMMANDS, Warm

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
TINY = CHECKOUT / "tests/tiny.py"  # a command with a network of three layers
VERSION = re.search(r'version="(.+)"', (CHECKOUT / "setup.py").read_text(encoding="utf-8"))[1]
BIN = pathlib.Path(sys.executable).parent  # not resolved: the folder of the virtual environment

# Tests run side by side, one a core: threads of torch's would but wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test &` in a script, and nohup, let the tests, and what they start, be deaf to these.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

LIMIT = 3600  # seconds that a slow test may take; pyproject.toml says it for the others


class Child(subprocess.Popen):
    """A process that no test leaves behind: one that fails, or is timed out, does not wait for it.

    Every subprocess.Popen in the tests is one, those of subprocess.run among them.
    """

    living = []

    def __init__(self, *args, **extra):
        super().__init__(*args, **extra)
        self.living.append(self)

    def __exit__(self, kind, *error):
        if kind:
            self.end()
        super().__exit__(kind, *error)

    def end(self):
        """Kill it, and its group where it leads one; close its pipes."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                leads = os.getpgid(self.pid) == self.pid
                (os.killpg if leads else os.kill)(self.pid, signal.SIGKILL)
            self.wait()
        for pipe in filter(None, (self.stdin, self.stdout, self.stderr)):
            with contextlib.suppress(OSError):  # nobody reads what it still holds
                pipe.close()


Popen, subprocess.Popen = subprocess.Popen, Child


@pytest.fixture(autouse=True)
def ended_children():
    """End what a test has started, however it ends."""
    yield
    while Child.living:
        Child.living.pop().end()


def pytest_collection_modifyitems(items):
    """Give slow tests a limit of their own."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT))


def environment(extra=None):
    """Return the environment the commands run in: unbuffered streams would hide their errors."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", **(extra or {})}


def plant_modules(folder):
    """Put modules of a user's own into FOLDER; return the file in which they leave a mark."""
    mark = folder / "imported"
    for name in ("signal", "torch", "json", "numpy", "struct", "threading"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write('{name} ')\n")
    return mark


def readers(pid):
    """Return the processes that the command PID started to work beside it."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(c): pathlib.Path(f"/proc/{c}/cmdline").read_bytes() for c in children}
    return [child for child, line in lines.items() if b"resource_tracker" not in line]


warm = []  # what starts commands without an import of torch, once it is asked for


def process(argv, cwd, given=None, largest=None, **streams):
    """Run the command ARGV in CWD; STREAMS are as Warm.run() takes them, or as cold() does.

    With LARGEST no file may grow beyond so many bytes: the kernel's own way to fail a write.
    """
    argv = [str(BIN / argv[0]), *argv[1:]]
    if os.path.basename(argv[0]) in COMMANDS and streams.keys() <= {"stdin", "stdout", "stderr"}:
        return forked(argv, cwd, environment(), given, largest, **streams)
    if largest is not None:  # which could leave half a .pyc, too
        streams["env"] = {"PYTHONDONTWRITEBYTECODE": "1"}
        streams["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest,) * 2)
    return cold(argv, cwd, given, **streams)


def forked(argv, cwd, env, given=None, largest=None, **streams):
    """Run ARGV as Warm.run() does."""
    if not warm:
        warm.append(Warm(Popen))
    try:
        return warm[0].run(argv, cwd, env, given, largest, **streams)
    except BaseException:  # the test took too long
        warm.pop().close()
        raise


def tiny(folder, *words, given=None, env=None):
    """Run the command and its WORDS in FOLDER with networks of few layers and one thread."""
    argv = [str(TINY), *map(str, words)]
    return forked(argv, folder, environment({"OMP_NUM_THREADS": "1", **(env or {})}), given)


def ended(done, status=0):
    """Check that what is DONE ended with STATUS; return what it wrote on stdout and stderr."""
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def cold(argv, cwd, given=None, env=None, **streams):
    """Run ARGV in CWD from its very beginning, with ENV beside the usual environment."""
    if given is not None:
        streams["input"] = given
    else:
        streams.setdefault("stdin", subprocess.DEVNULL)
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    argv = [str(BIN / argv[0]), *argv[1:]]
    return subprocess.run(argv, cwd=cwd, env=environment(env), check=False, **kept | streams)


def pytest_sessionfinish():
    while warm:
        warm.pop().close()


@pytest.fixture
def run(tmp_path):
    """Run a command as a real process, in tmp_path; CHECK is the exit status it must have."""

    def run(*argv, stdin=None, cwd=None, env=None, check=None):
        argv = [str(argument) for argument in argv]
        if env:  # which libraries read as they are loaded
            done = cold(argv, cwd or tmp_path, stdin, env)
        else:
            done = process(argv, cwd or tmp_path, stdin)
        if check is not None:
            assert done.returncode == check, done.stderr.decode()
        return done

    return run


@pytest.fixture
def data():
    """Return the path of a part of the real test data, or skip the test where it is absent."""
    root = pathlib.Path(os.environ.get("SSL_BENCH_DATA", CHECKOUT / "../shared/data"))

    def data(name):
        if not (root / name).exists():
            pytest.skip(f"no {name} in {root} (SSL_BENCH_DATA)")
        return (root / name).resolve()

    return data


@contextlib.contextmanager
def alone(tmp_path_factory, name):
    """Yield a path by NAME that all the processes of pytest-xdist share, to one at a time."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield base / name


def once(tmp_path_factory, name, make):
    """Return what MAKE() gives, which is called once for all the processes of pytest-xdist."""
    with alone(tmp_path_factory, name) as kept:
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make()))
        return pickle.loads(kept.read_bytes())


@pytest.fixture(scope="session")
def scratch_template(tmp_path_factory):
    """Make the files of scratch, once for all the processes of pytest-xdist."""
    with alone(tmp_path_factory, "scratch-template") as folder:
        if not folder.exists():
            making = folder.with_name("scratch-making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make_scratch(making)
            making.rename(folder)
    return folder


@pytest.fixture
def scratch(scratch_template, tmp_path):
    """Return tmp_path, filled with small generated files of every kind the commands read."""

    def copy(source, target):  # networks are large, and nothing writes into it in place
        (os.link if source.endswith((".pt", ".pkl")) else shutil.copy2)(source, target)

    shutil.copytree(scratch_template, tmp_path, copy_function=copy, dirs_exist_ok=True)
    return tmp_path


def make_scratch(folder):
    """Fill FOLDER with the same files, whatever the day."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(8):
            picture(rng, name, (96, 80)).save(folder / f"photos/{name}/{number}.jpg", quality=90)
    make_devkit(folder / "VOCdevkit/VOC2007", rng)
    make_listing(folder / "listing.tsv")
    make_features(folder, rng)
    make_views(folder)
    order = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    turned = [np.rot90(order, turns).ravel() for turns in range(4)]
    np.save(folder / "p4.npy", np.array(turned, np.int64))
    caffe2.save(folder / "caffenet.pkl", caffe2.alexnet(rng, "conv{}/", ()))
    make_by_commands(folder)


def picture(rng, name, size):
    """Return a made photograph: smooth light, texture, and an object as its class has them."""
    width, height = size
    warm, wave = {"cat": ((190, 120, 60), 5), "dog": ((60, 110, 190), 11)}.get(
        name, ((110, 160, 90), 23)
    )
    light = Image.fromarray(rng.integers(40, 216, (4, 5, 3), np.uint8))
    pixels = np.asarray(light.resize(size, Image.Resampling.BICUBIC), np.float32)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.35, 0.65, 2) * (height, width)
    inside = np.hypot((y - centre[0]) / height, (x - centre[1]) / width) < rng.uniform(0.25, 0.35)
    stripes = 40 * np.sin((x + y) * wave / 40 + rng.uniform(0, 6))
    pixels = np.where(inside[..., None], np.array(warm) + stripes[..., None], pixels)
    pixels = pixels + rng.normal(0, 8, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_devkit(root, rng):
    """Write a PASCAL VOC 2007 devkit of 12 images: train 4, val 4, test 4."""
    lists = root / "ImageSets/Main"
    for made in (lists, root / "JPEGImages", root / "Annotations"):
        made.mkdir(parents=True)
    classes = ("cat", "dog", "train")
    names = [f"{5 * number + 7:06d}" for number in range(12)]
    label = {}
    for number, name in enumerate(names):
        shown = classes[number // 3 % 3]
        picture(rng, shown, (100, 80)).save(root / f"JPEGImages/{name}.jpg", quality=90)
        for each in classes:
            label[each, name] = 1 if each == shown else -1
        if number % 4 == 1:  # a second class, hard to see
            label[classes[(number // 3 + 1) % 3], name] = 0
        shows = [each for each in classes if label[each, name] >= 0]
        (root / f"Annotations/{name}.xml").write_text(
            annotation(number, [(each, label[each, name] == 0) for each in shows])
        )
    splits = {"train": names[0::3], "val": names[1::3], "test": names[2::3]}
    splits["trainval"] = sorted(splits["train"] + splits["val"])
    for split, members in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in members))
        for each in classes:
            rows = "".join(f"{name} {label[each, name]:2d}\n" for name in members)
            (lists / f"{each}_{split}.txt").write_text(rows)


def annotation(number, shows):
    """Return VOC's annotation of image NUMBER of 100 x 80 pixels that SHOWS (class, difficult)."""
    places = [
        f"<object><name>{name}</name><difficult>{difficult:d}</difficult><bndbox>"
        f"<xmin>{20 + number}</xmin><ymin>{15 + 2 * place}</ymin>"
        f"<xmax>{70 + number}</xmax><ymax>{60 + place}</ymax></bndbox></object>"
        for place, (name, difficult) in enumerate(shows)
    ]
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(places)}</annotation>\n"


def make_listing(path):
    """Write 60 lines as yfcc100m_dataset has them: 50 photographs and 10 videos."""
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(60):
            photo, video = 6_000_000_000 + 7919 * number, number % 6 == 5
            secret, user = f"{number * 2654435761 % 2**40:010x}", f"{15_000_000 + number}@N00"
            url = f"http://farm7.staticflickr.com/61{number:02d}/{photo}_{secret}.jpg"
            # The listing prints the bytes of the MD5 without leading zeros.
            name = "".join(f"{byte:x}" for byte in hashlib.md5(url.encode()).digest())
            fields = [
                *(number, photo, name, user, f"caf%C3%A9+{number}"),
                *(f"2011-09-{number % 28 + 1:02d} 21:13:32.0", 1316432672 + number),
                *("Nokia+N950", f"Title+{number}", "", "helsinki,party", "", "", "", ""),
                f"http://www.flickr.com/photos/{user}/{photo}/",
                url,
                "Attribution-ShareAlike License",
                "http://creativecommons.org/licenses/by-sa/2.0/",
                *(6100 + number, 7, secret, f"{secret[::-1]}", "jpg", int(video)),
            ]
            assert len(fields) == 25
            stream.write("\t".join(map(str, fields)) + "\n")


def make_features(folder, rng):
    """Write train.tsv and test.tsv, and features of 32 numbers with their sidecars."""
    from ssl_common.data.manifest import Manifest

    for split, numbers in (("train", range(6)), ("test", range(6, 8))):
        rows = [(f"photos/{name}/{n}.jpg", name) for name in ("cat", "dog") for n in numbers]
        manifest = folder / f"{split}.tsv"
        manifest.write_text("".join(f"{path}\t{name}\n" for path, name in rows))
        features = rng.normal(0, 1, (len(rows), 32)).clip(0)
        features[:, :4] += [[2 * (name == "cat")] for _path, name in rows]
        np.save(folder / f"{split}.npy", features.astype(np.float32))
        sidecar = {
            "format": 1,
            "model": "0123456789abcdef",
            **{"arch": "alexnet", "pretext": "random", "data": None, "data_name": None},
            **{"permutations": None, "images": None, "layer": "conv5", "seed": 0},
            "shape": [32, 1, 1],
            "manifest": Manifest(str(manifest)).digest(),
        }
        (folder / f"{split}.npy.json").write_text(json.dumps(sidecar, indent=1) + "\n")


def make_views(folder):
    """Write six views of walls with their depth and normals: depth.tsv, views.tsv, normals.pklz.

    Even ones look to the left, odd ones to the right; the last two are in views-test.tsv alone.
    """
    from ssl_common.evaluation.normals import labels, planes

    rng, camera = np.random.default_rng(1), planes.Intrinsics(90, 90, 48, 40)
    for part in ("views", "depths", "normals"):
        (folder / part).mkdir()
    every = []
    for number in range(6):
        wall = np.array([0.6 if number % 2 else -0.6, 0.0, 0.8])
        metres = -2 / np.einsum("c,chw->hw", wall, planes.points(np.ones((80, 96)), camera))
        every.append(np.broadcast_to(wall, (80, 96, 3)).astype(np.float32))
        kind = ("cat", "dog")[number % 2]
        picture(rng, kind, (96, 80)).save(folder / f"views/{number}.jpg", quality=90)
        depth = Image.fromarray(np.rint(metres * 1000).astype(np.uint16))
        depth.save(folder / f"depths/{number}.png")
        known = np.ones((80, 96), bool)
        normals = np.moveaxis(every[-1], 2, 0)
        content = labels.written(normals, known, labels.Truth("walls", "exact"))
        (folder / f"normals/{number}.png").write_bytes(content)
    lists = {"depth": ("depths", range(4)), "views": ("normals", range(4))}
    lists["views-test"] = "normals", range(4, 6)
    for name, (part, numbers) in lists.items():
        lines = "".join(f"views/{n}.jpg\t{part}/{n}.png\n" for n in numbers)
        (folder / f"{name}.tsv").write_text(lines)
    masks = np.ones((4, 80, 96), bool)
    packed = {"all_normals": np.array(every[:4]), "all_valid_depth_masks": masks}
    with gzip.GzipFile(folder / "normals.pklz", "wb", mtime=0) as stream:
        pickle.dump(packed, stream, 2)


def make_by_commands(folder):
    """Write what the commands themselves make: svm.npz, results.jsonl, linear.pt, tuned.pt ..."""

    def make(line, output=None):
        done = process(line.split(), folder)  # one that fails here fails its own tests, with reason
        if output:
            (folder / output).write_bytes(done.stdout)

    make("train-svm train.npy train.tsv -o svm.npz")
    make("eval-svm svm.npz test.npy test.tsv", "results.jsonl")
    make("list-objects voc VOCdevkit/VOC2007 --split test", "objects.jsonl")
    make_detections(folder)
    make(
        "train-linear random:caffenet train.tsv --cache --batch 12 --iterations 9 -j 0 -o linear.pt"
    )
    make("finetune random:caffenet train.tsv --fc 8 --batch 2 --iterations 1 -j 0 -o tuned.pt")
    make(
        "train-detector random:caffenet objects.jsonl --head faster --size 64 --fc 16 --batch 2"
        " --iterations 2 -j 0 -o detector.pt"
    )
    make(
        "train-normals random:caffenet views.tsv --sides 80 --test-side 80 --codes 2 --batch 4"
        " --iterations 1 -j 0 -o normals.pt"
    )
    shutil.copy(CHECKOUT / "tests/corridor.py", folder)
    corridor = ["--env-command", "python corridor.py"]
    words = [*corridor, "-n", "6", "--noise", "40%", "-j", "0", "-o", "frames"]
    frames = process(["record-navigation", *words], folder)
    (folder / "frames.tsv").write_bytes(frames.stdout)
    words = "thumbnail frames.tsv --runs 2 --batch 4 --iterations 8 -j 0"
    make(f"train-navigator {words} -o navigator.pt")


@pytest.fixture(scope="session")
def eight_scenes(tmp_path_factory):
    """Return a folder with eight generated scenes, scenes/, and their objects."""
    with alone(tmp_path_factory, "eight") as folder:
        if not folder.exists():
            making = folder.with_name("eight-making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            argv = [BIN / "make-scenes", "-n", "8", "-j", "0", "-o", "scenes", "-q"]
            subprocess.run(
                argv, cwd=making, env=environment(), check=True, stdout=subprocess.DEVNULL
            )
            making.rename(folder)
    return folder


@pytest.fixture
def folder(eight_scenes, tmp_path):
    """Return tmp_path, with the eight scenes in it."""
    (tmp_path / "scenes").symlink_to(eight_scenes / "scenes")
    return tmp_path


def make_detections(folder):
    """Write what a detector may have found in objects.jsonl, and proposals as Detectron has them.

    The class of the second image is found a little beside, that of the third too late.
    """
    objects = [json.loads(line) for line in (folder / "objects.jsonl").read_bytes().splitlines()]
    proposals = {"boxes": [], "scores": [], "indexes": []}
    with open(folder / "detections.jsonl", "w") as stream:
        for number, image in enumerate(objects):
            found = [[x1 + number, y1, x2 + 2 * number, y2] for x1, y1, x2, y2 in image["boxes"]]
            boxes = [[1, 2, 30, 40 + number], *found]
            image = {key: image[key] for key in ("path", "width", "height", "labels")}
            image["boxes"], image["labels"] = boxes, [image["labels"][0], *image["labels"]]
            image["scores"] = [0.75 - place / 8 - number / 64 for place in range(len(boxes))]
            stream.write(json.dumps(image) + "\n")
            proposals["boxes"].append(np.array([[0, 0, 99, 79], *boxes], np.float32))
            proposals["scores"].append(np.zeros(len(boxes) + 1, np.float32))
            proposals["indexes"].append(int(pathlib.Path(image["path"]).stem))
    (folder / "proposals.pkl").write_bytes(pickle.dumps(proposals, 2))


class Bomb:
    """Runs a command when unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def save_bomb(path, target):
    """Write a network to PATH that makes the file TARGET when it is unpickled."""
    import torch

    torch.save({"format": 1, "settings": Bomb(f"touch {target}")}, path)
