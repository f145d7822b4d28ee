"""Sweep folders that no training wrote, for the tests of the report and for a look at one.

python tests/helpers/sweeps.py FOLDER [images | small | large | failed | lost | one_seed | two_seeds]
"""

import csv
import hashlib
import itertools
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mnist_exp.report.runs import recorded
from mnist_exp.store import predictions
from mnist_exp.store.ledger import PROGRAM, VERSION, Ledger
from mnist_exp.store.metrics import COLUMNS, METRICS
from mnist_exp.store.predictions import Predictions, RunPredictions
from mnist_exp.store.run_folder import ADDED, PREDICTIONS, Summary
from mnist_exp.system import files

HOSTILE = "</script><img src=x onerror=document.title='pwned'>|`\"'&{{data}}"  # HTML, Markdown and a template
BASE = {"data": "mnist", "model": "mlp", "activation": "relu", "optimizer": "adam", "optimizer.lr": 0.001, "epochs": 5}
VERSIONS = {"python": "3.11.7", "mnist_exp": "0.1.0+1a2b3c4d", "torch": "2.14.1"}
GOOD = {"adam": 0.9800, "sgd": 0.9600, "rmsprop": 0.9780, "nadam": 0.9795}  # of a choice, where it matters


def sweep(
    folder: Path,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] = range(5),
    spoiled: Mapping[int, str] | None = None,
    epochs: int = 5,
    spread: float = 0.0008,
    versions: Mapping[str, str] = VERSIONS,
    images: int | None = None,
    distinct: int | None = None,
    base: Mapping[str, Any] = BASE,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder of a sweep over `grid` and `seeds`; `spoiled` gives the status of jobs that did not complete.

    With `images`, each completed run has predictions for so many validation and so many test images. With `distinct`,
    only so many runs have predictions of their own: the others share the files of these, and what they reached.

    `base` has the choices that are not swept, and `facts` are added to the summary of each run.

    A job that is "failed" diverged; one that is "killed" was ended from outside, and has the status failed too.
    """
    folder.mkdir(parents=True)
    ledger, chance = [], random.Random(0)
    choices = [f"{key}={','.join(map(str, values))}" for key, values in grid.items()]
    command = " ".join(["python train.py -m", *choices, f"seed={','.join(map(str, seeds))}"])
    ledger.append({"program": PROGRAM, "ledger": VERSION, "command": command, "versions": dict(versions), "git": None})
    points = list(itertools.product(*grid.values(), seeds))
    for number, (*values, seed) in enumerate(points):
        point, ids = dict(zip(grid, values, strict=True)), _ids(grid, values, seed)
        overrides = [*(f"{key}={value}" for key, value in point.items()), f"seed={seed}"]
        more = {"overrides": overrides, "config_id": ids[0], "arm": ids[1], "seed": seed}
        ledger.append({"job": number, "status": "pending", "choices": {**base, **point, "seed": seed}, **more})
    for number, (*values, seed) in enumerate(points):
        fate = (spoiled or {}).get(number, "completed")
        status = "failed" if fate == "killed" else fate
        if status == "pending":
            continue
        ledger.append({"job": number, "status": "running", "pid": 1})
        if status == "running":
            continue
        job, ids = folder / str(number), _ids(grid, values, seed)
        job.mkdir()
        best = min(1.0, fmean([GOOD.get(value, 0.98) for value in values] or [0.98]) + chance.gauss(0, spread))
        rows = [_row(epoch, epochs, best, chance) for epoch in range(1, epochs + 1)]
        if status != "completed":
            rows = rows[:2]
        lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
        (job / METRICS).write_text("\n".join(lines) + "\n")
        summary = dict.fromkeys((*Summary.__annotations__, *ADDED)) | {
            "status": status,
            "config_id": ids[0],
            "seed": seed,
        }
        summary |= {
            "versions": dict(versions),
            "files": {METRICS: files.sha256(job / METRICS)},
            "data": {"name": "MNIST", "sha256": "abc"},
            "parameters": 337674,
            "seconds": 8.1,
            "epochs": len(rows),
        }
        end: dict[str, Any] = {"job": number, "status": status}
        if status == "completed":
            errors = max(0, round(10_000 * (1 - best + chance.gauss(0, spread))))
            summary |= {"best_epoch": epochs, "best_val_loss": rows[-1][3], "best_val_accuracy": rows[-1][4]}
            summary |= {"test_loss": 0.08, "test_accuracy": 1 - errors / 10_000, "test_errors": errors}
            end |= {"value": rows[-1][3], "data": "abc"}
            if images:
                summary |= _predict(job, images, best, number, folder / str(number % distinct) if distinct else job)
        elif fate == "failed":
            error = {"error": "the loss became nan at epoch 3, step 7: a smaller optimizer.lr usually helps"}
            summary |= error | {"failure": "diverged"}
            end |= error | {"failure": "diverged"}
        elif fate == "killed":
            end["error"] = "killed by SIGKILL: memory ran out, or another process killed it"
        (job / "summary.json").write_text(files.seal(summary | dict(facts or {})))
        if status == "completed":
            end["result"] = recorded(job)
        ledger.append(end)
    lines = [files.seal({"time": f"2026-11-23T10:00:{n % 60:02}.000+00:00", **entry}) for n, entry in enumerate(ledger)]
    Ledger(folder).path.write_text("\n".join(lines) + "\n")
    return folder


def set_accuracy(folder: Path, job: int, accuracy: float) -> None:
    """Change the validation accuracy that a job reached."""
    path = folder / str(job) / "summary.json"
    path.write_text(files.seal(files.unseal(path.read_text()) | {"best_val_accuracy": accuracy}))


def change_metrics(folder: Path, job: int, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the rows of a job's metrics.csv."""
    path = folder / str(job) / METRICS
    rows = change(list(csv.DictReader(path.read_text().splitlines())))
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")


