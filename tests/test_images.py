"""Bytes to RGB: every readable oddity, and what is said of a broken file."""

import numpy as np
import pytest
from PIL import Image

from ssl_common.data import images
from ssl_common.data.images import MAX_AREA, Unreadable
from ssl_common.streams import DataError

RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)  # gray, 8 x 8
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def pixels(path, root="."):
    image = images.read(str(path), str(root))
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


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
    assert images.resize_short(Image.new("RGB", size), 256).size == expected


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1), (2, 7_000_000)])
def test_a_strip_does_not_fill_the_memory(size):
    resized = images.resize_short(Image.new("RGB", size), 256)
    assert min(resized.size) == 256
    assert resized.width * resized.height <= MAX_AREA
    assert (resized.width > resized.height) == (size[0] > size[1])


def test_resizing_is_antialiased():
    """A checkerboard of single pixels becomes gray; without it, black and white stay."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(images.resize_short(Image.fromarray(board).convert("RGB"), 128))
    assert small.std() < 3
