"""The restricted unpickler: arrays come out as NumPy's own reader has them, the rest is inert."""

import builtins
import collections
import contextlib
import functools
import io
import os
import pickle
import subprocess

import caffe2
import numpy as np
import pytest

from ssl_common.models.foreign import pickles
from ssl_common.streams import DataError

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(6, dtype=">f8").reshape(3, 2),
    np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
    np.zeros((1, 3), np.float16),
    np.array(7, np.int64),
    np.array([True, False]),
    np.zeros((0, 3), np.float32),  # whose bytes Python 3 writes as a call, for an older protocol
    np.zeros(0, np.uint8),
    np.float32(0.1),
    np.int64(450450),
]


def read(data):
    return pickles.read(io.BytesIO(data), "w.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(protocol):
    blobs = dict(enumerate(ARRAYS)) | {"model_iter": 3, "name": "conv1", "rates": [0.1, (1, None)]}
    content = read(pickle.dumps(collections.OrderedDict(blobs=blobs), protocol))["blobs"]
    for index, want in enumerate(ARRAYS):
        found = content.pop(index).array()
        assert found.dtype == want.dtype.newbyteorder("=") and found.dtype.isnative
        np.testing.assert_array_equal(found, want)
    assert content == {"model_iter": 3, "name": "conv1", "rates": [0.1, (1, None)]}


def test_what_python_2_wrote():
    blobs = {"conv1_w": np.arange(300, dtype=np.float32).reshape(3, 100), "é": np.zeros(1), "n": 4}
    data = caffe2.python2(blobs)
    # pickle itself agrees that this is such a file.
    want = pickle.loads(data, encoding="latin1")["blobs"]
    found = read(data)["blobs"]
    assert list(found) == list(want) and found["n"] == want["n"] == 4
    for name in list(found)[:2]:
        np.testing.assert_array_equal(found[name].array(), want[name])
    np.testing.assert_array_equal(found["conv1_w"].array(), blobs["conv1_w"])


def test_npy_that_wraps_a_dict(tmp_path):
    blobs = {"conv1_w": np.arange(4, dtype=np.float32)}
    np.save(tmp_path / "w.npy", blobs, allow_pickle=True)
    with open(tmp_path / "w.npy", "rb") as stream:
        found = pickles.read_npy(stream, "w.npy")
    np.testing.assert_array_equal(found["conv1_w"].array(), blobs["conv1_w"])


class Call:
    """What a pickle calls when it is read."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class Built(Call):
    """What is called, and then given a state."""

    def __reduce__(self):
        return (*self.reduced, {"x": 1})


POPEN = subprocess.Popen  # or what stands in its place in the tests


def payloads(target):
    """Return {what is asked for: an object that asks for it to make the file TARGET}."""
    command = f"touch {target}"
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(builtins.eval, f"open({str(target)!r}, 'w').close()"),
        "builtins.exec": Call(builtins.exec, f"open({str(target)!r}, 'w').close()"),
        "builtins.getattr": Call(getattr, Call(getattr, os, "path"), "join"),
        f"{POPEN.__module__}.{POPEN.__name__}": Built(POPEN, ["touch", str(target)]),
        "functools.partial": functools.partial(os.system, command),
        "numpy.load": Call(np.load, str(target)),
        "_codecs.decode": Call(__import__("_codecs").decode, b"x", "rot13"),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wanted", payloads(""))
def test_what_wants_more_is_named_and_not_run(tmp_path, wanted, protocol):
    target = tmp_path / "exploded"
    bomb = payloads(target)[wanted]
    hidden = np.array([1, bomb], dtype=object)  # in an array, which NumPy would unpickle
    nested = Call(collections.OrderedDict, [("a", [{"b": (bomb,)}])])
    named = {"subprocess.Popen": subprocess.Popen.__name__}.get(wanted, wanted.rpartition(".")[2])
    for content, where in (
        (bomb, lambda found: found),
        ({"blobs": {"conv1_w": bomb}}, lambda found: found["blobs"]["conv1_w"]),
        (hidden, lambda found: found.state[4][1]),
        (nested, lambda found: found["a"][0]["b"][0]),
    ):
        try:
            data = pickle.dumps(content, protocol)
        except (pickle.PicklingError, TypeError):
            continue  # modules are not pickled
        found = where(read(data))
        assert type(found).__mro__[1] is pickles.Foreign and found.name.endswith(f".{named}")
        assert not callable(found) and not target.exists()


def test_the_payloads_work(tmp_path):
    """Else the test before would be worth nothing."""
    for wanted in ("posix.system", "builtins.eval", "functools.partial"):
        target = tmp_path / wanted
        found = pickle.loads(pickle.dumps(payloads(target)[wanted], 2))
        if wanted == "functools.partial":
            found()
        assert target.exists()


def array(*state, kind="f4", start=b"cnumpy.core.multiarray\n_reconstruct\n"):
    """Return the pickle of an array with the STATE, where "type" stands for its type."""
    parts = [pickle.dumps(part, 2)[2:-1] for part in state if part != "type"]
    dtype = b"cnumpy\ndtype\n" + pickle.dumps((kind, False, True), 2)[2:-1] + b"R"
    dtype += pickle.dumps((3, "<", None, None, None, -1, -1, 0), 2)[2:-1] + b"b"
    parts.insert(2, dtype)
    made = start + b"(cnumpy\nndarray\n(I0\ntU\x01btR"
    return b"\x80\x02" + made + b"(" + b"".join(parts) + b"tb."


def test_a_result_is_not_called(tmp_path):
    """What a name gave cannot be called in turn, nor what is in it."""
    for data in (
        b"cposix\nsystem\n(S'true'\ntR(S'true'\ntR.",
        b"cbuiltins\ngetattr\n(cos\npath\nS'join'\ntR(tR.",
        b"(S'text'\n(tR.",
        b"cposix\nsystem\n}S'__call__'\nS'x'\nsb.",
        b"ccollections\nOrderedDict\n}S'get'\nS'x'\nsb.",
        b"cnumpy\ndtype\n}S'dtype'\nS'x'\nsb.",
    ):
        with pytest.raises(DataError, match="damaged"):
            read(data)


def test_a_damaged_memo_takes_no_memory():
    """The unpickler in C makes room for all numbers below the one that is asked for: 17 GB here."""
    found = read(b"\x80\x02K\x01r" + (2**30).to_bytes(4, "little") + b".")
    assert found == 1


def test_the_made_array_is_one():
    found = read(array(1, (2,), "type", False, "\0" * 8)).array()
    np.testing.assert_array_equal(found, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "data",
    [
        array(1, (3,), "type", False, "\0" * 8),  # would read beyond the bytes
        array(1, (2**62, 4), "type", False, "\0" * 8),
        array(1, (-1,), "type", False, "\0" * 8),
        array(1, ("2",), "type", False, "\0" * 8),
        array(1, (1,), "type", False, "\0" * 8, kind="O8"),  # pointers
        array(1, (1,), "type", False, "\0" * 8, kind="V8"),
        array(1, (1,), "type", False, "\0" * 8, kind="f4,O"),
        array(1, (1,), "type", False, 7),
        array(1, (1,), "type", False, "ĀĀĀĀ"),
        array(1, 2, "type", False, "\0" * 8),
        pickle.dumps(np.array([1, {}], dtype=object), 2),
        pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")]), 2),
        pickle.dumps(np.zeros(2, "U3"), 2),
        pickle.dumps(np.zeros(2, "M8[s]"), 2),
        pickle.dumps(np.zeros(2, np.complex64), 2),
    ],
)
def test_arrays_that_are_none(data):
    found = read(data)
    with pytest.raises(ValueError):
        found.array()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"\x80\x02}q\x00", "damaged"),
        (b"\x80\x02]q\x00(h\x07e.", "damaged"),
        (b"\x80\x02Pname\n.", "an object outside of the file"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "damaged"),  # gives the type itself a state
        (b"\x80\x02ccollections\nOrderedDict\n}U\x01aU\x01bsb.", "damaged"),
        (b"\x80\x02c_codecs\nencode\n(U\x01aU\x05utf-8tR.", "damaged"),
    ],
)
def test_damaged(data, reason):
    with pytest.raises(DataError, match=rf"^w.pkl: .*{reason}") as caught:
        read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_bytes_changed_at_random():
    """Whatever is read, it is read without a crash, and nothing else is raised."""
    rng, data = np.random.default_rng(0), caffe2.python2({"a": np.zeros((2, 2), np.float32)})
    for _trial in range(3000):
        spoilt = bytearray(data)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            spoilt[place] = rng.integers(256)
        try:
            found = read(bytes(spoilt))
        except (DataError, MemoryError):
            continue
        blobs = found.get("blobs") if isinstance(found, dict) else None
        for blob in blobs.values() if isinstance(blobs, dict) else ():
            if isinstance(blob, pickles.ARRAYS):
                with contextlib.suppress(ValueError):
                    blob.array()
