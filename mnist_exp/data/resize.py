"""Images of any kind and size, made like those that a model takes."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

FITS: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {  # all are bicubic, and antialias
    "pad": ImageOps.pad,
    "crop": ImageOps.fit,
    "stretch": Image.Image.resize,
}


def fit(image: Image.Image, size: tuple[int, int], how: str) -> Image.Image:
    """Return an image in another size; one of that size stays as it is.

    Args:
        image: In mode L or RGB.
        size: Height and width, in pixels.
        how: pad: the whole image, in the middle of black. crop: as much of its middle as fills the size. stretch: the
            whole image, with other proportions.
    """
    height, width = size
    return image if image.size == (width, height) else FITS[how](image, (width, height))


def to_l_or_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame of an image file upright, on white where it is transparent, in Pillow's mode L or RGB.

    Raises:
        ValueError: Its pixels are of 32 bits.
        OSError: The file is incomplete.
    """
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if has_16_bits:
        return Image.fromarray(((np.asarray(image.convert("I")) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are of 32 bits, whose range is unknown")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