def _ids(grid: Mapping[str, Sequence[Any]], values: Sequence[Any], seed: int) -> list[str]:
    """A job's config_id, and its arm."""
    point = dict(zip(grid, values, strict=True))
    return [
        hashlib.sha256(repr(sorted(choices.items())).encode()).hexdigest()[:12]
        for choices in (point | {"s": seed}, point)
    ]


def _predict(job: Path, images: int, accuracy: float, number: int, first: Path) -> dict[str, Any]:
    """Write predictions of about this accuracy, or share those of `first`; return what the summary says about them.

    Some images are hard for all runs, others for this one.
    """
    if first != job:
        (job / PREDICTIONS).hardlink_to(first / PREDICTIONS)
        shared = files.unseal((first / "summary.json").read_bytes())
        shared["files"] |= {METRICS: files.sha256(job / METRICS)}
        return {key: shared[key] for key in ("files", "best_val_accuracy", "test_accuracy", "test_errors", "data")}
    parts = []
    for part in predictions.PARTS:
        hard = np.random.default_rng(len(part)).normal(size=images)
        score = hard + np.random.default_rng(number).normal(size=images) * 0.7
        label = np.arange(images) % 10
        wrong = np.zeros(images, dtype=bool)
        wrong[np.argsort(score)[: round(images * (1 - accuracy))]] = True
        predicted = np.where(wrong, (label + 1) % 10, label)
        probability = np.where(wrong, 0.2, 0.97)
        arrays = label.astype(np.uint8), predicted.astype(np.uint8), np.log(probability), np.where(wrong, 0.7, 0.97)
        parts.append(Predictions(*arrays[:2], *(array.astype(np.float16) for array in arrays[2:])))
    predictions.write(job, RunPredictions(*parts))
    val, test = (float(part.right.mean()) for part in parts)
    checksums = {METRICS: files.sha256(job / METRICS), PREDICTIONS: files.sha256(job / PREDICTIONS)}
    return {
        "files": checksums,
        "best_val_accuracy": val,
        "test_accuracy": test,
        "test_errors": round(images * (1 - test)),
        "data": {
            "name": "MNIST",
            "sha256": "abc",
            "images": {"train": 11 * images, "val": images, "test": images},
        },
    }


def _row(epoch: int, epochs: int, best: float, chance: random.Random) -> tuple[float, ...]:
    val = best - 0.04 * 0.5**epoch if epoch < epochs else best
    return (
        epoch,
        0.2 * 0.7**epoch,
        val - 0.005,
        4 * (1 - val) + chance.random() / 100,
        round(val * 5000) / 5000,
        0.001,
        1.5,
    )


KINDS: dict[str, dict[str, Any]] = {
    "images": {"grid": {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "gelu"]}, "images": 5000},
    "small": {"grid": {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "gelu"]}},
    "large": {
        "grid": {
            "optimizer": ["adam", "sgd", "rmsprop", "nadam"],
            "activation": ["relu", "tanh", "gelu", "silu", "elu"],
            "optimizer.lr": [0.01, 0.003, 0.001, 0.0003, 0.0001],
        },
        "epochs": 20,
    },
    "failed": {
        "grid": {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]},
        "spoiled": {0: "failed", 7: "failed", 12: "interrupted", 13: "running", 14: "pending"}
        | dict.fromkeys((15, 16), "failed"),
    },
    "lost": {
        "grid": {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.01, 0.1, 1.0], "activation": ["relu", "tanh"]},
        "spoiled": {22: "killed", 3: "failed", 14: "failed"} | dict.fromkeys(range(40, 45), "failed"),
    },
    "two_seeds": {"grid": {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.001, 0.002, 0.003]}, "seeds": [0, 1]},
    "one_seed": {"grid": {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}, "seeds": [0]},
}


def edit_ledger(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every entry of a sweep's ledger."""
    path = Ledger(folder).path
    entries = [files.unseal(line) for line in path.read_text().splitlines()]
    for entry in entries:
        change(entry)
    path.write_text("".join(files.seal(entry) + "\n" for entry in entries))


def spoil(folder: Path) -> Path:
    """Put hostile text wherever a ledger has text of the user, and return the folder."""

    def change(entry: dict[str, Any]) -> None:
        for key in ("command", "error"):
            if key in entry:
                entry[key] = HOSTILE

    edit_ledger(folder, change)
    return folder


def edit_summary(folder: Path, facts: Mapping[str, Any]) -> None:
    """Change some facts in the summary of a run."""
    path = folder / "summary.json"
    path.write_text(files.seal({**files.unseal(path.read_text()), **facts}))


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), **KINDS[sys.argv[2]])
