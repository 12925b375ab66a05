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
import warnings

import numpy as np

BIN = pathlib.Path(sys.executable).parent
COMMANDS = [path.stem.replace("_", "-") for path in sorted(pathlib.Path("tools").glob("[a-z]*.py"))]
SCENES, LISTING = 256, 200_000


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
    from ssl_common.pretext.jigsaw import Puzzle

    chosen = np.array([np.random.default_rng(i).permutation(9) for i in range(100)])
    paths = sorted((folder / "scenes/JPEGImages").glob("*.jpg"))[:100]
    puzzle, cell, tile = Puzzle(chosen), 85, vision.RandomCrop(64)
    whole = vision.Compose([vision.Resize(256), vision.RandomCrop(255), vision.ToImage()])

    def ours():
        for index, path in enumerate(paths):
            puzzle(images.read(path), np.random.default_rng((0, 0, index)))

    def theirs():
        for index, path in enumerate(paths):
            image = whole(Image.open(path).convert("RGB"))
            rows = [row.split(cell, 2) for row in image.split(cell, 1)]
            tiles = torch.stack([tile(piece) for row in rows for piece in row])
            tiles[torch.from_numpy(chosen[index])]

    torch.set_num_threads(1)
    rates = [len(paths) / seconds(work, 3) for work in (ours, theirs)]
    yield "jigsaw puzzles (images/s a core; theirs torchvision)", *rates, rates[0] / rates[1]


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
    from ssl_common.pretext import jigsaw
    from ssl_common.training.loop import optimizer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = jigsaw.JigsawNet(registry.build("alexnet", 0), 100).train()
    network, sgd = network.to(memory_format=torch.channels_last), optimizer(network)
    tiles = torch.randint(256, (batch, 9, 3, 64, 64), dtype=torch.uint8)
    puzzle = (tiles, torch.rand(batch) < 0.5, torch.randint(100, (batch,)))

    def step():
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            loss, _right, _count = jigsaw.score(network, puzzle, "cpu")
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


def made(count, width, classes, path):
    """Write features like those of a network to PATH: a few directions hold most, a third is not 0.

    Return labels (count, classes), for as many images as VOC2007's classes have.
    """
    rng, block = np.random.default_rng(0), 1024
    strength = np.arange(1, 401, dtype=np.float32) ** -0.4
    latent = rng.standard_normal((count, 400), np.float32) * strength
    mixing = rng.standard_normal((400, width), np.float32) / np.linalg.norm(strength)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, width))
    for start in range(0, count, block):
        part = latent[start : start + block]
        noise = rng.standard_normal((len(part), width), np.float32)
        rows[start : start + block] = (part @ mixing + noise / 2 - 0.5).clip(0)
    shown = latent @ rng.standard_normal((400, classes), np.float32)
    shown = shown / shown.std(axis=0) + rng.standard_normal(shown.shape, np.float32)
    share = np.geomspace(0.4, 0.019, classes)
    return shown > [np.quantile(column, 1 - q) for column, q in zip(shown.T, share, strict=True)]


def write_manifest(path, labels):
    lines = (
        f"{i}.jpg\t{','.join(f'c{c:02}' for c in np.flatnonzero(r))}" for i, r in enumerate(labels)
    )
    path.write_text("".join(line.rstrip("\t") + "\n" for line in lines))


def linear_svc(rows, label, fold, cost):
    """Fit one problem of the protocol as a user of scikit-learn would."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=cost, dual=True, max_iter=2000, class_weight={1: 2, 0: 1}, random_state=0)
    kept = list(StratifiedKFold(3).split(label, label))[fold][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge
        svm.fit(rows[kept], label[kept])


def svm_problems(labels, count):
    """Return COUNT of the problems of the protocol, drawn at random: (label, fold, cost)."""
    from ssl_common.evaluation.svm import COSTS

    every = [(c, f, k) for c in range(labels.shape[1]) for f in range(3) for k in range(len(COSTS))]
    chosen = np.random.default_rng(0).choice(len(every), count, replace=False)
    return [(labels[:, c], f, COSTS[k]) for c, f, k in (every[i] for i in chosen)]


def svms(folder, shape=(5011, 8192, 20), sample=24, classes=None):
    """The whole protocol; theirs is LinearSVC on SAMPLE of its problems drawn at random, scaled.

    Ours trains the CLASSES drawn at random, all by default, and is scaled to all.
    """
    from joblib import Parallel, delayed

    count, width, every = shape
    labels = made(count, width, every, folder / "f.npy")
    few = classes or every
    write_manifest(folder / "f.tsv", labels[:, np.random.default_rng(1).permutation(every)[:few]])
    ours = seconds(lambda: shell("train-svm f.npy f.tsv -q -o f.npz", folder)) * every / few
    rows = np.load(folder / "f.npy")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    rows = rows.astype(np.float64)
    problems = svm_problems(labels, sample)
    alone = seconds(lambda: [linear_svc(rows, *problem) for problem in problems])
    cores = len(os.sched_getaffinity(0))
    work = [delayed(linear_svc)(rows, *problem) for problem in problems]
    side = seconds(lambda: Parallel(cores)(work))
    about = f"train-svm {count:,} x {width:,}, {every} classes (s"
    about += f"; {few} of the classes, scaled)" if classes else ")"
    for how, taken in (("one by one", alone), (f"joblib on {cores}", side)):
        for fits in (every * 79, every * 104):  # without, and with, every cost on all rows
            theirs = taken / sample * fits
            name = f"{about}; theirs {sample} LinearSVC {how}, scaled to {fits:,}"
            yield name, ours, theirs, theirs / ours


def coco(folder):
    """COCO2014's size (hours); not among those of `make bench`: benchmarks/bench.py coco."""
    yield from svms(folder, (82_783, 8192, 80), sample=4, classes=4)


def low_shot(folder):
    """VOC2007's low-shot on the features of svms(); there is nothing to compare it with."""
    shell("sample-low-shot f.tsv -q -k 1,2,4,8,16,32,64,95 -o few > few.txt", folder)
    ours = seconds(lambda: shell("train-svm f.npy f.tsv --low-shot few -q -o few.npz", folder))
    yield (
        "train-svm --low-shot, 20,800 fits (s; theirs the 300 s it may take)",
        ours,
        300,
        300 / ours,
    )


MEASUREMENTS = (startup, permutations, listing, puzzles, svms, low_shot, features, pretraining)


def main():
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = pathlib.Path(name)
        taken = seconds(lambda: shell(f"make-scenes -q -n {SCENES} -o scenes > scenes.tsv", folder))
        sys.stderr.write(f"bench: {SCENES} scenes in {taken:.1f} s\n")
        for measure in [coco] if sys.argv[1:] == ["coco"] else MEASUREMENTS:
            for label, ours, theirs, ratio in measure(folder):
                sys.stdout.write(f"{label}\t{ours:.4g}\t{theirs:.4g}\t{ratio:.2f}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
