"""The pictures of a run that is over, drawn from its best checkpoint and the data."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_exp import build, checkpoint, loop, plots, record


def draw(cfg: DictConfig, folder: Path, summary: dict[str, Any]) -> None:
    """Draw what the run `cfg` would have drawn into its folder, and change nothing else there.

    `summary` is the run's (record.read_summary). Raises ConfigError where the data is not what the run learned from.
    """
    device = build.device(cfg)
    data = build.split(cfg, build.source(cfg), device)
    record.require_same_data(summary["data"], data.sha256)
    model, loss = build.model(cfg, data, num_classes=len(data.classes)), build.loss(cfg)
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    model.load_state_dict(best["model"])
    rows = [loop.Row(*row) for row in checkpoint.load(folder / "checkpoints" / "last.pt")["rows"]]
    probabilities = loss.probabilities(loop.evaluate(model, loss, data.test).logits)
    generator = build.generator(cfg.seed, "pictures")
    plots.of_data(folder / "plots", data.train, data.classes, generator)
    plots.of_results(folder / "plots", rows, rows[best["epoch"] - 1], data.test, probabilities, data.classes)
