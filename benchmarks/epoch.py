"""The time of one training epoch with validation on the CPU: ours, the usual way, and the bare minimum.

    python -m benchmarks.epoch [--rounds 5] [--colour] [overrides of the run, as for train.py ...]

With --colour, the images are noise of CIFAR-10's size, and the usual ways, which read MNIST's files, are left out.

ours      what train.py does in an epoch
usual     torchvision's per-sample transforms in a DataLoader, with 0 and with 2 workers, of which the faster counts;
          torch as it is installed: its own number of threads, Adam without fused=True, subnormal numbers kept
tuned     the same with our threads, our optimizer, and subnormal numbers flushed: what the loader alone costs
floor     forward, backward and step on batches in memory, as often: no data pipeline, no validation
batches   our batches without the steps: what they cost if no second core prepares them meanwhile
saved     copying the state, and writing and syncing last.pt and best.pt, as after an epoch that is the best so far

Prints the median and the range over the rounds, and ratios, which are taken round by round.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import cast

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmarks import figures
from mnist_exp import build, config
from mnist_exp.data.batches import Split
from mnist_exp.data.images import DataSet, Part
from mnist_exp.store.run_folder import RunState
from mnist_exp.training import checkpoint, loop

ROOT = Path(__file__).parents[1]
DEFAULT_THREADS = torch.get_num_threads()
Loader = DataLoader[tuple[Tensor, Tensor]]
Epoch = Callable[[], None]


class Learner:
    """A new model, and the parts that train it."""

    def __init__(self, cfg: DictConfig, data: Split) -> None:
        """Build the parts."""
        self.model = build.model(cfg, data)
        self.loss = build.loss(cfg)
        self.optimizer = build.optimizer(cfg, self.model)
        self.schedule = build.schedule(cfg, self.optimizer, len(data.train))

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimizer step, and return the loss and the logits (N, classes) before it."""
        logits = self.model(images)
        loss: Tensor = self.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss, logits

    def epoch(self, train: Loader, val: Loader) -> tuple[float, ...]:
        """Train and validate as tutorials do, and sum up losses and hits on training and validation data."""
        sums = [0.0] * 4
        self.model.train()
        for images, labels in train:
            loss, logits = self.step(images, labels)
            sums[0] += loss.item() * len(labels)
            sums[1] += (logits.argmax(dim=1) == labels).sum().item()
        self.model.eval()
        with torch.no_grad():
            for images, labels in val:
                logits = self.model(images)
                sums[2] += self.loss(logits, labels).item() * len(labels)
                sums[3] += (logits.argmax(dim=1) == labels).sum().item()
        return tuple(sums)


def loaders(cfg: DictConfig, data: Split, workers: int) -> tuple[Loader, Loader]:
    """Return loaders of the same number of images, each of which is augmented and normalized by itself."""
    mean, std = (
        [number / 255 for number in numbers] for numbers in (data.train.normalize.mean, data.train.normalize.std)
    )
    normalize = transforms.Normalize(mean, std)
    rotation = transforms.RandomRotation(cfg.augmentation.rotation.degrees)
    crop = transforms.RandomCrop(28, padding=cfg.augmentation.crop.padding)
    augment = transforms.Compose([rotation, crop, transforms.ToTensor(), normalize])
    plain = transforms.Compose([transforms.ToTensor(), normalize])
    train = Subset(datasets.MNIST(cfg.data.root, transform=augment), range(len(data.train.images)))
    val = Subset(datasets.MNIST(cfg.data.root, transform=plain), range(len(data.train.images), 60_000))
    size = cfg.data.batch_size
    return DataLoader(train, size, shuffle=True, num_workers=workers), DataLoader(val, size, num_workers=workers)


@contextmanager
def as_installed() -> Iterator[None]:
    """Use torch without our settings in the block."""
    ours = torch.get_num_threads()
    torch.set_num_threads(DEFAULT_THREADS)
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(ours)
    torch.set_flush_denormal(True)


