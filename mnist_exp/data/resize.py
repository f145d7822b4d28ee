"""Images of any size, made as large as those that a model takes."""

from collections.abc import Callable, Sequence

from PIL import Image, ImageOps

Fit = Callable[[Image.Image, tuple[int, int]], Image.Image]

FITS: dict[str, Fit] = {  # each keeps the image's proportions but the last, and antialiases
    "pad": lambda image, size: ImageOps.pad(image, size, Image.Resampling.BICUBIC),
    "crop": lambda image, size: ImageOps.fit(image, size, Image.Resampling.BICUBIC),
    "stretch": lambda image, size: image.resize(size, Image.Resampling.BICUBIC),
}


def fit(image: Image.Image, size: Sequence[int], how: str) -> Image.Image:
    """Return an image in another size, antialiased; one of that size stays as it is.

    Args:
        image: In the mode L or RGB.
        size: Height and width, in pixels.
        how: pad: the whole image, in the middle of black. crop: as much of its middle as fills the size. stretch: the
            whole image, with other proportions.
    """
    height, width = size
    return image if image.size == (width, height) else FITS[how](image, (width, height))
