"""Files as the paper's Caffe2 code left them: blobs by its names, pickled by Python 2."""

import pickle
import struct

import numpy as np

ENDS = {"weight": "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
PARTS = [("conv1", "branch2a"), ("conv2", "branch2b"), ("conv3", "branch2c")]
PARTS += [("bn1", "branch2a_bn"), ("bn2", "branch2b_bn"), ("bn3", "branch2c_bn")]
PARTS += [("downsample.0", "branch1"), ("downsample.1", "branch1_bn")]


def resnet(state, tower=""):
    """Return the blobs of a STATE of torchvision's ResNet-50; TOWER is "_s0" in Jigsaw's."""
    blobs = {}
    for name, tensor in state.items():
        base, _dot, end = name.rpartition(".")
        if end == "num_batches_tracked" or base == "fc":
            continue
        base = {"conv1": "conv1", "bn1": "res_conv1_bn"}.get(base, base)
        for theirs, blob in PARTS:
            if base.endswith(f".{theirs}"):
                stage, block = base.removesuffix(f".{theirs}").split(".")
                base = f"res{int(stage[-1]) + 1}_{block}_{blob}"
        end = "s" if base.endswith("_bn") and end == "weight" else ENDS[end]
        blobs[f"{base}{tower}_{end}"] = tensor.numpy().copy()
    blobs[f"conv1{tower}_w"] = blobs[f"conv1{tower}_w"][:, ::-1].copy()  # RGB to BGR
    return blobs


def jigsaw(state, permutations, rng):
    """Return the blobs of a Jigsaw network: nine towers, their head, momenta, the last rate."""
    first = resnet(state, "_s0")
    blobs = dict(first)
    for name, blob in first.items():
        if "_bn_s0_" in name:
            for tower in range(1, 9):
                blobs[name.replace("_s0_", f"_s{tower}_")] = blob + tower
    blobs |= {"fc1_s0_w": rng.normal(size=(1024, 2048)), "fc1_s0_b": np.zeros(1024)}
    for tower in range(9):
        blobs |= {f"fc1_s{tower}_bn_{end}": np.ones(1024) for end in ("s", "b", "rm", "riv")}
    blobs |= {"fc2_w": np.zeros((permutations, 9)), "fc2_b": np.zeros(permutations)}
    blobs = {name: np.asarray(blob, np.float32) for name, blob in blobs.items()}
    momenta = {f"{n}_momentum": b for n, b in blobs.items() if n.endswith(("_s", "_b"))}
    return blobs | momenta | {"model_iter": 450450, "lr": np.array([1e-4], np.float32)}


def alexnet(rng, norm, layers, channels=3):
    """Return the blobs of an AlexNet with batch norm after LAYERS, called as NORM says."""
    shapes = {1: (96, channels, 11, 11), 2: (256, 48, 5, 5)}
    shapes |= {3: (384, 256, 3, 3), 4: (384, 192, 3, 3), 5: (256, 192, 3, 3)}
    blobs = {}
    for layer, shape in shapes.items():
        name = norm.split("/")[0].format(layer)
        scale = (2 / np.prod(shape[1:])) ** 0.5
        blobs |= {
            f"{name}_w": rng.normal(0, scale, shape),
            f"{name}_b": rng.normal(0, 0.1, shape[0]),
        }
        if layer in layers:
            name = norm.split("/")[1].format(layer)
            blobs |= {f"{name}_{end}": rng.normal(0, 0.1, shape[0]) for end in ("b", "rm")}
            blobs |= {f"{name}_{end}": rng.uniform(0.5, 2, shape[0]) for end in ("s", "riv")}
    return {name: np.asarray(blob, np.float32) for name, blob in blobs.items()}


def save(path, blobs):
    path.write_bytes(python2(blobs))


def python2(blobs):
    """Return {"blobs": BLOBS} as cPickle of Python 2 writes it, protocol 2: all strings are bytes.

    Python 3 writes text as unicode and bytes as a call of codecs.encode; this is opcode by opcode.
    """

    def string(text):
        data = text if isinstance(text, bytes) else text.encode()
        if len(data) < 256:
            return pickle.SHORT_BINSTRING + bytes([len(data)]) + data
        return pickle.BINSTRING + struct.pack("<i", len(data)) + data

    def number(value):
        return pickle.BININT + struct.pack("<i", value)

    def dtype(array):
        made = b"cnumpy\ndtype\n" + string(array.dtype.str[1:]) + number(0) + number(1)
        state = number(3) + string("<") + b"NNN" + number(-1) * 2 + number(0)
        return made + pickle.TUPLE3 + pickle.REDUCE + b"(" + state + pickle.TUPLE + pickle.BUILD

    def value(blob):
        if isinstance(blob, int):
            return number(blob)
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        made += number(0) + pickle.TUPLE1 + string("b") + pickle.TUPLE3 + pickle.REDUCE
        shape = b"(" + b"".join(map(number, blob.shape)) + pickle.TUPLE
        state = number(1) + shape + dtype(blob) + pickle.NEWFALSE + string(blob.tobytes())
        return made + b"(" + state + pickle.TUPLE + pickle.BUILD

    items = b"".join(string(name) + value(blob) for name, blob in blobs.items())
    inside = pickle.EMPTY_DICT + b"(" + items + pickle.SETITEMS
    return b"\x80\x02}(" + string("blobs") + inside + pickle.SETITEMS + pickle.STOP
