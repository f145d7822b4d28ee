"""A sweep from its command to its report: plan, launch, and tell, whatever happens to its jobs."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from filelock import FileLock, Timeout
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from mnist_exp import config, errors, record
from mnist_exp.errors import ConfigError
from mnist_exp.sweep import jobs, plan
from mnist_exp.sweep.ledger import PROGRAM, VERSION, Job, Ledger

log = logging.getLogger(__name__)

PATIENCE = 10  # seconds for running jobs to close their folders after a Ctrl-C


class Options(NamedTuple):
    """The sweeper's own keys; hydra_plugins/mnist_exp/sweeper.py says what they mean."""

    dry_run: bool
    stop_on_failure: bool
    retry_failed: bool
    allow_changed: bool
    max_jobs: int


class Stop(BaseException):
    """No further job is to begin. Not an Exception: that would be a failed job's."""


class Loader(plan.ComposedOnce):
    """Gives launchers the composed configs, and no more of them after a stop."""

    def __init__(self, stop: Path) -> None:
        self.stop, self.sweeper = stop, os.getpid()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[plan.Composed]) -> DictConfig:
        """The config of a job. Raises Stop, but not in a worker, where it would kill the others' jobs."""
        if os.getpid() == self.sweeper and self.stop.exists():
            raise Stop
        return super().load_sweep_config(master_config, sweep_overrides)


def sweep(
    context: HydraContext, main: TaskFunction, master: DictConfig, words: Sequence[str], options: Options
) -> None:
    """Run, or go on with, the sweep that the command's `words` ask for, and report on it.

    Ends the process with exit code 1 when jobs failed and 130 after Ctrl-C. Raises ConfigError for what can't work.
    """
    arguments = [word for word in words if not word.startswith("resume=")]
    if master.resume:
        folder, more = plan.find(master.resume), _for_this_session(arguments)
        wanted = plan.unfinished(Ledger(folder).read()[1].values(), options.retry_failed)
    else:
        folder, more = Path(master.hydra.sweep.dir), []
        wanted = plan.grid(arguments, context.config_loader, options.max_jobs)
    bar = tqdm(wanted, desc="checking", unit="job", leave=False, disable=None)
    points = [plan.compose(context.config_loader, master, overrides, more) for overrides in bar]
    if not master.resume:
        log.info(plan.announcement(points))
    if options.dry_run:
        log.info("\n".join(" ".join(point.job.overrides) for point in points))
        return
    _rehearse(points)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        todo = _prepare(points, folder, options)
        with read_write(master.hydra), open_dict(master.hydra):
            master.hydra.sweep.dir = str(folder)
        if not (folder / "multirun.yaml").exists():
            OmegaConf.save(master, folder / "multirun.yaml")
        interrupted = _launch(todo, folder, context, main, master, options)
        _end(folder, interrupted)


def _rehearse(points: Sequence[plan.Point]) -> None:
    """Raise ConfigError for a job whose parts can't be built; seeds make no difference to that."""
    from mnist_exp import build  # imports torch, and nobody should wait for that to hear of a mistyped key

    arms, split = {point.job.arm: point for point in points}, dict[str, Any]()
    for point in tqdm(arms.values(), desc="building", unit="arm", leave=False, disable=None):
        with plan.naming(point.job.overrides):
            build.rehearse(point.word.config(), split)


def _for_this_session(arguments: list[str]) -> list[str]:
    """Choices that may be added when a sweep goes on; raises ConfigError for those that would change its results."""
    for word in arguments:
        if word.lstrip("+~").partition("=")[0] not in config.NOT_IDENTITY:
            raise ConfigError(
                f"{word}: a sweep goes on with its own choices; only {', '.join(config.NOT_IDENTITY)} may change. "
                "For new points type the whole grid again, with hydra.sweep.dir=<the sweep's folder>"
            )
    return arguments


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one to work on this sweep: a job that outlives its sweep counts as well. Raises ConfigError."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"{folder}: another process is at work on this sweep") from None
    try:
        yield
    finally:
        lock.release()


