"""The folder of one run: the names of its files, its summary, and who owns it."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from mnist_exp.store import metrics
from mnist_exp.store.metrics import METRICS
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

PREDICTIONS = "predictions.npz"
LOG, SUMMARY, LEDGER = "train.log", "summary.json", "ledger.jsonl"  # a ledger makes a folder a sweep
CONFIG = Path(".hydra", "config.yaml")
HYDRA = Path(".hydra", "hydra.yaml")
OVERRIDES = Path(".hydra", "overrides.yaml")  # Hydra writes it after the config: where it is, the config is whole
LAST, BEST = Path("checkpoints", "last.pt"), Path("checkpoints", "best.pt")
FIGURES = ("samples", "augmented", "curves", "correct", "incorrect", "confusion_matrix")  # in plots/
RUN, SWEEP = "a run", "a sweep"  # owners of a folder
WORKERS = "workers"  # a file for each worker of a sweep on several machines, beside its ledger
SWEEP_LOCK = ".lock"  # the process of a sweep holds an exclusive lock on it
STOP_FILE = ".stop"  # as long as it exists, no further job of a sweep starts; it holds an exit code, or nothing
LATEST = "latest"  # on a command line: the run under outputs/, or the sweep under multirun/, that was written last
LR_SEARCH = "lr_search"  # the folder of the learning-rate search, within that of its sweep
SEARCH = "search"  # the folder of a search over intervals and choices, within that of its sweep
SEARCHES = (SEARCH, LR_SEARCH)  # a sweep has one of them, or none
WRITTEN = (  # everything that a run writes into its folder, except its log
    *(".hydra/*.yaml", METRICS, SUMMARY, PREDICTIONS, str(LAST), str(BEST)),
    *(f"plots/{name}.png" for name in FIGURES),
    f"**/{files.TEMPORARY}",
)
PRUNED, RUNG, PATIENCE = "pruned", "rung", "patience"  # what ends a run before its last epoch
COMPLETED, RUNNING, FAILED, INTERRUPTED, PENDING = "completed", "running", "failed", "interrupted", "pending"
STATUSES = (
    COMPLETED,
    PRUNED,
    RUNNING,
    FAILED,
    INTERRUPTED,
    PENDING,
)  # of a run, wherever a user reads it
ENDED_WELL = (COMPLETED, PRUNED)  # statuses of runs that have done what they were asked to do
SPLIT_KEYS = ("validation", "test", "batch_size", "seed")  # keys of cfg.data that do not describe the data set itself
CHECKSUMMED = (METRICS, str(BEST), str(LAST))  # files that every completed run has; its summary holds their SHA-256


class DataFacts(TypedDict):
    """The data set that a run was trained on."""

    name: str
    sha256: str
    test: NotRequired[str]  # given by the source, or cut from its training images; older versions did not say it
    images: NotRequired[dict[str, int]]  # in the parts train, val and test; older versions did not say it
    imbalance: NotRequired[float]  # how many times the largest class of the training images is as large as the smallest


IMBALANCED = 1.5  # from here on, accuracy says too little about the small classes


def is_imbalanced(data: DataFacts | None) -> bool:
    """Return whether the classes differ so much in size that balanced accuracy belongs beside accuracy."""
    return data is not None and data.get("imbalance", 1.0) > IMBALANCED


class InferenceFacts(TypedDict):
    """All that prediction needs, beside the weights."""

    classes: list[str]
    image_shape: list[int]  # channels, height and width of an image of the data set
    crop: list[int]  # height and width of its center, which the model sees
    mean: list[float]  # of the pixels of each channel, in 0..255
    std: list[float]
    preparation: str  # how an image of any size gets image_shape: see DataSet
    config: dict[str, Any]  # the model, its activation and its loss, as the run's config has them


class GitFacts(TypedDict):
    """The commit of this program's code."""

    commit: str
    dirty: bool  # files differ from the commit


class Resumption(TypedDict):
    """A session that resumed the run."""

    after_epoch: int
    changed: dict[str, list[Any]]  # device, threads or versions: [before, now]


class Summary(TypedDict):
    """The content of summary.json. Accuracies are fractions. A value is None until the run knows it."""

    status: str | None  # completed, pruned, failed, interrupted
    error: str | None
    config_id: str | None
    seed: int | None
    parameters: int | None
    epochs: int | None
    best_epoch: int | None
    best_val_loss: float | None
    best_val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    test_errors: int | None
    test_balanced_accuracy: float | None  # the mean over the classes of the accuracy on their images
    seconds: float | None
    images_per_second: int | None
    device: str | None
    threads: int | None
    versions: dict[str, str]
    git: GitFacts | None
    data: DataFacts | None
    inference: InferenceFacts | None
    files: dict[str, str] | None  # SHA-256 of those in CHECKSUMMED, and of PREDICTIONS if it was kept
    resumed: list[Resumption]
    stopped: str | None  # PATIENCE, PRUNED or RUNG, where that ended the run early
    tags: list[str] | None
    failure: str | None  # diverged, out of memory, error: how the run itself failed
    dropped: list[str] | None  # files that were deleted when the run ended: hydra.launcher.keep, or pruning


class RunState(TypedDict):
    """The part of a checkpoint that describes the run; the rest is the state of its model, optimizer and generators."""

    identity: dict[str, Any]  # config.identity
    epoch: int  # the number of epochs that are done
    best_epoch: int | None
    rows: list[list[float]]
    seconds: float
    config_id: str | None
    data: DataFacts | None
    inference: InferenceFacts | None
    resumed: list[Resumption]
    device: str | None
    threads: int | None
    versions: dict[str, str]


