"""One job of a sweep: in a process of its own, with its lines in the ledger."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from mnist_exp.store import provenance, run_folder
from mnist_exp.store.ledger import Job, Ledger
from mnist_exp.system import errors, files, signals, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import CAN_FORK, run_in_subprocess
from mnist_exp.system.resources import cores

log = logging.getLogger(__name__)

STOP = ".stop"  # a file in the sweep's folder: no further job is to begin; the exit code of the sweep, or nothing
RUNNING = ".running"  # a file that every job holds a shared lock on
LONGEST = 2000  # letters of an error: a pipe takes 64 KB before anybody reads
CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}  # a process's own doing
INTERRUPTED = {128 + number for number in signals.STOP_SIGNALS}  # the exit codes of a run that was asked to stop
PR_SET_PDEATHSIG = 1  # linux/prctl.h
NOT_OVER = (b'"status": "running"', b'"status": "pending"')
BAR = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
Main = Callable[[DictConfig], Any]


class LetGo(Callback):
    """Takes the configs out of what Hydra keeps of every job to the end: 180 KB each."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Leave the job's value alone."""
        job_return.cfg = job_return.hydra_cfg = None


class Work(NamedTuple):
    """What one process does: jobs, whose `hydra` configs these are, by calling `do`."""

    jobs: Sequence[Any]
    do: Callable[[], Any]


class ProcessEnd(NamedTuple):
    """How a process ended."""

    code: int  # its exit code
    error: str | None = None  # what it raised, in a line
    failure: str | None = None  # whether that is its own doing, as errors.failure has it


class Outcome(TypedDict, total=False):
    """How a job ended, as the ledger records it."""

    status: str  # completed, failed, interrupted
    value: float | None  # the best validation loss
    data: str | None  # SHA-256 of the data that a completed job was trained on
    error: str | None
    failure: str | None  # how the run itself failed: diverged, out of memory, error


