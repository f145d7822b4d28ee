"""Photos, files and arrays, prepared as the images that a model was trained on."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mnist_exp.data import picture
from mnist_exp.data.picture import FITS, Pixels
from mnist_exp.system import errors
from mnist_exp.system.errors import ConfigError
from mnist_exp.use import figure
from mnist_exp.use.figure import PLACINGS

WAYS = (*PLACINGS, *FITS)  # how images can be prepared


class Prepared(NamedTuple):
    """An image as a model takes it.

    Attributes:
        pixels: uint8 (C, H, W).
        figures: How many figures the picture has, of which the largest is shown; 1 where none is looked for.
    """

    pixels: Pixels
    figures: int = 1


class Preparation:
    """Makes images like those that a model was trained on.

    Attributes:
        way: mnist, emnist and frame find the figure in the picture (`mnist_exp.use.figure`). pad, crop and stretch
            scale the picture (`mnist_exp.data.picture`).
        size: Height and width of the model's images.
        mode: Their mode in Pillow, L or RGB.
    """

    def __init__(self, way: str, image_shape: Sequence[int]) -> None:
        """Store the choices.

        Args:
            way: One of WAYS.
            image_shape: Channels, height and width of the model's images.

        Raises:
            ConfigError: There is no such way.
        """
        if way not in WAYS:
            raise ConfigError(f"prepare={way}: no such way, {errors.offer(way, WAYS)}")
        channels, height, width = image_shape
        self.way, self.size, self.mode = way, (height, width), {1: "L", 3: "RGB"}[channels]

    def __call__(self, image: Image.Image) -> Prepared:
        """Return an image of mode L or RGB as the model takes it.

        One of the model's size stays as it is; where figures are looked for, it is negated if its border is light.
        """
        if self.way in FITS:
            return Prepared(self._pixels(picture.fit(image, self.size, self.way)))
        if image.size == self.size[::-1]:
            return Prepared(self._pixels(figure.light_on_dark(image)))
        found = figure.prepare(image, self.size, PLACINGS[self.way])
        return Prepared(self._pixels(Image.fromarray(found.pixels)), found.figures)

    def _pixels(self, image: Image.Image) -> Pixels:
        return picture.to_pixels(image.convert(self.mode))


def opened(given: Any, image_shape: Sequence[int]) -> tuple[list[Image.Image], bool]:
    """Return the images in a path, a PIL image or an array, in mode L or RGB, and whether it is one image alone.

    Args:
        given: See `TrainedRun.predict`.
        image_shape: Channels, height and width of the model's images.

    Raises:
        ConfigError: The file holds no image, or can't be read; or the array has another shape or type.
    """
    try:
        if isinstance(given, str | PathLike):
            return [picture.read(given)], True
        if isinstance(given, Image.Image):
            return [picture.to_l_or_rgb(given)], True
        return _in_array(given, image_shape)
    except ValueError as error:
        raise ConfigError(f"{given}: {error}" if isinstance(given, str | PathLike) else str(error)) from error


def _in_array(array: Any, image_shape: Sequence[int]) -> tuple[list[Image.Image], bool]:
    """Return the images in an array, and whether it is one image alone.

    Args:
        array: uint8, anything that numpy takes: (H, W), (H, W, C), (C, H, W), (N, H, W), (N, H, W, C) or (N, C, H, W),
            with 1 or 3 channels. Three dimensions are one image if they are `image_shape`, or if the last is 1 or 3.
        image_shape: Channels, height and width of the model's images.

    Raises:
        ValueError: The array has another shape or type.
    """
    pixels = np.asarray(array)
    shape = pixels.shape
    if pixels.dtype != np.uint8:
        raise ValueError(f"the images are of type {pixels.dtype}; pixels are uint8, from 0 to 255")
    is_one = len(shape) == 2 or (len(shape) == 3 and (shape == tuple(image_shape) or shape[2] in (1, 3)))
    pixels = pixels[None] if is_one else pixels
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3):
        pixels = np.moveaxis(pixels, 3, 1)  # (N, H, W, C) -> (N, C, H, W)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels  # (N, H, W) -> (N, 1, H, W)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape[1:]:
        raise ValueError(
            f"the images have the shape {shape}; it is (H, W), (H, W, C), (N, H, W), (N, H, W, C) or (N, C, H, W), "
            "with 1 or 3 channels"
        )
    return [picture.from_pixels(each) for each in pixels], is_one
