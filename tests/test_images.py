"""Bytes to RGB: every readable oddity, and what is said of a broken file."""

import contextlib
import errno
import io
import os
import resource
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from ssl_common.data import images, jpegs
from ssl_common.data.images import Unreadable
from ssl_common.data.pixels import MAX_AREA, crop, crop_resized, crop_short, resize, resize_short
from ssl_common.data.suffixes import FORMATS, SUFFIXES
from ssl_common.streams import DataError

RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)  # gray, 8 x 8
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def pixels(path, root="."):
    """Return what is read of PATH, which is the same before and after hasten()."""
    plain = read_by(None, path, root)
    assert plain.dtype == np.uint8 and plain.ndim == 3 and plain.shape[2] == 3
    assert images.size(str(path), str(root)) == plain.shape[:2]
    jpegs.hasten()
    np.testing.assert_array_equal(read_by(jpegs._decoder, path, root), plain)
    return plain.astype(int)


def read_by(decoder, path, root="."):
    """Return the pixels of PATH as DECODER gives them, where it is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpegs, "_decoder", decoder)
        return images.read(str(path), str(root)).numpy()


DECODERS = ["simplejpeg", "torchcodec.decoders", "torchvision.io", None]  # None is Pillow


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    """Let images.read() use each decoder in turn; skip one that is not installed."""
    monkeypatch.setattr(jpegs, "_decoder", None)
    if request.param:
        pytest.importorskip(request.param)
    for better in DECODERS[: DECODERS.index(request.param)]:
        monkeypatch.setitem(sys.modules, better, None)  # its import fails
    jpegs.hasten()
    decoder = jpegs._decoder
    if request.param:
        function = getattr(decoder, "func", decoder)
        named = f"{function.__module__} {function.__qualname__}"
        assert request.param.split(".")[0] in named
    else:
        assert decoder is None
    return decoder


def test_rgb_is_read_as_it_is(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels("a.png", tmp_path), COLOURS)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", "/nowhere"), COLOURS)  # absolute


def test_gray_becomes_three_equal_channels(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels("a.png", tmp_path), RAMP[..., None].repeat(3, 2))


def test_two_levels(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    expected = (RAMP > 100)[..., None].repeat(3, 2) * 255
    np.testing.assert_array_equal(pixels("a.png", tmp_path), expected)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(COLOURS).quantize(16)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.gif")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels("a.png", tmp_path), expected)
    np.testing.assert_array_equal(pixels("a.gif", tmp_path), expected)


@pytest.mark.parametrize("alpha", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_left_out(tmp_path, mode, alpha):
    image = Image.fromarray(COLOURS).convert(mode)
    image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    assert pixels("a.png", tmp_path).shape == (8, 8, 3)


def test_a_transparent_palette(tmp_path):
    Image.fromarray(COLOURS).quantize(16).save(tmp_path / "a.png", transparency=bytes(range(16)))
    assert pixels("a.png", tmp_path).shape == (8, 8, 3)


def test_cmyk(tmp_path):
    red = Image.new("RGB", (16, 16), (220, 30, 30))
    red.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(pixels("a.jpg", tmp_path).mean((0, 1)), (220, 30, 30), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_upright(tmp_path, orientation):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8] = 255  # white in the upper left corner
    stored = {  # how a camera held so would have stored it
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels("a.png", tmp_path), upright)


# ---- Gray of more bits than 8 -----------------------------------------------------------------

DEEP = RAMP.astype(np.uint16) * 257


def tiff(pixels, order="<", tags=()):
    """Return a TIFF file of one strip, not compressed, with PIXELS (H x W); TAGS are more."""
    pixels = np.asarray(pixels)
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    height, width = pixels.shape
    entries = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 8, 277: 1}
    entries |= {278: height, 279: len(data), 339: kind} | dict(tags)
    start = 8 + len(data)
    rows = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    return head + data + struct.pack(f"{order}H", len(entries)) + rows + bytes(4)


def pnm(pixels, most):
    kind = ">u2" if most > 255 else "u1"
    return b"P5 8 8 %d\n" % most + np.asarray(pixels).astype(kind).tobytes()


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def packed_12_bits(values):
    """Return VALUES of 12 bits each, two in three bytes."""
    high, low = np.asarray(values).reshape(-1, 2).astype(int).T
    return np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 1).astype(np.uint8)


def turned_exif(orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GRAYS = {
    "little.tif": lambda: tiff(DEEP, "<"),
    "big.tif": lambda: tiff(DEEP, ">"),
    "white_is_zero.tif": lambda: tiff(65535 - DEEP, "<", {262: 0}),
    "turned.tif": lambda: tiff(np.rot90(DEEP), "<", {274: 6}),
    "lzw.tif": lambda: saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    "12_bits.tif": lambda: tiff(
        packed_12_bits(RAMP * 4095.0 / 255 + 0.5).reshape(8, 12), "<", {256: 8, 258: 12}
    ),
    "deep.png": lambda: saved(Image.fromarray(DEEP), "PNG"),
    "turned.png": lambda: saved(Image.fromarray(np.rot90(DEEP).copy()), "PNG", exif=turned_exif()),
    "deep.jp2": lambda: saved(Image.fromarray(DEEP), "JPEG2000", irreversible=False),
    "deep.pgm": lambda: pnm(DEEP, 65535),
    "10_bits.pgm": lambda: pnm(RAMP * 1023.0 / 255 + 0.5, 1023),
    "100.pgm": lambda: pnm(RAMP * 100.0 / 255 + 0.5, 100),
    "8_bits.tif": lambda: tiff(RAMP),
    "8_bits_white_is_zero.tif": lambda: tiff(255 - RAMP, "<", {262: 0}),
}


@pytest.mark.parametrize("name", GRAYS)
def test_gray_is_scaled_by_the_range_of_its_bits(tmp_path, name):
    (tmp_path / name).write_bytes(GRAYS[name]())
    want = RAMP[..., None].repeat(3, 2).astype(int)
    off = 2 if name == "100.pgm" else 1
    np.testing.assert_allclose(pixels(name, tmp_path), want, atol=off)


UNKNOWN = "whose range is not known: save it with 8 or 16 bits"
REFUSED = {
    "float.tif": (lambda: tiff((RAMP / 255).astype(np.float32)), UNKNOWN),
    "float_big.tif": (lambda: tiff(RAMP.astype(np.float32), ">"), UNKNOWN),
    "int32.tif": (lambda: tiff(RAMP.astype(np.int32)), UNKNOWN),
    "uint32.tif": (lambda: tiff(DEEP.astype(np.uint32) * 65537), UNKNOWN),
    "int16.tif": (lambda: tiff(RAMP.astype(np.int16)), UNKNOWN),
    "int8.tif": (lambda: tiff(RAMP.astype(np.int8)), UNKNOWN),
    "float.pfm": (
        lambda: b"Pf\n8 8\n-1.0\n" + (RAMP[::-1] / 255).astype("<f4").tobytes(), UNKNOWN,
    ),
    "double.tif": (lambda: tiff(RAMP.astype(np.float64)), "of a kind that is not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_says_the_range_of_is_refused_by_name(tmp_path, name):
    made, said = REFUSED[name]
    (tmp_path / name).write_bytes(made())
    with pytest.raises(Unreadable, match=f"{name}: .*{said}$"):
        images.read(name, str(tmp_path))


def test_a_mode_that_is_not_made_rgb_is_named():
    with pytest.raises(DataError, match="^pixels of mode La: save it as RGB$"):
        images.rgb(Image.new("La", (8, 8)))


def test_planes_of_16_bits_are_not_mistaken(tmp_path):
    """Pillow reads them as noise where they are not compressed."""
    planes = np.stack([DEEP, DEEP.T, 65535 - DEEP])
    flat = planes.reshape(24, 8)
    bits = struct.pack("<3H", 16, 16, 16)
    at, offsets = 8, [8 + 128 * n for n in range(3)]
    body = flat.astype("<u2").tobytes()
    more = at + len(body)
    rows = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, more), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 3, more + 6), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 3, more + 18),
            (284, 3, 1, 2)]  # fmt: skip
    directory = struct.pack("<H", len(rows)) + b"".join(struct.pack("<HHII", *r) for r in rows)
    tail = bits + struct.pack("<3I", *offsets) + struct.pack("<3I", 128, 128, 128)
    head = b"II" + struct.pack("<HI", 42, more + len(tail))
    (tmp_path / "a.tif").write_bytes(head + body + tail + directory + bytes(4))
    with pytest.raises(Unreadable, match=r"a\.tif: 16 bits, one colour after another"):
        images.read("a.tif", str(tmp_path))


# ---- Decoders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_all_decoders_give_the_pixels_of_pillow(tmp_path, decoder, mode, how):
    size = (83, 61)  # no multiple of a block
    image = Image.fromarray(COLOURS).resize(size).convert(mode)
    image.save(tmp_path / "a.jpg", **how)
    with Image.open(tmp_path / "a.jpg") as opened:
        want = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(read_by(decoder, tmp_path / "a.jpg"), want)


@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 9])
def test_a_turned_jpeg(tmp_path, decoder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS.repeat(4, 0)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        turns = {3: 2, 6: 3}.get(orientation, 0)
        want = np.rot90(np.asarray(opened), turns)
    np.testing.assert_array_equal(read_by(decoder, tmp_path / "a.jpg"), want)


def plain_jpeg(tmp_path, **how):
    Image.fromarray(COLOURS.repeat(4, 0)).save(tmp_path / "a.jpg", **how)
    return (tmp_path / "a.jpg").read_bytes()


HEADERS = {
    "plain": (lambda data: data, True),
    "a comment": (lambda data: data[:2] + b"\xff\xfe\0\4ab" + data[2:], True),
    "EXIF": (lambda data: data[:2] + b"\xff\xe1\0\x08Exif\0\0" + data[2:], False),
    "12 bits": (lambda data: data.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), False),
    "4 colours": (
        lambda data: data[: (at := data.index(b"\xff\xc0")) + 9] + b"\4" + data[at + 10 :],
        False,
    ),
    "large": (
        lambda data: data[: (at := data.index(b"\xff\xc0")) + 5] + b"\xff" * 4 + data[at + 9 :],
        False,
    ),
    "arithmetic": (lambda data: data.replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"), False),
    "no frame": (lambda data: data.replace(b"\xff\xc0\0\x11", b"\xff\xfe\0\x11"), False),
    "its scan is missing": (lambda data: data[: data.index(b"\xff\xda")], False),
    "not a JPEG": (lambda data: b"ab" + data[2:], False),
    "no marker": (lambda data: data[:2] + b"\0" + data[2:], False),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_of_which_jpegs_pillow_is_not_asked(tmp_path, monkeypatch, kind):
    spoil, taken = HEADERS[kind]
    data = plain_jpeg(tmp_path)
    assert spoil(data) != data or kind == "plain"
    assert not jpegs.takes(data) or jpegs._decoder
    monkeypatch.setattr(jpegs, "_decoder", None)
    assert not jpegs.takes(data)
    jpegs.hasten()
    assert jpegs.takes(spoil(data)) == taken


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_that_is_turned_after_its_frame(tmp_path, decoder, orientation):
    """EXIF may stand anywhere before the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = plain_jpeg(tmp_path, exif=exif)
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    scan = data.index(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:start] + data[end:scan] + data[start:end] + data[scan:])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.getexif()[0x0112] == orientation
        want = np.rot90(np.asarray(opened), {6: 3}.get(orientation, 0))
    np.testing.assert_array_equal(read_by(decoder, tmp_path / "a.jpg"), want)


