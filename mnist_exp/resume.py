"""Going on with a run: which one, with which config, and from where."""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_exp import config, errors, files, record
from mnist_exp.errors import ConfigError

if TYPE_CHECKING:  # it imports torch
    from mnist_exp.checkpoint import Checkpoints

log = logging.getLogger(__name__)

CONFIG = Path(".hydra", "config.yaml")
OVERRIDES = Path(".hydra", "overrides.yaml")  # Hydra writes it after the config: where it is, the config is whole
LAST = Path("checkpoints", "last.pt")


class RunFolder(Callback):
    """Settles which folder a single run has, before Hydra writes there; conf/config.yaml names it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder of a new run, or make `config` that of the run to go on with; or end with one line."""
        try:
            if config.resume is None:
                record.claim(Path(config.hydra.run.dir))
            else:
                _make_that_of(find(config.resume), config)
        except Exception as error:  # Hydra would make a warning of it
            if not errors.is_mendable(error):
                raise
            sys.exit(f"error: {errors.explain(error)}")


def find(asked: str) -> Path:
    """The checkpoint that `resume=` names, by itself or by its run's folder; `latest` is the run under outputs/ that
    was at work last. It does not exist where a run was killed before its first epoch.

    Raises ConfigError for what is no single run of this program.
    """
    if asked == "latest":
        runs = list(Path("outputs").rglob(record.METRICS))
        if not runs:
            raise ConfigError(f"resume=latest: no run under {Path('outputs').resolve()}")
        return max(runs, key=lambda path: path.stat().st_mtime).parent.absolute() / LAST
    path = Path(asked).absolute()
    checkpoint, folder = (path, path.parents[1]) if path.suffix == ".pt" else (path / LAST, path)
    if not asked or not path.exists():
        reason = "no such file or folder"
    elif (folder / record.LEDGER).is_file():
        reason = f"a sweep; python train.py -m resume={asked} goes on with it"
    elif (folder.parent / record.LEDGER).is_file():
        reason = f"a job of a sweep; python train.py -m resume={folder.parent} goes on with it"
    elif not (folder / record.METRICS).is_file():
        reason = f"no run of this program, for it has no {record.METRICS}"
    elif not checkpoint.exists() and _has_rows(folder / record.METRICS):
        reason = f"{checkpoint} is gone; resume={folder / 'checkpoints' / 'best.pt'} goes back to the best epoch"
    elif not checkpoint.exists() and not (folder / OVERRIDES).is_file():
        reason = "the run was stopped before it began; delete the folder, and type the run's command again"
    else:
        return checkpoint
    raise ConfigError(f"resume={asked}: {reason}")


def _has_rows(metrics: Path) -> bool:
    with open(metrics, newline="", errors="replace") as file:
        return len(list(csv.reader(file))) > 1


def _make_that_of(checkpoint: Path, cfg: DictConfig) -> None:
    """Make `cfg` the config of the run that has this checkpoint, but for what the command line may say anew.

    Ends the process where the run is completed. Raises ConfigError for what can't change any more.
    """
    folder = checkpoint.parents[1]
    words = [word for word in cfg.hydra.overrides.task if config.key_of(word) != "resume"]
    words += [word for word in cfg.hydra.overrides.hydra if config.key_of(word) == "hydra.run.dir"]
    for word in words:
        if config.key_of(word) not in config.KEYS_OF_A_RESUME:
            raise ConfigError(
                f"{word}: a run goes on with its own choices, in its own folder; only "
                f"{', '.join(config.KEYS_OF_A_RESUME)} may change"
            )
    kept = _config(folder / CONFIG)
    for key in map(config.key_of, words):
        OmegaConf.update(kept, key, OmegaConf.select(cfg, key))
    for key in map(str, kept):
        cfg[key] = kept[key]
    cfg.resume = str(checkpoint)
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.run.dir = str(folder)
        cfg.hydra.output_subdir = None  # or Hydra would write the config before anybody has agreed to it
    facts = record.read_summary(folder)
    choices = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    if facts.get("status") == "completed" and facts["config_id"] == config.config_id(choices):
        if altered := [name for name in record.SEALED if not record.is_as_sealed(folder, facts, name)]:
            raise ConfigError(f"{folder}: completed, but altered since then, or gone: {', '.join(altered)}")
        log.info(f"{folder}: completed, with {facts['test_accuracy']:.2%} on the test set; epochs=N trains it longer")
        sys.exit(0)


def _config(path: Path) -> DictConfig:
    """The config that a run was begun with."""
    try:
        found = cast(DictConfig, OmegaConf.load(path))
    except Exception as error:
        raise ConfigError(f"{path}: damaged, {' '.join(str(error).split())}") from error
    known, there = set(config.Config.__dataclass_fields__), set(found) if isinstance(found, DictConfig) else set()
    if known != there:
        raise ConfigError(f"{path}: damaged, or not of this program: {', '.join(sorted(map(str, known ^ there)))}")
    return found


def go_on(cfg: DictConfig, run: record.Run, checkpoints: Checkpoints) -> None:
    """Take `run` and all its parts back to its checkpoint; one that has none yet is at its beginning already.

    Raises ConfigError, and has changed no file, when the checkpoint can't be trusted or can't lead to what `cfg` asks.
    """
    from mnist_exp import checkpoint, loop

    path = Path(cfg.resume)
    if path.exists():
        state = checkpoint.load(path)
        _require_same_choices(cfg, state["identity"], path)
        _require_epochs_to_go(cfg, state, len(checkpoints.train))
        checkpoints.restore(state)
        run.go_on(state, [loop.Row(*row) for row in state["rows"]])
    if HydraConfig.get().output_subdir is None:  # a single run's; in a sweep Hydra writes it
        whole = OmegaConf.masked_copy(cfg, [*map(str, cfg)])
        whole.resume = None
        files.write(run.folder / CONFIG, OmegaConf.to_yaml(whole).encode())


def _require_same_choices(cfg: DictConfig, before: dict[str, Any], path: Path) -> None:
    now, said = config.identity(cfg), [config.key_of(word) for word in HydraConfig.get().overrides.task]
    if "epochs" in said:
        before = before | {"epochs": now["epochs"]}
    if before != now:
        hint = "; say epochs=N, whichever is meant" if before | {"epochs": 0} == now | {"epochs": 0} else ""
        raise ConfigError(f"{path}: of a run with other choices: {config.difference(before, now)}{hint}")


def _require_epochs_to_go(cfg: DictConfig, state: dict[str, Any], steps_per_epoch: int) -> None:
    from mnist_exp import build

    if cfg.epochs < state["epoch"]:
        raise ConfigError(f"epochs={cfg.epochs}: the run has {state['epoch']} behind it")
    before = state["identity"]["epochs"]
    if cfg.epochs == before:
        return
    as_begun, as_asked = (build.rates(cfg, epochs, steps_per_epoch) for epochs in (before, cfg.epochs))
    if any(begun != asked for begun, asked in zip(as_begun, as_asked, strict=False)):
        raise ConfigError(
            f"epochs={cfg.epochs}: {cfg.schedule._target_.rpartition('.')[2]} spreads its learning rates over all "
            f"epochs, and those behind it belong to a run of {before}; train anew"
        )
