"""How well and how fast `predict` reads handwriting on paper.

    python -m benchmarks.predict outputs/... [--pictures 10000] [--processes 2]

Draws the test digits of MNIST, 100 to 400 pixels wide, at random places of white, grey and shaded paper with noise, as
JPEG, and lets a run of `data=mnist` read them: as `predict` prepares them, and with the whole picture scaled to 28 x 28
(`--prepare stretch` of the negative). Prints one JSON line for each kind of paper, with the digits as they are in MNIST
beside it.
"""

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Paper = Literal["white", "grey", "shaded", "black"]
WIDTH, HEIGHT = 640, 480  # pixels of a picture


def picture(digit: NDArray[np.uint8], paper: Paper, rng: np.random.Generator) -> bytes:
    """Return a JPEG of a digit as ink on paper; on black paper, as chalk.

    Args:
        digit: The digit as MNIST has it, uint8 (28, 28).
        paper: Its kind.
        rng: Draws size, place, light, ink, noise and the quality of the JPEG.
    """
    side = int(rng.integers(100, 401))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.zeros((HEIGHT, WIDTH))
    top, left = rng.integers(0, HEIGHT - side + 1), rng.integers(0, WIDTH - side + 1)
    ink[top : top + side, left : left + side] = np.asarray(large) / 255
    light = _light(paper, rng)[..., None]  # (HEIGHT, WIDTH, 1)
    colour = np.full(3, rng.uniform(0.7, 0.9)) if paper == "black" else light * rng.uniform(0.05, 0.45, 3)
    noise = rng.uniform(2, 8) * rng.standard_normal(light.shape, dtype=np.float32)
    pixels = 255 * (light + (colour - light) * ink[..., None]) + noise
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(50, 96)))
    return file.getvalue()


def _light(paper: Paper, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how bright the paper is, (HEIGHT, WIDTH) in 0..1."""
    level = {"white": 1.0, "grey": rng.uniform(0.5, 0.8), "shaded": 0.95, "black": rng.uniform(0.05, 0.25)}[paper]
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5) * (paper == "shaded")
    ramp = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)  # -1 to 1
    return np.asarray(level * (1 - depth * (ramp + 1) / 2) * (1 - depth / 4 * (x**2 + y**2)))


PAPERS: tuple[Paper, ...] = get_args(Paper)
