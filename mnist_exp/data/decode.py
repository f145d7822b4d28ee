"""Image files become uint8 pixels, grey or RGB; many at once, on all cores."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from mnist_exp.data import picture
from mnist_exp.data.picture import Pixels
from mnist_exp.system import fork, resources, streams

CHUNK_FILES, CHUNK_BYTES = 256, 2**22  # what a core gets at once: the progress bar moves, and Ctrl-C doesn't wait

SHOWN = 5  # items of a list in a message

_log = logging.getLogger(__name__)


class Fit(NamedTuple):
    """How an image gets its size and its colours.

    Attributes:
        size: The height and the width in pixels; None leaves an image as large as it is.
        way: pad, crop or stretch: what is done with an image that is not square. pad fills with black.
        color: gray, rgb, or auto: grey if red, green and blue are equal in every pixel.
    """

    size: int | None = None
    way: str = "pad"
    color: str = "auto"

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the pixels of an image of mode L or RGB, uint8 (1 or 3, H, W).

        Sizes change as in Pillow's ImageOps.pad, ImageOps.fit and Image.resize: bicubic, antialiased.
        """
        image = image if self.color == "auto" else image.convert({"gray": "L", "rgb": "RGB"}[self.color])
        image = picture.fit(image, (self.size, self.size), self.way) if self.size else image
        pixels = picture.to_pixels(image)
        return pixels[:1] if self.color == "auto" and _is_gray(pixels) else pixels


class Encoded(NamedTuple):
    """An image file.

    Attributes:
        name: What messages call it.
        content: Its bytes, or its path.
        size: Its length in bytes.
    """

    name: str
    content: bytes | str
    size: int


def on_disk(folder: Path, names: Iterable[str], state: Mapping[str, os.stat_result | None]) -> list[Encoded]:
    """Return files in a folder; `state` has their sizes."""
    found = ((name, state[name]) for name in names)
    return [Encoded(name, os.path.join(folder, name), each.st_size if each else 0) for name, each in found]


def decode(files: Sequence[Encoded], fit: Fit, skip_broken: bool = False) -> tuple[Pixels, dict[int, str]]:
    """Decode image files on all cores, with a progress bar.

    Args:
        files: The files.
        fit: Gives the images their size and colours.
        skip_broken: Leave out files that can't be decoded.

    Returns:
        The images, uint8 (N, C, H, W), of three channels if one of them has colours; and, by their index, the files
        that are left out, each with what is wrong with it.

    Raises:
        ValueError: Files can't be decoded, or their images have different sizes.
        ConfigError: The images need more memory than is free.
    """
    images: list[Pixels] = []
    broken: dict[int, str] = {}
    for number, image in enumerate(_decoded(files, fit)):
        if isinstance(image, str):
            broken[number] = f"{files[number].name} ({image})"
            continue
        if not images:
            require_memory((len(files), *image.shape))
        images.append(image)
    if len(broken) > SHOWN:
        _log.warning("%d images can't be read:\n  %s", len(broken), "\n  ".join(broken.values()))
    if broken and not skip_broken:
        raise ValueError(
            f"{len(broken):,} of {len(files):,} images can't be read: {shortened(list(broken.values()))}; "
            "data.skip_broken=true leaves them out"
        )
    _require_one_size(images, [file for number, file in enumerate(files) if number not in broken])
    return _stacked(images), broken


def note(broken: Mapping[int, str], count: int) -> list[str]:
    """Return what the log says about files that are left out, of `count` files."""
    if not broken:
        return []
    return [f"left out {len(broken):,} of {count:,} images, which can't be read: {shortened(list(broken.values()))}"]


def resize(images: Pixels, fit: Fit) -> Pixels:
    """Return decoded images, uint8 (N, 1 or 3, H, W), in their size and colours."""
    if fit.size in (None, images.shape[2]) and fit.size in (None, images.shape[3]) and fit.color == "auto":
        return images
    return _stacked([fit(picture.from_pixels(each)) for each in images])


def require_memory(shape: Sequence[int]) -> None:
    """Raise ConfigError if there is too little memory for images, uint8 of this shape, and for a run's copy of them."""
    count, *size = shape
    needs = {f"{count:,} images of {by(size)}": prod(shape), "their copy in the run's parts": prod(shape)}
    resources.require_memory("cpu", needs, advice="a smaller data.size needs less")


def by(size: Sequence[int]) -> str:
    """Return a size as text: "3 x 28 x 28"."""
    return " x ".join(map(str, size))


def shortened(items: Sequence[str]) -> str:
    """Return the items as text: the first few, and how many more there are."""
    more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _is_gray(image: Pixels) -> bool:
    """Return whether the channels of an image, (C, H, W), are equal."""
    return bool((image == image[:1]).all())


def _decoded(files: Sequence[Encoded], fit: Fit) -> Iterator[Pixels | str]:
    """Yield the images in their order; in the place of one that can't be decoded, what is wrong with it."""
    with warnings.catch_warnings():  # before the processes start, which inherit the filters
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        quiet = not streams.shows_progress()
        with tqdm(total=len(files), desc="decoding", unit="image", leave=False, disable=quiet) as progress:
            for images in fork.parallel(partial(_decode_chunk, fit), list(_chunks(files)), resources.cores()):
                yield from images
                progress.update(len(images))


def _chunks(files: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    chunk: list[Encoded] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += file.size
        if len(chunk) == CHUNK_FILES or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decode_chunk(fit: Fit, files: Sequence[Encoded]) -> list[Pixels | str]:
    return [_decode_one(fit, file.content) for file in files]


def _decode_one(fit: Fit, content: bytes | str) -> Pixels | str:
    try:
        return fit(picture.read(content))
    except ValueError as error:
        return str(error)


def _require_one_size(images: Sequence[Pixels], files: Sequence[Encoded]) -> None:
    """Raise ValueError if images have different heights or widths; `files` are theirs."""
    for image, file in zip(images, files, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            both = ((files[0], images[0]), (file, image))
            sizes = ", ".join(f"{each.name} is {by(pixels.shape[1:])}" for each, pixels in both)
            raise ValueError(f"images have different sizes (height x width): {sizes}; data.size=28 scales them")


def _stacked(images: Sequence[Pixels]) -> Pixels:
    """Return images (C, H, W) as one array (N, C, H, W); grey ones get three channels if another one has colours."""
    if not images:
        return np.empty((0, 0, 0, 0), np.uint8)
    channels = max(len(image) for image in images)
    stacked = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[:] = image
    return stacked
