"""Bytes to RGB: every readable oddity, and what is said of a broken file."""

import resource
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_common.data import images
from ssl_common.data.images import MAX_AREA, Unreadable
from ssl_common.streams import DataError

RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)  # gray, 8 x 8
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def pixels(path, root="."):
    """Return what is read of PATH, which is the same before and after hasten()."""
    plain = read_by(None, path, root)
    assert plain.dtype == np.uint8 and plain.ndim == 3 and plain.shape[2] == 3
    images.hasten()
    np.testing.assert_array_equal(read_by(images._decode_jpeg, path, root), plain)
    return plain.astype(int)


def read_by(decoder, path, root="."):
    """Return the pixels of PATH as DECODER gives them, where it is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_decode_jpeg", decoder)
        return images.read(str(path), str(root)).numpy()


DECODERS = ["torchcodec.decoders", "torchvision.io", None]  # None is Pillow


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    """Let images.read() use each decoder in turn; skip one that is not installed."""
    monkeypatch.setattr(images, "_decode_jpeg", None)
    if request.param:
        pytest.importorskip(request.param)
    for better in DECODERS[: DECODERS.index(request.param)]:
        monkeypatch.setitem(sys.modules, better, None)  # its import fails
    images.hasten()
    decoder = images._decode_jpeg
    if request.param:
        module = getattr(decoder, "func", decoder).__module__
        assert module.split(".")[0] == request.param.split(".")[0]
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


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path, name):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / name)
    np.testing.assert_allclose(
        pixels(name, tmp_path), RAMP[..., None].repeat(3, 2).astype(int), atol=1
    )


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
    resized = images.resize_short(torch.zeros(height, width, 3, dtype=torch.uint8), 256)
    assert resized.shape == (*reversed(expected), 3)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1), (2, 7_000_000)])
def test_a_strip_does_not_fill_the_memory(size):
    width, height = size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resized = images.resize_short(torch.zeros(height, width, 3, dtype=torch.uint8), 256)
    assert min(resized.shape[:2]) == 256
    assert resized.shape[0] * resized.shape[1] <= MAX_AREA
    assert (resized.shape[1] > resized.shape[0]) == (width > height)
    # KiB: the strip, the result, and what lies between them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_resizing_is_antialiased():
    """A checkerboard of single pixels becomes gray; without it, black and white stay."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    small = images.resize_short(torch.from_numpy(board)[..., None].expand(-1, -1, 3), 128)
    assert small.numpy().std() < 3


@pytest.mark.parametrize("size", [(256, 341), (227, 227), (300, 61), (90, 400)])
def test_resizing_is_pillows_within_one(size):
    image = np.random.default_rng(0).integers(0, 256, (123, 210, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(image).resize((333, 177), Image.Resampling.BICUBIC))
    for pixels in (image, smooth):
        want = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
        got = images.resize(torch.from_numpy(pixels.copy()), size).numpy()
        assert np.abs(got.astype(int) - np.asarray(want)).max() <= 1


def test_a_crop_lies_where_it_is_drawn():
    image = torch.arange(5 * 7 * 3, dtype=torch.uint8).view(5, 7, 3)
    for x, y, left, top in ((0, 0, 0, 0), (0.999, 0.999, 3, 1), (0.5, 0.25, 2, 0)):
        part = images.crop(image, 4, (x, y))
        assert (part == image[top : top + 4, left : left + 4]).all() and part.shape == (4, 4, 3)
