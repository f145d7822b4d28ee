"""Handwriting found in a picture, and prepared as the digits of MNIST were (LeCun et al. 1998, section III-A).

The figure is what differs from the paper. It becomes light on dark, is scaled to a box with its proportions kept, and
is placed in the image:

1. The picture becomes grey, at most 400 pixels long. (A small figure of a large picture is cut out, and found again.)
2. Paper: a level, a sloping and a curved surface (polynomials of degree 0, 1 and 2 in x and y) are fitted to a copy of
   32 x 32 pixels, ten times, each time to the pixels that lie near the last one. The surface from which ink stands out
   best is the paper's. What differs most from it, up or down by the sum of cubes, is ink, so light ink on dark paper is
   found too.
3. Otsu's threshold (1979) of the difference, smoothed by a Gaussian of 1 pixel, says where ink is. Connected ink of at
   least half the largest part's height, beside it or well above or below it, is another figure; smaller parts near it,
   but for those at the picture's edge, belong to it; others are specks.
4. The difference is scaled: 0 up to a tenth of the ink's level, which is the 90th percentile of the ink's pixels, and
   255 from that level on; once more after step 5, so that the lightest pixel is 255: thin strokes would become pale.
5. The box of the figure is scaled with antialiasing (Lanczos), its longer side to `Placing.side` of the image's shorter
   one: 20 of 28 pixels for MNIST.
6. It is placed by whole pixels, so that its center of mass comes to row H / 2 and column W / 2, counted from 0 as in
   MNIST, or its box to the middle; and so that no pixel of it falls outside.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.float32]
LANCZOS = Image.Resampling.LANCZOS

LONGEST = 400  # pixels of a picture in which a figure is looked for
SURFACES = (1, 3, 6)  # how many terms the surface has: level, sloping, curved
GRID = 32  # rows and columns of the copy that the paper's surface is fitted to
FAINTEST = 10  # of 255: ink that differs less from the paper is none
CLEAREST_NOISE = 5  # standard deviations of the paper: no noise has a part that differs more on average
SPECK = 0.05  # of the largest part's area: a smaller part is a speck
APART = 0.2  # of the largest part's longer side: a broken 5 has parts above each other that are closer
NEAR = 0.5  # of the largest part's longer side: a part that is farther away is a speck


class Placing(NamedTuple):
    """Where a data set has its figures.

    Attributes:
        side: The figure's longer side, as a share of the image's shorter one.
        by_mass: Whether the center of mass is in the middle of the image, or the middle of the figure's box.
    """

    side: float
    by_mass: bool


PLACINGS = {
    "mnist": Placing(20 / 28, by_mass=True),
    "emnist": Placing(24 / 28, by_mass=False),  # Cohen et al. 2017, section II-B
    "frame": Placing(1, by_mass=False),  # the 8 x 8 digits of scikit-learn
}


class Figure(NamedTuple):
    """A prepared figure.

    Attributes:
        pixels: Light on dark, uint8 (H, W).
        figures: How many the picture has. The largest one is prepared.
    """

    pixels: NDArray[np.uint8]
    figures: int


class _Found(NamedTuple):
    """A figure in its picture."""

    ink: Pixels  # its box: 0 for paper, 1 for ink
    box: tuple[float, float, float, float]  # left, top, right and bottom, in shares of the picture's width and height
    figures: int


def prepare(picture: Image.Image, size: tuple[int, int], placing: Placing) -> Figure:
    """Return the largest figure of a picture.

    Args:
        picture: In any mode that Pillow converts to grey.
        size: Height and width of the result.
        placing: Where the figure goes.

    Returns:
        The figure; where there is none, black pixels and 0.
    """
    picture = picture.convert("L")
    found = _find(picture)
    if found and max(picture.size) > LONGEST:
        closer = _find(_cut_out(picture, found.box))
        found = closer._replace(figures=found.figures) if closer else found
    return Figure(_place(found.ink, size, placing), found.figures) if found else Figure(np.zeros(size, np.uint8), 0)


def light_on_dark(image: Image.Image) -> Image.Image:
    """Return an image of mode L or RGB; its negative if most of its outermost pixels are light."""
    gray = np.asarray(image.convert("L"))
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    return ImageOps.invert(image) if np.median(border) > 127 else image


def _find(picture: Image.Image) -> _Found | None:
    """Return the largest figure of a grey picture; None if there is nothing but paper."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    small = picture.copy()
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    ink = _differences(np.asarray(small, np.float32))
    smooth = ndimage.gaussian_filter(ink, 1)
    if _clearness(smooth) < CLEAREST_NOISE:
        return None
    mask = smooth > threshold_otsu(smooth)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    boxes = np.array(
        [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in ndimage.find_objects(labels)]
    )
    parts, count = _largest(boxes, areas, mask.shape)
    level = float(np.percentile(ink[mask], 90))
    others = mask & ~np.isin(labels, 1 + parts)
    ink = np.where(others, 0, (ink / level - 0.1) / 0.9).clip(0, 1)
    (top, left), (bottom, right) = boxes[parts, :2].min(0), boxes[parts, 2:].max(0)
    height, width = ink.shape
    return _Found(ink[top:bottom, left:right], (left / width, top / height, right / width, bottom / height), count)


