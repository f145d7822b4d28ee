"""What a report costs on a large sweep: seconds and memory, by the number of jobs.

    python -m benchmarks.report_scale [--arms 100] [--seeds 1000] [--images 5000] [--rounds 3] [--folder FOLDER]

The sweep is simulated: its folders have the files of real runs but the checkpoints. With `--images`, each run has
predictions for so many validation images and as many test images; 50 files of them are real, and the others are links
to these. Each round is a process of its own. Prints a line of JSON for each figure:

files        seconds to open and read each summary.json, which the ledger spares the others
read         seconds to read the ledger and the results, and to compare the arms
report       seconds to write the whole report
memory       peak of that process in MB
page         MB of report.html
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.sweeps import sweep

from mnist_exp.report import report, results
from mnist_exp.store.ledger import Ledger
from mnist_exp.system import files

BASE = {  # every key of the default config, as a real ledger has it
    "data": "mnist",
    "augmentation": "affine",
    "model": "mlp",
    "activation": "relu",
    "init": "torch",
    "optimizer": "adam",
    "schedule": "constant",
    "loss": "cross_entropy",
    "experiment": None,
    "epochs": 5,
    "patience": None,
    "best_by": "val_loss",
    "device": "auto",
    "threads": 1,
    "matmul_precision": "highest",
    "plots": False,
    "predictions": True,
    "deterministic": True,
    "resume": None,
    "tags": [],
    "data._target_": "mnist_exp.data.sources.mnist",
    "data.root": "data",
    "data.validation": 5000,
    "data.batch_size": 64,
    "data.seed": 0,
    "model._target_": "mnist_exp.models.mlp",
    "model.hidden_layers": [256, 512],
    "model.dropout": 0.0,
    "model.input_dropout": 0.0,
    "model.max_norm": None,
    "activation._target_": "torch.nn.ReLU",
    "optimizer._target_": "torch.optim.Adam",
    "optimizer.lr": 0.001,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-08,
    "loss._target_": "mnist_exp.losses.CrossEntropy",
    "loss.label_smoothing": 0.0,
}
FACTS = {  # the rest of a summary, as long as a real one
    "images_per_second": 14850,
    "device": "cpu",
    "threads": 1,
    "git": {"commit": "4966d72619715cf92ba98935bec1d5367547a5e6", "dirty": False},
    "resumed": [],
    "tags": [],
    "inference": {
        "classes": [str(digit) for digit in range(10)],
        "image_shape": [1, 28, 28],
        "crop": [28, 28],
        "mean": [33.3],
        "std": [78.6],
        "preparation": "frame",
        "config": {"model": {"_target_": "mnist_exp.models.mlp", "hidden_layers": [256, 512], "dropout": 0.0}},
    },
}
DISTINCT = 50  # runs with predictions of their own


def main() -> None:
    """Write a sweep, and measure what its report costs."""
    options = _options()
    if options.part:
        _measure(options.part, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "sweep"
        if not folder.exists():
            write(folder, options.arms, options.seeds, options.images)
        for _ in range(options.rounds):
            for part in ("files", "read", "report"):
                measured = subprocess.run(
                    [sys.executable, "-m", "benchmarks.report_scale", "--part", part, "--folder", str(folder)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.splitlines()[-1]
                size = {"arms": options.arms, "seeds": options.seeds, "images": options.images}
                machine = {"date": str(date.today()), "machine": platform.processor() or platform.machine()}
                print(json.dumps(json.loads(measured) | size | machine | {"cores": os.cpu_count()}), flush=True)


def write(folder: Path, arms: int, seeds: int, images: int | None) -> None:
    """Write a sweep of so many arms, over three keys where that is possible."""
    rates = [round(0.001 * (1 + place / 1000), 6) for place in range(max(1, arms // 10))]
    grid: dict[str, list[Any]] = {"optimizer.lr": rates}
    if arms >= 10:
        grid |= {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "gelu", "silu", "elu"]}
    sweep(folder, grid, range(seeds), images=images, distinct=DISTINCT, base=BASE, facts=FACTS)
    shorten_ledger(folder)


def shorten_ledger(folder: Path) -> None:
    """Write the ledger of a simulated sweep as a real one is: choices that a job shares with the first are left out."""
    path = Ledger(folder).path
    entries = [files.unseal(line) for line in path.read_bytes().splitlines()]
    first = next(entry["choices"] for entry in entries if "choices" in entry)
    for entry in entries:
        if entry.get("job") and "choices" in entry:
            own = {key: value for key, value in entry["choices"].items() if value != first[key]}
            entry |= {"choices": own, "like": 0}
    path.write_text("".join(files.seal_line(entry) + "\n" for entry in entries))


def _measure(part: str, folder: Path) -> None:
    """Print what a part costs this process."""
    parts: dict[str, Callable[[], Any]] = {
        "files": lambda: [
            (folder / name / "summary.json").read_bytes() for name in os.listdir(folder) if name.isdigit()
        ],
        "read": lambda: results.read([folder]),
        "report": lambda: report.write([folder]),
    }
    start, before = time.perf_counter(), time.process_time()
    parts[part]()
    found = {
        "part": part,
        "seconds": round(time.perf_counter() - start, 2),
        "cpu": round(time.process_time() - before, 2),
    }
    found["memory_mb"] = _peak_mb()
    if part == "report":
        found["page_mb"] = round((folder / "report.html").stat().st_size / 1e6, 1)
    print(json.dumps(found))


def _peak_mb() -> int:
    """Return the peak of this process. That of `resource` may be the parent's, which wrote the sweep."""
    table = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(table["VmHWM"].split()[0]) / 1024)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", choices=["files", "read", "report"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
