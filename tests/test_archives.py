"""Files of weights of every kind: the tensors that torch and safetensors read; nothing is run."""

import argparse
import base64
import bz2
import collections
import datetime
import decimal
import enum
import functools
import gzip
import io
import json
import lzma
import os
import pathlib
import pickle
import random
import struct
import tarfile
import types
import zipfile

import numpy as np
import pytest
import torch
from conftest import Bomb

from ssl_common.models.foreign import archives
from ssl_common.streams import DataError

# Written by safetensors 0.8.0: safetensors.numpy.save(ST, metadata={"format": "pt"}).
SAFETENSORS = base64.b64decode(
    "QAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJuIjp7ImR0eXBlIjoiSTY0Iiwic2hhcGUiOltd"
    "LCJkYXRhX29mZnNldHMiOlswLDhdfSwiYS53ZWlnaHQiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRhdGFf"
    "b2Zmc2V0cyI6WzgsMzJdfSwiZSI6eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbMCwzXSwiZGF0YV9vZmZzZXRzIjpbMzIs"
    "MzJdfSwiYiI6eyJkdHlwZSI6IkYxNiIsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzMyLDM2XX0sIm0iOnsiZHR5"
    "cGUiOiJCT09MIiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMzYsMzhdfX0gICAgIAcAAAAAAAAAAAAAAAAAgD8A"
    "AABAAABAQAAAgEAAAKBAADwAwAEA"
)
ST = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "b": torch.tensor([1, -2]).half(),
    "n": torch.tensor(7),
    "e": torch.zeros(0, 3),
    "m": torch.tensor([True, False]),
}


def tensors():
    """Return a state of every type of numbers and every way to lie in memory."""
    whole = torch.arange(24.0)
    state = {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)),
        "turned": torch.arange(6.0).view(2, 3).t(),
        "part": whole[4:10].view(2, 3),
        "shared": whole,
        "stepped": whole[::5],
        "wide": torch.zeros(()).expand(3, 2),
        "channels_last": whole.view(2, 3, 2, 2).to(memory_format=torch.channels_last),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    for name in ("float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "bool"):
        state[name] = torch.tensor([1, 0, 1]).to(getattr(torch, name))
    state["uint16"] = torch.tensor([1, 65535]).to(torch.uint16)
    state["float8"] = torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn)
    state["complex"] = torch.tensor([1 + 2j])
    return state


