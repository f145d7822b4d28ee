"""Why experiment=keras_mnist_mlp does not reach the 1.60 % of Keras's own script: the test error with each difference.

    python -m benchmarks.keras [--seeds 10] [--processes 2]

pixels     from 0 to 1 as in Keras, or with mean 0 and standard deviation 1 as here
images     all 60,000 training images as in Keras, or 55,000 as here
epoch      the last one as in Keras, or the one with the best validation as here (with 55,000 images only)

Prints the mean, the standard deviation and the range of the test error over the seeds, for every combination. The test
set is evaluated after each epoch, but nothing is chosen by it.
"""

import argparse
import copy
import statistics
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from benchmarks import figures
from mnist_exp import build, config
from mnist_exp.data.batches import Batches, TrainingBatches
from mnist_exp.training import loop

ROOT = Path(__file__).parents[1]
KERAS, OURS = (0.0, 255.0), None  # the mean and standard deviation of the pixels; None: those of the images


def errors(cfg: DictConfig, pixels: tuple[float, float] | None, images: int) -> dict[str, float]:
    """Train once, and return the test error in percent: of the last epoch, and of the best one in validation.

    Args:
        cfg: The config of the run.
        pixels: The mean and standard deviation for the normalization; None for those of the images.
        images: How many images to train on; more than the training part includes the validation part.
    """
    build.setup_torch(cfg)
    data = build.split(cfg, build.source(cfg), build.device(cfg))
    if pixels:
        scale = copy.copy(data.train.normalize)
        scale._mean, scale._std = pixels  # what it subtracts, and what it divides by
        data.train.normalize = data.val.normalize = data.test.normalize = scale
    train = data.train
    if images > len(train.images):
        both = (torch.cat([train.images, data.val.images]), torch.cat([train.labels, data.val.labels]))
        train = TrainingBatches(
            *both, train.batch_size, train.normalize, train.augment, train.order_rng, train.augment_rng
        )
    model, loss = build.model(cfg, data), build.loss(cfg)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, len(train))
    parts = loop.Training(model, loss, optimizer, schedule, train, data.val)
    rows = []
    for epoch in range(1, cfg.epochs + 1):
        loop.train_epoch(parts, epoch)
        rows.append((accuracy(parts, data.val), accuracy(parts, data.test)))
    best, last = max(rows, key=lambda row: row[0]), rows[-1]  # the first of equal ones
    return {"last": 100 * (1 - last[1])} | ({} if train is not data.train else {"best": 100 * (1 - best[1])})


def accuracy(parts: loop.Training, data: Batches) -> float:
    """Return the accuracy on a part of the data."""
    return loop.evaluate(parts.model, parts.loss, data).accuracy


def main() -> None:
    """Train every combination with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    overrides = ["experiment=keras_mnist_mlp", f"data.root={ROOT / 'data'}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfgs = [compose("config", [*overrides, f"seed={seed}"]) for seed in range(options.seeds)]
    print(f"config {config.config_id(cfgs[0], without=('seed',))} of all seeds")
    print(f"{date.today()}, {options.seeds} seeds each, torch {torch.__version__}")
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        combinations = {
            (pixels, images): [pool.submit(errors, cfg, pixels, images) for cfg in cfgs]
            for pixels, images in product((OURS, KERAS), (55_000, 60_000))
        }
        for (pixels, images), futures in combinations.items():
            found = [future.result() for future in futures]
            for epoch in found[0]:
                percent = [result[epoch] for result in found]
                mean, sd = statistics.fmean(percent), statistics.stdev(percent)
                name = f"pixels {'0 to 1' if pixels else 'standardized':12}  {images:,} images  {epoch} epoch"
                print(f"{name}  {mean:.2f} % ({sd:.2f}; {min(percent):.2f}-{max(percent):.2f})")
                figures.line(f"{name}, mean test error", mean, "%", len(percent), (min(percent), max(percent)), sd=sd)


if __name__ == "__main__":
    main()
