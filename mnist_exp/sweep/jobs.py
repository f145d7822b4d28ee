"""Runs the jobs of a sweep, each in a process of its own, and records them in the ledger."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
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
from mnist_exp.report.runs import recorded
from mnist_exp.store import keeping, provenance, run_folder
from mnist_exp.store.ledger import Job
from mnist_exp.store.run_folder import ENDED_WELL, RUNG
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


Outcomes = dict[int, Outcome]  # of jobs, by number


class ProcessEnd(NamedTuple):
    """How a process ended."""

    code: int  # the exit code
    error: str | None = None  # what it raised, in one line
    failure: str | None = None  # how it failed by itself, as errors.failure says


class _Running(NamedTuple):
    """A work whose process runs."""

    work: Work
    process: ForkProcess
    receiver: Connection  # of how it ends

    def end(self) -> ProcessEnd:
        """Return how the process ended."""
        found = None
        with suppress(EOFError):
            found = self.receiver.recv() if self.receiver.poll() else None
        self.receiver.close()
        return found or _silent_end(self.process.exitcode or 0)


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
        waiting = deque(works)
        ended = self.run_in_turn(lambda: waiting.popleft() if waiting else None, len(works))
        return {number: each.get("value") for _, outcomes in ended for number, each in outcomes.items()}

    def run_in_turn(self, next_work: Callable[[], Work | None], at_once: int) -> Iterator[tuple[Work, Outcomes]]:
        """Run works, each in its process, and yield each with the outcomes of its jobs when it has ended.

        No further work starts when the sweep is asked to stop.

        Args:
            next_work: Returns the work to start next; None if there is none now.
            at_once: How many works run at once. Another one starts when one has ended.
        """
        with self.sweep.running():
            for work, end in self._run_processes(self._starting(next_work), at_once):
                outcomes = self._outcomes(work, end)
                self.sweep.ledger.append(*({**self._entry(number), **each} for number, each in outcomes.items()))
                for hydra in work.jobs:
                    # The last line of the sweep is enough for a whole group that is interrupted.
                    outcome = outcomes[_number(hydra)]
                    if len(outcomes) == 1 or outcome["status"] != "interrupted":
                        self._log_outcome(_number(hydra), outcome, hydra)
                yield work, outcomes

    def is_orphaned(self) -> bool:
        """Return whether this is a worker whose sweep was killed. A resumed sweep runs its jobs."""
        return self.sweep_pid not in (os.getpid(), os.getppid())

    def _entry(self, number: int) -> dict[str, Any]:
        """Return how an entry about a job begins."""
        return {"job": number}

    def _starting(self, next_work: Callable[[], Work | None]) -> Callable[[], Work | None]:
        """Return the next work after recording that it runs; None if the sweep is asked to stop."""

        def start() -> Work | None:
            if self.sweep.is_stopped or not (work := next_work()):
                return None
            facts = {"status": "running", "pid": os.getpid(), "host": platform.node()}
            self.sweep.ledger.append(*(self._entry(_number(hydra)) | facts for hydra in work.jobs))
            return work

        return start

    def _outcomes(self, work: Work, end: ProcessEnd) -> Outcomes:
        """Return the outcomes of a work's jobs, by number, and stop the sweep if they ask for it."""
        outcomes: Outcomes = {}
        # It is unknown which job of a fused group caused the failure of their process.
        failure = end.failure if len(work.jobs) == 1 else None
        for hydra in work.jobs:
            number, folder = _number(hydra), Path(hydra.runtime.output_dir)
            outcomes[number] = outcome(folder, self.ids[number], end.code, end.error, failure)
            if outcomes[number]["status"] in ENDED_WELL:
                keeping.drop(folder, self.keep)
            if outcomes[number]["status"] == "completed":
                outcomes[number]["result"] = recorded(folder)  # of the files as they stay
            if outcomes[number]["status"] == "interrupted":
                self.sweep.stop(end.code)
        if self.stop_on_failure and any(each["status"] == "failed" for each in outcomes.values()):
            self.sweep.stop()
        return outcomes

    def _run_processes(self, next_work: Callable[[], Work | None], at_once: int) -> Iterator[tuple[Work, ProcessEnd]]:
        """Call the function of each work in a process of its own, and yield how each process ended.

        A process that is killed takes nothing else with it, and its memory is free afterwards. A signal is forwarded to
        the processes and stops the sweep; this process waits for them. Where there is no fork, the functions run in
        this process, one after the other.
        """
        if not CAN_FORK:
            while work := next_work():
                yield work, _call(work.function)
            return
        running: list[_Running] = []
        forwarded: list[int] = []

        def forward(number: int, _: Any) -> None:
            forwarded.append(number)
            _signal(running, number)
            self.sweep.stop(128 + number)

        with signals.handled_by(forward):
            try:
                while True:
                    while len(running) < at_once and (work := next_work()):
                        with signals.blocked():  # until the process has its handlers
                            running.append(self._start(work, at_once))
                            for number in forwarded:  # before it existed; another thread may take a signal meanwhile
                                _signal(running[-1:], number)
                    if not running:
                        return
                    wait([each.process.sentinel for each in running], timeout=1)
                    if self.is_orphaned():
                        _signal(running, signal.SIGTERM)
                    for each in [each for each in running if not each.process.is_alive()]:
                        running.remove(each)
                        yield each.work, each.end()
            finally:  # none is left, unless an error ends the sweep
                _signal(running, signal.SIGTERM)
                for each in running:
                    each.process.join()

    def _start(self, work: Work, at_once: int) -> _Running:
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_child, args=(work.function, sender, self.workers * at_once))
        process.start()
        sender.close()
        return _Running(work, process, receiver)

    def _log_outcome(self, number: int, outcome: Outcome, hydra: HydraConf) -> None:
        """Log one line: the progress of the sweep, the time that is left, and the result of the job."""
        text = f"failed: {outcome['error']}" if "error" in outcome else outcome["status"]
        if outcome["status"] in ENDED_WELL:
            summary = run_folder.read_summary(Path(hydra.runtime.output_dir))
            assert summary
            end = f"{'waits' if summary['stopped'] == RUNG else 'pruned'} after epoch {summary['epochs']}"
            if outcome["status"] == "completed":
                end = f"test {summary['test_accuracy']:.2%}"
            text = f"val {summary['best_val_accuracy']:.2%}, {end}, {summary['seconds']:.1f} s"
        own = [override for override in hydra.overrides.task if override not in self.shared_overrides]
        log.info(f"{self._progress()}  #{number} {' '.join(own)}: {text}")

    def _progress(self) -> str:
        """Return a bar, and the time that is left."""
        with open(self.sweep.ledger.path, "rb") as file:
            file.seek(self.session_offset)
            lines = file.read().splitlines()
        finished = sum(not any(status in line for status in UNFINISHED) for line in lines)
        elapsed, is_ascii = time.monotonic() - self.started, not streams.shows_blocks()
        return str(tqdm.format_meter(finished, len(self.places), elapsed, ascii=is_ascii, bar_format=BAR))


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


def silence_console() -> None:
    """Keep what a job logs off the console, on which the sweep logs one line per job."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)


def _child(function: Callable[[], Any], parent: Connection, workers: int) -> None:
    """Call the function in a forked process, and send the parent how it ended."""
    try:
        signals.install_handlers()
        signals.unblock()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # stop cleanly if the parent is killed
        silence_console()
        sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # report/terminal.py shows the progress of all jobs
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


def _signal(running: Sequence[_Running], number: int) -> None:
    for each in running:
        if each.process.pid:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(each.process.pid, number)