def _prepare(points: Sequence[plan.Point], folder: Path, options: Options) -> list[plan.Point]:
    """Write down what is to be done, and make room for it. Raises ConfigError where that would mix results."""
    ledger, known = Ledger(folder), dict[int, Job]()
    if ledger.path.exists():
        ledger.mend()
        _settle(folder)
        sessions, known = ledger.read()
        if not options.allow_changed:
            plan.refuse_other_versions(sessions[-1]["versions"], record.versions())
    todo = plan.todo(points, known, folder, retry_failed=options.retry_failed, allow_changed=options.allow_changed)
    if not options.allow_changed:
        _refuse_other_data(todo, known.values())
    if known:
        done = sum(job.status == "completed" for job in known.values())
        log.info(f"{folder}: {done} of {len(known)} jobs are completed, {len(todo)} to run")
    if not todo:
        return []
    session = {
        "program": PROGRAM,
        "ledger": VERSION,
        "command": shlex.join(["python", *sys.argv]),
        "versions": record.versions(),
        "git": record.git(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": jobs.cores()},
        "allow_changed": options.allow_changed,
    }
    for point in todo:
        jobs.clear(folder / str(point.job.number))
    ledger.append(session, *(point.job.introduction() for point in todo))
    (folder / jobs.STOP).unlink(missing_ok=True)
    return todo


def _settle(folder: Path, code: int | None = None, error: str | None = None) -> None:
    """Close the ledger's account of jobs whose process is gone without a word."""
    ledger = Ledger(folder)
    for job in ledger.read()[1].values():
        if job.status == "running":
            ledger.append({"job": job.number} | jobs.settle(folder / str(job.number), code, error))


def _refuse_other_data(todo: Sequence[plan.Point], known: Iterable[Job]) -> None:
    """Raise ConfigError when completed jobs have learned from other data than those to come would."""
    learned = {_data(job): job for job in known if job.status == "completed" and job.data}
    for key, point in {_data(point.job): point for point in todo if _data(point.job) in learned}.items():
        from mnist_exp import build

        now = build.keep(point.word.config()).sha256
        if now != learned[key].data:
            raise ConfigError(
                f"data={point.job.choices['data']}: job {learned[key].number} learned from other data (SHA-256 "
                f"{learned[key].data}, now {now}); hydra.sweeper.allow_changed=true goes on all the same"
            )


def _data(job: Job) -> str:
    """What decides which data a job learns from."""
    return repr([(key, value) for key, value in sorted(job.choices.items()) if key.partition(".")[0] == "data"])


def _launch(
    todo: Sequence[plan.Point],
    folder: Path,
    context: HydraContext,
    main: TaskFunction,
    master: DictConfig,
    options: Options,
) -> bool:
    """Have the chosen launcher run the jobs; whether Ctrl-C ended that."""
    ledger, stop = Ledger(folder), folder / jobs.STOP
    task = jobs.Task(main, folder, [point.job for point in todo], _workers(master), options.stop_on_failure)
    hydra_context = HydraContext(cast(ConfigLoader, Loader(stop)), context.callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context, task, master)
    numbers = [point.job.number for point in todo]
    with _ctrl_c_stops(folder) as pressed, suppress(Stop):
        while todo and not stop.exists():
            first, error = todo[0].job.number, None
            try:
                launcher.launch([[point.word] for point in todo], initial_job_idx=first)
            except Exception as broken:  # a worker was killed and took the others with it, or a folder can't be made
                error = errors.explain(broken) or type(broken).__name__
            _settle(folder, 1, error)
            if error and ledger.read()[1][first].status == "pending":  # it would break there again
                ledger.append({"job": first, "status": "failed", "error": error})
            told = ledger.read()[1]
            todo = [point for point in todo if error and told[point.job.number].status == "pending"]
    _settle(folder)
    told = ledger.read()[1]
    return bool(pressed) or any(told[number].status == "interrupted" for number in numbers)


@contextmanager
def _ctrl_c_stops(folder: Path) -> Iterator[list[int]]:
    """On Ctrl-C let no further job begin, give those that run the time to close their folders, and raise Stop.

    (While a job runs in this process its Task is in charge of Ctrl-C.) Yields a list that then is not empty.
    """
    pressed = list[int]()

    def stop(number: int, _: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pressed.append(number)
        (folder / jobs.STOP).touch()
        deadline, signalled = time.monotonic() + PATIENCE, set[int]()
        while (running := _pids(folder)) and time.monotonic() < deadline:
            for pid in running - signalled:  # in a terminal they have it already, and a second does no harm
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            signalled |= running
            time.sleep(0.05)
        raise Stop

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _pids(folder: Path) -> set[int]:
    """The processes that jobs run in, as far as the ledger knows."""
    return {job.pid for job in Ledger(folder).read()[1].values() if job.status == "running" and job.pid}


def _workers(master: DictConfig) -> int:
    """How many jobs the launcher runs at once; joblib's negative numbers count from that of the cores, -1 being all."""
    asked: int = master.hydra.launcher.get("n_jobs") or 1
    return asked if asked > 0 else max(1, jobs.cores() + 1 + asked)


def _end(folder: Path, interrupted: bool) -> None:
    """Write the report, say what failed and how to go on, and end the process accordingly."""
    from mnist_exp.sweep import report

    told = Ledger(folder).read()[1].values()
    log.info(report.write([folder]))
    failed = [job for job in told if job.status == "failed"]
    if failed:
        log.error(f"{len(failed)} of {len(told)} jobs failed:")
        for job in failed:
            log.error(f"  #{job.number} {' '.join(job.overrides)}: {job.error}\n      {plan.command(job)}")
    if any(job.status in ("pending", "interrupted") for job in told):
        log.info(f"to go on: python train.py -m resume={shlex.quote(str(folder))}")
    if interrupted:
        sys.exit(130)
    if failed:
        sys.exit(1)


def _processor() -> str:
    """The processor's name, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
