"""Going on with a run: which one, with which config, and from where."""

import csv
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_exp import config, errors, files, record, spelling
from mnist_exp.errors import ConfigError

log = logging.getLogger(__name__)

CONFIG = Path(".hydra", "config.yaml")
OVERRIDES = Path(".hydra", "overrides.yaml")  # Hydra writes it after the config: where it is, the config is whole
YET_TO_COME = ("epochs", "patience")  # choices that say nothing of the epochs behind a run
LAST, BEST = Path("checkpoints", "last.pt"), Path("checkpoints", "best.pt")


class RunFolder(Callback):
    """Settles which folder a single run has, before Hydra writes there; conf/config.yaml names it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder of a new run, or make `config` that of the run to go on with; or end with one line."""
        try:
            if config.resume is None:
                record.claim(Path(config.hydra.run.dir))
            else:
                _make_that_of(find(config.resume), config)
        except Exception as error:  # Hydra would make a warning of it, and go on
            if not errors.is_mendable(error):
                traceback.print_exc()
                sys.exit(1)
            sys.exit(f"error: {errors.explain(error)}")


def find(asked: str) -> Path:
    """The checkpoint that `resume=` names, by itself or by its run's folder; `latest` is the one written last under
    outputs/. It does not exist where a run was killed as it began.

    Raises ConfigError for what is no single run of this program.
    """
    path = Path(asked).absolute()
    if asked == "latest":
        checkpoints = list(Path("outputs").rglob(str(LAST)))
        if not checkpoints:
            raise ConfigError(f"resume=latest: no run under {Path('outputs').resolve()}")
        path = max(checkpoints, key=lambda path: path.stat().st_mtime).absolute()
    checkpoint, folder = (path, path.parent.parent) if path.suffix == ".pt" else (path / LAST, path)
    if not asked or not path.exists():
        reason = "no such file or folder"
    elif (folder / record.LEDGER).is_file():
        reason = f"a sweep; {spelling.command('-m', spelling.override('resume', asked))} goes on with it"
    elif (folder.parent / record.LEDGER).is_file():
        whole = spelling.command("-m", spelling.override("resume", folder.parent))
        reason = f"a job of a sweep; {whole} goes on with it"
    elif not (folder / record.METRICS).is_file():
        reason = f"no run of this program, for it has no {record.METRICS}"
    elif not checkpoint.exists() and _has_rows(folder / record.METRICS):
        best = spelling.command(spelling.override("resume", folder / BEST))
        reason = f"{checkpoint} is gone; {best} goes back to the best epoch"
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
    cfg.resume = spelling.literal(str(checkpoint))
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.run.dir = spelling.literal(str(folder))
        cfg.hydra.output_subdir = None  # or Hydra would write the config before anybody has agreed to it
    _stop_if_over(folder, checkpoint, config.without_hydra(cfg))


def _stop_if_over(folder: Path, checkpoint: Path, cfg: DictConfig) -> None:
    """End the process where the run is completed, once it has its pictures and its tags.

    Raises ConfigError where the run is not as it was when it completed, or never began.
    """
    facts, config_id = record.read_summary(folder), config.config_id(cfg)
    if facts.get("status") == "failed" and not checkpoint.exists():
        raise ConfigError(f"{folder}: failed before it began: {facts['error']}; type its command again, mended")
    if facts.get("status") != "completed" or facts["config_id"] != config_id or checkpoint != folder / LAST:
        return
    if altered := [name for name in record.SEALED if not record.is_as_sealed(folder, facts, name)]:
        raise ConfigError(
            f"{folder}: completed, but altered since then, or gone: {', '.join(altered)}; without its summary.json, "
            "what can be had again is made anew"
        )
    if cfg.plots and not all((folder / "plots" / f"{name}.png").exists() for name in record.PICTURES):
        from mnist_exp import pictures  # imports torch

        pictures.draw(cfg, folder, facts)
        log.info(f"{folder / 'plots'}: drawn from {BEST} and the data")
    if (tags := list(cfg.tags)) != (facts["tags"] or []):
        config.check_values(cfg)
        keep(cast(DictConfig, OmegaConf.merge(_config(folder / CONFIG), {"tags": tags})), folder)
        record.write_summary(folder, facts | {"tags": tags})
    more = "patience" if facts["stopped"] else "epochs"
    log.info(f"{folder}: completed, with {facts['test_accuracy']:.2%} on the test set; {more}=N trains it longer")
    sys.exit(0)


def _config(path: Path) -> DictConfig:
    """The config that a run was begun with."""
    try:
        found = cast(DictConfig, OmegaConf.load(path))
    except Exception as error:
        raise ConfigError(f"{path}: damaged, {' '.join(str(error).split())}") from error
    found = cast(DictConfig, OmegaConf.merge(config.OFF, found)) if isinstance(found, DictConfig) else found
    known, there = set(config.Config.__dataclass_fields__), set(found) if isinstance(found, DictConfig) else set()
    if known != there:
        raise ConfigError(f"{path}: damaged, or not of this program: {', '.join(sorted(map(str, known ^ there)))}")
    return found


def load(cfg: DictConfig) -> dict[str, Any]:
    """What the checkpoint that cfg.resume names holds; nothing for a new run, and for one that was killed as it began.

    It decides on what is yet to come, where the command line does not. Raises ConfigError when the checkpoint
    can't be trusted, or can't lead to what `cfg` asks for.
    """
    if cfg.resume is None or not Path(cfg.resume).exists():
        return {}
    from mnist_exp import checkpoint

    state, now = checkpoint.load(Path(cfg.resume)), config.identity(cfg)
    before: dict[str, Any] = state["identity"]
    if _without(YET_TO_COME, before) != _without(YET_TO_COME, now):
        raise ConfigError(f"{cfg.resume}: of a run with other choices: {config.difference(before, now)}")
    typed = list(map(config.key_of, HydraConfig.get().overrides.task))
    for key, kept in ((key, before.get(key)) for key in YET_TO_COME if key not in typed):
        if cfg[key] != kept:
            log.warning(
                f"{key}={config.spell(kept)}, as the checkpoint says; config.yaml says {config.spell(cfg[key])}"
            )
            cfg[key] = kept
    if cfg.epochs < state["epoch"]:
        raise ConfigError(f"epochs={cfg.epochs}: the run has {state['epoch']} behind it")
    _require_same_course(cfg, before["epochs"])
    return state


def _without(keys: Sequence[str], choices: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if key not in keys}


def _require_same_course(cfg: DictConfig, before: int) -> None:
    """Raise ConfigError when a run of cfg.epochs has other learning rates than one of as many as `before`."""
    from mnist_exp import build

    shorter = min(before, cfg.epochs)
    if cfg.epochs != before and build.course(cfg, before, shorter) != build.course(cfg, cfg.epochs, shorter):
        raise ConfigError(
            f"epochs={cfg.epochs}: {cfg.schedule._target_.rpartition('.')[2]} spreads its learning rates over all "
            f"epochs, and those behind it belong to a run of {before}; train anew"
        )


def keep(cfg: DictConfig, folder: Path) -> None:
    """Lay down the config for a resume to read, in one step, where Hydra has written it, maybe with other epochs."""
    kept = config.without_hydra(cfg)
    kept.resume = None
    (folder / CONFIG).parent.mkdir(exist_ok=True)
    files.write(folder / CONFIG, OmegaConf.to_yaml(kept).encode())