def saved(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def read(data, folder):
    """Return {name: tensor} of a file of DATA."""
    (folder / "w").write_bytes(data)
    with open(folder / "w", "rb") as stream:
        return archives.read(stream, str(folder / "w"))[0]


def same(found, want):
    found = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    assert list(found) == list(want)
    for name, value in want.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        if value.is_floating_point():
            assert torch.equal(found[name].double(), value.detach().double()), name
        else:
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(tmp_path, zipped, protocol):
    data = saved(tensors(), _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    same(read(data, tmp_path), tensors())


def test_a_file_without_checksums(tmp_path):
    """torch can be told to write none; then all of them are 0."""
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(ST)
    finally:
        torch.serialization.set_crc32_options(True)
    same(read(data, tmp_path), ST)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    """torch.load reads such a file without a word."""
    data = bytearray(saved(ST))
    place = bytes(data).index(ST["a.weight"].numpy().tobytes())
    data[place + 6] ^= 1
    assert not torch.equal(torch.load(io.BytesIO(data))["a.weight"], ST["a.weight"])
    with pytest.raises(DataError, match=r"w: .*damaged \(the checksum of \S+ is wrong\)$"):
        read(bytes(data), tmp_path)


def swapped(data):
    """Return the file of torch.save DATA as a big-endian machine writes it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, inside in members.items():
            if "/data/" in name:
                inside = np.frombuffer(inside, "f4").byteswap().tobytes()
            archive.writestr(name, b"big" if name.endswith("byteorder") else inside)
    return made.getvalue()


def test_a_big_endian_file(tmp_path):
    data = swapped(saved({"a.weight": ST["a.weight"]}))
    assert torch.equal(torch.load(io.BytesIO(data))["a.weight"], ST["a.weight"])
    same(read(data, tmp_path), {"a.weight": ST["a.weight"]})


class _Persistent(pickle.Pickler):
    """The pickler of torch before 0.2: tensors stand outside, under a number."""

    def persistent_id(self, value):
        return str(id(value)) if isinstance(value, torch.Tensor) else None


def in_a_tar(state):
    """Return STATE as torch.save wrote it before 0.2; tensors of float32 that share nothing."""
    storages, tensors, pickled = (io.BytesIO() for _ in range(3))
    pickle.dump(len(state) + 1, storages, 2)
    whole = torch.arange(100.0)
    for tensor in (whole, *state.values()):
        pickle.dump((id(tensor) + 1, "cpu", torch.FloatStorage), storages, 2)
        numbers = tensor.contiguous().numpy().tobytes()
        storages.write(struct.pack("<q", len(numbers) // 4) + numbers)
    pickle.dump([(id(whole) + 2, id(whole) + 1, 10, 6)], storages, 2)
    part = whole[10:16].view(2, 3).t()
    entries = [(tensor, id(tensor) + 1, 0) for tensor in state.values()]
    pickle.dump(len(entries) + 1, tensors, 2)
    for tensor, storage, offset in [*entries, (part, id(whole) + 2, 0)]:
        pickle.dump((id(tensor), storage, torch.FloatTensor), tensors, 2)
        sides = [*tensor.shape, *tensor.stride(), offset]
        tensors.write(struct.pack(f"<i4x{len(sides)}q", tensor.dim(), *sides))
    _Persistent(pickled, 2).dump(collections.OrderedDict(state, part=part))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, stream in (("storages", storages), ("tensors", tensors), ("pickle", pickled)):
            entry = tarfile.TarInfo(name)
            entry.size = len(stream.getvalue())
            archive.addfile(entry, io.BytesIO(stream.getvalue()))
    return made.getvalue(), state | {"part": part}


def test_what_torch_saved_in_2016(tmp_path):
    data, want = in_a_tar({"a.weight": ST["a.weight"], "b": torch.randn(3, 1, 2)})
    (tmp_path / "old.pth").write_bytes(data)
    same(torch.load(tmp_path / "old.pth", weights_only=False), want)  # torch agrees that it is one
    same(read(data, tmp_path), want)


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_pickle_itself_wrote(tmp_path, protocol):
    data = pickle.dumps(tensors(), protocol)
    plain = {n: t for n, t in tensors().items() if n not in ("uint16", "float8")}  # as torch
    found = read(data, tmp_path)
    same({name: found[name] for name in plain}, plain)


def test_safetensors(tmp_path):
    same(dict(sorted(read(SAFETENSORS, tmp_path).items())), dict(sorted(ST.items())))
    assert read(SAFETENSORS, tmp_path)["__metadata__.format"] == "pt"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_offsets": [8, 36]}, "damaged"),
        ({"data_offsets": [-24, 0]}, "damaged"),
        ({"data_offsets": [8, 2**70]}, "damaged"),
        ({"shape": [2, 4]}, "damaged"),
        ({"shape": [2**40, 0]}, "damaged"),
        ({"shape": "23"}, "damaged"),
        ({"dtype": ["F32"]}, "damaged"),
        ({"dtype": "F64"}, "damaged"),
    ],
)
def test_a_damaged_header_of_safetensors(tmp_path, change, reason):
    (length,) = struct.unpack("<Q", SAFETENSORS[:8])
    header = json.loads(SAFETENSORS[8 : 8 + length])
    header["a.weight"] |= change
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + SAFETENSORS[8 + length :]
    with pytest.raises(DataError, match=f"w: .*{reason}"):
        read(data, tmp_path)


# ---- What stands beside the weights -------------------------------------------------------------


class Config(dict):
    """As an omegaconf or Lightning object: a dict of its own, with attributes and a way back."""

    def __init__(self, **items):
        super().__init__(items)
        self.parent = self


class Slotted:
    __slots__ = ("rate", "inner")

    def __init__(self):
        self.rate, self.inner = 0.1, {"momentum": 0.9}


class Colour(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")

BESIDE = {
    "namespace": argparse.Namespace(lr=0.3, path=pathlib.Path("/data")),
    "path": pathlib.PurePosixPath("/data"),
    "date": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(3),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], 3),
    "set": {1, 2},
    "frozen": frozenset("ab"),
    "complex": 1 + 2j,
    "bytes": b"\0\xff",
    "none": b"",
    "array of bytes": bytearray(b"ab"),
    "decimal": decimal.Decimal("0.1"),
    "enum": Colour.RED,
    "pair": Pair(1, {"x": 2}),
    "slots": Slotted(),
    "config": Config(lr=0.1),
    "partial": functools.partial(int, base=2),
    "function": torch.nn.functional.relu,
    "class": torch.nn.BatchNorm2d,
    "names": types.SimpleNamespace(a=1),
    "number": np.float64(60.6),
    "integer": np.int64(3),
    "flag": np.bool_(True),
    "words": np.array(["a", "b"]),
    "objects": np.array([{}, None], dtype=object),
    "dtype": np.dtype("float32"),
    "state of numpy": np.random.default_rng(0).bit_generator.state,
    "generator": np.random.RandomState(0).get_state(),
    "state of python": random.Random(0).getstate(),
    "type": torch.float16,
    "size": torch.Size([1, 2]),
    "device": torch.device("cuda", 1),
    "schedule": [{"params": [0, 1], "lr": 0.1}],
    1: "one",
    "1": "another",
    (1, 2): "of a tuple",
    pathlib.PurePosixPath("a"): "of a path",
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_stands_beside_the_weights_does_not_hide_them(tmp_path, zipped, protocol):
    """Valid checkpoints of training, one object of each kind: all tensors are there."""
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    for name, value in BESIDE.items():
        found = read(saved({name: value, "state_dict": ST}, **options), tmp_path)
        same(found, {f"state_dict.{name}": tensor for name, tensor in ST.items()})
    found = read(saved(BESIDE | {"state_dict": ST}, **options), tmp_path)
    same(found, {f"state_dict.{name}": tensor for name, tensor in ST.items()})
    assert found["namespace.lr"] == 0.3 and found["number"] == 60.6 and found["slots.rate"] == 0.1
    assert found["config.lr"] == 0.1 and found["schedule.0.lr"] == 0.1 and found["integer"] == 3
    assert found["path"].name.endswith("PurePosixPath") and found["class"].name.endswith("Norm2d")


def test_a_module_that_was_saved_whole(tmp_path):
    inside = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1, bias=False), torch.nn.BatchNorm2d(3))
    module = torch.nn.DataParallel(torch.nn.Sequential(collections.OrderedDict(layer=inside)))
    for zipped in (True, False):
        data = saved({"model": module}, _use_new_zipfile_serialization=zipped)
        same(
            read(data, tmp_path),
            {f"model.{name}": value for name, value in module.state_dict().items()},
        )


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript(tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3)).eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 2, 4, 4)), tmp_path / "j.pt")
    found = read((tmp_path / "j.pt").read_bytes(), tmp_path)
    for name, value in module.state_dict().items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_run(tmp_path, zipped):
    bomb = Bomb(f"touch {tmp_path}/exploded")
    options = {"_use_new_zipfile_serialization": zipped}
    for content in (bomb, {"a": [bomb]}, {"a": {"b": bomb}}, Config(a=bomb)):
        with pytest.raises(DataError, match="no weights") as caught:
            read(saved(content, **options), tmp_path)
        assert "\n" not in str(caught.value)
    found = read(saved({"bomb": bomb, "state_dict": ST}, **options), tmp_path)
    assert found["bomb"].name == "posix.system" and not callable(found["bomb"])
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "exploded").exists()  # else this would be worth nothing


def test_what_asks_for_more_is_named(tmp_path):
    with pytest.raises(DataError, match="w: a pickle that asks for posix.system, and has no weigh"):
        read(saved({"a": 1, "b": Bomb("true")}), tmp_path)


def test_a_network_that_holds_itself(tmp_path):
    knot = {"state_dict": dict(ST)}
    knot["itself"] = knot
    same(read(saved(knot), tmp_path), {f"state_dict.{name}": value for name, value in ST.items()})


# ---- Files that are no weights ------------------------------------------------------------------


def zipped_up():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.pth", b"...")
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return stream.getvalue()


STRANGERS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--a.pth\n", "git annex get"),
    "page": (b"<!DOCTYPE html><html><title>Virus scan", "a web page: download the file itself"),
    "page, in capitals": (b"\n  <HTML><head>", "a web page"),
    "page, with a mark": (b"\xef\xbb\xbf<html>", "a web page"),
    "denied": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "a web page"),
    "gzip": (gzip.compress(saved(ST)), "packed by gzip: gunzip it"),
    "bzip2": (bz2.compress(saved(ST)), "packed by bzip2: bunzip2 it"),
    "xz": (lzma.compress(saved(ST)), "packed by xz: unxz it"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\0", "packed by zstd: unzstd it"),
    "zip": (zipped_up(), "a zip archive of model.pth"),
    "tar": (tarred(), "a tar archive of model.pth"),
    "keras": (b"\x89HDF\r\n\x1a\n\0\0", "HDF5, as Keras writes it"),
    "picture": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture or a document"),
    "empty": (b"", "empty: get it again"),
    "text": (b"Entry not found", "text: 'Entry not found'"),
    "json": (b'{"error": "Repository not found"}', "text: "),
    "cut short": (saved(ST)[:-30], "damaged"),
    "cut shorter": (saved(ST)[:300], "damaged"),
    "cut, old": (saved(ST, _use_new_zipfile_serialization=False)[:-3], "damaged"),
    "cut, safetensors": (SAFETENSORS[:-1], "damaged"),
    "cut, its header": (SAFETENSORS[:99], "damaged"),
    "bytes": (bytes(range(130, 256)), "not a file of weights, or damaged"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, kind):
    data, message = STRANGERS[kind]
    with pytest.raises(DataError, match=f"w: .*{message}") as caught:
        read(data, tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


KINDS = {
    "zip": saved(ST),
    "old": saved(ST, _use_new_zipfile_serialization=False),
    "tar": in_a_tar({"a.weight": ST["a.weight"]})[0],
    "safetensors": SAFETENSORS,
    "pickle": pickle.dumps({"blobs": {n: t.numpy() for n, t in ST.items()}}, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trials", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_spoilt_bytes(tmp_path, recwarn, kind, trials):
    """Whatever was changed, it is read or refused in one line; nothing else is raised or said."""
    rng, whole = np.random.default_rng(0), KINDS[kind]
    for trial in range(trials):
        spoilt = bytearray(whole)
        if trial % 3:
            for place in rng.integers(len(whole), size=rng.integers(1, 5)):
                spoilt[place] = rng.integers(256)
        else:
            spoilt = spoilt[: rng.integers(len(whole))]
        try:
            found = read(bytes(spoilt), tmp_path)
        except DataError as error:
            assert str(error).startswith(f"{tmp_path}/w: ") and "\n" not in str(error)
        else:
            assert all(isinstance(name, str) for name in found)
    assert not recwarn.list and os.listdir(tmp_path) == ["w"]