class Task:
    """What a launcher calls for each job, in the sweep's own process or in a worker's."""

    def __init__(
        self, main: Main, folder: Path, jobs: Sequence[Job], workers: int = 1, stop_on_failure: bool = False
    ) -> None:
        self.main, self.workers, self.stop_on_failure = main, workers, stop_on_failure
        self.folder, self.sweeper = Path(os.path.abspath(folder)), os.getpid()  # a job may change the directory
        self.places = {job.number: place for place, job in enumerate(jobs)}
        self.ids = {job.number: job.config_id for job in jobs}
        self.shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set[str]()
        self.ledger, self.begun = Ledger(self.folder), time.monotonic()
        self.said = self.ledger.path.stat().st_size  # what the ledger says from here on is of this session

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker's process, whose streams are as Python has made them."""
        streams.harden()
        vars(self).update(state)

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run the job and return its value; None where it has none, or where the sweep is to stop."""
        hydra = HydraConfig.get()
        number = int(Path(hydra.runtime.output_dir).name)
        _set_number(number)
        _share_the_machine(cfg, self.places[number], self.workers)
        return self.run(cfg, Work([hydra], partial(self.main, cfg))).get(number)

    def run(self, cfg: DictConfig, *works: Work) -> dict[int, float | None]:
        """Do the works side by side, and return the values of their jobs, by number.

        `cfg` is one of their configs; what they share is made ready before.
        """
        if (self.folder / STOP).exists() or self.is_orphaned():
            return {}
        with suppress(Exception):  # the jobs themselves meet the same fault, and tell it
            make_ready(cfg)
        hydras = {int(Path(hydra.runtime.output_dir).name): hydra for work in works for hydra in work.jobs}
        ended: dict[int, Outcome] = {}
        with files.locked(self.folder / RUNNING, shared=True):
            self.ledger.append(*({"job": number, "status": "running", "pid": os.getpid()} for number in hydras))
            for work, how in zip(works, self._do([work.do for work in works]), strict=True):
                how = how if len(work.jobs) == 1 else how._replace(failure=None)  # whose doing it was is not known
                for folder in (Path(hydra.runtime.output_dir) for hydra in work.jobs):
                    ended[int(folder.name)] = end = job_outcome(folder, self.ids[int(folder.name)], how)
                    if end["status"] == "interrupted":
                        stop(self.folder, how.code)
            self.ledger.append(*({"job": number, **end} for number, end in ended.items()))
        told = {number: end for number, end in ended.items() if len(ended) == 1 or end["status"] != "interrupted"}
        for number, end in told.items():  # of a crew that was interrupted, the sweep's last line says enough
            self._tell(number, end, Path(hydras[number].runtime.output_dir), hydras[number].overrides.task)
        if self.stop_on_failure and any(end["status"] == "failed" for end in ended.values()):
            stop(self.folder)
        return {number: end.get("value") for number, end in ended.items()}

    def is_orphaned(self) -> bool:
        """Whether this is a worker whose sweep was killed: what it would do now, a resumed sweep does as well."""
        return self.sweeper not in (os.getpid(), os.getppid())

    def _do(self, works: Sequence[Callable[[], Any]]) -> list[ProcessEnd]:
        """Do the works, and tell how each ended.

        Each has a process of its own: one that is killed takes nothing else with it, and all that it took of memory is
        given back. Where there is no fork, they are done in this process.
        """
        if not CAN_FORK:
            return [_run_here(work) for work in works]
        pipes = [multiprocessing.Pipe(duplex=False) for _ in works]
        processes = [
            multiprocessing.get_context("fork").Process(
                target=_child, args=(work, there, self.workers * len(works), self.workers > 1 or work is not works[0])
            )
            for work, (_, there) in zip(works, pipes, strict=True)
        ]
        with self._passing_stops_on(processes):
            while running := [process for process in processes if process.is_alive()]:
                running[0].join(timeout=1)
                if self.is_orphaned():
                    _signal(running, signal.SIGTERM)
        said = [here.recv() if here.poll() else None for here, _ in pipes]
        return [end or _without_a_word(process.exitcode or 0) for process, end in zip(processes, said, strict=True)]

    @contextmanager
    def _passing_stops_on(self, processes: Sequence[Any]) -> Iterator[None]:
        """Start the processes; signals go on to them and stop the sweep, but not this process: it waits."""
        told = list[int]()

        def pass_on(number: int, _: Any) -> None:
            told.append(number)
            _signal(processes, number)
            stop(self.folder, 128 + number)

        with signals.handled_by(pass_on):
            with signals.blocked():  # until all processes know what to do
                for process in processes:
                    process.start()
                for number in told:  # before they were there; another thread may take a signal that is blocked here
                    _signal(processes, number)
            yield

    def _tell(self, number: int, ended: Outcome, folder: Path, overrides: Sequence[str]) -> None:
        """A line on the console: how far the sweep is, how long it will take, and what the job came to."""
        with open(self.ledger.path, "rb") as file:
            file.seek(self.said)
            lines = file.read().splitlines()
        over = sum(not any(status in line for status in NOT_OVER) for line in lines)
        passed, plain = time.monotonic() - self.begun, not streams.shows_blocks()
        bar = tqdm.format_meter(over, len(self.places), passed, ascii=plain, bar_format=BAR)
        told = f"failed: {ended['error']}" if "error" in ended else ended["status"]
        if ended["status"] == "completed":
            summary = run_folder.read_summary(folder)
            assert summary
            val, test = summary["best_val_accuracy"], summary["test_accuracy"]
            told = f"val {val:.2%}, test {test:.2%}, {summary['seconds']:.1f} s"
        own = [word for word in overrides if word not in self.shared]
        log.info(f"{bar}  #{number} {' '.join(own)}: {told}")


def stop(sweep: Path, code: int | None = None) -> None:
    """Have no further job of the sweep begin, and the sweep end with an exit code, if one is given."""
    if code or not (sweep / STOP).exists():
        with suppress(OSError):  # a full disk; the jobs meet it as well
            files.write(sweep / STOP, str(code or "").encode())


def job_outcome(folder: Path, config_id: str, end: ProcessEnd | None = None) -> Outcome:
    """Return what the ledger records about the end of a job.

    Args:
        folder: The run folder of the job.
        config_id: The config_id of the job.
        end: How the process of the job ended; None if its parent process is gone.
    """
    try:
        summary = run_folder.read_summary(folder)
    except ConfigError:  # a damaged file says nothing
        summary = None
    if summary and summary["status"] == "completed" and summary["config_id"] == config_id:
        data = summary["data"]
        return {"status": "completed", "value": summary["best_val_loss"], "data": data["sha256"] if data else None}
    if end is None or end.code in INTERRUPTED:
        return {"status": "interrupted"}
    if summary and summary["status"] == "failed":
        return {"status": "failed", "error": summary["error"], "failure": summary["failure"]}
    error = end.error or f"exit code {end.code}: see {folder / run_folder.LOG}"
    return {"status": "failed", "error": error, "failure": end.failure}


def make_ready(cfg: DictConfig) -> None:
    """Do what takes long and is the same for every job, once a process: what is forked has it at hand."""
    with signals.deferred():  # an exception in the middle of torch's import ends the process
        import torch
        import torch._dynamo  # an optimizer's first step would import it: a second

        from mnist_exp import build

    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    build.cached_source(cfg)
    provenance.versions()
    provenance.git()
    if not gc.get_freeze_count():  # once: what is here by now stays, and to look through it takes 0.2 s, after each job
        gc.freeze()


def _set_number(number: int) -> None:
    """Have the job's hydra.yaml say its folder's number: a launcher counts the jobs of this session alone."""
    config = cast(DictConfig, HydraConfig.instance().cfg)
    hydra = config.hydra
    if hydra.job.num != number:
        with read_write(hydra), open_dict(hydra):
            hydra.job.num, hydra.job.id = number, str(number)
        if hydra.output_subdir is not None:
            path = Path(hydra.runtime.output_dir, hydra.output_subdir, "hydra.yaml")
            files.write(path, OmegaConf.to_yaml(config).encode())


def _share_the_machine(cfg: DictConfig, place: int, workers: int) -> None:
    """Jobs that run at once get no more threads together than there are cores, and the GPUs in turn."""
    if workers == 1:
        return
    cfg.threads = min(cfg.threads, max(1, cores() // workers))
    if cfg.device in ("auto", "cuda"):
        import torch

        gpus = run_in_subprocess(torch.cuda.device_count)
        cfg.device = f"cuda:{place % gpus}" if gpus > 1 else cfg.device


def _child(work: Callable[[], Any], parent: Connection, workers: int, quiet: bool) -> None:
    try:
        signals.install_handlers()
        signals.unblock()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # when the parent is killed, stop cleanly
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)  # the sweep tells on the console, a line a job
        if quiet:
            sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # no progress bars over each other
        if cores() < 2 * workers:
            import torch

            torch.set_num_interop_threads(1)  # no core is spare to make batches ready: data/batches.py
        end = _run_here(work)
    except KeyboardInterrupt:
        end = ProcessEnd(signals.exit_code())
    signals.ignore()
    if end.error:
        parent.send(end._replace(error=end.error[:LONGEST]))
    sys.exit(end.code)


def _run_here(work: Callable[[], Any]) -> ProcessEnd:
    """Do the work of the job in this process, and tell how it ended."""
    try:
        with signals.raising():
            work()
    except SystemExit as end:
        return _without_a_word(end.code if isinstance(end.code, int) else 1)
    except (KeyboardInterrupt, Exception) as error:
        if signals.caused(error):
            return ProcessEnd(signals.exit_code())
        return ProcessEnd(1, errors.explain(error), errors.failure(error))
    return ProcessEnd(0)


def _without_a_word(code: int) -> ProcessEnd:
    """How a process ended that raised nothing: by itself, or killed."""
    if code >= 0:
        return ProcessEnd(code, failure="error" if code else None)
    name = signal.Signals(-code).name
    told = f"killed by {name}" + ": out of memory, or by somebody" * (name == "SIGKILL")
    return ProcessEnd(code, told, "error" if -code in CRASHES else None)


def _signal(processes: Sequence[Any], number: int) -> None:
    for process in processes:
        if process.pid:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(process.pid, number)
