"""Measure the commands against what a user would take instead, and against the limit of a step.

One line a measurement on standard output: name<TAB>ours<TAB>theirs<TAB>ratio, where a ratio above 1
says that ours is better. Names carry the unit. `make bench` runs it; RESULTS.md keeps what it said.
Names of functions as arguments run those alone; coco, coco_costs and navigation are not among the
others.
"""

import contextlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

BIN = pathlib.Path(sys.executable).parent
COMMANDS = [path.stem.replace("_", "-") for path in sorted(pathlib.Path("tools").glob("[a-z]*.py"))]
SCENES, LISTING = 256, 2_000_000
BEFORE = "4dced87"  # what is measured beside ours: 0.2.0, but for its last commits
VOC07 = 5011, 8192, 20  # images, numbers of each, classes
COCO14 = 82_783, 8192, 80


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
    """Each method; theirs recomputes all distances at every row, as the published script does."""
    from scipy.spatial.distance import cdist

    from ssl_common.pretext.greedy import lexicographic

    few, many = 200, 10_000

    def published():
        left = lexicographic(9).T
        rows, left = left[:1], left[1:]
        while len(rows) < few:
            best = cdist(left, rows, "hamming").mean(1).argmax()
            rows, left = np.vstack([rows, left[best]]), np.delete(left, best, 0)

    def ours(rows, method):
        return seconds(lambda: shell(f"make-permutations -q -n {rows} --method {method}"), 3)

    theirs = seconds(published)
    here = ours(few, "max-avg")
    yield f"make-permutations -n {few} --method max-avg (s)", here, theirs, theirs / here
    theirs *= (many / few) ** 2  # each row is compared with all before it
    for method in ("max-avg", "max-min", "code"):
        here = ours(many, method)
        name = f"make-permutations -n {many} --method {method} (s; theirs from n = {few})"
        yield name, here, theirs, theirs / here


def before(folder):
    """Return a folder with the build that this one is measured against, of commit BEFORE."""
    made = folder / BEFORE
    if not made.exists():
        made.mkdir()
        shell(f"git archive {BEFORE} | tar -x -C {made}")
    return made


def by_before(line, folder):
    """Return LINE, a command of ours, as the build of before runs it."""
    command, _, rest = line.partition(" ")
    return f"PYTHONPATH={before(folder)} python -m tools.{command.replace('-', '_')} {rest}"


def in_turn(lines, folder, times):
    """Return the least seconds of each of the shell's LINES, run in turn so many TIMES."""
    turns = [
        [seconds(lambda line=line: shell(line, folder)) for line in lines] for _ in range(times)
    ]
    return list(map(min, zip(*turns, strict=True)))


def listing(folder):
    """1% of a listing of YFCC100M, plain and from bzip2; all in turn, the least of five.

    Theirs: shuf, which parses nothing; the build of before; bzcat and lbzip2, which write to
    nowhere; and half of bzcat's time, or as many parts as there are cores: the floor.
    """
    write_listing(folder / "listing.tsv")
    part, cores = LISTING // 4, len(os.sched_getaffinity(0))
    shell(f"head -n {part} listing.tsv | bzip2 > listing.bz2", folder)
    rivals = {
        "listing.tsv": {"shuf": f"shuf -n {LISTING // 100} listing.tsv"},
        "listing.bz2": {
            BEFORE: by_before(f"sample-yfcc -q -n {part // 100} listing.bz2", folder),
            "bzcat": "bzcat listing.bz2",
        },
    }
    if shutil.which("lbzip2"):
        rivals["listing.bz2"]["lbzip2 -dc"] = f"lbzip2 -n {cores} -dc listing.bz2"
    for name, others in rivals.items():
        count = LISTING if name == "listing.tsv" else part
        lines = [f"sample-yfcc -q -n {count // 100} {name}", *others.values()]
        ours, *theirs = in_turn(lines, folder, 5)
        found = dict(zip(others, theirs, strict=True))
        if "bzcat" in found:
            found[f"bzcat by {cores}, the floor"] = found["bzcat"] / cores
        for rival, taken in found.items():
            label = f"sample-yfcc {name}, {count:,} lines (s; theirs {rival})"
            yield label, ours, taken, taken / ours


def write_listing(path):
    """Write LISTING lines of the length and the fields that those of YFCC100M have."""
    rng, some = np.random.default_rng(0), 10_000
    text = "".join(rng.choice(list("etaoinshrdlu+++"), 4096).tolist())
    url = "http://farm7.staticflickr.com/6167/{1}_{3:010x}.jpg"
    fields = [
        "{0}",
        "{1}",
        "{2:032x}",
        "15087210@N00",
        "{4}",
        "2011-09-10 21:13:32.0",
        "1316432672",
    ]
    fields += ["Canon+EOS+5D", "{4}", "{4}{5}", "{5}", "", "24.9384", "60.1699", "16"]
    fields += ["http://www.flickr.com/photos/15087210@N00/{1}/", url, "Attribution License"]
    fields += ["http://creativecommons.org/licenses/by/2.0/", "6167", "7", "{3:010x}", "44e5acb0f2"]
    line = "\t".join([*fields, "jpg", "0"]) + "\n"
    with open(path, "w") as stream:
        for start in range(0, LISTING, some):
            for number, (a, b, c) in enumerate(rng.integers(2**33, size=(some, 3)).tolist(), start):
                words = text[a % 4000 :][: b % 40], text[c % 4000 :][: c % 90]
                stream.write(line.format(number, a, a << 92 | b << 40 | c, c, *words))