def broken(_data):
    raise RuntimeError("built for another torch")


OTHERS = {
    "another upsampling": lambda decode, data: decode(data) ^ (b"\1\x12\0\2" in bytes(data)),
    "another first scan": lambda decode, data: decode(data) ^ (bytes(data).count(b"\xff\xda") == 1),
    "always one off": lambda decode, data: decode(data) ^ 1,
    "broken": lambda _decode, data: broken(data),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_decoder_that_gives_other_pixels_than_pillow_is_not_used(monkeypatch, other):
    """As torchvision's own libjpeg up to 0.27 does, of colours at 4:4:0 and of a cut file."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data):
        return decode_jpeg(data, ImageReadMode.RGB)

    def odd(data):
        return OTHERS[other](decode, data)

    monkeypatch.setattr(jpegs, "_decoder", None)
    monkeypatch.setattr(jpegs, "_decoders", lambda: [odd])
    jpegs.hasten()
    assert jpegs._decoder is None
    monkeypatch.setattr(jpegs, "_decoders", lambda: [odd, decode])
    jpegs.hasten()
    assert jpegs._decoder is decode


@pytest.mark.parametrize("folder", ["voc2007_A", "scenes8_sun_A", "scene15_gray_A"])
def test_all_decoders_give_the_pixels_of_pillow_on_photographs(data, decoder, folder):
    paths = sorted(data(folder).rglob("*.jpg"))
    for path in paths[:: len(paths) // 20]:
        with Image.open(path) as opened:
            want = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(read_by(decoder, path), want)


def test_a_cut_or_odd_jpeg_is_judged_alike_and_in_silence(tmp_path, decoder, capfd):
    rng, name = np.random.default_rng(0), "a.jpg"
    noise = Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    spoilt = [whole[:-cut] for cut in (1, 2, 3, 4, 50, 500)]
    for _ in range(40):  # some bytes are others: mostly read, with libjpeg's complaint
        odd = bytearray(whole)
        odd[rng.integers(100, len(whole))] = rng.integers(256)
        spoilt.append(bytes(odd))
    read = 0
    for each in spoilt:
        (tmp_path / name).write_bytes(each)
        found = []
        for by in (None, decoder):
            try:
                found.append(read_by(by, name, tmp_path).tolist())
                read += 1
            except Unreadable as error:
                found.append(str(error))
        assert found[0] == found[1]
    assert 20 < read < 2 * len(spoilt)
    assert capfd.readouterr() == ("", "")


def jpeg(tmp_path):
    Image.fromarray(COLOURS.repeat(16, 0).repeat(16, 1)).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:30],
        lambda whole: b"",
        lambda whole: b"This is a text.\n" * 100,
        lambda whole: b"<html><body>404 Not Found</body></html>",
        lambda whole: bytes(5000),
        lambda whole: whole[:2] + bytes(len(whole) - 2),
    ],
    ids=["half", "head", "zero bytes", "text", "html", "zeros", "marker alone"],
)
def test_a_broken_jpeg_is_named(tmp_path, spoil):
    (tmp_path / "a.jpg").write_bytes(spoil(jpeg(tmp_path)))
    with pytest.raises(Unreadable, match=r"a\.jpg: \S") as caught:
        images.read("a.jpg", str(tmp_path))
    assert "\n" not in str(caught.value) and "object at 0x" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_any_cut_file_is_read_or_named(tmp_path, format, share):
    """Whatever the decoder raises for a cut file, it comes out as Unreadable."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole", format)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Unreadable, match="cut: "):
        images.read("cut", str(tmp_path))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(Unreadable, match=r"no\.jpg: No such file"):
        images.read("no.jpg", str(tmp_path))
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"folder\.jpg: "):
        images.read("folder.jpg", str(tmp_path))