def noise() -> DataSet:
    """Return a data set of CIFAR-10's size, whose images are noise: their content does not change the time."""
    rng = torch.Generator().manual_seed(0)
    train, test = (
        Part(torch.randint(0, 256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8), torch.arange(n) % 10)
        for n in (50_000, 10_000)
    )
    return DataSet("noise", tuple("0123456789"), train, test, sha256="")


def our_ways(cfg: DictConfig, data: Split, folder: Path) -> dict[str, Epoch]:
    """Return the functions that are timed, by name, but for the usual ways. Checkpoints go into `folder`."""
    learner, floor = Learner(cfg, data), Learner(cfg, data)
    training = loop.Training(learner.model, learner.loss, learner.optimizer, learner.schedule, data.train, data.val)
    checkpoints = checkpoint.Checkpoints(folder, training)
    in_memory = list(data.train[: 100 * cfg.data.batch_size])

    def ours() -> None:
        loop.train_and_validate(training, epoch=1)

    def bare() -> None:
        for number in range(len(data.train)):
            floor.step(*in_memory[number % len(in_memory)])

    def batches() -> None:
        for _ in data.train.chunks():
            pass

    def saved() -> None:
        checkpoints.keep(cast(RunState, {"epoch": 1, "best_epoch": 1, "identity": config.identity(cfg)}))
        checkpoints.write()

    return {"ours": ours, "floor": bare, "batches": batches, "saved": saved}


def usual_ways(cfg: DictConfig, data: Split) -> dict[str, Epoch]:
    """Return the usual ways, by name."""

    def usual(workers: int) -> Epoch:
        learner, (train, val) = Learner(cfg, data), loaders(cfg, data, workers)
        learner.optimizer = torch.optim.Adam(learner.model.parameters(), lr=cfg.optimizer.lr)

        def epoch() -> None:
            with as_installed():
                learner.epoch(train, val)

        return epoch

    def tuned(workers: int) -> Epoch:
        learner, (train, val) = Learner(cfg, data), loaders(cfg, data, workers)

        def epoch() -> None:
            learner.epoch(train, val)

        return epoch

    return {
        "usual, 0 workers": usual(0),
        "usual, 2 workers": usual(2),
        "tuned, 0 workers": tuned(0),
        "tuned, 2 workers": tuned(2),
    }


def main() -> None:
    """Time all ways in turn, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--colour", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["device=cpu", f"data.root={ROOT / 'data'}", *options.overrides])
    print(f"config {config.config_id(cfg)}")
    build.setup_torch(cfg)
    data = build.split(cfg, noise() if options.colour else build.source(cfg), build.device(cfg))
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # not under /tmp, which may be memory
        epochs = our_ways(cfg, data, Path(folder)) | ({} if options.colour else usual_ways(cfg, data))
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        own: dict[str, list[float]] = {name: [] for name in epochs}  # CPU seconds of the thread that trains
        for number in range(options.rounds + 1):
            for name, epoch in epochs.items():
                start, own_start = time.perf_counter(), time.thread_time()
                epoch()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
                    own[name].append(time.thread_time() - own_start)

    for name, values in seconds.items():
        figures.show(name, values, "s", threads=cfg.threads)
        figures.show(name, own[name], "CPU s of the thread that trains", threads=cfg.threads)
    comparisons = [
        ("times the floor", seconds, "ours", "floor"),
        ("times the floor, in CPU seconds of the thread that trains, for a busy machine", own, "ours", "floor"),
        ("of an epoch: batches, if no core prepared them meanwhile", seconds, "batches", "ours"),
        ("of an epoch: checkpoints", seconds, "saved", "ours"),
    ]
    for way, label in (("usual", "times as fast as the usual way"), ("tuned", "times as fast as the usual loader")):
        candidates = [name for name in seconds if name.startswith(way)]
        for name in sorted(candidates, key=lambda name: median(seconds[name]))[:1]:
            comparisons.append((f"{label} ({name})", seconds, name, "ours"))
    for label, times, top, bottom in comparisons:
        ratios = [one / other for one, other in zip(times[top], times[bottom], strict=True)]
        figures.show(label, ratios, "", threads=cfg.threads)


if __name__ == "__main__":
    main()
