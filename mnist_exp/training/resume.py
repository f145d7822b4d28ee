"""Resuming a run: which one, with which config, and from which checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_exp import config
from mnist_exp.store import keeping, metrics, run_folder
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import BEST, CONFIG, LAST, LEDGER
from mnist_exp.system import errors, files, quoting
from mnist_exp.system.errors import ConfigError

if TYPE_CHECKING:
    from mnist_exp.training.checkpoint import CheckpointState

log = logging.getLogger(__name__)

MAY_GROW = ("epochs", "patience")  # keys that change nothing about the epochs that are done


class Completed(SystemExit):
    """The run to resume is completed, so the command ends here, with exit code 0."""

    def __init__(self, folder: Path) -> None:
        super().__init__(0)
        self.folder = folder


class RunFolder(Callback):
    """Decides on the folder of a single run before Hydra writes there. conf/config.yaml names this class."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder of a new run, or turn `config` into that of the run to resume."""
        with errors.ending_the_command():
            if config.resume is None:
                run_folder.claim(Path(config.hydra.run.dir))
            else:
                _load_config(find(config.resume), config)


def find(target: str) -> Path:
    """Return the checkpoint that `resume=target` means.

    Args:
        target: A checkpoint, a run folder, or `latest`: the checkpoint under outputs/ that was written last.

    Returns:
        The checkpoint's path. The file does not exist if the run was killed as it started.

    Raises:
        ConfigError: The target is not a single run of this program.
    """
    path = Path(target).absolute()
    if target == run_folder.LATEST:
        path = run_folder.latest(LAST, f"resume={target}")
    checkpoint, folder = (path, path.parent.parent) if path.suffix == ".pt" else (path / LAST, path)
    if not target or not path.exists():
        reason = "no such file or folder"
    elif (folder / LEDGER).is_file():
        reason = f"this is a sweep; {quoting.command('-m', quoting.override('resume', target))} resumes it"
    elif (folder.parent / LEDGER).is_file():
        sweep = quoting.command("-m", quoting.override("resume", folder.parent))
        reason = f"this is a job of a sweep; {sweep} resumes the sweep"
    elif not (folder / METRICS).is_file():
        reason = f"this is not a run of this program: it has no {METRICS}"
    elif not checkpoint.exists() and metrics.has_rows(folder / METRICS):
        gone = keeping.why_gone(folder, checkpoint.relative_to(folder))
        best = quoting.command(quoting.override("resume", folder / BEST))
        reason = f"{checkpoint} {gone}; {best} resumes from the best epoch"
        if keeping.was_dropped(folder, BEST):
            reason = f"{checkpoint} {gone}; type the command of the run again"
    elif not checkpoint.exists() and not (folder / run_folder.OVERRIDES).is_file():
        reason = "the run was stopped before it started; delete the folder, and type the run's command again"
    else:
        return checkpoint
    raise ConfigError(f"resume={target}: {reason}")


def _load_config(checkpoint: Path, cfg: DictConfig) -> None:
    """Turn `cfg` into the config of the run that has this checkpoint, with what the command line may change.

    Ends the process if the run is completed. Raises ConfigError for a key that can't change.
    """
    folder = checkpoint.parents[1]
    overrides = [override for override in cfg.hydra.overrides.task if config.key_of(override) != "resume"]
    overrides += [override for override in cfg.hydra.overrides.hydra if config.key_of(override) == "hydra.run.dir"]
    for override in overrides:
        if config.key_of(override) not in config.RESUME_KEYS:
            raise ConfigError(
                f"{override}: a resumed run keeps its config and its folder; only {', '.join(config.RESUME_KEYS)} "
                "may change"
            )
    stored = read_config(folder / CONFIG)
    for key in map(config.key_of, overrides):
        OmegaConf.update(stored, key, OmegaConf.select(cfg, key))
    for key in map(str, stored):
        cfg[key] = stored[key]
    cfg.resume = quoting.literal(str(checkpoint))
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.run.dir = quoting.literal(str(folder))
        cfg.hydra.output_subdir = None  # or Hydra would write the config before the run has accepted it
    _exit_if_completed(folder, checkpoint, config.without_hydra(cfg))