def _differences(gray: Pixels) -> Pixels:
    """Return how much each pixel differs from the paper, positive for ink, (H, W)."""
    small = np.asarray(Image.fromarray(gray).resize((GRID, GRID), Image.Resampling.BOX))
    terms = _terms(GRID, GRID)
    surfaces = [_surface(small, terms[:count]) for count in SURFACES]
    weights = max(surfaces, key=lambda surface: _clearness(_signed(small - _sum(surface, terms))))
    return _signed(gray - _sum(weights, _terms(*gray.shape)))


def _surface(gray: Pixels, terms: Pixels) -> Pixels:
    """Return the weights of some terms whose sum is near most pixels, (terms,)."""
    values, terms = gray.ravel(), terms.reshape(len(terms), -1)
    near = np.ones(len(values), bool)
    for _ in range(10):
        some = terms[:, near]
        weights = np.linalg.solve(some @ some.T, some @ values[near])
        distance = np.abs(values - weights @ terms)
        near = distance <= max(1.5 * float(np.median(distance)), 1)
    return weights


def _sum(weights: Pixels, terms: Pixels) -> Pixels:
    return np.tensordot(weights, terms[: len(weights)], 1)


def _signed(differences: Pixels) -> Pixels:
    """Return the differences, negated if those below 0 are larger, by the sum of their cubes."""
    return differences * np.float32(np.sign((differences.astype(float) ** 3).sum()))


def _terms(height: int, width: int) -> Pixels:
    """Return 1, x, y, x^2, xy and y^2 of each pixel, x and y from -1 to 1, (6, height, width)."""
    middles = ((2 * np.arange(side, dtype=np.float32) + 1) / side - 1 for side in (height, width))
    y, x = np.meshgrid(*middles, indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _clearness(ink: Pixels) -> float:
    """Return how far the pixels above Otsu's threshold are from the others, in standard deviations of the others."""
    from skimage.filters import threshold_otsu

    mask = ink > threshold_otsu(ink)
    paper = ink[~mask]
    if not mask.any():
        return 0.0
    return float((ink[mask].mean() - paper.mean()) / max(float(paper.std()), FAINTEST / CLEAREST_NOISE))


def _largest(boxes: NDArray[np.int64], areas: NDArray[np.int64], size: tuple[int, ...]) -> tuple[NDArray[np.intp], int]:
    """Return which parts of the ink make up the largest figure, and how many figures there are.

    Args:
        boxes: Top, left, bottom and right of each part, (n, 4).
        areas: The pixels of each part, (n,).
        size: Height and width of the picture. A smaller part at its edge is one of something else, cut off.
    """
    largest = areas.argmax()
    first, last = boxes[:, :2], boxes[:, 2:]
    height, width = last[largest] - first[largest]
    side = max(height, width)
    rows, columns = np.maximum(first - last[largest], first[largest] - last).T  # that lie between; < 0: they overlap
    others = ((last - first)[:, 0] >= height / 2) & ((columns >= 0) | (rows >= APART * side))
    is_whole = (first > 0).all(1) & (last < size).all(1)
    mine = ~others & is_whole & (areas >= SPECK * areas[largest]) & (np.maximum(rows, columns) <= NEAR * side)
    mine[largest] = True
    return mine.nonzero()[0], 1 + int(others.sum())


def _cut_out(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Return a part of the picture, and around it half as much again on each side."""
    left, top, right, bottom = np.multiply(box, [picture.width, picture.height] * 2)
    margin = max(right - left, bottom - top) / 2
    around = np.array([left - margin, top - margin, right + margin, bottom + margin])
    return picture.crop(tuple(around.clip(0, [picture.width, picture.height] * 2).round().astype(int)))


def _place(ink: Pixels, size: tuple[int, int], placing: Placing) -> NDArray[np.uint8]:
    """Return the image, uint8 (H, W), with the ink scaled and placed in it."""
    scale = placing.side * min(size) / max(ink.shape)
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    figure = np.asarray(Image.fromarray((255 * ink).round().astype(np.uint8)).resize((width, height), LANCZOS))
    rows, columns = (figure.sum(axis, dtype=float) for axis in (1, 0))
    top, left = (
        int(np.clip(_first(line, side, placing), 0, side - len(line)))
        for line, side in zip((rows, columns), size, strict=True)
    )
    image = np.zeros(size, np.uint8)
    image[top : top + height, left : left + width] = np.rint(figure * (255 / max(1, figure.max())))
    return image


def _first(ink: NDArray[np.float64], side: int, placing: Placing) -> int:
    """Return where a figure begins along one side, for the ink of its rows or columns."""
    if placing.by_mass and ink.any():
        return round(side / 2 - float(ink @ np.arange(len(ink)) / ink.sum()))
    return (side - len(ink)) // 2
