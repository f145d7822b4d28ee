"""Seconds to 98 % and 99 % test accuracy on MNIST: recipes that reach it on average, timed over many seeds.

    python -m benchmarks.time_to [RECIPE ...] [--seeds 20] [overrides of the run, key=value, as for train.py ...]

A recipe is an experiment of conf/. Its settings, epochs included, were chosen by validation, with other seeds. Each
seed is one command, one after the other: python train.py experiment=RECIPE seed=N plots=false. The test set is
evaluated once per run, at its end. A recipe counts if its mean over the seeds reaches the mark.

training   the sum of the epochs' seconds in metrics.csv: training and validation
command    the whole command: Python's start and end, imports, data (from the disk), checkpoints, test

Prints the median and the range of both over the seeds, and the test accuracy of every seed.
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

from benchmarks import figures

ROOT = Path(__file__).parents[1]
MARKS = {"mlp_98": 0.98, "mlp_99": 0.99, "lenet_98": 0.98, "lenet_99": 0.99}


class Timed(NamedTuple):
    """The result of one run; times in seconds."""

    accuracy: float  # of the test set
    training: float
    command: float


def timed(recipe: str, seed: int, overrides: list[str]) -> Timed:
    """Train a recipe once.

    Raises:
        CalledProcessError: The run fails.
    """
    with tempfile.TemporaryDirectory(dir=ROOT) as parent:  # not under /tmp, which may be memory
        folder = Path(parent) / "run"
        arguments = [f"experiment={recipe}", f"seed={seed}", "plots=false", f"data.root={ROOT / 'data'}", *overrides]
        command = [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.run.dir={folder}"]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        summary = json.loads((folder / "summary.json").read_text())
        with open(folder / "metrics.csv", newline="") as file:
            training = sum(float(row["seconds"]) for row in csv.DictReader(file))
    return Timed(summary["test_accuracy"], training, whole)


def main() -> None:
    """Time the recipes in turn, seed by seed, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("arguments", nargs="*", metavar="RECIPE | key=value")
    options = parser.parse_intermixed_args()
    overrides = [argument for argument in options.arguments if "=" in argument]
    recipes = [argument for argument in options.arguments if "=" not in argument] or list(MARKS)
    runs: dict[str, list[Timed]] = {}
    for seed in tqdm(range(options.seeds), unit="seed", disable=None):
        for recipe in recipes:
            runs.setdefault(recipe, []).append(timed(recipe, seed, overrides))

    print(f"{date.today()}, {os.cpu_count()} cores, torch {torch.__version__}, {options.seeds} seeds each")
    for recipe, timed_runs in runs.items():
        found, mark = [run.accuracy for run in timed_runs], MARKS[recipe]
        mean, reached = statistics.fmean(found), sum(accuracy >= mark for accuracy in found)
        print(f"\n{recipe}: {mean:.2%} on average, {'which reaches' if mean >= mark else 'BELOW'} {mark:.0%}")
        print(f"  {reached} of {len(found)} seeds reach it; standard deviation {100 * statistics.stdev(found):.2f} pp")
        figures.show(f"{recipe}: training", [run.training for run in timed_runs], "s")
        figures.show(f"{recipe}: the command", [run.command for run in timed_runs], "s")
        figures.line(f"{recipe}: test accuracy, mean", mean, "", len(found), (min(found), max(found)), reached=reached)
        print(f"  {' '.join(f'{100 * accuracy:.2f}' for accuracy in sorted(found))}")


if __name__ == "__main__":
    main()