def _exit_if_completed(folder: Path, checkpoint: Path, cfg: DictConfig) -> None:
    """End the process if the run is completed, after drawing its missing figures and writing its new tags.

    Raises ConfigError if files of the completed run were altered, or if the run failed before it started.
    """
    summary = run_folder.read_summary(folder)
    if not summary:
        return
    if summary["status"] == "failed" and not checkpoint.exists():
        raise ConfigError(
            f"{folder}: the run failed before it started: {summary['error']}; correct its command and type it again"
        )
    is_last = checkpoint == folder / LAST
    if summary["status"] != "completed" or summary["config_id"] != config.config_id(cfg) or not is_last:
        return
    if altered := [name for name in _checksummed(summary) if not run_folder.is_unaltered(folder, summary, name)]:
        raise ConfigError(
            f"{folder}: the run is completed, but these files were altered or deleted since: {', '.join(altered)}; "
            f"delete {run_folder.SUMMARY} to train what can't be recovered"
        )
    if cfg.plots and not all((folder / "plots" / f"{name}.png").exists() for name in run_folder.FIGURES):
        from mnist_exp.training import redraw  # imports torch

        redraw.draw(cfg, folder, summary)
        log.info(f"{folder / 'plots'}: drawn from {BEST} and the data")
    if (tags := list(cfg.tags)) != (summary["tags"] or []):
        config.check_values(cfg)
        write_config(cast(DictConfig, OmegaConf.merge(read_config(folder / CONFIG), {"tags": tags})), folder)
        summary["tags"] = tags
        run_folder.write_summary(folder, summary)
    key = "patience" if summary["stopped"] else "epochs"
    accuracy = f"{summary['test_accuracy']:.2%} on the test set"
    log.info(f"{folder}: the run is completed, with {accuracy}; {key}=N trains it longer")
    raise Completed(folder)


def _checksummed(summary: run_folder.Summary) -> list[str]:
    """Return the files of a completed run whose checksums its summary holds, or should hold."""
    return list(dict.fromkeys([*run_folder.CHECKSUMMED, *(summary["files"] or ())]))


def read_config(path: Path) -> DictConfig:
    """Return the config of a run. Raises ConfigError for a damaged file, and OSError for one that can't be read."""
    try:
        found = cast(DictConfig, OmegaConf.load(path))
    except OSError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: damaged, {' '.join(str(error).split())}") from error
    found = cast(DictConfig, OmegaConf.merge(config.OFF, found)) if isinstance(found, DictConfig) else found
    known, there = set(config.Config.__dataclass_fields__), set(found) if isinstance(found, DictConfig) else set()
    if known != there:
        raise ConfigError(f"{path}: damaged, or not of this program: {', '.join(sorted(map(str, known ^ there)))}")
    return found


def load(cfg: DictConfig, overrides: Sequence[str], log: logging.Logger) -> "CheckpointState | None":
    """Return the checkpoint that `cfg.resume` names; None for a new run, and for one that was killed as it started.

    The checkpoint decides on `epochs` and `patience` if the command line doesn't.

    Args:
        cfg: The config of the run.
        overrides: The overrides on the command line.
        log: Where a warning goes if the checkpoint and the stored config differ.

    Raises:
        ConfigError: The checkpoint is damaged, or the run that `cfg` describes can't continue from it.
    """
    if cfg.resume is None or not Path(cfg.resume).exists():
        return None
    from mnist_exp.training import checkpoint

    state, now = checkpoint.load(Path(cfg.resume)), config.identity(cfg)
    before = state["identity"]
    if _without(MAY_GROW, before) != _without(MAY_GROW, now):
        raise ConfigError(f"{cfg.resume}: is of a run with another config: {config.difference(before, now)}")
    typed = set(map(config.key_of, overrides))
    for key, value in ((key, before.get(key)) for key in MAY_GROW if key not in typed):
        if cfg[key] != value:
            typed_value, stored = config.spell(value), config.spell(cfg[key])
            log.warning(f"{key}={typed_value} from the checkpoint is used; config.yaml has {stored}")
            cfg[key] = value
    if cfg.epochs < state["epoch"]:
        raise ConfigError(f"epochs={cfg.epochs}: the run has already trained {state['epoch']}")
    _require_same_lr_curve(cfg, before["epochs"])
    return state


def _without(keys: Sequence[str], choices: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if key not in keys}


def _require_same_lr_curve(cfg: DictConfig, before: int) -> None:
    """Raise ConfigError if a run of cfg.epochs has other learning rates than one of `before` epochs."""
    from mnist_exp import build

    shorter = min(before, cfg.epochs)
    if cfg.epochs != before and build.lr_curve(cfg, before, shorter) != build.lr_curve(cfg, cfg.epochs, shorter):
        raise ConfigError(
            f"epochs={cfg.epochs}: {cfg.schedule._target_.rpartition('.')[2]} spreads its learning rates over all "
            f"epochs, and the trained ones belong to a run of {before}; start a new run"
        )


def write_config(cfg: DictConfig, folder: Path) -> None:
    """Write the config that a resume reads, in one step, over the one that Hydra has written."""
    stored = config.without_hydra(cfg)
    stored.resume = None
    (folder / CONFIG).parent.mkdir(exist_ok=True)
    files.write(folder / CONFIG, OmegaConf.to_yaml(stored).encode())
