"""Runs the jobs of a sweep, each in a process of its own, and records them in the ledger."""

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
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from mnist_exp.config import key_of
from mnist_exp.store import keeping, provenance, run_folder
from mnist_exp.store.ledger import Job
from mnist_exp.sweep import gpus
from mnist_exp.sweep.sweep import Outcome, Sweep, outcome
from mnist_exp.system import errors, files, signals, streams
from mnist_exp.system.fork import CAN_FORK
from mnist_exp.system.resources import cores

log = logging.getLogger(__name__)

MAX_ERROR = 2000  # characters: a pipe takes 64 KB before somebody reads it
CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}  # a process causes them itself
PR_SET_PDEATHSIG = 1  # linux/prctl.h
UNFINISHED = (b'"status": "running"', b'"status": "pending"')
BAR = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
Main = Callable[[DictConfig], Any]


class DropConfigs(Callback):
    """Drops the configs that Hydra keeps of every job until the end: 180 KB per job."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep the job's return value alone."""
        job_return.cfg = job_return.hydra_cfg = None


class Work(NamedTuple):
    """The work of one process: jobs, by Hydra's section of their configs, and the function that runs them."""

    jobs: Sequence[HydraConf]
    function: Callable[[], Any]


class ProcessEnd(NamedTuple):
    """How a process ended."""

    code: int  # the exit code
    error: str | None = None  # what it raised, in one line
    failure: str | None = None  # how it failed by itself, as errors.failure says


class Task:
    """The function that a launcher calls for each job, in the process of the sweep or in that of a worker."""

    def __init__(
        self,
        main: Main,
        folder: Path,
        jobs: Sequence[Job],
        workers: int = 1,
        stop_on_failure: bool = False,
        keep: str = "all",
    ) -> None:
        """Prepare a session of a sweep.

        Args:
            main: Does one run.
            folder: The folder of the sweep.
            jobs: The jobs of the session.
            workers: How many jobs run at once.
            stop_on_failure: Whether the sweep stops at the first failure.
            keep: What is kept of a completed run: see store.keeping.
        """
        self.keep = keep
        self.main, self.workers, self.stop_on_failure = main, workers, stop_on_failure
        self.sweep, self.sweep_pid = Sweep(Path(os.path.abspath(folder))), os.getpid()  # a job may change the directory
        self.places = {job.number: place for place, job in enumerate(jobs)}
        self.ids = {job.number: job.config_id for job in jobs}
        overrides = [{word for word in job.overrides if key_of(word) != "seed"} for job in jobs]
        self.shared_overrides = set.intersection(*overrides) if len(jobs) > 1 else set()
        self.started = time.monotonic()
        self.session_offset = self.sweep.ledger.path.stat().st_size  # where the ledger's lines of this session begin

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the task in a worker process, and harden the worker's streams."""
        streams.harden()
        vars(self).update(state)

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run a job. Return its value; None if it has none, or if the sweep is asked to stop."""
        hydra = HydraConfig.get()
        number = _number(hydra)
        _set_number(number)
        function = _share_the_machine(cfg, partial(self.main, cfg), self.workers)
        return self.run(cfg, Work([hydra], function)).get(number)

    def run(self, cfg: DictConfig, *works: Work) -> dict[int, float | None]:
        """Run several works at once, each in its process.

        Args:
            cfg: The config of one of their jobs; what all of them share is prepared from it.
            works: The works.

        Returns:
            The values of their jobs, by number; nothing if the sweep is asked to stop.
        """
        if self.sweep.is_stopped or self.is_orphaned():
            return {}
        with suppress(Exception):  # the jobs meet the same error, and record it
            prepare_process(cfg)
        hydras = {_number(hydra): hydra for work in works for hydra in work.jobs}
        outcomes: dict[int, Outcome] = {}
        with self.sweep.running():
            self.sweep.ledger.append(*({"job": number, "status": "running", "pid": os.getpid()} for number in hydras))
            for work, end in zip(works, self._run_processes([work.function for work in works]), strict=True):
                # It is unknown which job of a fused group caused the failure of their process.
                failure = end.failure if len(work.jobs) == 1 else None
                for hydra in work.jobs:
                    number, folder = _number(hydra), Path(hydra.runtime.output_dir)
                    outcomes[number] = outcome(folder, self.ids[number], end.code, end.error, failure)
                    if outcomes[number]["status"] == "completed":
                        keeping.drop(folder, self.keep)
                    if outcomes[number]["status"] == "interrupted":
                        self.sweep.stop(end.code)
            self.sweep.ledger.append(*({"job": number, **each} for number, each in outcomes.items()))
        for number, each in outcomes.items():
            # The last line of the sweep is enough for a whole group that is interrupted.
            if len(outcomes) == 1 or each["status"] != "interrupted":
                self._log_outcome(number, each, hydras[number])
        if self.stop_on_failure and any(each["status"] == "failed" for each in outcomes.values()):
            self.sweep.stop()
        return {number: each.get("value") for number, each in outcomes.items()}

    def is_orphaned(self) -> bool:
        """Return whether this is a worker whose sweep was killed. A resumed sweep runs its jobs."""
        return self.sweep_pid not in (os.getpid(), os.getppid())

    def _run_processes(self, functions: Sequence[Callable[[], Any]]) -> list[ProcessEnd]:
        """Call each function in a process of its own, and return how each process ended.

        A process that is killed takes nothing else with it, and its memory is free afterwards. Where there is no fork,
        the functions run in this process.
        """
        if not CAN_FORK:
            return [_call(function) for function in functions]
        fork = multiprocessing.get_context("fork")
        workers = self.workers * len(functions)
        pipes = [fork.Pipe(duplex=False) for _ in functions]
        processes = [
            fork.Process(target=_child, args=(function, sender, workers, self.workers > 1 or place > 0))
            for place, (function, (_, sender)) in enumerate(zip(functions, pipes, strict=True))
        ]
        with self._started(processes):
            while running := [process for process in processes if process.is_alive()]:
                running[0].join(timeout=1)
                if self.is_orphaned():
                    _signal(running, signal.SIGTERM)
        ends = [receiver.recv() if receiver.poll() else None for receiver, _ in pipes]
        return [end or _silent_end(process.exitcode or 0) for process, end in zip(processes, ends, strict=True)]

    @contextmanager
    def _started(self, processes: Sequence[ForkProcess]) -> Iterator[None]:
        """Start the processes. A signal in the block is forwarded to them and stops the sweep; this process waits."""
        forwarded: list[int] = []

        def forward(number: int, _: Any) -> None:
            forwarded.append(number)
            _signal(processes, number)
            self.sweep.stop(128 + number)

        with signals.handled_by(forward):
            with signals.blocked():  # until all processes have their handlers
                for process in processes:
                    process.start()
                for number in forwarded:  # before they existed; another thread may take a signal that is blocked here
                    _signal(processes, number)
            yield

    def _log_outcome(self, number: int, outcome: Outcome, hydra: HydraConf) -> None:
        """Log one line: the progress of the sweep, the time that is left, and the result of the job."""
        with open(self.sweep.ledger.path, "rb") as file:
            file.seek(self.session_offset)
            lines = file.read().splitlines()
        finished = sum(not any(status in line for status in UNFINISHED) for line in lines)
        elapsed, is_ascii = time.monotonic() - self.started, not streams.shows_blocks()
        bar = tqdm.format_meter(finished, len(self.places), elapsed, ascii=is_ascii, bar_format=BAR)
        text = f"failed: {outcome['error']}" if "error" in outcome else outcome["status"]
        if outcome["status"] == "completed":
            summary = run_folder.read_summary(Path(hydra.runtime.output_dir))
            assert summary
            val, test = summary["best_val_accuracy"], summary["test_accuracy"]
            text = f"val {val:.2%}, test {test:.2%}, {summary['seconds']:.1f} s"
        own = [override for override in hydra.overrides.task if override not in self.shared_overrides]
        log.info(f"{bar}  #{number} {' '.join(own)}: {text}")


def prepare_process(cfg: DictConfig) -> None:
    """Do the slow work that is the same for every job, once per process: forked jobs share the result."""
    with signals.deferred():  # an exception in the middle of torch's import ends the process
        import torch

        from mnist_exp import build

    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    build.cached_source(cfg)
    provenance.versions()
    provenance.git()
    if not gc.get_freeze_count():  # once: the collector would look through all of torch after each job, 0.2 s
        gc.freeze()


def _number(hydra: HydraConf) -> int:
    return int(Path(hydra.runtime.output_dir).name)


def _set_number(number: int) -> None:
    """Write the number of the job's folder into its hydra.yaml. A launcher counts the jobs of this session alone."""
    config = cast(DictConfig, HydraConfig.instance().cfg)
    hydra = config.hydra
    if hydra.job.num != number:
        with read_write(hydra), open_dict(hydra):
            hydra.job.num, hydra.job.id = number, str(number)
        if hydra.output_subdir is not None:
            path = Path(hydra.runtime.output_dir, hydra.output_subdir, "hydra.yaml")
            files.write(path, OmegaConf.to_yaml(config).encode())


