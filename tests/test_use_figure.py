"""Handwriting is found on paper of any kind, and placed as MNIST's digits are."""

import io
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from mnist_exp.use import figure
from mnist_exp.use.figure import PLACINGS, Figure

MNIST = PLACINGS["mnist"]


def seven(width: int = 640, height: int = 480, left: int = 200, top: int = 100, side: int = 200) -> NDArray[np.float64]:
    """Where a 7 has ink, from 0 to 1."""
    page = Image.new("L", (width, height))
    x, y, s = left, top, side
    line = [(x, y + s // 20), (x + s * 2 // 3, y + s // 20), (x + s // 4, y + s)]
    ImageDraw.Draw(page).line(line, 255, s // 10)
    return np.asarray(page) / 255


def photo(ink: NDArray[np.float64], paper: NDArray[np.float64] | float = 240, color: float = 0.3) -> Image.Image:
    """Ink on paper, with noise, as JPEG. `color` is the ink's lightness, as a share of the paper's."""
    noise = np.random.default_rng(0).normal(0, 4, ink.shape)
    pixels = paper * (1 - (1 - color) * ink) + noise
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=70)
    return Image.open(file)


def prepare(picture: Image.Image) -> Figure:
    return figure.prepare(picture, (28, 28), MNIST)


def shaded(depth: float = 0.5) -> NDArray[np.float64]:
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    return np.asarray(230 * (1 - depth * (x + 1) / 2) * (1 - depth / 4 * (x**2 + y**2)))


def box(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of what is not black."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


CLEAN = prepare(Image.fromarray((255 * seven()).astype(np.uint8))).pixels


def test_the_figure_fills_20_pixels_and_its_mass_is_in_the_middle() -> None:
    assert CLEAN.shape == (28, 28)
    assert CLEAN.dtype == np.uint8
    assert max(box(CLEAN)) == 20
    assert CLEAN.max() == 255
    assert ndimage.center_of_mass(CLEAN) == pytest.approx((14, 14), abs=0.5)  # as in MNIST's training images


@pytest.mark.parametrize(
    "picture",
    [
        photo(seven()),
        photo(seven(), paper=110),
        photo(seven(), paper=230, color=0.85),
        photo(seven(), paper=shaded()),
        photo(seven(), paper=40, color=5),
        photo(seven(left=20, top=5)),
        photo(seven(left=500, top=270)),
        photo(seven(1600, 1200, 1300, 900)),
        photo(seven(160, 220, 10, 10)),
        photo(seven()).resize((300, 225), Image.Resampling.BICUBIC),
    ],
    ids=["white", "grey", "pencil", "shaded", "chalk", "corner", "edge", "large", "tight", "small"],
)
def test_paper_light_and_place_do_not_matter(picture: Image.Image) -> None:
    found = prepare(picture)
    assert found.figures == 1
    assert distance(found.pixels, CLEAN) < 4


def distance(pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """The mean difference, after the shift by a pixel that a center of mass near the middle of two may cause."""
    shifted = (np.roll(pixels.astype(int), step, (0, 1)) for step in product((-1, 0, 1), repeat=2))
    return min(float(np.abs(each - others).mean()) for each in shifted)


def test_thin_strokes_are_as_light_as_thick_ones() -> None:
    page = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(page).line([(100, 100), (300, 100), (180, 320)], 0, 3)
    assert prepare(page).pixels.max() == 255


def test_color_does_not_matter() -> None:
    page = np.full((480, 640, 3), 250.0)
    page -= seven()[..., None] * [230, 180, 60]
    assert prepare(Image.fromarray(page.astype(np.uint8))).figures == 1


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (28, 28), (20, 32)])
def test_the_frame_is_filled_where_a_data_set_fills_it(size: tuple[int, int]) -> None:
    found = figure.prepare(photo(seven()), size, PLACINGS["frame"])
    assert found.pixels.shape == size
    assert max(box(found.pixels)) == min(size)


def test_emnist_leaves_2_pixels_around_the_box() -> None:
    pixels = figure.prepare(photo(seven()), (28, 28), PLACINGS["emnist"]).pixels
    assert max(box(pixels)) == 24
    rows = np.flatnonzero(pixels.any(1))
    assert (rows[0], rows[-1]) == (2, 25)


@pytest.mark.parametrize(
    "paper",
    [np.full((480, 640), 255.0), np.zeros((480, 640)), np.full((480, 640), 128.0), shaded(), np.full((1, 1), 9.0)],
    ids=["white", "black", "grey", "shaded", "pixel"],
)
def test_an_empty_page_has_no_figure(paper: NDArray[np.float64]) -> None:
    plain = Image.fromarray(paper.astype(np.uint8))
    for picture in (plain, photo(np.zeros(paper.shape), paper)):
        found = prepare(picture)
        assert found.figures == 0
        assert not found.pixels.any()


def test_several_figures_are_counted_and_the_largest_is_prepared() -> None:
    both = seven() + seven(left=400, top=130, side=160)
    found = prepare(photo(both))
    assert found.figures == 2
    assert distance(found.pixels, CLEAN) < 4
    above = seven(480, 640, 100, 50) + seven(480, 640, 100, 330)
    assert prepare(photo(above)).figures == 2


def test_a_broken_figure_and_specks_are_one() -> None:
    broken = seven()
    broken[150:156] = 0
    broken[400:404, 30:34] = 1
    found = prepare(photo(broken))
    assert found.figures == 1
    assert distance(found.pixels, CLEAN) < 4
