"""One training run, from its folder's lock to its summary, whatever ends it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_exp import config
from mnist_exp.store import metrics, provenance, run_folder
from mnist_exp.store.metrics import METRICS, Row
from mnist_exp.store.run_folder import PATIENCE, PREDICTIONS, PRUNED, RUNG, RunState
from mnist_exp.system import background, errors, files, program, quoting, signals
from mnist_exp.training import resume

if TYPE_CHECKING:  # they import torch, and a wrong config should be reported before that
    from mnist_exp.data.batches import Split
    from mnist_exp.training.drawing import Drawing
    from mnist_exp.training.loop import Evaluation, Training

SAME_BITS = ("device", "threads", "versions")  # equal configs give equal bits where these are equal too
LOSSES: dict[str, Callable[[Row], float]] = {  # what patience waits for: lower is better
    "val_loss": lambda row: row.val_loss,
    "val_accuracy": lambda row: -row.val_accuracy,
}
RANKS: dict[str, Callable[[Row], Any]] = {  # what chooses the best epoch: the lowest is best
    "val_loss": lambda row: row.val_loss,
    "val_accuracy": lambda row: (-row.val_accuracy, row.val_loss),
}


class TrainingRun:
    """One training run and its folder.

    `open` a run, `start` it with the parts that it trains, train each of its `epochs` and `record` it, and record the
    test. These are the only steps that write into the folder, in this order. A run that is refused (because another
    process works on it, or because its checkpoint doesn't fit) leaves the folder as it was.

    Attributes:
        cfg: The config of the run.
        folder: The run folder.
        log: The logger of the run, which writes its train.log.
        rows: One row per epoch that is done.
        training: The parts that an epoch trains; set by `start`.
        data: The data set; set by `start`.
        drawing: The figures; set by `start` if cfg.plots.
    """

    training: Training
    data: Split
    drawing: Drawing

    def __init__(
        self,
        cfg: DictConfig,
        hydra: HydraConf,
        log: logging.Logger | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Describe a run, without touching its folder.

        Args:
            cfg: The config of the run, without Hydra's section.
            hydra: Hydra's section of the config.
            log: The logger of the run; by default Hydra's root logger.
            clock: Returns the time that counts for the run, in seconds.
        """
        self.cfg, self.hydra, self.log = cfg, hydra, log or logging.getLogger("mnist_exp.run")
        self.folder = Path(hydra.runtime.output_dir)
        self.rows: list[Row] = []
        self.is_open, self._may_write = False, False
        self._clock, self._start = clock, clock()
        self._lock = ExitStack()
        self._write_checkpoints = background.nothing
        self.summary = run_folder.empty_summary()
        self.summary["versions"], self.summary["git"] = provenance.versions(), provenance.git()

    @classmethod
    @contextmanager
    def open(cls, cfg: DictConfig, hydra: HydraConf) -> Iterator[TrainingRun]:
        """Open a run for the block, and write its summary however the block ends.

        A stop signal ends the process with an exit code of 128 and its number: 130 for Ctrl-C. An error that the user
        can correct ends a single run with one line and exit code 1. In a sweep it is raised.
        """
        run = cls(cfg, hydra)
        try:
            run.check()
            yield run
            run.close()
        except (KeyboardInterrupt, Exception) as error:
            run.fail(error)
            if signals.caused(error):
                raise SystemExit(signals.exit_code()) from error
            if run.is_single and errors.is_mendable(error):
                raise SystemExit(f"error: {errors.explain(error)}") from error
            raise
        finally:
            run._lock.close()

    @property
    def is_single(self) -> bool:
        """Whether the run is not a job of a sweep."""
        return bool(self.hydra.mode == RunMode.RUN)

    @property
    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs that are still to be trained."""
        while not self.is_over:
            yield self.next_epoch

    @property
    def next_epoch(self) -> int:
        """The number of the next epoch; the first is 1."""
        return len(self.rows) + 1

    @property
    def is_over(self) -> bool:
        """Whether all epochs are trained, or patience or pruning has ended the run early."""
        return len(self.rows) >= self.cfg.epochs or self.stopped is not None

    @property
    def stopped(self) -> str | None:
        """What ended the run before its last epoch.

        PRUNED: the best validation accuracy so far is below that of stop_below for the epoch.
        RUNG: stop_after says that so many epochs are enough, unless a search lets the run go on.
        PATIENCE: best_by has not improved for that many epochs.
        """
        done = len(self.rows)
        if not 0 < done < self.cfg.epochs:
            return None
        below = [*(self.cfg.stop_below or ()), *[0.0] * done][done - 1]
        losses = [LOSSES[self.cfg.best_by](row) for row in self.rows]
        patience = math.inf if self.cfg.patience is None else self.cfg.patience
        if max(row.val_accuracy for row in self.rows) < below:
            return PRUNED
        if done >= (self.cfg.stop_after or math.inf):
            return RUNG
        return PATIENCE if done - 1 - losses.index(min(losses)) >= patience else None

    @property
    def is_pruned(self) -> bool:
        """Whether the run ended because it fell behind others, so that it has no result."""
        return self.stopped in (PRUNED, RUNG)

    @property
    def best(self) -> Row:
        """The epoch with the best validation; the first of equal ones."""
        return self._best(self.rows)

    def check(self) -> None:
        """Lock the folder, check the config, and read the checkpoint that `cfg.resume` names.

        Raises:
            ConfigError: Another process works on the run, the config can't work, or the checkpoint doesn't fit it.
        """
        self.is_open = True
        message = f"{self.folder}: another process is working on this run"
        self._lock.enter_context(files.locked_or_error(self.folder / run_folder.LOG, message))
        self._may_write = self.cfg.resume is None
        config.check(self.cfg, self.hydra)
        with signals.deferred():  # an exception in the middle of torch's import ends the process
            import torch  # noqa: F401

        self._resumed = resume.load(self.cfg, self.hydra.overrides.task, self.log)
        self.summary["config_id"], self.summary["seed"] = config.config_id(self.cfg), self.cfg.seed
        self.summary["threads"], self.summary["tags"] = self.cfg.threads, list(self.cfg.tags)

    def start(self, training: Training, data: Split) -> None:
        """Start at the first epoch, or resume after the last one of the checkpoint.

        Args:
            training: The parts that an epoch trains. A checkpoint's state is loaded into them.
            data: The data set.

        Raises:
            ConfigError: The checkpoint is of other parts or of other data.
            OSError: The folder can't be written.
        """
        from mnist_exp import build
        from mnist_exp.training.checkpoint import Checkpoints
        from mnist_exp.training.drawing import Drawing
        from mnist_exp.training.facts import data_facts, data_notes, inference_facts

        self.training, self.data = training, data
        self.checkpoints = Checkpoints(self.folder / "checkpoints", training)
        parameters = sum(tensor.numel() for tensor in training.model.parameters() if tensor.requires_grad)
        self.summary["parameters"], self.summary["device"] = parameters, str(data.val.labels.device)
        self.summary["data"] = data_facts(data)
        self.summary["inference"] = inference_facts(self.cfg, data)
        sizes = ", ".join(f"{len(getattr(data, part).images):,} {part}" for part in ("train", "val", "test"))
        self.log.info(training.model)
        self.log.info(f"{parameters:,} trainable parameters, on {self.summary['device']}")
        self.log.info(f"{data.name}: {sizes} images")
        for line in data_notes(data):
            self.log.info(line)
        if note := build.early_stop_note(self.cfg):
            self.log.info(note)
        if self._resumed:
            self.checkpoints.restore(self._resumed)
            self._resume(self._resumed)
        self._may_write = True
        (self.folder / run_folder.SUMMARY).unlink(missing_ok=True)  # of an earlier session
        for path in self.folder.rglob(files.TEMPORARY):  # of a process that was killed as it wrote
            path.unlink()
        files.write(self.folder / METRICS, metrics.table(self.rows).encode())
        if self.cfg.plots:  # before a thread writes a checkpoint, because only this thread survives a fork
            generator = build.generator(self.cfg.seed, "pictures")
            may_fork = self.is_single and threading.active_count() == 1  # other threads would not survive in the copy
            self.drawing = Drawing(self.folder / "plots", data, generator, beside=may_fork)
            self._lock.callback(self.drawing.close)
        self._write_checkpoints = self.checkpoints.write
        with signals.deferred():
            self.checkpoints.keep(self._state(self.rows))
            self.checkpoints.begin_write()
        resume.write_config(self.cfg, self.folder)

    def record(self, row: Row) -> None:
        """Write the row of an epoch, and begin to write its checkpoint if one is due. A resume drops rows without one.

        Raises:
            OSError: The row, or the checkpoint before, can't be written.
        """
        with signals.deferred():
            self.checkpoints.keep(self._state([*self.rows, row]))
            metrics.append(self.folder / METRICS, row)
            self.rows.append(row)
            if row.epoch % self.cfg.checkpoint_every == 0 or self.is_over:
                self.checkpoints.begin_write()
        number = f"{row.epoch:{len(str(self.cfg.epochs))}}/{self.cfg.epochs}"
        best = "  best" if row is self.best else ""
        self.log.info(
            f"epoch {number}  train loss {row.train_loss:.4f}  {row.train_accuracy:6.2%}   "
            f"val loss {row.val_loss:.4f}  {row.val_accuracy:6.2%}   {row.seconds:.1f} s{best}"
        )

    def record_results(self, val: Evaluation, test: Evaluation) -> None:
        """Record what the best epoch's weights predict for the validation images and for the test set.

        Raises:
            OSError: The folder can't be written.
        """
        from mnist_exp.store import predictions
        from mnist_exp.training import facts
        from mnist_exp.training.loop import balanced_accuracy

        if self.stopped:
            epochs = "1 epoch" if self.cfg.patience == 1 else f"{self.cfg.patience} epochs"
            self.log.info(f"stopped: {self.cfg.best_by} has not improved for {epochs} (patience)")
        self.summary["test_loss"], self.summary["test_accuracy"] = test.loss, test.accuracy
        self.summary["test_errors"] = test.errors
        balanced = balanced_accuracy(test.predicted, self.data.test.labels)
        self.summary["test_balanced_accuracy"] = balanced
        beside = f", balanced accuracy {balanced:.2%}" if run_folder.is_imbalanced(self.summary["data"]) else ""
        self.log.info(
            f"test loss {test.loss:.4f}  {test.accuracy:.2%}: {test.errors:,} of {len(test.predicted):,} wrong"
            f"{beside}, with the weights of epoch {self.best.epoch}"
        )
        (self.folder / PREDICTIONS).unlink(missing_ok=True)  # of an earlier session
        if self.cfg.predictions:
            parts = facts.predictions(val, self.data.val.labels), facts.predictions(test, self.data.test.labels)
            predictions.write(self.folder, predictions.RunPredictions(*parts))

    def fail(self, error: BaseException) -> None:
        """Record what ended the run: a signal, which interrupts it, or an error."""
        if signals.caused(error):
            status, line, failure = "interrupted", None, None
            command = quoting.command(quoting.override("resume", self.folder))
            self.log.warning(f"interrupted; to resume: {command}" if self.is_single else "interrupted")
        else:
            status, line, failure = "failed", errors.explain(error), errors.failure(error)
            self.log.error(f"failed: {line}", exc_info=error)  # the traceback goes to train.log alone
        self._save_epochs()
        with suppress(OSError):  # the disk may be what failed
            self._write_summary(status, line, failure)
        self._lock.close()
        self.is_open = False

    def close(self) -> None:
        """Write what is left of the checkpoints, and the summary of a completed run or of a pruned one.

        Raises:
            OSError: The folder can't be written.
        """
        self._write_checkpoints()
        has_predictions = self.cfg.predictions and not self.is_pruned
        names = [*run_folder.CHECKSUMMED, *([PREDICTIONS] if has_predictions else [])]
        self.summary["files"] = {name: files.sha256(self.folder / name) for name in names}
        self._write_summary(PRUNED if self.is_pruned else "completed")
        if self.is_pruned:
            reason = "its best validation accuracy is below stop_below" if self.stopped == PRUNED else "see stop_after"
            self.log.info(f"pruned after epoch {len(self.rows)} of {self.cfg.epochs}: {reason}")
        self.log.info(self.folder)
        if self.is_single and not self.is_pruned:
            self.log.info(
                f"to try it on your own drawing: {program.tool('draw')} {quoting.for_shell(str(self.folder))}"
            )
        self._lock.close()
        self.is_open = False

    def _save_epochs(self) -> None:
        """Write the checkpoints of the epochs that have none yet."""
        try:
            self._write_checkpoints()
        except Exception as error:
            why = errors.explain(error) or type(error).__name__
            self.log.warning(f"the last epochs are not saved, so a resume trains them again: {why}")

    def _resume(self, state: RunState) -> None:
        run_folder.require_same_data(state["data"], self.data.sha256)
        before, now = dict(state), dict(self.summary)
        changed = {fact: [before[fact], now[fact]] for fact in SAME_BITS if before[fact] != now[fact]}
        self.rows, self._start = [Row(*row) for row in state["rows"]], self._start - state["seconds"]  # type: ignore[arg-type]
        self.summary["resumed"] = [*state["resumed"], {"after_epoch": len(self.rows), "changed": changed}]
        self.log.info(f"resumed after epoch {len(self.rows)}")
        for fact, (old, new) in changed.items():
            self.log.warning(f"{fact} was {old} and is {new}: from here on, equal bits are not guaranteed")

    def _state(self, rows: Sequence[Row]) -> RunState:
        summary = self.summary
        return {
            "identity": config.identity(self.cfg),
            "epoch": len(rows),
            "best_epoch": self._best(rows).epoch if rows else None,
            "rows": [list(row) for row in rows],
            "seconds": self._clock() - self._start,
            "config_id": summary["config_id"],
            "data": summary["data"],
            "inference": summary["inference"],
            "resumed": summary["resumed"],
            "device": summary["device"],
            "threads": summary["threads"],
            "versions": summary["versions"],
        }

    def _best(self, rows: Sequence[Row]) -> Row:
        return min(rows, key=RANKS[self.cfg.best_by])

    def _write_summary(self, status: str, error: str | None = None, failure: str | None = None) -> None:
        if not self._may_write:
            return
        if self.rows:
            best, seconds = self.best, sum(row.seconds for row in self.rows)
            self.summary["epochs"], self.summary["stopped"] = len(self.rows), self.stopped
            self.summary["best_epoch"] = best.epoch
            self.summary["best_val_loss"], self.summary["best_val_accuracy"] = best.val_loss, best.val_accuracy
            images = len(self.data.train.images) * len(self.rows)
            self.summary["images_per_second"] = round(images / seconds)
        self.summary["status"], self.summary["error"], self.summary["failure"] = status, error, failure
        self.summary["seconds"] = round(self._clock() - self._start, 3)
        run_folder.write_summary(self.folder, self.summary)
