"""Draws the figures of a completed run again, from its checkpoints and the data."""

from pathlib import Path

from omegaconf import DictConfig

from mnist_exp import build
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import Row
from mnist_exp.store.run_folder import BEST, LAST, Summary
from mnist_exp.training import checkpoint, loop
from mnist_exp.training.drawing import Drawing


def draw(cfg: DictConfig, folder: Path, summary: Summary) -> None:
    """Draw the figures of the completed run of `cfg` into its folder, and change nothing else there.

    Raises:
        ConfigError: The data is not what the run was trained on.
    """
    build.setup_torch(cfg)
    data = build.split(cfg, build.source(cfg), build.device(cfg))
    run_folder.require_same_data(summary["data"], data.sha256)
    model, loss = build.model(cfg, data), build.loss(cfg)
    best = checkpoint.load(folder / BEST)
    model.load_state_dict(best["model"])
    rows = [Row(*row) for row in checkpoint.load(folder / LAST)["rows"]]  # type: ignore[arg-type]
    probabilities = loop.evaluate(model, loss, data.test).probabilities
    drawing = Drawing(folder / "plots", data, build.generator(cfg.seed, "pictures"), beside=False)
    drawing.finish(rows, rows[best["epoch"] - 1], probabilities)
