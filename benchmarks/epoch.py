"""One training epoch with validation, ours beside the usual way and beside the bare floor, in turn, in one run.

    python benchmarks/epoch.py [--rounds 5] [--threads 1] [overrides of the run, as for train.py ...]

- ours: what train.py does in an epoch.
- usual: the same model, optimizer and steps, fed by torchvision's per-sample transforms through a DataLoader, with 0
  and with 2 workers; the better counts.
- floor: forward, backward and step on batches that lie ready in memory, as often; no data, no validation.
- batches: ours without the steps, which says what batching and augmentation cost when nothing hides them.

Prints the median and the range of each over the rounds, and the ratios, taken round by round.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from mnist_exp import build, config, loop
from mnist_exp.data.batches import Split

ROOT = Path(__file__).parents[1]


class Usual:
    """The split's images from torchvision's data set, a transform at a time, through a DataLoader."""

    def __init__(self, data: Split, root: str, batch_size: int, workers: int, degrees: float, padding: int) -> None:
        normalize = transforms.Normalize(data.train.normalize.mean / 255, data.train.normalize.std / 255)
        turn, cut = transforms.RandomRotation(degrees), transforms.RandomCrop(28, padding=padding)
        augment = transforms.Compose([turn, cut, transforms.ToTensor(), normalize])
        plain = transforms.Compose([transforms.ToTensor(), normalize])
        train, val = range(len(data.train.images)), range(len(data.train.images), 60_000)
        learn = Subset(datasets.MNIST(root, transform=augment), train)
        choose = Subset(datasets.MNIST(root, transform=plain), val)
        self.train = DataLoader(learn, batch_size, shuffle=True, num_workers=workers)
        self.val = DataLoader(choose, batch_size, num_workers=workers)


class Parts:
    """A fresh model with all that trains it."""

    def __init__(self, cfg: DictConfig, data: Split) -> None:
        self.model = build.model(cfg, data, num_classes=10)
        self.loss = build.loss(cfg)
        self.optimizer = build.optimizer(cfg, self.model)
        self.schedule = build.schedule(cfg, self.optimizer, len(data.train))

    def steps(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.model.train()
        for images, labels in batches:
            loss = self.loss(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def validate(self, batches: DataLoader[tuple[Tensor, Tensor]]) -> None:
        self.model.eval()
        with torch.inference_mode():
            for images, labels in batches:
                logits = self.model(images)
                self.loss(logits, labels).item()
                (logits.argmax(dim=1) == labels).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["device=cpu", f"data.root={ROOT / 'data'}", *options.overrides])
    print(f"config {config.config_id(cfg)}")
    device = build.device(cfg)
    data = build.split(cfg, build.source(cfg), device)
    parts = {name: Parts(cfg, data) for name in ("ours", "usual, 0 workers", "usual, 2 workers", "floor")}
    ready = list(data.train[: 100 * cfg.data.batch_size])

    def usual(workers: int) -> Callable[[], None]:
        rotation, crop = cfg.augmentation.rotation, cfg.augmentation.crop
        loaders = Usual(data, cfg.data.root, cfg.data.batch_size, workers, rotation.degrees, crop.padding)
        part = parts[f"usual, {workers} workers"]

        def epoch() -> None:
            part.steps(iter(loaders.train))
            part.validate(loaders.val)

        return epoch

    def ours() -> None:
        part = parts["ours"]
        next(loop.fit(part.model, part.loss, part.optimizer, part.schedule, data.train, data.val, range(1, 2)))

    def batches() -> None:
        for _ in data.train._chunks():
            pass

    contestants = {
        "ours": ours,
        "usual, 0 workers": usual(0),
        "usual, 2 workers": usual(2),
        "floor": lambda: parts["floor"].steps(ready[step % 100] for step in range(len(data.train))),
        "batches": batches,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(options.rounds + 1):
        for name, epoch in contestants.items():
            start = time.perf_counter()
            epoch()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)

    print(f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
    for name, values in seconds.items():
        print(
            f"{name:18} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f}, n={len(values)})"
        )
    better = min(
        (name for name in seconds if name.startswith("usual")), key=lambda name: statistics.median(seconds[name])
    )
    for title, top, bottom in (
        (f"times as fast as the usual way ({better})", better, "ours"),
        ("times the floor", "ours", "floor"),
        ("share of an epoch that batches would take", "batches", "ours"),
    ):
        ratios = [one / other for one, other in zip(seconds[top], seconds[bottom], strict=True)]
        print(f"{statistics.median(ratios):6.2f} {title}   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
