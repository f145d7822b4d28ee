"""How long sweeps take: ours, ours with a worker a core, and a shell loop over `python train.py`.

python benchmarks/sweep.py [--jobs 16] [--epochs 3] [--rounds 3]

All on the real MNIST, in turn, without the jobs' pictures. The shell loop runs a quarter of the jobs and is scaled, for
each of its jobs takes the same. Then, on digits, what a sweep costs beyond its jobs. Needs the extra `parallel`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TRAIN = [sys.executable, str(Path(__file__).parents[1] / "train.py")]
DATA = f"data.root={Path('data').resolve()}"
SMALL = ["data=digits", "augmentation=none", "model.hidden_layers=[16]", "epochs=1"]
LONG, SHORT = 41, 1  # jobs of the sweeps whose difference is the cost a job


def seconds(*commands: list[str]) -> float:
    """How long the commands take, one after the other, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for command in commands:
            subprocess.run([*TRAIN, *command, "plots=false"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def beyond(count: int) -> float:
    """How much longer a sweep takes than its jobs do, by their own account."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [*TRAIN, "-m", *SMALL, f"seed=range(0,{count})", "hydra.sweep.dir=it"]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        wall = time.perf_counter() - start
        summaries = (json.loads(path.read_text()) for path in Path(folder).glob("it/*/summary.json"))
        return wall - sum(float(summary["seconds"]) for summary in summaries)


def show(name: str, values: list[float], unit: str = "s") -> None:
    """The median and the range."""
    print(f"{name:44} {median(values):8.2f} {unit}  ({min(values):.2f}-{max(values):.2f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    work = [DATA, f"epochs={options.epochs}"]
    sweep = ["-m", *work, f"seed=range(0,{options.jobs})"]
    ways = {
        "sweep": [sweep],
        f"sweep, {workers} workers": [[*sweep, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"]],
        "shell loop": [[*work, f"seed={seed}"] for seed in range(options.jobs // 4)],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    costs = []
    seconds(["epochs=1", DATA])  # the data are there, and the disk is warm
    for _ in range(options.rounds):
        for name, commands in ways.items():
            taken[name].append(seconds(*commands) * (4 if name == "shell loop" else 1))
        costs.append((beyond(LONG) - beyond(SHORT)) / (LONG - SHORT))
    print(f"{options.jobs} jobs of {options.epochs} epochs, {options.rounds} rounds: median and range")
    for name, values in taken.items():
        show(name, values)
    for name, values in taken.items():
        show(
            f"times as fast as {name}",
            [a / b for a, b in zip(values, taken[f"sweep, {workers} workers"], strict=True)],
            "x",
        )
    show("a sweep's own cost a job", costs)


if __name__ == "__main__":
    main()
