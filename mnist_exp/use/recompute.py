"""Computes what completed runs of sweeps predicted, from their checkpoints and the data, where it was not kept."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from mnist_exp import build, config
from mnist_exp.data.images import DataSet
from mnist_exp.report.runs import CompletedRun, read_predictions, read_sweep
from mnist_exp.store import predictions, run_folder
from mnist_exp.store.predictions import RunPredictions
from mnist_exp.store.run_folder import CONFIG, LOG, PREDICTIONS
from mnist_exp.system import errors, files, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import facts, loop, resume
from mnist_exp.training.loop import Evaluation
from mnist_exp.use import trained_run

TIE = 1e-4  # two probabilities this near may change places on another device, or in a fused group: rounding decides
MAX_NAMES = 3  # of runs in a message


def recompute_and_print(folders: Sequence[Path]) -> int:
    """Compute the predictions that completed runs of sweeps lack, or whose file was altered.

    Args:
        folders: The folders of the sweeps.

    Returns:
        The number of runs for which this failed. They are named on standard error, with the reason.

    Raises:
        ConfigError: A folder is not a sweep, or its ledger is damaged.
    """
    runs = [run for folder in dict.fromkeys(folders) for run in read_sweep(folder)[1]]
    lacking = [run for run in runs if isinstance(run, CompletedRun) and not _has_predictions(run)]
    failed: dict[str, list[Path]] = {}
    quiet = not streams.shows_progress()
    with build.torch_settings_kept():
        sources = Sources()
        in_order = sorted(lacking, key=_data_of)  # runs of equal data share its split
        for run in tqdm(in_order, desc="predicting", unit="run", leave=False, disable=quiet):
            try:
                recompute(run, sources)
            except Exception as error:
                if not errors.is_mendable(error):
                    raise
                failed.setdefault(errors.explain(error).removeprefix(f"{run.folder}: "), []).append(run.folder)
    for reason, places in failed.items():
        print(f"no predictions of {_enumerate(places)}: {reason}", file=sys.stderr)
    count = sum(map(len, failed.values()))
    if not lacking:
        print("every completed run has its predictions")
    else:
        print(f"predictions computed for {len(lacking) - count:,} of {len(lacking):,} runs that lacked them")
    return count


class Sources:
    """The data sets that runs were trained on. One that can't be had is not asked for again."""

    def __init__(self) -> None:
        self._errors: dict[str, Exception] = {}

    def get(self, run: CompletedRun, cfg: DictConfig) -> DataSet:
        """Return the data set of a run.

        Raises:
            ConfigError: It can't be downloaded, or is damaged, or is not what the run was trained on.
        """
        key = run.job.source
        if key in self._errors:
            raise self._errors[key]
        try:
            return build.cached_source(cfg)
        except Exception as error:
            self._errors[key] = error
            raise


def recompute(run: CompletedRun, sources: Sources) -> None:
    """Compute what a run predicts with the weights of its best epoch; write it, and its checksum into the summary.

    Raises:
        ConfigError: The config, the weights or the data are not those of the run, or its results are not found again.
        OSError: A file can't be read or written.
    """
    message = f"{run.folder}: another process is working on this run"
    with files.locked_or_error(run.folder / LOG, message):
        cfg = resume.read_config(run.folder / CONFIG)
        if config.config_id(cfg) != run.summary["config_id"]:
            raise ConfigError(f"{run.folder / CONFIG}: is not the config of this run: its config_id differs")
        trained = trained_run.load(run.folder)
        build.setup_torch(cfg)
        device = _device(cfg, run.summary["device"])
        data = build.split(cfg, sources.get(run, cfg), device)
        run_folder.require_same_data(run.data, data.sha256)
        model, loss = trained.model.to(device), trained.classifier.loss
        val, test = loop.evaluate(model, loss, data.val), loop.evaluate(model, loss, data.test)
        _require_equal(run, "validation", val, run.val_accuracy)
        _require_equal(run, "test", test, run.test_accuracy)
        parts = facts.predictions(val, data.val.labels), facts.predictions(test, data.test.labels)
        predictions.write(run.folder, RunPredictions(*parts))
        run_folder.add_checksum(run.folder, PREDICTIONS)


def _has_predictions(run: CompletedRun) -> bool:
    """Return whether a run has kept what it predicted, and nobody has altered it."""
    with suppress(OSError, ConfigError):
        return read_predictions(run) is not None
    return False


def _data_of(run: CompletedRun) -> str:
    """Return a value that is equal for runs whose data is equal, and split alike."""
    return repr([(key, value) for key, value in sorted(run.job.choices.items()) if key.partition(".")[0] == "data"])


def _device(cfg: DictConfig, recorded: str | None) -> torch.device:
    """Return the device on which a run was trained, if this machine has it, or else the one that auto means."""
    cfg.device = recorded or "auto"
    with suppress(ConfigError):
        return build.device(cfg)
    cfg.device = "auto"
    return build.device(cfg)


def _require_equal(run: CompletedRun, part: str, found: Evaluation, accuracy: float) -> None:
    """Raise ConfigError if a run's accuracy is another now, and ties don't explain it."""
    first, second = found.probabilities.topk(2, dim=1).values.unbind(dim=1)
    ties = int((first - second < TIE).sum())
    wrong = round((1 - accuracy) * len(found.predicted))
    if abs(found.errors - wrong) > ties:
        raise ConfigError(
            f"{run.folder}: its weights miss {found.errors:,} of {len(found.predicted):,} {part} images now, but "
            f"{run_folder.SUMMARY} has {wrong:,}; nothing is written"
        )


def _enumerate(folders: Sequence[Path]) -> str:
    more = [f"{len(folders) - MAX_NAMES:,} more"] if len(folders) > MAX_NAMES else []
    return ", ".join([*map(str, folders[:MAX_NAMES]), *more])
