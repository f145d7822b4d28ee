"""How long sweeps take: ours, ours with a worker a core, and a shell loop over `python train.py`.

python benchmarks/sweep.py [--jobs 16] [--epochs 5] [--rounds 3]

The plain launcher is timed twice: as it is, with the next batches made on a second core, and on one core alone, where a
job is one thread. All on the real MNIST, in turn, without the jobs' pictures. The shell loop runs a quarter of the jobs
and is scaled, for each of its jobs takes the same. Then, on digits, what a sweep costs beyond its jobs. Needs the extra
`parallel`.
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
ALL, ON_ONE = os.sched_getaffinity(0), "sweep, on one core"
LONG, SHORT = 41, 1  # jobs of the sweeps whose difference is the cost a job


def seconds(*commands: list[str], cores: set[int] | None = None) -> float:
    """How long the commands take, one after the other, on these cores or all, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for command in commands:
            subprocess.run(
                [*TRAIN, *command, "plots=false"], cwd=folder, stdout=subprocess.DEVNULL, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores or ALL),
            )  # fmt: skip
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
    costs = []
    seconds(["epochs=1", DATA])  # the data are there, and the disk is warm
    for _ in range(options.rounds):
        for name, commands in ways.items():
            cores = {min(ALL)} if name == ON_ONE else ALL
            taken[name].append(seconds(*commands, cores=cores) * (4 if name == "shell loop" else 1))
        costs.append((beyond(LONG) - beyond(SHORT)) / (LONG - SHORT))
    print(f"{options.jobs} jobs of {options.epochs} epochs, {options.rounds} rounds: median and range")
    for name, values in taken.items():
        show(name, values)
    side_by_side = taken.pop(f"sweep, {workers} workers")
    for name, values in taken.items():
        ratios = [one / other for one, other in zip(values, side_by_side, strict=True)]
        show(f"{workers} workers, times as fast as: {name}", ratios, "x")
    show("a sweep's own cost a job", costs)


if __name__ == "__main__":
    main()
