"""What an image file becomes, against Pillow and torchvision."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.own_data import noise, png
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode, decode_image

from mnist_exp.data import decode
from mnist_exp.data.decode import Encoded, Fit
from mnist_exp.data.picture import Pixels
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError

GRAY = Image.fromarray(noise(1, size=(20, 30))[0][0])
COLOR = Image.fromarray(noise(1, size=(20, 30, 3))[0][0])
# torchvision 0.29 says that its decoders will go one day; TorchCodec's need FFmpeg.
reads_with_torchvision = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities")
FITS = ("pad", "crop", "stretch")


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes, fit: Fit | None = None) -> Pixels:
    """The pixels of one file, (C, H, W)."""
    [image], _ = decode.decode([Encoded("one", content, len(content))], fit or Fit())
    found: Pixels = image
    return found


def channels_first(image: Image.Image) -> Pixels:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "PPM", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("image", [GRAY, COLOR], ids=["gray", "color"])
def test_formats_are_decoded_as_pillow_does(kind: str, image: Image.Image) -> None:
    content = saved(image, kind)
    expected = channels_first(Image.open(io.BytesIO(content)).convert(image.mode if kind != "WEBP" else "RGB"))
    found = pixels(content)
    assert found.shape[0] == (1 if image is GRAY and kind != "WEBP" else 3)
    np.testing.assert_array_equal(found, expected)


@reads_with_torchvision
@pytest.mark.parametrize("image", [GRAY, COLOR], ids=["gray", "color"])
def test_png_and_jpeg_are_what_torchvision_decodes(image: Image.Image) -> None:
    png_bytes, jpeg = saved(image), saved(image, "JPEG", quality=95)
    for content, tolerance in ((png_bytes, 0), (jpeg, 1)):
        theirs = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
        assert np.abs(pixels(content).astype(int) - theirs.numpy().astype(int)).max() <= tolerance


@reads_with_torchvision
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(COLOR, "JPEG", quality=95, exif=exif)
    theirs = decode_image(
        torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB, apply_exif_orientation=True
    )
    assert pixels(content).shape == tuple(theirs.shape)
    assert np.abs(pixels(content).astype(int) - theirs.numpy().astype(int)).max() <= 1


def test_16_bits_become_the_nearest_of_8() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF", "PPM"):
        np.testing.assert_array_equal(pixels(saved(Image.fromarray(values), kind))[0], expected)


def test_a_palette_is_resolved_and_gray_is_found_by_content() -> None:
    palette = COLOR.quantize(7)
    np.testing.assert_array_equal(pixels(saved(palette)), channels_first(palette.convert("RGB")))
    gray = GRAY.convert("RGB")
    np.testing.assert_array_equal(pixels(saved(gray)), channels_first(GRAY))
    np.testing.assert_array_equal(pixels(saved(gray), Fit(color="rgb")), channels_first(gray))
    np.testing.assert_array_equal(pixels(saved(COLOR), Fit(color="gray")), channels_first(COLOR.convert("L")))


def test_transparency_lies_on_white() -> None:
    alpha = Image.fromarray(noise(1, size=(20, 30), seed=1)[0][0])
    color, gray = COLOR.copy(), GRAY.copy()
    color.putalpha(alpha)
    gray.putalpha(alpha)
    share = np.asarray(alpha) / 255
    for image, plain in ((color, COLOR), (gray, GRAY)):
        expected = channels_first(plain) * share + 255 * (1 - share)
        assert np.abs(pixels(saved(image)) - expected).max() <= 1
        assert len(pixels(saved(image))) == len(expected)
    keyed = saved(Image.fromarray(np.array([[0, 9]], np.uint8)), transparency=9)
    np.testing.assert_array_equal(pixels(keyed), [[[0, 255]]])


def test_one_bit_cmyk_and_animations() -> None:
    bits = GRAY.convert("1")
    np.testing.assert_array_equal(pixels(saved(bits)), channels_first(bits.convert("L")))
    cmyk = saved(COLOR.convert("CMYK"), "TIFF")
    np.testing.assert_array_equal(pixels(cmyk), channels_first(COLOR.convert("CMYK").convert("RGB")))
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for kind in ("GIF", "PNG", "TIFF"):
        moving = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(pixels(moving), channels_first(frames[0]))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("image", [GRAY, COLOR], ids=["gray", "color"])
def test_sizes_are_fitted_as_pillow_does(fit: str, image: Image.Image) -> None:
    for size in (8, 20, 40):
        both = (size, size)
        expected = {"pad": ImageOps.pad(image, both), "crop": ImageOps.fit(image, both), "stretch": image.resize(both)}[
            fit
        ]
        np.testing.assert_array_equal(pixels(saved(image), Fit(size, fit)), channels_first(expected))
    square = image.crop((0, 0, 20, 20))
    np.testing.assert_array_equal(pixels(saved(square), Fit(20, fit)), channels_first(square))
    batch = channels_first(image)[None]
    np.testing.assert_array_equal(decode.resize(batch, Fit(8, fit))[0], pixels(saved(image), Fit(8, fit)))
    assert decode.resize(batch, Fit()) is batch


def test_many_files_are_decoded_in_their_order_by_several_processes(tmp_path: Path) -> None:
    images, _ = noise(2 * decode.CHUNK_FILES + 5)
    contents = [png(image) for image in images]
    for number, content in enumerate(contents[:9]):
        (tmp_path / str(number)).write_bytes(content)
    paths = [Encoded("", str(tmp_path / str(number)), 1) for number in range(9)]
    files = paths + [Encoded("", content, len(content)) for content in contents[9:]]
    np.testing.assert_array_equal(decode.decode(files, Fit())[0][:, 0], images)


def test_one_image_with_colors_gives_all_three_channels() -> None:
    files = [Encoded("", saved(image), 1) for image in (GRAY, COLOR)]
    np.testing.assert_array_equal(decode.decode(files, Fit())[0][0], channels_first(GRAY.convert("RGB")))


def broken() -> list[Encoded]:
    whole = saved(COLOR)
    contents: dict[str, bytes | str] = {
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "text.png": b"hello",
        "gone.png": "/nowhere/gone.png",
        "float.tif": saved(Image.new("F", (3, 3)), "TIFF"),
        "bomb.png": saved(Image.new("1", (300, 300))),
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    return [Encoded(name, content, 1) for name, content in contents.items()]


def test_broken_files_are_named_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    files = [Encoded("fine.png", saved(COLOR), 1), *broken()]
    with pytest.raises(ValueError, match=r"^7 of 8 images can't be read: ") as caught:
        decode.decode(files, Fit())
    message = str(caught.value)
    for words in (
        *("empty.png (empty)", "cut.png (", "text.png (no image of a known format)"),
        *("gone.png (No such file or directory)", "float.tif (pixels of 32 bits, whose range is unknown)"),
        *(" and 2 more; data.skip_broken=true leaves them out",),
    ):
        assert words in message
    assert "\n" not in message
    for words in (
        "bomb.png (a decompression bomb: more than 60,000 pixels)",
        "script.eps (no image of a known format)",
    ):
        assert words in caplog.text
    images, left_out = decode.decode(files, Fit(), skip_broken=True)
    assert (len(images), sorted(left_out)) == (1, list(range(1, 8)))
    assert decode.note(left_out, 8)[0].startswith("left out 7 of 8 images, which can't be read: empty.png (empty), ")
    assert not decode.note({}, 8)


def test_the_filters_of_warnings_stay_as_they_were() -> None:
    before = list(warnings.filters)
    pixels(saved(GRAY))
    assert warnings.filters == before


def test_different_sizes_need_a_size() -> None:
    files = [Encoded(f"{side}.png", png(noise(1, size=(side, side))[0][0]), 1) for side in (4, 5)]
    with pytest.raises(
        ValueError, match=r"\(height x width\): 4.png is 4 x 4, 5.png is 5 x 5; data.size=28 scales them"
    ):
        decode.decode(files, Fit())
    assert decode.decode(files, Fit(6))[0].shape == (2, 1, 6, 6)


def test_more_images_than_memory_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda device: 10_000)
    files = [Encoded("", saved(COLOR), 1)] * 3
    with pytest.raises(ConfigError, match=r"3 images of 3 x 20 x 30 .* are free on the cpu; a smaller data.size"):
        decode.decode(files, Fit())
    assert len(decode.decode(files, Fit(4))[0]) == 3