def test_a_decompression_bomb_is_unreadable(tmp_path, monkeypatch):
    Image.new("1", (200, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(Unreadable, match=r"a\.png"):
        images.read("a.png", str(tmp_path))


# ---- Metadata ---------------------------------------------------------------------------------

PLAIN = np.asarray(Image.fromarray(COLOURS).resize((24, 16)))


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def png_with(more, late=False):
    """Return a PNG of PLAIN with the chunks MORE behind its header, or LATE, before its end."""
    data = saved(Image.fromarray(PLAIN), "PNG")
    place = len(data) - 12 if late else 33
    return data[:place] + more + data[place:]


def jpeg_with(more):
    """Return a JPEG of PLAIN with the segments MORE at its start."""
    data = saved(Image.fromarray(PLAIN), "JPEG")
    return data[:2] + more + data[2:]


def segment(number, content):
    return bytes([0xFF, number]) + struct.pack(">H", len(content) + 2) + content


def exif(*tags, behind=b""):
    """Return EXIF of Orientation 6 and the TAGS (number, type, count, four bytes), in order."""
    rows = sorted([(274, 3, 1, struct.pack("<HH", 6, 0)), *tags])
    made = b"".join(struct.pack("<HHI", *row[:3]) + row[3] for row in rows)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(rows)) + made + bytes(4) + behind


def jpeg_tagged(*tags, **more):
    return jpeg_with(segment(0xE1, b"Exif\0\0" + exif(*tags, **more)))


BIG = b"A" * (2 << 20)
JUNK = b"\0\x08\0\x02junkjunk"
ODD = {  # name -> (the file, by how many quarters it is to be turned)
    "exif junk.png": (lambda: png_with(chunk(b"eXIf", JUNK)), 0),
    "exif empty.png": (lambda: png_with(chunk(b"eXIf", b"")), 0),
    "raw profile junk.png": (
        lambda: png_with(
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\nx"))
        ),
        0,
    ),
    "text.png": (lambda: png_with(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(BIG))), 0),
    "text, turned.png": (
        lambda: png_with(
            chunk(b"eXIf", exif()) + chunk(b"zTXt", b"prompt\0\0" + zlib.compress(BIG))
        ),
        3,
    ),
    "text at its end.png": (
        lambda: png_with(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(BIG)), late=True), 0,
    ),
    "much text.png": (
        lambda: png_with(40 * chunk(b"zTXt", b"a\0\0" + zlib.compress(b"A" * (1 << 21)))), 0,
    ),
    "xmp.png": (
        lambda: png_with(
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG))
        ),
        0,
    ),
    "profile.png": (
        lambda: png_with(chunk(b"iCCP", b"printer\0\0" + zlib.compress(BIG))), 0,
    ),
    "profile junk.png": (lambda: png_with(chunk(b"iCCP", b"printer\0\0junk")), 0),
    "text of a wrong sum.png": (lambda: png_with(chunk(b"tEXt", b"a\0b")[:-4] + b"oops"), 0),
    "animation cut.png": (lambda: png_with(chunk(b"acTL", b"\0\0")), 0),
    "chromaticities cut.png": (lambda: png_with(chunk(b"cHRM", b"\0\0")), 0),
    "resolution cut.png": (lambda: png_with(chunk(b"pHYs", b"\0")), 0),
    "exif junk.webp": (
        lambda: saved(Image.fromarray(PLAIN), "WEBP", lossless=True, exif=b"Exif\0\0" + JUNK), 0,
    ),
    "exif junk.jpg": (lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + JUNK)), 0),
    "exif cut.jpg": (lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + exif()[:15])), 0),
    "jfif cut.jpg": (lambda: jpeg_with(segment(0xE0, b"JFIF\0\1")), 0),
    "adobe cut.jpg": (lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0008BIM\3\xed\0\0")), 0),
    "resolution in words.jpg": (lambda: jpeg_tagged((282, 2, 3, b"72\0\0")), 3),
    "unit in words.jpg": (lambda: jpeg_tagged((296, 2, 2, b"2\0\0\0")), 3),
    "software a fraction.jpg": (
        lambda: jpeg_tagged(
            (305, 5, 1, struct.pack("<I", 38)), behind=struct.pack("<II", 5, 2)
        ),
        3,
    ),
    "offset negative.jpg": (lambda: jpeg_tagged((34665, 8, 1, struct.pack("<hh", -1, 0))), 3),
    "maker behind the end.jpg": (
        lambda: jpeg_tagged((271, 2, 5000, struct.pack("<I", 100_000))), 3,
    ),
    "many, of no type.jpg": (lambda: jpeg_tagged((271, 99, 2**31, b"\xff" * 4)), 3),
    "orientation a byte.jpg": (
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + exif().replace(
            struct.pack("<HHI", 274, 3, 1), struct.pack("<HHI", 274, 1, 1)))), 3,
    ),
    "orientation in xmp.jpg": (
        lambda: jpeg_with(
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation=\"6\"/>")
        ),
        3,
    ),
    "xmp a number.tif": (lambda: tiff(RAMP, "<", {700: 5}), 0),
    "notes at the end.tif": (lambda: tiff(RAMP, "<", {274: 6, 34665: 2**31, 34853: 7}), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_metadata_does_not_decide_about_pixels(tmp_path, name):
    made, quarters = ODD[name]
    (tmp_path / name).write_bytes(made())
    if name.endswith(".jpg"):
        plain = np.asarray(Image.open(io.BytesIO(saved(Image.fromarray(PLAIN), "JPEG"))))
    else:
        plain = RAMP[..., None].repeat(3, 2) if name.endswith(".tif") else PLAIN
    np.testing.assert_array_equal(pixels(name, tmp_path), np.rot90(plain, quarters))


def test_broken_exif_of_an_avif(tmp_path):
    exif = turned_exif(3)
    exif[0x0131] = "software"
    data = saved(Image.fromarray(PLAIN), "AVIF", exif=exif)
    assert data.count(b"MM\0*") == 1
    (tmp_path / "a.avif").write_bytes(data.replace(b"MM\0*", b"??\0?"))
    (tmp_path / "b.avif").write_bytes(data)
    np.testing.assert_array_equal(pixels("a.avif", tmp_path), pixels("b.avif", tmp_path))


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_changed_at_random(tmp_path, kind):
    """The pixels are read, upright or turned in one of eight ways; never others, never none."""
    rng = np.random.default_rng(0)
    tags = ((271, 2, 9, 40), (282, 5, 1, 50), (34665, 4, 1, 8))
    tags = [(*tag[:3], struct.pack("<I", tag[3])) for tag in tags]
    whole = exif(*tags, behind=b"a camera\0" + bytes(range(40)))
    form = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind]
    plain = Image.open(io.BytesIO(saved(Image.fromarray(PLAIN), form, lossless=True)))
    plain = np.asarray(plain.convert("RGB"))
    turns = [np.rot90(side, n).tobytes() for side in (plain, plain[::-1]) for n in range(4)]
    for _ in range(60):
        odd = bytearray(whole)
        for place in rng.integers(0, len(odd), rng.integers(1, 9)):
            odd[place] = rng.integers(256)
        odd = bytes(odd[: rng.integers(4, len(odd) + 1)])
        (tmp_path / "a").write_bytes(
            {"jpg": lambda odd: jpeg_with(segment(0xE1, b"Exif\0\0" + odd)),
             "png": lambda odd: png_with(chunk(b"eXIf", odd)),
             "webp": lambda odd: saved(Image.fromarray(PLAIN), "WEBP", lossless=True, exif=odd),
            }[kind](odd)
        )  # fmt: skip
        assert images.read("a", str(tmp_path)).numpy().tobytes() in turns


