"""Loading image files: ours, the first time and from the cache, beside torchvision's ImageFolder in a DataLoader.

    python -m benchmarks.loading [--images 20000] [--rounds 5]

Writes PNGs into a temporary folder, then all candidates take turns. A round of a candidate is one pass over all images,
in a process that has imported torch and torchvision already. Prints the seconds for each size of image, and
how many times as fast ours is, round by round.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks import figures
from mnist_exp.data.folder import folder

SIZE = 28  # pixels, to which photos are scaled by all candidates


def write(top: Path, count: int, shape: Sequence[int]) -> None:
    """Write smooth random images in ten classes: they compress as photos do, and not as noise does."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = top / str(number % 10) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, *shape[2:]), dtype=np.uint8))
        coarse.resize((shape[1], shape[0])).save(path)


def ours(top: Path, root: Path) -> None:
    """Load all images; what is below `root` decides whether they are decoded or read from the cache."""
    assert len(folder(str(top), str(root), SIZE, "stretch", "auto", False).train.images)


def theirs(top: Path) -> None:
    """Pass over all images once."""
    prepare = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor()])
    for images, _ in DataLoader(ImageFolder(str(top), prepare), batch_size=64, num_workers=2):
        assert len(images)


def seconds(work: Callable[[], None]) -> float:
    """Return how long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(count: int, shape: Sequence[int], rounds: int) -> None:
    """Print the results for images of one shape."""
    times: dict[str, list[float]] = {"first start": [], "second start": [], "ImageFolder": []}
    with tempfile.TemporaryDirectory() as temporary:
        top, root = Path(temporary, "images"), Path(temporary, "root")
        write(top, count, shape)
        for _ in range(rounds):
            shutil.rmtree(root, ignore_errors=True)
            times["first start"].append(seconds(lambda: ours(top, root)))
            times["second start"].append(seconds(lambda: ours(top, root)))
            times["ImageFolder"].append(seconds(lambda: theirs(top)))
    ratios = {
        f"ImageFolder / {name}": [slow / fast for slow, fast in zip(times["ImageFolder"], times[name], strict=True)]
        for name in ("first start", "second start")
    }
    for name, found in (times | ratios).items():
        figures.show(name, found, "" if "/" in name else "s", images=count, shape=list(shape))


def main() -> None:
    """Measure images of MNIST's size, and photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for shape in ((28, 28), (128, 128, 3)):
        print(f"\nimages of shape {shape}")
        measure(options.images, shape, options.rounds)


if __name__ == "__main__":
    main()
