"""A contact sheet: what a network was shown, and what it answered."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from mnist_exp.data import picture
from mnist_exp.data.picture import Pixels
from mnist_exp.system import files, quoting
from mnist_exp.system.errors import ConfigError

MOST = 400  # tiles of a sheet
COLUMNS, SIDE, GAP, TEXT = 8, 140, 12, 13  # SIDE, GAP and TEXT, the height of letters, in pixels
CAPTION = 2 * (TEXT + 5)
PAPER, INK, FAINT = "white", "black", "#666666"


class Tile(NamedTuple):
    """An image, uint8 (C, H, W), and the two lines below it."""

    image: Pixels
    name: str
    answer: str


def write(tiles: Sequence[Tile], path: Path) -> None:
    """Write the images, enlarged without smoothing, in rows, each above its name and the answer.

    Raises:
        ConfigError: As `file_format`, or there is no tile.
        OSError: The file can't be written.
    """
    if not tiles:
        raise ConfigError(f"{path}: there is nothing to show")
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + rows * (SIDE + CAPTION + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for number, tile in enumerate(tiles):
        left = GAP + number % columns * (SIDE + GAP)
        top = GAP + number // columns * (SIDE + CAPTION + GAP)
        image = _enlarged(tile.image)
        sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        for line, (text, color) in enumerate(((tile.name, FAINT), (tile.answer, INK))):
            draw.text((left, top + SIDE + 3 + line * (TEXT + 4)), _shortened(text, font), color, font)
    content = io.BytesIO()
    sheet.save(content, file_format(path))
    files.write(path, content.getbuffer())


def file_format(path: Path) -> str:
    """Return Pillow's name of the format that a file's ending stands for.

    Raises:
        ConfigError: Pillow writes no such format.
    """
    ending, formats = path.suffix.lower(), Image.registered_extensions()
    if formats.get(ending) not in Image.SAVE:
        raise ConfigError(f"{path}: Pillow writes no picture with this ending; .png is one")
    return formats[ending]


def _enlarged(pixels: Pixels) -> Image.Image:
    """Return an image in a square of SIDE pixels, a whole number of times as large where it fits."""
    image = picture.from_pixels(pixels)
    times = SIDE / max(image.size)
    times = math.floor(times) if times >= 1 else times
    return image.resize(
        (max(1, round(times * image.width)), max(1, round(times * image.height))), Image.Resampling.NEAREST
    )


def _font() -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings along: Pillow's own font has no letters but those of ASCII."""
    import matplotlib  # slow

    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), TEXT)


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Return the text, cut in its middle where it is wider than a tile."""
    shown = text = quoting.shown(text)
    while font.getlength(shown) > SIDE and len(text) > 2:
        half = (len(text) - 1) // 2
        text = text[:half] + text[len(text) - half :]
        shown = f"{text[:half]}...{text[half:]}"
    return shown
