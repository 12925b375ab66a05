"""Measure the commands against what a user would take instead, and against the limit of a step.

One line a measurement on standard output: name<TAB>ours<TAB>theirs<TAB>ratio, where a ratio above 1
says that ours is better. Names carry the unit. `make bench` runs it; RESULTS.md keeps what it said.
"""

import bz2
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

BIN = pathlib.Path(sys.executable).parent
COMMANDS = [path.stem.replace("_", "-") for path in sorted(pathlib.Path("tools").glob("[a-z]*.py"))]
SCENES, LISTING = 256, 200_000
FEATURES = (400, 2048, 4)  # images, numbers and classes for the SVMs


def seconds(work, times=1):
    """Return the least of TIMES durations of WORK(), in seconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def shell(line, folder="."):
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def startup(_folder):
    """--help of each command; theirs is Python with click alone, which none can undercut."""
    bare = seconds(lambda: shell("python -c 'import click'"), 5)
    for command in COMMANDS:
        ours = seconds(lambda command=command: shell(f"{command} --help"), 5)
        yield f"{command} --help (s)", ours, bare, bare / ours


def permutations(_folder):
    """1,000 permutations; theirs compares all candidates with all chosen ones at every row."""
    from scipy.spatial.distance import cdist

    from ssl_common.pretext.permutations import lexicographic

    rows = 1000
    ours = seconds(lambda: shell(f"make-permutations -n {rows} -q"))
    candidates = lexicographic(9).T
    # The work of row k grows with k, so three rows tell the whole.
    sample = {k: seconds(lambda k=k: cdist(candidates, candidates[:k], "hamming").mean(1).argmax())
              for k in (1, 50, 100)}  # fmt: skip
    slope, first = np.polyfit(list(sample), list(sample.values()), 1)
    theirs = rows * first + slope * rows * (rows - 1) / 2
    yield f"make-permutations -n {rows} (s; theirs from 3 of its rows)", ours, theirs, theirs / ours


def listing(folder):
    """A sample of a YFCC100M listing as bzip2; theirs is the line one would type."""
    line = "\t".join(["{0}", "{1}", "{2:032x}", *["x" * 18] * 21, "0"]) + "\n"
    text = "".join(line.format(i, 10**9 + i, i * 2654435761 << 64) for i in range(LISTING))
    (folder / "listing.bz2").write_bytes(bz2.compress(text.encode()))
    ours = seconds(lambda: shell("sample-yfcc -q -n 1000 listing.bz2", folder))
    rival = "bzip2 -dc listing.bz2 | awk -F'\\t' '$25 == 0 { print $3 }' | shuf -n 1000"
    theirs = seconds(lambda: shell(rival, folder))
    name = f"sample-yfcc, {LISTING:,} lines (lines/s; theirs bzip2 | awk | shuf)"
    yield name, LISTING / ours, LISTING / theirs, theirs / ours


def puzzles(folder):
    """Puzzles on one core; theirs are torchvision's transforms and a list of crops."""
    import torch
    import torchvision.transforms.v2 as vision
    from PIL import Image

    from ssl_common.data import images
    from ssl_common.data.loading import draws
    from ssl_common.pretext.jigsaw import Jigsaw

    chosen = np.array([np.random.default_rng(i).permutation(9) for i in range(100)])
    paths = sorted((folder / "scenes/JPEGImages").glob("*.jpg"))[:100]
    task, cell, tile = Jigsaw(chosen), 85, vision.RandomCrop(64)
    whole = vision.Compose([vision.Resize(256), vision.RandomCrop(255), vision.ToImage()])

    def ours():
        for index, path in enumerate(paths):
            drawn = draws(0, [0], [index], task.draws)
            task.puzzle(torch.from_numpy(task.crop(images.read(path), drawn[0]))[None], drawn)

    def theirs():
        for index, path in enumerate(paths):
            image = whole(Image.open(path).convert("RGB"))
            rows = [row.split(cell, 2) for row in image.split(cell, 1)]
            tiles = torch.stack([tile(piece) for row in rows for piece in row])
            tiles[torch.from_numpy(chosen[index])]

    torch.set_num_threads(1)
    rates = [len(paths) / seconds(work, 3) for work in (ours, theirs)]
    yield "jigsaw puzzles (images/s a core; theirs torchvision)", *rates, rates[0] / rates[1]


def colours(_folder):
    """Lab and soft labels of 64 crops; theirs: scikit-image, and a tree of the bins (Zhang's way).

    A label for each of 10 x 10 places, as AlexNet has them.
    """
    import torch
    from skimage.color import rgb2lab
    from sklearn.neighbors import NearestNeighbors

    from ssl_common.data.loading import draws
    from ssl_common.pretext import color
    from ssl_common.pretext.colorization import CROP, Colorization, middles

    task = Colorization.load(None, None)
    pixels = np.random.default_rng(0).integers(0, 256, (64, CROP, CROP, 3), np.uint8)
    drawn = draws(0, [0] * 64, range(64), task.draws)
    tree = NearestNeighbors(n_neighbors=10, algorithm="ball_tree").fit(task.bins.points)
    places = np.ix_(middles(10), middles(10))

    def ours():
        images = task.images(torch.from_numpy(pixels), drawn)
        return color.lightness(images), task.targets(images, (10, 10))

    def theirs():
        for image in pixels:
            lab = rgb2lab(image)
            apart, _nearest = tree.kneighbors(lab[..., 1:][places].reshape(-1, 2))
            weights = np.exp(-(apart**2) / 50)
            weights /= weights.sum(1, keepdims=True)

    torch.set_num_threads(1)
    mine, other = seconds(ours, 5), seconds(theirs, 2)
    yield "Lab and labels of 64 crops of 179, one core (s)", mine, other, other / mine