# ---- What is opened ---------------------------------------------------------------------------


def test_nothing_but_the_formats_that_are_named_is_opened(tmp_path):
    """And their suffixes are those that Pillow knows them by."""
    Image.init()
    for name, endings in FORMATS.items():
        assert name in Image.OPEN
        assert {Image.registered_extensions()[ending] for ending in endings} == {name}
        (tmp_path / f"a{endings[0]}").write_bytes(saved(Image.fromarray(PLAIN), name))
        assert images.read(f"a{endings[0]}", str(tmp_path)).shape == (16, 24, 3)
    assert {ending for endings in FORMATS.values() for ending in endings} == set(SUFFIXES)
    for name in ("PCX", "SGI", "ICO", "DIB", "PDF", "EPS"):
        (tmp_path / "a.jpg").write_bytes(saved(Image.fromarray(PLAIN), name))
        with pytest.raises(Unreadable, match=r"a\.jpg: not an image, or of a kind"):
            images.read("a.jpg", str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(saved(Image.fromarray(PLAIN), "TGA"))  # named otherwise
    with pytest.raises(Unreadable, match="not an image, or of a kind that is not read"):
        images.read("a.jpg", str(tmp_path))


def test_no_program_is_started(tmp_path, monkeypatch):
    """A plain EPS, and a Ghostscript that only leaves a mark: Pillow alone would start it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it has not looked yet
    (tmp_path / "a.jpg").write_bytes(saved(Image.fromarray(PLAIN), "EPS"))
    with contextlib.suppress(Exception), Image.open(tmp_path / "a.jpg") as image:
        image.load()
    assert (tmp_path / "started").exists()  # so it would be seen
    (tmp_path / "started").unlink()
    with pytest.raises(Unreadable, match="not an image"):
        images.read("a.jpg", str(tmp_path))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "terminal"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    path = {"device": "/dev/zero", "terminal": "/dev/ptmx"}.get(kind, str(tmp_path / "a.jpg"))
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "FIFO":
            os.mkfifo(path)
        if kind == "socket":
            listener.bind(path)
        with pytest.raises(Unreadable, match=f"{path}: not a regular file"):
            images.read(path)


# ---- What the machine lacks -------------------------------------------------------------------


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "ENOTCONN"])
def test_a_shortage_is_not_the_fault_of_the_image(tmp_path, monkeypatch, number):
    (tmp_path / "a.jpg").write_bytes(jpeg(tmp_path))

    def fails(*_arguments, **_more):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(
        DataError, match=r"a\.jpg: .*: (give a smaller -j|the disk fails)"
    ) as caught:
        images.read("a.jpg", str(tmp_path))
    assert not isinstance(caught.value, Unreadable)


def test_too_many_open_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(tmp_path))
    images.read("a.jpg", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(DataError, match=r"a\.jpg: too many open files.*smaller -j") as caught:
            images.read("a.jpg", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(caught.value, Unreadable)


def test_too_little_memory(tmp_path):
    """Decoders call it a broken file: the same file is read where there is room."""
    large = Image.new("RGB", (3000, 2000), (200, 30, 60))
    large.save(tmp_path / "a.jpg")
    large.save(tmp_path / "progressive.jpg", progressive=True)
    large.save(tmp_path / "a.png")
    large.save(tmp_path / "a.tif")
    code = """
import resource
from ssl_common.data import images, jpegs
from ssl_common.streams import DataError
for hasten in (lambda: None, jpegs.hasten):
    hasten()
    for name in ("a.jpg", "progressive.jpg", "a.png", "a.tif"):
        images.read(name)
        pages = int(open("/proc/self/statm").read().split()[0])
        for more in (1, 10, 20, 30):
            resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (more << 20), -1))
            try:
                images.read(name)
            except DataError as error:
                print(type(error).__name__, error)
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) > 16 and "progressive.jpg" in done.stdout
    for line in lines:
        assert line.startswith("DataError ./") and line.endswith(": give a smaller -j")
        assert ": not enough memory" in line