ADDED = (
    "stopped",
    "tags",
    "failure",
    "inference",
    "test_balanced_accuracy",
    "dropped",
)  # keys that older versions did not write


def empty_summary() -> Summary:
    """Return a summary that knows nothing yet."""
    return cast(Summary, dict.fromkeys(Summary.__annotations__) | {"versions": {}, "resumed": []})


def write_summary(folder: Path, summary: Summary) -> None:
    """Write summary.json in one step.

    Raises:
        OSError: The disk is full, or the folder is read-only or gone.
    """
    files.write(folder / SUMMARY, (files.seal(dict(summary), indent=2) + "\n").encode())


def add_checksum(folder: Path, name: str) -> None:
    """Record the checksum of a file in the summary of a completed run, and change nothing else there.

    Raises:
        OSError: The file can't be read, or the summary can't be written.
        ValueError: The summary was altered.
    """
    facts = files.unseal((folder / SUMMARY).read_bytes())
    facts["files"] = (facts["files"] or {}) | {name: files.sha256(folder / name)}
    files.write(folder / SUMMARY, (files.seal(facts, indent=2) + "\n").encode())


def read_summary(folder: Path) -> Summary | None:
    """Return the content of summary.json; None where there is no such file.

    Raises:
        ConfigError: The file was altered, or an incompatible version wrote it.
    """
    path = folder / SUMMARY
    try:
        facts = files.unseal(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}; without this file the run can be resumed") from error
    if missing := Summary.__annotations__.keys() - facts.keys() - set(ADDED):
        raise ConfigError(f"{path} was written by another version: it lacks {', '.join(sorted(missing))}")
    return cast(
        Summary, dict.fromkeys(Summary.__annotations__) | facts
    )  # the keys of all summaries are the same objects


def require_same_data(before: DataFacts | None, sha256: str) -> None:
    """Raise ConfigError if a run was trained on different data than there is now."""
    if before and before["sha256"] != sha256:
        raise ConfigError(
            f"data: the run was trained on {before['name']} with SHA-256 {before['sha256']}, but it is {sha256} now; "
            "restore the files under data.root"
        )


def has_status(folder: Path, config_id: str, status: str) -> bool:
    """Return whether the folder holds a run of this config_id that ended with this status."""
    summary = _readable_summary(folder)
    return bool(summary and summary["status"] == status and summary["config_id"] == config_id)


def failed_before_start(folder: Path) -> bool:
    """Return whether the folder holds a run that failed before its first checkpoint."""
    summary = _readable_summary(folder)
    return bool(summary and summary["status"] == "failed" and not (folder / LAST).exists())


def _readable_summary(folder: Path) -> Summary | None:
    """Return the content of summary.json; None if it can't be read."""
    with suppress(OSError, ConfigError):
        return read_summary(folder)
    return None


def is_unaltered(folder: Path, summary: Mapping[str, Any], name: str) -> bool:
    """Return whether a file still has the checksum that the summary of the completed run holds."""
    try:
        return bool(files.sha256(folder / name) == summary["files"][name])
    except (OSError, TypeError, KeyError):
        return False


def owner(folder: Path) -> str | None:
    """Return what a folder belongs to ("a run", "a sweep", "a job of a sweep"); None for a free folder."""
    if (folder / LEDGER).exists():
        return SWEEP
    if (folder.parent / LEDGER).exists() and folder.name.isdigit():
        return "a job of a sweep"
    return RUN if (folder / METRICS).exists() else None


def latest(checkpoint: Path, asked: str = LATEST) -> Path:
    """Return the folder of the run under outputs/ whose checkpoint was written last.

    Args:
        checkpoint: LAST or BEST.
        asked: What the user typed, for the error message.

    Raises:
        ConfigError: No run there has such a checkpoint.
    """
    found = list(Path("outputs").rglob(str(checkpoint)))
    if not found:
        raise ConfigError(f"{asked}: no run under {Path('outputs').resolve()}")
    return max(found, key=lambda path: path.stat().st_mtime).absolute().parents[1]


def claim(folder: Path) -> None:
    """Create `folder` for a new run. Of several processes that claim it at once, one succeeds.

    A run that failed before it started, such as one with a mistyped key, leaves the folder to the next one.

    Raises:
        FileExistsError: The folder belongs to a run or a sweep.
        ConfigError: The folder can't be created or written.
    """
    if owner(folder) == RUN and failed_before_start(folder):
        with suppress(BlockingIOError), files.locked(folder / LOG):
            if failed_before_start(folder):  # still, now that no other process can claim it
                clear(folder)
    if not (taken_by := owner(folder)):
        create(folder, "hydra.run.dir")
        try:
            with open(folder / METRICS, "x", newline="") as file:
                file.write(metrics.header())
        except FileExistsError:  # another run was sooner
            taken_by = RUN
    if taken_by:
        raise FileExistsError(f"{folder} already holds {taken_by}: choose another hydra.run.dir")


def create(folder: Path, key: str) -> None:
    """Create a writable folder.

    Args:
        folder: The folder; it may exist already.
        key: The config key that chooses it, for the error message.

    Raises:
        ConfigError: The folder can't be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; {key}=FOLDER chooses another folder") from error


def clear(folder: Path) -> None:
    """Delete what a run has written into its folder. Its log and other files stay."""
    if not folder.is_dir():
        return
    for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
        path.unlink()
    for path in folder.glob("*/"):
        with suppress(OSError):  # the folder holds something else
            path.rmdir()
