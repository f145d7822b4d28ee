"""One job of a sweep: in a process of its own, with its lines in the ledger."""

from __future__ import annotations

import ctypes
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from mnist_exp import errors, files, record
from mnist_exp.record import cores
from mnist_exp.sweep.ledger import Job, Ledger

log = logging.getLogger(__name__)

STOP = ".stop"  # a file in the sweep's folder: no further job is to begin, and why
CTRL_C = "Ctrl-C"
RUNNING = ".running"  # a file that every job holds a shared lock on
LONGEST = 2000  # letters of an error: a pipe takes 64 KB before anybody reads
LOG = "train.log"
INTERRUPTED = 130  # the exit code of a run that Ctrl-C ended
CAN_FORK = sys.platform == "linux"  # macOS has fork, but not its frameworks after one
PR_SET_PDEATHSIG = 1  # linux/prctl.h
BAR = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
Main = Callable[[DictConfig], Any]


class Task:
    """What a launcher calls for each job, in the sweep's own process or in a worker's."""

    def __init__(
        self, main: Main, folder: Path, jobs: Sequence[Job], workers: int = 1, stop_on_failure: bool = False
    ) -> None:
        self.main, self.workers, self.stop_on_failure = main, workers, stop_on_failure
        self.folder, self.sweeper = Path(os.path.abspath(folder)), os.getpid()  # a job may change the directory
        self.places = {job.number: place for place, job in enumerate(jobs)}
        self.shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set[str]()
        self.ledger, self.begun = Ledger(self.folder), time.time()
        self.said = self.ledger.path.stat().st_size  # what the ledger says from here on is of this session

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run the job and return its value; None where it has none, or where the sweep is to stop."""
        if (self.folder / STOP).exists() or self.is_orphaned():
            return None
        folder = Path(HydraConfig.get().runtime.output_dir)
        number = int(folder.name)
        with suppress(Exception):  # the job itself meets the same fault, and tells it
            _make_ready(cfg)
        _share_the_machine(cfg, self.places[number], self.workers)
        with files.locked(self.folder / RUNNING, shared=True):
            self.ledger.append({"job": number, "status": "running", "pid": os.getpid()})
            ended = settle(folder, *self._run(cfg))
            self.ledger.append({"job": number} | ended)
        self._tell(number, ended, folder)
        if ended["status"] == "failed" and self.stop_on_failure:
            stop(self.folder, "a job failed")
        if ended["status"] == "interrupted":
            stop(self.folder, CTRL_C)
        return ended.get("value")

    def is_orphaned(self) -> bool:
        """Whether this is a worker whose sweep was killed: what it would do now, a resumed sweep does as well."""
        return self.sweeper not in (os.getpid(), os.getppid())

    def _run(self, cfg: DictConfig) -> tuple[int, str | None]:
        """Run the job; its exit code and, where it raised something, that in a line.

        It has a process of its own: one that is killed takes nothing else with it, and all that it took of memory is
        given back. Where there is no fork, it runs in this process.
        """
        if not CAN_FORK:
            return _run_here(self.main, cfg)
        here, there = multiprocessing.Pipe(duplex=False)
        job = multiprocessing.get_context("fork").Process(target=_child, args=(self.main, cfg, there, self.workers))
        with self._passing_ctrl_c_on(job):
            while job.is_alive():
                job.join(timeout=1)
                if self.is_orphaned():
                    _signal(job)
        return job.exitcode or 0, here.recv() if here.poll() else None

    @contextmanager
    def _passing_ctrl_c_on(self, job: Any) -> Iterator[None]:
        """Start the job; SIGINT goes on to it and stops the sweep, but not this process, which waits for its end."""

        def pass_on(*_: Any) -> None:
            stop(self.folder, CTRL_C)
            _signal(job)

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until both processes know what to do
        before = signal.signal(signal.SIGINT, pass_on)
        try:
            job.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _tell(self, number: int, ended: dict[str, Any], folder: Path) -> None:
        """A line on the console: how far the sweep is, how long it will take, and what the job came to."""
        with open(self.ledger.path, "rb") as file:
            file.seek(self.said)
            lines = file.read().splitlines()
        over = sum(b'"status": "running"' not in line for line in lines)
        bar = tqdm.format_meter(over, len(self.places), time.time() - self.begun, bar_format=BAR)
        told = f"failed: {ended['error']}" if "error" in ended else ended["status"]
        if ended["status"] == "completed":
            facts = _summary(folder)
            val, test = facts["best_val_accuracy"], facts["test_accuracy"]
            told = f"val {val:.2%}, test {test:.2%}, {facts['seconds']:.1f} s"
        own = [word for word in HydraConfig.get().overrides.task if word not in self.shared]
        log.info(f"{bar}  #{number} {' '.join(own)}: {told}")


def stop(sweep: Path, why: str) -> None:
    """Have no further job of the sweep begin."""
    (sweep / STOP).write_text(why)


def settle(folder: Path, code: int | None = None, error: str | None = None) -> dict[str, Any]:
    """How a job ended, by what it left and its exit code; None where that is not known, for its parent is gone."""
    facts = _summary(folder)
    if facts.get("status") == "completed":
        return {"status": "completed", "value": facts["best_val_loss"], "data": (facts["data"] or {}).get("sha256")}
    if code in (None, INTERRUPTED):
        return {"status": "interrupted"}
    if facts.get("status") == "failed":
        return {"status": "failed", "error": facts["error"]}
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        error = f"killed by {name}" + ": out of memory, or by somebody" * (name == "SIGKILL")
    return {"status": "failed", "error": error or f"exit code {code}: see {folder / LOG}"}


def clear(folder: Path) -> None:
    """Take away what a job that did not complete has left, for it starts again; its log goes on."""
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOG:
            path.unlink()


def _summary(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
        return facts
    except (OSError, ValueError):
        return {}


def _make_ready(cfg: DictConfig) -> None:
    """What takes long and is the same for every job, done once a process: forked jobs have it at hand."""
    import torch
    import torch._dynamo  # an optimizer's first step would import it: a second

    from mnist_exp import build

    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    build.keep(cfg)
    record.versions()
    record.git()


def _share_the_machine(cfg: DictConfig, place: int, workers: int) -> None:
    """Jobs that run at once get no more threads together than there are cores, and the GPUs in turn."""
    if workers == 1:
        return
    cfg.threads = min(cfg.threads, max(1, cores() // workers))
    if cfg.device in ("auto", "cuda"):
        import torch

        gpus = torch.cuda.device_count()
        cfg.device = f"cuda:{place % gpus}" if gpus > 1 else cfg.device


def _child(main: Main, cfg: DictConfig, parent: Connection, workers: int) -> None:
    signal.signal(signal.SIGINT, _interrupt_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)  # when the parent is killed, stop cleanly
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # the sweep tells on the console, a line a job
    if workers > 1:
        sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # no progress bars over each other
    if cores() < 2 * workers:
        import torch

        torch.set_num_interop_threads(1)  # no core is spare to make batches ready: data/batches.py
    code, error = _run_here(main, cfg)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if error:
        parent.send(error[:LONGEST])
    sys.exit(code)


def _run_here(main: Main, cfg: DictConfig) -> tuple[int, str | None]:
    """Run the job in this process; its exit code, and what it raised in a line."""
    before = signal.signal(signal.SIGINT, _interrupt_once)
    try:
        main(cfg)
    except KeyboardInterrupt:
        return INTERRUPTED, None
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1, None
    except Exception as error:
        return 1, errors.explain(error)
    finally:
        signal.signal(signal.SIGINT, before)
    return 0, None


def _signal(job: Any) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(job.pid, signal.SIGINT)


def _interrupt_once(*_: Any) -> None:
    """Ctrl-C comes from the terminal and from the parent, and the second must not disturb what the first began."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
