"""Folders of runs that can be loaded and used, made without training."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mnist_exp import build
from mnist_exp.data.images import DataSet
from mnist_exp.store.run_folder import BEST, CONFIG
from mnist_exp.training import checkpoint
from mnist_exp.training.facts import inference_facts


def untrained_run(folder: Path, cfg: DictConfig, source: DataSet) -> Path:
    """Write what a run of this config leaves after an epoch, but with the weights that it starts with."""
    data = build.split(cfg, source, torch.device("cpu"))
    state: dict[str, Any] = {
        "format": checkpoint.FORMAT,
        "identity": {},
        "epoch": 1,
        "best_epoch": 1,
        "rows": [],
        "seconds": 1.0,
        "config_id": "0123456789ab",
        "data": {"name": source.name, "sha256": source.sha256},
        "inference": inference_facts(cfg, data),
        "resumed": [],
        "model": build.model(cfg, data).state_dict(),
    }
    for name in (BEST, CONFIG):
        (folder / name).parent.mkdir(parents=True)
    checkpoint.write(folder / BEST, state)
    OmegaConf.save(cfg, folder / CONFIG)
    return folder
