"""One picture of any kind and size, made like the images that a model takes.

What a file becomes is what Pillow makes of it, and where Pillow leaves it open:

- EXIF: the picture is turned upright.
- Transparency: it lies on white.
- Animation: the first frame.
- 16-bit grey: v of 0..65535 becomes the nearest to v / 257. Of 16-bit colour, Pillow keeps the high bytes.
- Palette, CMYK, YCbCr, 1 bit: as Pillow's `convert`.
- 32-bit pixels have no range that is known, and are refused.
"""

import io
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # Pillow knows more, some of which start other programs
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
SCALED_TO_16_BITS = ("PNG", "PPM")  # formats of which Pillow gives 16-bit grey as 32-bit integers
FITS: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {  # all are bicubic, and antialias
    "pad": ImageOps.pad,
    "crop": ImageOps.fit,
    "stretch": Image.Image.resize,
}


def read(file: bytes | str | os.PathLike[str]) -> Image.Image:
    """Return the picture in a file, in Pillow's mode L or RGB.

    Args:
        file: Its content, or its path.

    Raises:
        ValueError: The file holds no picture, or a broken one. The message is the reason alone.
        MemoryError: The picture is too large for this machine.
    """
    try:
        if not isinstance(file, bytes):
            with open(file, "rb", buffering=0) as opened:
                file = opened.read()
        if not file:
            raise ValueError("empty")
        with Image.open(io.BytesIO(file), formats=FORMATS) as image:
            return to_l_or_rgb(image)
    except (ValueError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ValueError("no image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"a decompression bomb: more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception as error:  # of a broken file, Pillow raises errors of many kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(" ".join(reason.split()) or type(error).__name__) from error


def to_l_or_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame of a picture upright, without transparency, in Pillow's mode L or RGB.

    Raises:
        ValueError: Its pixels are of 32 bits.
        OSError: The file is incomplete.
    """
    image.load()  # the file may be closed afterwards
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in SCALED_TO_16_BITS)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # or exif_transpose would copy the picture
        image = ImageOps.exif_transpose(image)
    if has_16_bits:
        return Image.fromarray(((np.asarray(image.convert("I")) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range is unknown")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def to_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of a picture of mode L or RGB, uint8 (1 or 3, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return a picture of mode L or RGB with these pixels, uint8 (1 or 3, H, W)."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def fit(image: Image.Image, size: tuple[int, int], way: str) -> Image.Image:
    """Return a picture in another size; one of that size stays as it is.

    Args:
        image: In mode L or RGB.
        size: Height and width, in pixels.
        way: pad: the whole picture, in the middle of black. crop: as much of its middle as fills the size. stretch: the
            whole picture, with other proportions.
    """
    height, width = size
    return image if image.size == (width, height) else FITS[way](image, (width, height))