def test_a_header_that_asks_for_more_than_there_is_is_a_broken_file(tmp_path):
    for count in (2**31, 2**32 - 1):
        entry = struct.pack("<HHII", 273, 4, 1, 8)
        odd = tiff(RAMP).replace(entry, struct.pack("<HHII", 273, 12, count, 8))
        assert odd != tiff(RAMP)
        (tmp_path / "a.tif").write_bytes(odd)
        with pytest.raises(Unreadable):
            images.read("a.tif", str(tmp_path))


# ---- Sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, expected",
    [
        ((500, 375), (341, 256)),  # 256 * 500 / 375 = 341.33, floored
        ((375, 500), (256, 341)),
        ((333, 500), (256, 384)),
        ((100, 80), (320, 256)),
        ((256, 999), (256, 999)),
        ((256, 256), (256, 256)),
    ],
)
def test_the_short_side(size, expected):
    width, height = size
    resized = resize_short(torch.zeros(height, width, 3, dtype=torch.uint8), 256)
    assert resized.shape == (*reversed(expected), 3)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1), (2, 7_000_000)])
def test_a_strip_does_not_fill_the_memory(size):
    width, height = size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resized = resize_short(torch.zeros(height, width, 3, dtype=torch.uint8), 256)
    assert min(resized.shape[:2]) == 256
    assert resized.shape[0] * resized.shape[1] <= MAX_AREA
    assert (resized.shape[1] > resized.shape[0]) == (width > height)
    # KiB: the strip, the result, and what lies between them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize(
    "size", [(375, 500), (500, 333), (256, 300), (255, 40), (1, 700), (99, 99)]
)
def test_a_crop_is_that_of_the_whole_resized(size):
    """Within 1 as torch resizes all of it, and as Pillow does; of usual sizes to the bit."""
    smooth = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    image = np.array(Image.fromarray(smooth).resize(size[::-1], Image.Resampling.BICUBIC))
    planes = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    for high, wide in ((256, 341), (256, 256), (300, 257), (290, 700)):
        whole = torch.nn.functional.interpolate(
            planes, (high, wide), mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
        pillows = Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR)
        for x, y in ((0, 0), (0.5, 0.5), (0.3, 0.999), (0.999, 0.1)):
            for side in (179, 255):
                left, top = int(x * (wide - side + 1)), int(y * (high - side + 1))
                found = crop_resized(torch.from_numpy(image), (high, wide), side, (x, y))
                other = found.int() - whole[top : top + side, left : left + side]
                assert other.abs().max() <= (min(size) < 256 or wide == 257)
                want = np.asarray(pillows, int)[top : top + side, left : left + side]
                assert abs(found.numpy().astype(int) - want).max() <= 1


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (256, 300), (100, 9000), (7000, 20)])
def test_a_crop_of_an_image_with_a_short_side(size):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    for corner in ((0, 0), (0.7, 0.2)):
        want = crop(resize_short(image, 256), 255, corner)
        assert torch.equal(crop_short(image, 256, 255, corner), want)


def test_resizing_is_antialiased():
    """A checkerboard of single pixels becomes gray; without it, black and white stay."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize_short(torch.from_numpy(board)[..., None].expand(-1, -1, 3), 128)
    assert small.numpy().std() < 3


@pytest.mark.parametrize("size", [(256, 341), (227, 227), (300, 61), (90, 400)])
def test_resizing_is_pillows_within_one(size):
    image = np.random.default_rng(0).integers(0, 256, (123, 210, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(image).resize((333, 177), Image.Resampling.BICUBIC))
    for pixels in (image, smooth):
        want = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
        got = resize(torch.from_numpy(pixels.copy()), size).numpy()
        assert np.abs(got.astype(int) - np.asarray(want)).max() <= 1


def test_a_crop_lies_where_it_is_drawn():
    image = torch.arange(5 * 7 * 3, dtype=torch.uint8).view(5, 7, 3)
    for x, y, left, top in ((0, 0, 0, 0), (0.999, 0.999, 3, 1), (0.5, 0.25, 2, 0)):
        part = crop(image, 4, (x, y))
        assert (part == image[top : top + 4, left : left + 4]).all() and part.shape == (4, 4, 3)
