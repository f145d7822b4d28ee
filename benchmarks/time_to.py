"""Seconds to 98 % and to 99 % on MNIST's test set: recipes that reach it in the mean, timed over many seeds.

    python benchmarks/time_to.py [RECIPE ...] [--seeds 20] [overrides of the run, key=value, as for train.py ...]

A recipe is an experiment of conf/ whose settings, epochs included, validation has chosen beforehand, with other seeds.
Each seed is a process of its own, one after the other: python train.py experiment=RECIPE seed=N plots=false. The test
set is read once a run, at its end. A recipe counts where its mean over the seeds reaches the mark.

training   the epochs' seconds in metrics.csv, added up: all that is done to train and to validate
command    the whole of it, from Python's start to its end: imports, data (which is on the disk), checkpoints, test

Prints both as median and range over the seeds, and every seed's test accuracy.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
MARKS = {"mlp_98": 0.98, "mlp_99": 0.99, "lenet_98": 0.98, "lenet_99": 0.99}


class Timed(NamedTuple):
    """One run; times in seconds."""

    accuracy: float  # of the test set
    training: float
    command: float


def timed(recipe: str, seed: int, overrides: list[str]) -> Timed:
    """Train a recipe once. Raises CalledProcessError when the run fails."""
    with tempfile.TemporaryDirectory(dir=ROOT) as parent:  # not under /tmp, which may be memory
        folder = Path(parent) / "run"
        words = [f"experiment={recipe}", f"seed={seed}", "plots=false", f"data.root={ROOT / 'data'}", *overrides]
        command = [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={folder}"]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        summary = json.loads((folder / "summary.json").read_text())
        with open(folder / "metrics.csv", newline="") as file:
            training = sum(float(row["seconds"]) for row in csv.DictReader(file))
    return Timed(summary["test_accuracy"], training, whole)


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def main() -> None:
    """Time the recipes, seed by seed in turn, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    overrides = [word for word in options.words if "=" in word]
    recipes = [word for word in options.words if "=" not in word] or list(MARKS)
    runs = dict[str, list[Timed]]()
    for seed in tqdm(range(options.seeds), unit="seed", disable=None):
        for recipe in recipes:
            runs.setdefault(recipe, []).append(timed(recipe, seed, overrides))

    print(f"{date.today()}, {os.cpu_count()} cores, torch {torch.__version__}, {options.seeds} seeds each")
    for recipe, done in runs.items():
        found, mark = [run.accuracy for run in done], MARKS[recipe]
        mean, reached = statistics.fmean(found), sum(accuracy >= mark for accuracy in found)
        print(f"\n{recipe}: {mean:.2%} in the mean, {'which reaches' if mean >= mark else 'SHORT OF'} {mark:.0%}")
        print(f"  {reached} of {len(found)} seeds reach it; standard deviation {100 * statistics.stdev(found):.2f} pp")
        print(f"  training {spread([run.training for run in done])}, command {spread([run.command for run in done])}")
        print(f"  {' '.join(f'{100 * accuracy:.2f}' for accuracy in sorted(found))}")


if __name__ == "__main__":
    main()
