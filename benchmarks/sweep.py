"""The time of a sweep: with the basic launcher, with one worker per core, and as a shell loop over `python train.py`.

    python -m benchmarks.sweep [--jobs 16] [--epochs 5] [--rounds 3]

The basic launcher is timed twice: as it is, with a second core that prepares the batches, and on one core, where a job
is one thread. All ways run on the real MNIST, in turn, without figures. The shell loop runs a quarter of the jobs, and
its time is scaled, because all of its jobs take the same time. Last comes the overhead of a sweep per job, on digits.
Needs the extra `parallel`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import figures

TRAIN = [sys.executable, str(Path(__file__).parents[1] / "train.py")]
DATA = f"data.root={Path('data').resolve()}"
SMALL = ["data=digits", "augmentation=none", "model.hidden_layers=[16]", "epochs=1"]
ALL, ON_ONE = os.sched_getaffinity(0), "sweep, on one core"
LONG, SHORT = 41, 1  # jobs of two sweeps, whose difference gives the overhead per job


def seconds(*commands: list[str], cores: set[int] | None = None) -> float:
    """Return how long commands take, one after the other.

    Args:
        commands: The arguments of train.py, in each command. They run in a temporary folder.
        cores: The cores to run on; by default all.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for command in commands:
            subprocess.run(
                [*TRAIN, *command, "plots=false"], cwd=folder, stdout=subprocess.DEVNULL, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores or ALL),
            )  # fmt: skip
        return time.perf_counter() - start


def overhead(count: int) -> float:
    """Return by how many seconds a sweep of `count` jobs takes longer than its jobs, as their summaries say."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [*TRAIN, "-m", *SMALL, f"seed=range(0,{count})", "hydra.sweep.dir=sweep"]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        wall = time.perf_counter() - start
        summaries = (json.loads(path.read_text()) for path in Path(folder).glob("sweep/*/summary.json"))
        return wall - sum(float(summary["seconds"]) for summary in summaries)


def main() -> None:
    """Time all ways, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workers = len(ALL)
    work = [DATA, f"epochs={options.epochs}"]
    sweep = ["-m", *work, f"seed=range(0,{options.jobs})"]
    ways = {
        "sweep": [sweep],
        ON_ONE: [sweep],
        f"sweep, {workers} workers": [[*sweep, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"]],
        "shell loop": [[*work, f"seed={seed}"] for seed in range(options.jobs // 4)],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    overheads: list[float] = []
    seconds(["epochs=1", DATA])  # downloads the data, and warms up the disk
    for _ in range(options.rounds):
        for name, commands in ways.items():
            cores = {min(ALL)} if name == ON_ONE else ALL
            taken[name].append(seconds(*commands, cores=cores) * (4 if name == "shell loop" else 1))
        overheads.append((overhead(LONG) - overhead(SHORT)) / (LONG - SHORT))
    print(f"{options.jobs} jobs of {options.epochs} epochs, {options.rounds} rounds: median and range")
    for name, values in taken.items():
        figures.show(name, values, "s")
    parallel = taken.pop(f"sweep, {workers} workers")
    for name, values in taken.items():
        ratios = [one / other for one, other in zip(values, parallel, strict=True)]
        figures.show(f"{workers} workers, speed-up over: {name}", ratios, "")
    figures.show("overhead of a sweep per job", overheads, "s")


if __name__ == "__main__":
    main()