def reading(folder):
    """A worker of the DataLoader on photographs, or on scenes where there are none: its processor.

    Theirs, in turn, the least of three: the build of before, and its decoding alone; our decoding
    alone; libjpeg on bytes in memory, the floor; the pipeline on PIL images that one would write.
    """
    import torch
    import torchvision.transforms as vision
    from PIL import Image
    from torch.utils.data import DataLoader

    from ssl_common.data import images, jpegs
    from ssl_common.data.batches import batches
    from ssl_common.data.datasets import RandomCrops
    from ssl_common.data.manifest import Manifest
    from ssl_common.pretext.jigsaw import Jigsaw

    root = pathlib.Path(os.environ.get("SSL_BENCH_DATA", "../shared/data")) / "voc2007_A"
    root = root if root.exists() else folder / "scenes"
    paths = [str(path.resolve()) for path in sorted(root.rglob("JPEGImages/*.jpg"))[:512]]
    (folder / "photographs.tsv").write_text("".join(f"{path}\n" for path in paths))
    task = Jigsaw(np.arange(9)[None])
    dataset = RandomCrops(Manifest(str(folder / "photographs.tsv")), ".", task, 0)
    whole = vision.Compose([vision.Resize(256), vision.RandomCrop(255)])
    norm = vision.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    tile = vision.Compose([vision.RandomCrop(64), vision.ToTensor(), norm])
    corners = [(85 * k, 85 * j) for k in range(3) for j in range(3)]

    class Usual(torch.utils.data.Dataset):
        def __getitem__(self, item):
            image = whole(Image.open(paths[item[1]]).convert("RGB"))
            return torch.stack([tile(image.crop((x, y, x + 85, y + 85))) for x, y in corners])

    def alone(work, items):
        """Return ms an item of the processor of WORK(item)."""
        start = time.process_time()
        for item in items:
            work(item)
        return 1000 * (time.process_time() - start) / len(items)

    def worker(load):
        """Return ms an image of the processor of the one worker that LOAD(order) has."""

        def spent(count):
            items = [(0, index % len(paths)) for index in range(32 * count)]
            order = [items[start : start + 32] for start in range(0, len(items), 32)]
            before = sum(os.times()[2:4])  # of children that have ended
            for _ in load(order):
                pass
            return sum(os.times()[2:4]) - before

        return 1000 * min(spent(49) - spent(1) for _ in range(2)) / (48 * 32)

    earlier = before(folder)
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(earlier)}
    environment["SSL_BENCH_DATA"] = str(root.parent.resolve())

    def measured_before():
        """Return ms an image of BEFORE, by its own measure: (in a worker, decoding alone)."""
        line = [BIN / "python", earlier / "benchmarks" / "bench.py", "reading"]
        said = subprocess.run(line, env=environment, cwd=earlier, check=True, capture_output=True)
        return [float(number) for number in said.stdout.split(b"\t")[1:3]]

    torch.set_num_threads(1)
    jpegs.hasten()
    packed = [
        torch.from_file(path, size=os.path.getsize(path), dtype=torch.uint8) for path in paths
    ]
    usual = Usual()
    works = {
        "decoding alone": lambda: alone(images.read, paths),
        "libjpeg alone, the floor": lambda: alone(jpegs._decoder, packed),
        "PIL, tile by tile": lambda: worker(
            lambda order: DataLoader(usual, batch_sampler=order, num_workers=1)
        ),
    }
    turns = [
        (
            worker(lambda order: batches(dataset, order, 1, False)),
            *measured_before(),
            *(work() for work in works.values()),
        )
        for _ in "123"
    ]
    ours, *theirs = map(min, zip(*turns, strict=True))
    for name, taken in zip((BEFORE, f"decoding alone by {BEFORE}", *works), theirs, strict=True):
        yield f"reading in a worker (ms/image; theirs {name})", ours, taken, taken / ours


def colours(_folder):
    """Lab and soft labels of 64 crops; theirs: scikit-image, and a tree of the bins (Zhang's way).

    A label for each of 10 x 10 places, as AlexNet has them.
    """
    import torch
    from skimage.color import rgb2lab
    from sklearn.neighbors import NearestNeighbors

    from ssl_common.data.order import draws
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
    from ssl_common.ranks.devices import lacks_bf16

    shell("make-permutations -q -n 100 -o p100.npy", folder)
    for precision in ("fp32",) if lacks_bf16() else ("fp32", "bf16"):
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
    from ssl_common.pretext.recipes import JIGSAW
    from ssl_common.training.loop import optimizer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task = Jigsaw(np.array([np.random.default_rng(i).permutation(9) for i in range(100)]))
    network = task.network(registry.build("alexnet", 0)).train()
    network = network.to(memory_format=torch.channels_last)
    sgd = optimizer(network, task, JIGSAW)
    pixels = torch.randint(256, (batch, 255, 255, 3), dtype=torch.uint8)
    drawn = np.random.default_rng(0).random((batch, task.draws))

    def step():
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            loss = task.score(network, pixels, drawn, None).loss / batch
        sgd.zero_grad()
        loss.backward()
        sgd.step()

    step()
    return times * batch / seconds(lambda: [step() for _ in range(times)])


