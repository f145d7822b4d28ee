"""How good is the setting that a search chooses? Random search, TPE and Hyperband, and Optuna by hand.

    python -m benchmarks.search FOLDER [--repetitions 10] [--runs 100] [--seeds 10] [--methods NAME ...] [key=value ...]

Every method tries --runs settings of one space, with one seed each, and validation chooses one of them. It is trained
with --seeds fresh seeds, the same ones for all methods and repetitions. Its regret is the mean validation accuracy that
the best of all chosen settings has with the fresh seeds, minus its own. `by hand` is benchmarks/by_hand.py, one run
after the other; the others are sweeps with hydra/launcher=fused, whose time includes their start, checks and report,
one run of the default and one of the best setting.

FOLDER/results.jsonl has a line for each search. Those that are there are not repeated, so that a benchmark that was
stopped goes on. Prints the means, with 95 % bootstrap intervals over the repetitions.

Needs the extra `search`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stdout
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy.stats import bootstrap
from tqdm import tqdm

import mnist_exp

ROOT = Path(__file__).parents[1]
SPACE = {  # benchmarks/by_hand.py has the same
    "optimizer.lr": "tag(log,interval(1e-4,1e-1))",
    "optimizer.weight_decay": "tag(log,interval(1e-6,1e-2))",
    "model.dropout": "interval(0,0.5)",
    "model.hidden_layers": "choice([32],[64],[64,32])",
}
SWEEPS: dict[str, tuple[str, list[str]]] = {  # the sampler, and further options of hydra.sweeper
    "random": ("random", []),
    "tpe": ("tpe", []),
    "tpe + hyperband": ("tpe", ["prune=hyperband"]),
}
BY_HAND = "by hand"
LEAN = ["plots=false", "predictions=false"]


def run(*command: str) -> str:
    """Run a module or a script of this project in the current folder, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def by_hand(number: int, runs: int, overrides: Sequence[str]) -> list[str]:
    """Return the setting that a search by hand chooses."""
    printed = run("-m", "benchmarks.by_hand", str(number), str(runs), *overrides, *LEAN, f"seed={1000 + number}")
    setting: list[str] = json.loads(printed.splitlines()[-1])
    return setting


def by_sweep(sampler: str, further: Sequence[str]) -> Callable[[int, int, Sequence[str]], list[str]]:
    """Return the function that searches by a sweep."""

    def search(number: int, runs: int, overrides: Sequence[str]) -> list[str]:
        space = [f"{key}={values}" for key, values in SPACE.items()]
        seeds = [f"search={{sampler:{sampler},seed:{number}}}", f"trial_seeds=[{1000 + number}]"]
        options = [*seeds, f"trials={runs}", "finalists=1", *further]
        keys = [f"hydra.sweeper.{option}" for option in options]
        places = ["hydra/launcher=fused", "hydra.launcher.keep=none", "hydra.sweep.dir=sweep"]
        run(str(ROOT / "train.py"), "-m", *overrides, *space, *keys, *places, *LEAN)
        rows = [row for row in as_rows(mnist_exp.results("sweep/search")) if row["status"] == "completed"]
        best = max(rows, key=lambda row: float(row["val_accuracy"]))
        config = OmegaConf.load(Path(best["folder"], ".hydra", "config.yaml"))
        return [f"{key}={OmegaConf.select(config, key)}" for key in SPACE]

    return search


def as_rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of mnist_exp.results, whether pandas is installed or not."""
    return table if isinstance(table, list) else list(table.to_dict("records"))


METHODS = {**{name: by_sweep(*words) for name, words in SWEEPS.items()}, BY_HAND: by_hand}


def searched(method: str, number: int, runs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Search once, and return the chosen setting and what it cost, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    setting = METHODS[method](number, runs, overrides)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    epochs = sum(len(path.read_text().splitlines()) - 1 for path in Path().rglob("metrics.csv"))
    return {"setting": setting, "wall": wall, "cpu": cpu, "epochs": epochs}


def judged(setting: Sequence[str], seeds: int, overrides: Sequence[str]) -> dict[str, list[float]]:
    """Return the accuracies that a setting reaches with fresh seeds; 0 where it diverges."""
    found: dict[str, list[float]] = {"validation": [], "test": []}
    for seed in range(seeds):
        try:
            summary: dict[str, Any] = {**mnist_exp.train(*overrides, *setting, *LEAN, f"seed={seed}").summary}
        except FloatingPointError:
            summary = {"best_val_accuracy": 0.0, "test_accuracy": 0.0}
        found["validation"].append(summary["best_val_accuracy"])
        found["test"].append(summary["test_accuracy"])
    return found


def measure(method: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the line of a search, and of its judges."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, chdir(folder):
        search = searched(method, number, options.runs, options.overrides)
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            judges = judged(search["setting"], options.seeds, options.overrides)
    what = {"runs": options.runs, "overrides": options.overrides, "date": str(date.today())}
    return {"method": method, "repetition": number, **search, **judges, **what}


def interval(values: Sequence[float]) -> str:
    """Return the mean and its bootstrap interval as text."""
    mean = f"{fmean(values):.2f}"
    if len(set(values)) < 2:
        return mean
    ends = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return f"{mean} ({ends.low:.2f} to {ends.high:.2f})"


def show(lines: Sequence[dict[str, Any]]) -> None:
    """Print the means of each method."""
    best = max(fmean(line["validation"]) for line in lines)
    print("| method | n | regret (points) | test accuracy (%) | CPU (s) | wall (s) | epochs |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [line for line in lines if line["method"] == method]
        columns = [
            [100 * (best - fmean(line["validation"])) for line in own],
            [100 * fmean(line["test"]) for line in own],
            *([line[key] for line in own] for key in ("cpu", "wall", "epochs")),
        ]
        print(f"| {method} | {len(own)} | {' | '.join(map(interval, columns))} |")


def main() -> None:
    """Run the searches that are not there yet, repetition by repetition, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_intermixed_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "results.jsonl"
    path.touch()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    done = {(line["method"], line["repetition"]) for line in lines}
    wanted = [(method, number) for number in range(options.repetitions) for method in options.methods]
    for method, number in tqdm([pair for pair in wanted if pair not in done], unit="search", disable=None):
        lines.append(measure(method, number, options))
        with open(path, "a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    show(lines)


if __name__ == "__main__":
    main()
