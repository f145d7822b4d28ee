"""The files of a run, read for a comparison: with another run, to the bit, or with the run's own earlier files."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from mnist_exp.training import checkpoint

NOT_BITS = ("seconds", "images_per_second", "files", "resumed", "checksum")  # may differ between runs that are equal


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict[str, Any]:
    """summary.json as another program reads it."""
    facts: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return facts


def learned(folder: Path) -> Any:
    """All results of a run that a repetition must reproduce to the bit."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in metrics(folder)]
    facts = {key: value for key, value in summary(folder).items() if key not in NOT_BITS}
    return rows, facts, *(state(folder / "checkpoints" / name) for name in ("last.pt", "best.pt"))


def state(path: Path) -> Any:
    """A checkpoint without its times."""
    kept: dict[str, Any] = {key: value for key, value in checkpoint.load(path).items() if key not in NOT_BITS}
    kept["rows"] = [row[:-1] for row in kept["rows"]]
    return plain(kept)


def plain(value: Any) -> Any:
    """Tensors as lists, so that == compares them."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the log, which records refused commands too."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "train.log"}