def features(folder):
    """extract-features with reading and writing; theirs is the network alone on ready pixels."""
    import torch

    from ssl_common.data.pixels import standardize
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
        trunk.maps(["conv5"], ready)

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

    machine = LinearSVC(C=cost, dual=True, max_iter=2000, class_weight={1: 2, 0: 1}, random_state=0)
    kept = list(StratifiedKFold(3).split(label, label))[fold][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge
        machine.fit(rows[kept], label[kept])


def svm_problems(labels, count):
    """Return COUNT of the problems of the protocol, drawn at random: (label, fold, cost)."""
    from ssl_common.evaluation.svm.classifiers import COSTS

    every = [(c, f, k) for c in range(labels.shape[1]) for f in range(3) for k in range(len(COSTS))]
    some = np.random.default_rng(0).choice(len(every), count, replace=False)
    return [(labels[:, c], f, COSTS[k]) for c, f, k in (every[i] for i in some)]


def conversion(folder):
    """A Caffe2 ResNet-50; theirs is a script that trusts the pickle and checks nothing."""
    import pickle

    from ssl_common.models import registry
    from ssl_common.models.foreign import naming

    rename = next(lay.name for lay in naming.LAYOUTS if lay.anchors[0].startswith("res5"))
    state = registry.build("resnet50", 0).state_dict()
    blobs = {rename(k): v.numpy() for k, v in state.items() if "num_batches" not in k}
    (folder / "r.pkl").write_bytes(pickle.dumps({"blobs": blobs}, 2))
    ours = seconds(lambda: shell("convert-weights r.pkl -q -o r.pt", folder), 3)
    script = """
import pickle, torch, torchvision
blobs = pickle.load(open('r.pkl', 'rb'), encoding='latin1')['blobs']
torch.save({name: torch.from_numpy(blob) for name, blob in blobs.items()}, 'r.pth')"""
    theirs = seconds(lambda: shell(f'python -c "{script}"', folder), 3)
    name = "convert-weights, ResNet-50 of Caffe2 (s; theirs pickle, unchecked)"
    yield name, ours, theirs, theirs / ours


EXCHANGE = """
import os, resource, sys, time
import torch
torch.set_num_threads(1)
from ssl_common.models import networks, registry
from ssl_common.models.foreign import conversion, weights

def convert(form):
    source = 'r.pth' if form == 'ssl-bench' else 'r.pt'
    conversion.convert(weights.read(source), f'r.{form}.out', form, {})

def copy():
    with open('r.pth', 'rb') as source, open('r.copy', 'wb') as target:
        target.write(source.read())
        target.flush()
        os.fsync(target.fileno())

def peak():
    lines = open('/proc/self/status').read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) * 1024

def taken(work, clock):
    start = clock()
    work()
    return clock() - start

trunk = registry.build('resnet50', 0)
settings = {'arch': 'resnet50', 'pretext': 'jigsaw'}
content = {'format': 1, 'settings': settings, 'trunk': trunk.state_dict(), 'head': {}}
networks.save('r.pt', content)
conversion.convert(weights.read('r.pt'), 'r.pth', 'torchvision', {})
del trunk, content
forms = ['ssl-bench', 'torchvision', 'timm', 'safetensors', 'detectron2']
for clock in (time.perf_counter, time.process_time):
    found = {form: [] for form in ['copy', *forms]}
    for _ in range(5):  # in turn: what else the machine does falls on all
        found['copy'].append(taken(copy, clock))
        for form in forms:
            found[form].append(taken(lambda: convert(form), clock))
    for form in forms:
        print(clock.__name__, form, min(found[form]), min(found['copy']))
for form in forms:
    open('/proc/self/clear_refs', 'w').write('5')
    before = peak()
    convert(form)
    print('memory', form, peak() - before, os.path.getsize('r.pth'))
"""


def exchange(folder):
    """A ResNet-50 to each form; theirs reads and writes as many bytes, to the disk."""
    (folder / "exchange.py").write_text(EXCHANGE)
    done = subprocess.run(
        [BIN / "python", "exchange.py"], cwd=folder, check=True, capture_output=True, text=True
    )
    words = {"perf_counter": "s", "process_time": "s of a processor", "memory": "bytes"}
    for line in done.stdout.splitlines():
        kind, form, ours, theirs = line.split()
        name = f"convert-weights --to {form}, ResNet-50 ({words[kind]}; theirs a copy)"
        yield name, float(ours), float(theirs), float(theirs) / float(ours)


def linear(folder):
    """Steps of train-linear on features that are kept; theirs run the network at every step."""
    rows = (folder / "scenes.tsv").read_text().splitlines()
    named = [f"{row.split(chr(9))[0]}\tclass{number % 8}\n" for number, row in enumerate(rows)]
    (folder / "classes.tsv").write_text("".join(named))
    rates = []
    for option in ("--cache", ""):
        words = f"random:caffenet classes.tsv --batch 64 --iterations 20 {option}"
        shell(f"train-linear {words} -q -o linear{option}.pt > log.jsonl", folder)
        *_, line = (folder / "log.jsonl").read_text().splitlines()
        rates.append(json.loads(line)["time_images_per_second"])
    yield "train-linear --cache (images/s; theirs without)", *rates, rates[0] / rates[1]


def finetuning(folder):
    """Steps of finetune; theirs is plain torch's on a batch that lies ready: its limit."""
    import torch
    from torch import nn

    from ssl_common.models import registry

    words = "random:caffenet scenes.tsv --batch 16 --iterations 50 --loss sigmoid --precision fp32"
    shell(f"finetune {words} -q -o tuned.pt > log.jsonl", folder)
    *_, line = (folder / "log.jsonl").read_text().splitlines()
    ours = json.loads(line)["time_images_per_second"] / 16
    classes = len(torch.load(folder / "tuned.pt", weights_only=True)["classes"])
    full = [nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    network = nn.Sequential(
        registry.build("caffenet", 0), nn.Flatten(), *full, nn.Dropout(), nn.Linear(4096, classes)
    )
    network.train().to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=1e-6, nesterov=True)
    pixels = torch.randn(16, 3, 227, 227).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(2, (16, classes)).float()

    def step():
        sgd.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(pixels), labels).backward()
        sgd.step()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step()
    limit = 10 / seconds(lambda: [step() for _ in range(10)])
    yield (
        "finetune caffenet (steps/s; theirs the step alone, plain torch)",
        ours,
        limit,
        ours / limit,
    )


def detection(folder):
    """Steps of train-detector, frozen to the last stage of the body, on maps that are kept.

    For Faster R-CNN on a ResNet-50 at 600 pixels, and on an AlexNet. Theirs: the same without the
    cache; torchvision's GeneralizedRCNN of the same parts run plainly; and the head alone, forward
    and backward on 64 boxes an image, which is the floor of a step with its body on the disk.
    """
    shell("head -n 4 scenes/objects.jsonl > few.jsonl", folder)
    usual = "few.jsonl --head faster --batch 2 -j 0 -q --device cpu"
    for arch, words, steps in (("resnet50", "", 3), ("alexnet", "--fc 1024", 6)):
        line = f"train-detector random:{arch} {usual} {words}"
        shell(f"{line} --cache maps --iterations 1 -o {arch}.pt", folder)  # makes the maps
        rates = [stepping(folder, f"{line} {option}", steps) for option in ("--cache maps", "")]
        what = f"train-detector random:{arch} --cache (images/s; theirs"
        yield f"{what} without)", *rates, rates[0] / rates[1]
        if arch == "resnet50":
            plain, alone = generalized(folder, steps), head_alone()
            yield f"{what} torchvision's GeneralizedRCNN)", rates[0], plain, rates[0] / plain
            floor = f"res5 on 64 boxes alone, {128 * head_products() / 1e9:.0f} GFLOP an image"
            yield f"{what} {floor})", rates[0], alone, rates[0] / alone


def stepping(folder, line, steps, batch=2):
    """Return images/s of the training LINE in STEPS, without what it takes to begin and to end."""

    def train(count):
        (folder / "stepping.pt").unlink(missing_ok=True)
        shell(f"rm -rf stepping.pt.state; {line} --iterations {count} -o stepping.pt", folder)

    short, long = (seconds(lambda count=count: train(count)) for count in (1, 1 + steps))
    return batch * steps / (long - short)


