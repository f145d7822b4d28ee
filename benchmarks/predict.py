"""How well `predict` reads handwriting on paper.

    python -m benchmarks.predict outputs/... [--pictures 10000]

Draws the test digits of MNIST, 100 to 400 pixels wide, at random places of white, grey, shaded and black paper with
noise, as JPEG, and lets a run of `data=mnist` read them: as `predict` prepares them, and with the whole picture scaled
to 28 x 28 (negated where the paper is light). For each kind of paper, it prints a line of JSON for each figure: the
accuracies, and that of the same digits as they are in MNIST; what is lost to it, with its 95 % interval (Wald's, for
paired proportions); the pictures in which no figure or more than one was found; and the median CPU time of a picture.
"""

import argparse
import io
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks import figures
from mnist_exp import build
from mnist_exp.use import trained_run
from mnist_exp.use.prepare import Preparation, Prepared
from mnist_exp.use.trained_run import TrainedRun

Digit = NDArray[np.uint8]
Paper = Literal["white", "grey", "shaded", "black"]
WIDTH, HEIGHT = 640, 480  # pixels of a picture


def picture(digit: Digit, paper: Paper, rng: np.random.Generator) -> bytes:
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


class Read(NamedTuple):
    """A picture as `predict` shows it to the model, and shrunk; and the seconds that the first took."""

    prepared: Prepared
    shrunk: Prepared
    seconds: float


def read(digit: Digit, paper: Paper, seed: int) -> Read:
    """Draw a picture of a digit, and prepare it."""
    image = Image.open(io.BytesIO(picture(digit, paper, np.random.default_rng(seed))))
    start = time.process_time()
    prepared = Preparation("mnist", (1, 28, 28))(image.convert("RGB"))
    seconds = time.process_time() - start
    shrunk = image if paper == "black" else ImageOps.invert(image)
    return Read(prepared, Preparation("pad", (1, 28, 28))(shrunk), seconds)


def measure(run: TrainedRun, digits: Digit, labels: Digit, paper: Paper, processes: int = 1) -> dict[str, Any]:
    """Return the accuracies on pictures of digits.

    Args:
        run: A run of MNIST.
        digits: uint8 (N, 28, 28).
        labels: Their classes, (N,).
        paper: What they are written on.
        processes: How many draw and prepare the pictures.
    """
    work = digits, repeat(paper), range(len(digits))
    if processes > 1:
        with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
            found = list(pool.map(read, *work, chunksize=50))
    else:
        found = list(map(read, *work))
    originals = [Prepared(digit[None]) for digit in digits]
    plain, ours, shrunk = (
        np.array([prediction.class_name for prediction in run.predict_prepared(prepared)]) == labels.astype(str)
        for prepared in (originals, [each.prepared for each in found], [each.shrunk for each in found])
    )
    loss = plain.astype(int) - ours
    figures = np.array([each.prepared.figures for each in found])
    return {
        "paper": paper,
        "pictures": len(digits),
        "originals": plain.mean(),
        "predict": ours.mean(),
        "lost": loss.mean(),
        "lost_95": 1.96 * loss.std() / np.sqrt(len(loss)),
        "shrunk": shrunk.mean(),
        "none": int((figures == 0).sum()),
        "several": int((figures > 1).sum()),
        "cpu_ms": 1000 * float(np.median([each.seconds for each in found])),
    }


def main() -> None:
    """Measure with each paper, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    run = trained_run.load(options.run)
    images, labels = (tensor[: options.pictures].numpy() for tensor in build.source(run.config).test)
    for paper in PAPERS:
        found = measure(run, images[:, 0], labels, paper, options.processes)
        for name in ("originals", "predict", "lost", "lost_95", "shrunk", "none", "several", "cpu_ms"):
            unit = {"none": "count", "several": "count", "cpu_ms": "ms"}.get(name, "")
            figures.line(f"{paper}: {name}", found[name], unit, found["pictures"])


if __name__ == "__main__":
    main()