def _share_the_machine(cfg: DictConfig, function: Callable[[], Any], workers: int) -> Callable[[], Any]:
    """Divide the cores among jobs that run at once, and return what calls `function` on a GPU of its own."""
    if workers == 1:
        return function
    cfg.threads = min(cfg.threads, max(1, cores() // workers))
    return gpus.on_its_own(cfg, function)


def _child(function: Callable[[], Any], parent: Connection, workers: int, quiet: bool) -> None:
    """Call the function in a forked process, and send the parent how it ended."""
    try:
        signals.install_handlers()
        signals.unblock()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # stop cleanly if the parent is killed
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)  # the sweep logs one line per job on the console
        if quiet:
            sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # progress bars would mix
        if cores() < 2 * workers:
            import torch

            torch.set_num_interop_threads(1)  # no core is spare to prepare batches: data/batches.py
        end = _call(function)
    except KeyboardInterrupt:
        end = ProcessEnd(signals.exit_code())
    signals.ignore()
    if end.error:
        parent.send(end._replace(error=end.error[:MAX_ERROR]))
    sys.exit(end.code)


def _call(function: Callable[[], Any]) -> ProcessEnd:
    """Call the function in this process, and return how it ended."""
    try:
        with signals.raising():
            function()
    except SystemExit as end:
        return _silent_end(end.code if isinstance(end.code, int) else 1)
    except (KeyboardInterrupt, Exception) as error:
        if signals.caused(error):
            return ProcessEnd(signals.exit_code())
        return ProcessEnd(1, errors.explain(error), errors.failure(error))
    return ProcessEnd(0)


def _silent_end(code: int) -> ProcessEnd:
    """Return how a process ended that sent nothing: by itself, or killed by a signal (a negative code)."""
    if code >= 0:
        return ProcessEnd(code, failure="error" if code else None)
    name = signal.Signals(-code).name
    reason = ": memory ran out, or another process killed it" if name == "SIGKILL" else ""
    return ProcessEnd(code, f"killed by {name}{reason}", "error" if -code in CRASHES else None)


def _signal(processes: Sequence[ForkProcess], number: int) -> None:
    for process in processes:
        if process.pid:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(process.pid, number)