def head_products():
    """Return the multiplications of res5 on a box: forward, and those of both gradients but the
    first stage's by its input, which is not needed."""
    from torch.utils.flop_counter import FlopCounterMode

    res5, parts = res5_and_parts(1)
    with FlopCounterMode(display=False) as counter:
        res5(parts).sum().backward()
    return counter.get_total_flops() / 2


def res5_and_parts(count):
    import torch

    from ssl_common.evaluation.detection.bodies import fixed
    from ssl_common.models import registry

    res5 = fixed(registry.build("resnet50", 0).res5).to(memory_format=torch.channels_last)
    return res5, torch.randn(count, 1024, 14, 14).relu()


def head_alone(images=2, times=3):
    """Return images/s of res5 on 64 boxes an image, forward and backward."""
    res5, parts = res5_and_parts(64 * images)

    def step():
        res5(parts).mean().backward()

    step()
    return images / seconds(step, times)


def generalized(folder, steps, batch=2):
    """Return images/s of torchvision's own classes for the same detector, in a plain loop."""
    import torch
    from torchvision import ops
    from torchvision.io import ImageReadMode, read_image
    from torchvision.models import resnet50
    from torchvision.models.detection import anchor_utils, faster_rcnn, roi_heads, rpn
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    torch.manual_seed(0)
    net = resnet50(norm_layer=ops.FrozenBatchNorm2d)
    body = torch.nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2,
                               net.layer3).requires_grad_(False)  # fmt: skip
    body.out_channels = 1024
    generator = anchor_utils.AnchorGenerator(((64, 128, 256, 512),), ((0.5, 1.0, 2.0),))
    many = ({"training": 12_000, "testing": 2_000}, {"training": 2_000, "testing": 1_000})
    proposing = rpn.RegionProposalNetwork(
        generator, rpn.RPNHead(1024, 12), 0.7, 0.3, 256, 0.5, *many, 0.7
    )
    pool = ops.RoIPool(14, 1 / 16)
    head = torch.nn.Sequential(net.layer4, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    looking = roi_heads.RoIHeads(
        lambda maps, boxes, _shapes: pool(maps["0"], boxes), head,
        faster_rcnn.FastRCNNPredictor(2048, 12), 0.5, 0.5, 64, 0.25, None, 0.05, 0.3, 100,
    )  # fmt: skip
    transform = GeneralizedRCNNTransform(600, 1000, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    model = GeneralizedRCNN(body, proposing, looking, transform).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = torch.optim.SGD(trained, 1e-3, momentum=0.9, weight_decay=5e-4)
    rows = map(json.loads, (folder / "few.jsonl").read_text().splitlines())
    rows = itertools.cycle(list(rows))

    def step():
        images, targets = [], []
        for row in itertools.islice(rows, batch):
            image = read_image(str(folder / row["path"]), ImageReadMode.RGB)
            images.append(image.float() / 255)
            boxes = torch.tensor(row["boxes"], dtype=torch.float32)
            targets.append({"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)})
        stepper.zero_grad()
        sum(model(images, targets).values()).backward()
        stepper.step()

    step()
    return batch * steps / seconds(lambda: [step() for _ in range(steps)])


def protocol(folder, shape):
    """Write f.npy and f.tsv, images x numbers x classes of SHAPE; return the labels."""
    labels = made(*shape, folder / "f.npy")
    write_manifest(folder / "f.tsv", labels)
    return labels


def svms(folder, shape=VOC07, sample=24):
    """The whole protocol; theirs is the build of before, where that takes a minute at most.

    And LinearSVC on SAMPLE of its problems drawn at random, scaled.
    """
    from joblib import Parallel, delayed

    count, width, every = shape
    labels, about = protocol(folder, shape), f"train-svm {count:,} x {width:,}, {every} classes (s"
    line = "train-svm f.npy f.tsv -q -o f.npz"
    if shape == VOC07:
        ours, theirs = in_turn([line, by_before(line, folder)], folder, 2)
        yield f"{about}; theirs {BEFORE})", ours, theirs, theirs / ours
    else:
        ours = seconds(lambda: shell(line, folder))
    rows = np.load(folder / "f.npy")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    rows = rows.astype(np.float64)
    problems = svm_problems(labels, sample)
    alone = seconds(lambda: [linear_svc(rows, *problem) for problem in problems])
    cores = len(os.sched_getaffinity(0))
    work = [delayed(linear_svc)(rows, *problem) for problem in problems]
    side = seconds(lambda: Parallel(cores)(work))
    for how, taken in (("one by one", alone), (f"joblib on {cores}", side)):
        for fits in (every * 79, every * 104):  # without, and with, every cost on all rows
            theirs = taken / sample * fits
            name = f"{about}; theirs {sample} LinearSVC {how}, scaled to {fits:,})"
            yield name, ours, theirs, theirs / ours


def floor(folder):
    """The whole protocol; theirs are the products that it made, made alone: its limit."""
    import threading

    import torch

    from ssl_common import threads
    from ssl_common.data.manifest import POSITIVE
    from ssl_common.evaluation.svm import classifiers, exact, solver
    from ssl_common.evaluation.svm.examples import read_labelled

    protocol(folder, VOC07)
    cores, lock = len(os.sched_getaffinity(0)), threading.Lock()
    made_of = {torch.float32: 0, torch.float64: 0}  # vectors that the Gram matrix has multiplied

    class Gram(solver.Gram):
        def image(self, weights):
            with lock:
                made_of[weights.dtype] += len(weights)
            return super().image(weights)

    class Source(exact.Source):
        def gram(self, some=solver.ALL):
            return Gram(solver.gram(self.features, self.scale, self.device, some))

    examples = read_labelled(str(folder / "f.npy"), str(folder / "f.tsv"), {})
    signs = np.where(examples.labels.T == POSITIVE, 1, -1).astype(np.int8)
    rarer = classifiers.rarer_signs(signs)

    def train():
        with threads.sharing(cores):
            backend = exact.Exact(Source(examples, "cpu"), 0, cores)
            ap, _early = classifiers.cross_validate(signs, backend, lambda _costs: None)
            backend.fit(signs, classifiers.choose(ap, rarer)[0], lambda _costs: None)

    ours = seconds(train)
    torch.set_num_threads(cores)
    features, scale = examples.features, torch.from_numpy(examples.scale())
    count, width = features.shape
    gram = seconds(lambda: solver.gram(features, scale))
    parts = {"the Gram matrix in float64": (gram, 2 * count**2 * width)}
    space = solver.Gram(torch.ones(count, count, dtype=torch.float64))
    for kind, vectors in made_of.items():
        left = torch.ones(480, count, dtype=kind)
        alone = seconds(lambda left=left: space.image(left), 3) * vectors / 480
        name = f"{vectors:,} vectors by it in {str(kind).removeprefix('torch.')}"
        parts[name] = alone, 2 * vectors * count**2
    limit = sum(alone for alone, _ in parts.values())
    name = f"train-svm {count:,} x {width:,} (s; theirs its products alone)"
    yield name, ours, limit, limit / ours
    for part, (alone, operations) in parts.items():
        name = f"- {part}, {operations / 1e12:.2f} TFLOP (s; theirs all products)"
        yield name, alone, limit, alone / limit


# One fold of the classes of f.npy, a third of the rows held out, at some costs; by any build.
FOLD = """
import resource, sys, time
import numpy as np, torch
cores, costs = int(sys.argv[1]), np.array(sys.argv[3:], float)
torch.set_num_threads(cores)

class Rows:
    features = np.load("f.npy", mmap_mode="r")
    def scale(self):
        parts = np.array_split(self.features, 100)
        return np.concatenate([1 / (np.linalg.norm(p.astype("f8"), axis=1) + 1e-5) for p in parts])

start = time.perf_counter()
try:
    from ssl_common.evaluation.svm.exact import Exact, Source
    backend = Exact(Source(Rows(), "cpu"), 0, cores)
except ImportError:
    from ssl_common.evaluation.exact import Exact
    backend = Exact(Rows(), 0, cores, "cpu").on_all()
signs = np.where(np.load("labels.npy").T, 1, -1).astype(np.int8)
held = signs.shape[1] * 2 // 3
signs[:, held:] = 0
taken, scores = [time.perf_counter() - start], []
path = backend.path(signs, costs, lambda _costs: None)
for solutions in path:
    taken.append(time.perf_counter() - start - sum(taken))
    late = solutions[1] if len(solutions) == 2 else solutions.unconverged
    assert not late, late
    scores.append(solutions[0][:, held:].astype("f4"))
np.save(sys.argv[2], scores)
print(*taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def coco_costs(folder, costs=(1, 10, 100)):
    """One fold of COCO2014's size, 80 classes, at three costs: this build and that of before.

    It takes about 40 minutes, for which it is not among the MEASUREMENTS.
    """
    from sklearn.metrics import average_precision_score

    labels = made(*COCO14, folder / "f.npy")
    np.save(folder / "labels.npy", labels)
    cores = len(os.sched_getaffinity(0))
    taken, scores = [], []
    for build in (pathlib.Path(__file__).parent.parent, before(folder)):
        line = [sys.executable, "-c", FOLD, str(cores), "scores.npy", *map(str, costs)]
        ran = subprocess.run(
            line, cwd=folder, env={**os.environ, "PYTHONPATH": str(build)}, stdout=subprocess.PIPE,
            check=True,
        )  # fmt: skip
        taken.append([float(number) for number in ran.stdout.split()])
        scores.append(np.load(folder / "scores.npy"))
    names = ["the start (s", *(f"C = {cost} (s" for cost in costs), "memory (GB"]
    for name, ours, theirs in zip(names, *taken, strict=True):
        label = f"a fold of 82,783 x 8,192, 80 classes, {name}; theirs {BEFORE})"
        yield label, ours, theirs, theirs / ours
    held = labels[len(labels) * 2 // 3 :]
    off = [
        abs(np.subtract(*(average_precision_score(label, row) for row in pair)))
        for pairs in zip(*scores, strict=True)
        for label, *pair in zip(held.T, *pairs, strict=True)
    ]
    most, mean = max(off), np.mean(off)
    yield (
        f"- the greatest difference of an AP from {BEFORE}'s (theirs the mean)",
        most,
        mean,
        most / mean,
    )


def coco(folder):
    """COCO2014's size (about 50 minutes), for which it is not among the MEASUREMENTS."""
    yield from svms(folder, COCO14, sample=2)


def low_shot(folder):
    """VOC2007's low-shot; theirs is the build of before. The rarest class has 95 images."""
    protocol(folder, VOC07)
    shell("sample-low-shot f.tsv -q -k 1,2,4,8,16,32,64,95 -o few > few.txt", folder)
    line = "train-svm f.npy f.tsv --low-shot few -q -o few.npz"
    ours, theirs = in_turn([line, by_before(line, folder)], folder, 2)
    yield f"train-svm --low-shot, 20,800 fits (s; theirs {BEFORE})", ours, theirs, theirs / ours


JUDGE = """
import sys
from {module} import {data_set}
from {judging} import {name}

truth = {data_set}(sys.argv[1])
judge = {name}(truth, truth.loadRes(sys.argv[2]), "bbox")
judge.evaluate()
judge.accumulate()
judge.summarize()
"""
JUDGES = {
    "faster-coco-eval": JUDGE.format(
        module="faster_coco_eval",
        data_set="COCO",
        judging="faster_coco_eval",
        name="COCOeval_faster",
    ),
    "pycocotools": JUDGE.format(
        module="pycocotools.coco", data_set="COCO", judging="pycocotools.cocoeval", name="COCOeval"
    ),
}


def detections(folder):
    """The stored detections of VOC2007 test, 67,486 boxes; theirs by COCO's rule, from its files.

    Where there is no such data, as many boxes that are drawn.
    """
    data = pathlib.Path(os.environ.get("SSL_BENCH_DATA", "../shared/data")).resolve()
    found, objects, what = folder / "comp4", folder / "objects.jsonl", "VOC2007 test"
    if (data / "voc07_detections_yolov2").exists():
        devkit = data / "voc2007_text_full/VOCdevkit/VOC2007"
        shell(f"list-objects voc {devkit} --split test -q -o {objects}", folder)
        shutil.copytree(data / "voc07_detections_yolov2/results", found)
    else:
        what = "drawn boxes"
        draw_boxes(found, objects)
    write_as_coco(found, objects, folder)
    ours = {
        form: seconds(
            lambda line=line: shell(f"eval-detections -q {line} objects.jsonl", folder), 3
        )
        for form, line in (("JSON lines", "detections.jsonl"), ("comp4", "comp4"))
    }
    for name, code in JUDGES.items():
        (folder / "judge.py").write_text(code)
        theirs = seconds(lambda: shell("python judge.py truth.json results.json", folder))
        for form, here in ours.items():
            label = f"eval-detections, {what}, {form} (s; theirs {name})"
            yield label, here, theirs, theirs / here


def draw_boxes(folder, objects):
    """Write 67,486 detections of 19 classes as comp4 into FOLDER, and OBJECTS of 4,952 images."""
    rng = np.random.default_rng(0)
    corners = rng.integers(1, 300, (4952, 16, 2))
    boxes = np.dstack([corners, corners + rng.integers(20, 150, corners.shape)])
    labels = rng.integers(0, 19, (4952, 16))
    folder.mkdir()
    files = [open(folder / f"comp4_det_test_c{n}.txt", "w") for n in range(19)]  # noqa: SIM115
    with open(objects, "w") as stream, contextlib.ExitStack() as stack:
        files = [stack.enter_context(file) for file in files]
        for image, (places, names) in enumerate(zip(boxes, labels.tolist(), strict=True)):
            row = {"path": f"{image:06d}.jpg", "width": 500, "height": 500}
            row |= {"boxes": places[:3].tolist(), "labels": [f"c{n}" for n in names[:3]]}
            stream.write(json.dumps(row | {"difficult": [False, False, rng.random() < 0.6]}) + "\n")
            for box, name in zip(places[2:].tolist(), names[2:], strict=True):
                where = " ".join(map(str, rng.normal(box, 4).round(6).tolist()))
                files[name].write(f"{image:06d} {rng.random():.6f} {where}\n")


def write_as_coco(found, objects, folder):
    """Write the comp4 files FOUND and the list OBJECTS as JSON lines, and as COCO has both."""
    from ssl_common.evaluation.detection import detections, truth
    from ssl_common.evaluation.detection import found as founds

    listed = truth.read(str(objects))
    rows = founds.read(str(found), listed)
    by_image = [[] for _ in listed.listed]
    for image, label, box, score in zip(*map(np.ndarray.tolist, rows_of(rows)), strict=True):
        by_image[image].append((score, listed.classes[label], tuple(box)))
    with open(folder / "detections.jsonl", "wb") as stream:
        for image, mine in zip(listed.listed, by_image, strict=True):
            scores, labels, boxes = (
                zip(*sorted(mine, reverse=True), strict=True) if mine else [()] * 3
            )
            size = image.width, image.height
            each = detections.Detections(image.path, *size, boxes, labels, scores)
            stream.write(detections.format_detections(each))
    names = {name: n for n, name in enumerate(listed.classes, 1)}
    content = {
        "images": [{"id": n} for n in range(len(listed.listed))],
        "categories": [{"id": n, "name": name} for name, n in names.items()],
        "annotations": [
            {"id": n, "image_id": image, "category_id": label + 1, "bbox": sides(box),
             "area": 1.0, "iscrowd": int(ignored)}
            for n, (image, label, box, ignored) in enumerate(zip(
                listed.images.tolist(), listed.labels.tolist(), listed.boxes.tolist(),
                listed.ignored.tolist(), strict=True,
            ), 1)
        ],
    }  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(content))
    results = [
        {"image_id": image, "category_id": label + 1, "bbox": sides(box), "score": score}
        for image, label, box, score in zip(*map(np.ndarray.tolist, rows_of(rows)), strict=True)
    ]
    (folder / "results.json").write_text(json.dumps(results))


def rows_of(found):
    return found.images, found.labels, found.boxes, found.scores


def sides(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


FIGURES = """
import re, sys, time
import numpy as np
from ssl_common.evaluation.normals.metrics import WITHIN, Angles

rng = np.random.default_rng(0)
one = rng.gamma(1.5, 12, (480, 640)).clip(0, 180)
images = (np.roll(one, number) for number in range(654))
start = time.process_time()
if sys.argv[1] == "streamed":
    angles = Angles()
    for each in images:
        angles.add(each)
    angles.per_image()
    median = angles.median()
else:
    whole = np.concatenate([each.ravel() for each in images])
    shares = [(whole < most).mean() for most in WITHIN]
    found = whole.mean(), np.sqrt((whole**2).mean())
    median = np.median(whole)
most = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(time.process_time() - start, most, median)
"""


def normals(folder):
    """train-normals on maps that are kept; theirs without. The figures of eval-normals.

    Those are of 654 images of 640 x 480, as in NYUv2's test: all angles in bins; theirs keep them
    as float64. The memory is that of processes that do nothing else, and of eval-normals itself.
    """
    shell("head -n 4 scenes/normals.tsv > normals.tsv", folder)
    for arch, side in (("alexnet", 450), ("caffenet", 450), ("resnet50", 128)):
        rates = normals_steps(folder, arch, side)
        what = f"train-normals random:{arch} --sides {side} --cache (images/s; theirs without)"
        yield what, *rates, rates[0] / rates[1]
    words = "normals.tsv --sides 160 --codes 40 --batch 4 --iterations 1 -j 0 -q --device cpu"
    shell(f"train-normals random:alexnet {words} -o n-alexnet.pt", folder)
    shell("sed -n '9,11p' scenes/normals.tsv > others.tsv", folder)
    line = "eval-normals -q n-alexnet.pt others.tsv --ground-truth scenes -j 0 --device cpu"
    whole = peak(["bash", "-c", f"exec {BIN}/{line} > normals.jsonl"], folder)
    (folder / "figures.py").write_text(FIGURES)
    told = [
        subprocess.run(
            [BIN / "python", folder / "figures.py", how], capture_output=True, check=True, text=True
        ).stdout.split()
        for how in ("streamed", "pooled")
    ]
    (ours, streamed, median), (theirs, pooled, exact) = [map(float, each) for each in told]
    yield "angles of 654 images (s)", ours, theirs, theirs / ours
    name = "angles of 654 images (MB of a process)"
    yield name, streamed / 1e3, pooled / 1e3, pooled / streamed
    both = whole + pooled - streamed
    name = "eval-normals random:alexnet (MB of its process; theirs with all angles of 654 images)"
    yield name, whole / 1e3, both / 1e3, both / whole
    off = abs(median - exact)
    yield (
        "their median (degrees that ours is off; theirs 0.005)",
        off,
        0.005,
        0.005 / max(off, 1e-9),
    )


def normals_steps(folder, arch, side):
    """Return images/s of a step of train-normals, of 4 images: on maps that are kept, and without.

    It is reading, the network forward and backward, and the update; frozen to res4 or conv5.
    """
    import dataclasses

    import torch

    from ssl_common.data.targets import PairList
    from ssl_common.evaluation import features
    from ssl_common.evaluation.normals import cache, codes, training
    from ssl_common.evaluation.normals.pyramid import Body, Pyramid
    from ssl_common.evaluation.normals.recipes import PAPER
    from ssl_common.progress import silent

    pairs, root = PairList(str(folder / "normals.tsv")), str(folder)
    trunk, _settings = features.network(f"random:{arch}", 0)
    body, recipe = Body(trunk, arch), dataclasses.replace(PAPER, sides=[side])
    trunk.to(memory_format=torch.channels_last)
    book = codes.learn(codes.survey(pairs, root).normals, recipe.codes, 0)
    network = Pyramid(body.top, body.channels, len(book)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.train().parameters(), 0.01, 0.9)
    kept = cache.Cache(str(folder / f"maps-{arch}"), body, recipe, pairs, root, arch)
    kept.make(torch.device("cpu"), 0, silent)
    tasks = [training.Normals(body, book, recipe, cached) for cached in (True, False)]
    sets = cache.Cached(kept, book, 0), training.Shuffled(pairs, root, tasks[1], 0)

    def step(task, images):
        *_numbers, batch = images.collate([images[0, line] for line in range(4)])
        score = task.score(network, batch, np.zeros((4, 2)), torch.arange(4))
        optimizer.zero_grad()
        (score.loss / score.weight).backward()
        optimizer.step()

    found = []
    for task, images in zip(tasks, sets, strict=True):
        step(task, images)
        found.append(4 / seconds(lambda task=task, images=images: step(task, images), 3))
    return found


def peak(argv, folder):
    """Return the kilobytes of memory that ARGV, one process in FOLDER, takes at most.

    What wait4 tells is that of its parent, if that is more: a fork begins as large.
    """
    process, found = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL), 0
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        if most := re.search(r"VmHWM:\s+(\d+)", status):
            found = int(most[1])
        time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return found


def navigation(folder):
    """Recording and embedding, by frames/s of the trunk alone; five runs at once, one by one.

    Needs the extra [navigation].
    """
    import torch

    from ssl_common.data.manifest import Manifest
    from ssl_common.evaluation import features
    from ssl_common.evaluation.linear.cache import Cache
    from ssl_common.evaluation.navigation import eyes

    recording = "record-navigation --env my-way-home -n 6 -j 2 -o frames > frames.tsv"
    took = seconds(lambda: shell(recording, folder))
    frames = Manifest(str(folder / "frames.tsv"))
    eye = eyes.make("random:alexnet", "conv5", 0, 5, 128)
    pixels = torch.randint(0, 256, (64, 3, 128, 128), dtype=torch.uint8)
    whole = len(frames) // 64
    alone = 64 / seconds(lambda: features.maps(eye.trunk, ["conv5"], pixels), 5)
    yield (
        "frames recorded beside the trunk (frames/s)",
        len(frames) / took,
        alone,
        (len(frames) / took / alone),
    )
    places = itertools.count()
    reading = features.Reading(str(folder), 64, "float32", 1)

    def embed():
        cache = Cache(str(folder / f"cache{next(places)}"), eye, frames, {})
        cache.make(eye.frame, torch.device("cpu"), reading)

    ours = len(frames) / seconds(embed, 3)
    yield f"frames embedded, {whole} batches (frames/s)", ours, alone, ours / alone

    words = "train-navigator -q random:alexnet frames.tsv --side 128 --epochs 2 -j 1"
    together = seconds(lambda: shell(f"{words} --runs 5 -o all.pt", folder))
    single = (f"{words} --runs 1 --seed {seed} -o {seed}.pt" for seed in range(5))
    one_by_one = seconds(lambda: shell("; ".join(single), folder))
    yield "cloning of 5 runs (s)", together, one_by_one, one_by_one / together


def photographs(folder, count):
    """Return the paths of COUNT copies below FOLDER of photographs, or of scenes without any."""
    root = pathlib.Path(os.environ.get("SSL_BENCH_DATA", "../shared/data")) / "voc2007_A"
    root = root if root.exists() else folder / "scenes"
    some = itertools.islice(itertools.cycle(sorted(root.rglob("JPEGImages/*.jpg"))), count)
    paths = []
    for number, path in enumerate(some):
        paths.append(folder / f"copies/{number // 1000}/{number:05}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, paths[-1])
    return paths


def shards(folder):
    """Photographs in tars, read at random; theirs: files, webdataset, tarfile, a list of 1,000.

    Rates are of processor time, as others use the machine too: of a worker, or of this process.
    """
    import random
    import tarfile

    import torch
    import webdataset

    from ssl_common.data import jpegs, order, packing, shardlists, stores
    from ssl_common.data import shards as kept
    from ssl_common.data.batches import batches
    from ssl_common.data.datasets import RandomCrops
    from ssl_common.data.manifest import Manifest
    from ssl_common.pretext.jigsaw import Jigsaw

    count, per_shard = 4000, 1000
    listing, packed = folder / "copies.tsv", folder / "packed.tsv"
    listing.write_text("".join(f"{path}\n" for path in photographs(folder, count)))
    pattern = str(folder / "p-%05d.tar")
    with open(packed, "wb") as stream:
        packing.pack(Manifest(str(listing)), ".", pattern, per_shard, "txt", stream)
    torch.set_num_threads(1)
    jpegs.hasten()
    task = Jigsaw(np.arange(9)[None])

    def worker(manifest):
        """Return images/s of the processor of one worker that reads MANIFEST in some order."""
        dataset = RandomCrops(Manifest(str(manifest)), ".", task, 0)

        def spent(batch_count):
            sampler = order.ShuffleSampler(count, 32, batch_count, 0, 0)
            before = sum(os.times()[2:4])  # of children that have ended
            for _ in batches(dataset, sampler, 1, False):
                pass
            return sum(os.times()[2:4]) - before

        return 96 * 32 / (spent(97) - spent(1))

    turns = [(worker(packed), worker(listing)) for _ in range(3)]
    ours, theirs = (max(rates) for rates in zip(*turns, strict=True))
    yield "shards: a worker of pretrain (images/s; theirs plain files)", ours, theirs, ours / theirs

    names = [str(pattern % number) for number in range(count // per_shard)]
    rows = [row.path for row in Manifest(str(packed))]
    files = stores.store(".")

    def through(work):
        start = time.process_time()
        work()
        return count / (time.process_time() - start)

    def at_random(use):
        for path in random.Random(0).sample(rows, count):
            with files.open(path) as stream:
                use(stream.read(), path)

    def streamed(use):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files that it leaves open
            found = webdataset.WebDataset(names, shardshuffle=False).shuffle(1000)
            for sample in found:
                use(sample["jpg"], sample["__key__"])

    def decode(data, path):
        jpegs.decode(data)

    for what, use in (("bytes", lambda data, path: None), ("the same decoding", decode)):
        turns = [(through(lambda u=use: at_random(u)), through(lambda u=use: streamed(u)))
                 for _ in range(3)]  # fmt: skip
        ours, theirs = (max(rates) for rates in zip(*turns, strict=True))
        yield f"shards: {what} (images/s; theirs webdataset)", ours, theirs, ours / theirs

    members = 20_000
    data = pathlib.Path(Manifest(str(listing))[0].path).read_bytes()
    with tarfile.open(folder / "many.tar", "w") as archive:
        for number in range(members):
            info = tarfile.TarInfo(f"{number:09}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    def index():
        with open(folder / "many.tar", "rb") as stream:
            maker = kept.Maker()
            for some in kept.entries(stream.name, stream.fileno()):
                maker.add(some)
            kept.keep(stream.name, maker.index(os.fstat(stream.fileno()), False))

    def listed():
        shardlists.scan(str(folder / "many.tar"), shardlists.Options())

    def walk():
        with tarfile.open(folder / "many.tar") as archive:
            for _member in archive:
                pass

    def spent(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    turns = [(spent(index), spent(listed), spent(walk)) for _ in range(3)]
    ours, listing, theirs = (min(each) for each in zip(*turns, strict=True))
    yield f"shards: index of {members:,} members (s; theirs tarfile)", ours, theirs, theirs / ours
    label = "shards: the same and the list of its images (s; theirs tarfile)"
    yield label, listing, theirs, theirs / listing
    (folder / "many.tar").unlink()


def many_shards(folder):
    """One tar of 20 million members; theirs is one of 1,000, all else alike."""
    from ssl_common.data import packing
    from ssl_common.data import shards as kept
    from ssl_common.data.manifest import Manifest

    listing, first = folder / "copies.tsv", folder / "first.tar"
    listing.write_text("".join(f"{path}\n" for path in photographs(folder, 1000)))
    packing.pack(Manifest(str(listing)), ".", str(first), 1000, "none", io.BytesIO())
    found = {}
    for many in (1000, 20_000_000):
        made = folder / f"{many}.tar"
        shutil.copy(first, made)
        made_of(made, many, kept)
        (folder / f"{many}.tsv").write_text(
            "".join(f"{many}.tar/{n:08}.jpg\n" for n in range(many))
        )
        Manifest(str(folder / f"{many}.tsv"), [str(folder / f"{many}.lines.npy")])
        argv = [sys.executable, "-c", FIRST_BATCH, str(many)]
        runs = [json.loads(subprocess.check_output(argv, cwd=folder)) for _ in range(3)]
        found[many] = {name: min(run[name] for run in runs) for name in runs[0]}
    few, many = found.values()
    label = "a tar of 20,000,000 members, memory of a worker (MB; theirs 1,000)"
    yield label, many["memory"], few["memory"], few["memory"] / many["memory"]
    label = "a tar of 20,000,000 members, the first batch (s; theirs 1,000)"
    yield label, many["first"], few["first"], few["first"] / many["first"]


FIRST_BATCH = """
import time; start = time.perf_counter()
import json, multiprocessing, pathlib, sys, numpy as np
from ssl_common.data import order
from ssl_common.data.batches import batches
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import Manifest
from ssl_common.pretext.jigsaw import Jigsaw

many = int(sys.argv[1])
manifest = Manifest(f"{many}.tsv", [f"{many}.lines.npy"])
dataset = RandomCrops(manifest, ".", Jigsaw(np.arange(9)[None]), 0)
sampler = order.ShuffleSampler(many, 20, 50, 0, 0)
read = batches(dataset, sampler, 1, False)
passed = next(read)[0]
first = time.perf_counter() - start
for _ in range(45):
    passed = passed + next(read)[0]
assert not passed.any(), "images that cannot be read"
(worker,) = multiprocessing.active_children()
lines = pathlib.Path(f"/proc/{worker.pid}/status").read_text().splitlines()
memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
read.close()
print(json.dumps({"first": first, "memory": memory / 1000}))
"""


def made_of(path, many, kept):
    """Let the shard PATH seem to hold MANY members: a sparse file, and an index of them all."""
    with open(path, "rb") as stream:
        found = itertools.chain.from_iterable(kept.entries(str(path), stream.fileno()))
        there = [each for each in found if b".jpg" in each.name]
    os.truncate(path, max(os.path.getsize(path), many * 43_000))
    digests = np.frombuffer(b"".join(kept.digest(b"%08d.jpg" % n) for n in range(many)), "<u8")
    offsets, sizes = (
        np.resize(np.array([getattr(each, name) for each in there], np.uint64), many)
        for name in ("offset", "size")
    )
    kept.keep(str(path), kept.lay_out(digests, offsets, sizes, os.stat(path), False))


MEASUREMENTS = [startup, permutations, listing, reading, colours, svms, floor, low_shot]
MEASUREMENTS += [
    features,
    conversion,
    exchange,
    linear,
    finetuning,
    detection,
    detections,
    normals,
    shards,
    many_shards,
    pretraining,
]


def main():
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = pathlib.Path(name)
        taken = seconds(lambda: shell(f"make-scenes -q -n {SCENES} -o scenes > scenes.tsv", folder))
        sys.stderr.write(f"bench: {SCENES} scenes in {taken:.1f} s\n")
        for measure in [globals()[name] for name in sys.argv[1:]] or MEASUREMENTS:
            for label, ours, theirs, ratio in measure(folder):
                sys.stdout.write(f"{label}\t{ours:.4g}\t{theirs:.4g}\t{ratio:.2f}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