def pretraining(folder):
    """pretrain's own figure; theirs is the same step on a batch that lies ready: its limit."""
    shell("make-permutations -q -n 100 -o p100.npy", folder)
    for precision in ("fp32", "bf16"):
        command = "pretrain jigsaw scenes.tsv --permutations p100.npy --batch 64 --epochs 25"
        shell(f"{command} --precision {precision} -q -o {precision}.pt > log.jsonl", folder)
        *_, line = (folder / "log.jsonl").read_text().splitlines()
        ours, limit = json.loads(line)["time_images_per_second"], synthetic_steps(precision)
        yield (
            f"pretrain jigsaw {precision} (images/s; theirs the step alone)",
            *(ours, limit),
            (ours / limit),
        )


def synthetic_steps(precision, batch=64, times=10):
    """Return images/s of the training step on the same batch again and again."""
    import torch

    from ssl_common.models import registry
    from ssl_common.pretext.jigsaw import Jigsaw
    from ssl_common.training.loop import optimizer
    from ssl_common.training.recipes import RECIPES

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task = Jigsaw(np.array([np.random.default_rng(i).permutation(9) for i in range(100)]))
    network = task.network(registry.build("alexnet", 0)).train()
    network = network.to(memory_format=torch.channels_last)
    sgd = optimizer(network, RECIPES["jigsaw"])
    pixels = torch.randint(256, (batch, 255, 255, 3), dtype=torch.uint8)
    drawn = np.random.default_rng(0).random((batch, task.draws))

    def step():
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            loss = task.score(network, pixels, drawn)[0] / batch
        sgd.zero_grad()
        loss.backward()
        sgd.step()

    step()
    return times * batch / seconds(lambda: [step() for _ in range(times)])


def features(folder):
    """extract-features with reading and writing; theirs is the network alone on ready pixels."""
    import torch

    from ssl_common.data.loading import standardize
    from ssl_common.models import registry

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    count = SCENES
    line = "extract-features random:alexnet scenes.tsv --layer conv5 -q -o conv5.npy"
    start = seconds(
        lambda: shell("head -n 1 scenes.tsv | " + line.replace("scenes.tsv", "-"), folder)
    )
    ours = count / (seconds(lambda: shell(line, folder)) - start)
    trunk = registry.build("alexnet", 0).eval().to(memory_format=torch.channels_last)
    pixels = torch.randint(256, (64, 3, 227, 227), dtype=torch.uint8)

    @torch.inference_mode()
    def forward():
        ready = standardize(pixels).contiguous(memory_format=torch.channels_last)
        registry.maps(trunk, ready, ["conv5"])

    forward()
    limit = 64 / seconds(forward, 3)
    name = "extract-features conv5 (images/s without the start; theirs the network alone)"
    yield name, ours, limit, ours / limit


def svms(folder):
    """26 costs, 3 folds, then the fit; theirs is scikit-learn's grid search on the same rows."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import LinearSVC

    from ssl_common.evaluation.svm import COSTS

    count, width, classes = FEATURES
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, width)).clip(0).astype(np.float32)
    labels = rng.integers(classes, size=count)
    rows[:, :classes] += 3 * np.eye(classes, dtype=np.float32)[labels]
    np.save(folder / "f.npy", rows)
    lines = (f"{index}.jpg\tclass{label}\n" for index, label in enumerate(labels))
    (folder / "f.tsv").write_text("".join(lines))
    ours = seconds(lambda: shell("train-svm f.npy f.tsv -q -o f.npz", folder))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def grid():
        for label in range(classes):
            svm = LinearSVC(dual=True, max_iter=2000, class_weight={1: 2, 0: 1}, random_state=0)
            search = GridSearchCV(svm, {"C": COSTS}, cv=3, scoring="average_precision", n_jobs=-1)
            search.fit(unit.astype(np.float64), labels == label)

    name = f"train-svm {count} x {width}, {classes} classes (s; theirs GridSearchCV)"
    yield name, ours, (theirs := seconds(grid)), theirs / ours


MEASUREMENTS = (startup, permutations, listing, puzzles, colours, svms, features, pretraining)


def main():
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = pathlib.Path(name)
        taken = seconds(lambda: shell(f"make-scenes -q -n {SCENES} -o scenes > scenes.tsv", folder))
        sys.stderr.write(f"bench: {SCENES} scenes in {taken:.1f} s\n")
        for measure in MEASUREMENTS:
            for label, ours, theirs, ratio in measure(folder):
                sys.stdout.write(f"{label}\t{ours:.4g}\t{theirs:.4g}\t{ratio:.2f}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
