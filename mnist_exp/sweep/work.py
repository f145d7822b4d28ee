"""A worker: takes batches of jobs from the folder of a sweep, on any machine that sees it, and trains them."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from hydra.core.utils import JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from mnist_exp.store import keeping, provenance, workers
from mnist_exp.store.claims import Claim, Claims
from mnist_exp.store.ledger import Job
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.workers import Liveness, Worker
from mnist_exp.sweep import gpus, jobs, plan
from mnist_exp.sweep.compose import Composer, PlannedJob
from mnist_exp.sweep.jobs import Main, Outcomes, Task, Work
from mnist_exp.sweep.launchers import fused_group, grouping
from mnist_exp.sweep.launchers.fused import run_config, run_job_of
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import quoting, resources, signals
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

log = logging.getLogger(__name__)

ENDED = (*plan.DONE, "failed", "lost")  # of a lost job, results are gone; `resume` runs it again
POLL = 3  # seconds between two looks for a batch that has become free
LAST_MINUTE = 60  # seconds before the end of its time in which a worker begins nothing
TIME_IS_OVER = 128 + signal.SIGTERM  # the exit code of a worker whose time did not suffice: as if told to stop


def work(
    context: HydraContext,
    main: Main,
    composer: Composer,
    sweep: Sweep,
    n_jobs: int | None,
    minutes: float | None,
    allow_changed: bool,
) -> int:
    """Be a worker of a sweep until all its jobs have ended, and return the exit code of the process.

    Args:
        context: Hydra's config loader and callbacks.
        main: Does one run.
        composer: Rebuilds the jobs of the ledger.
        sweep: The sweep.
        n_jobs: How many jobs to train side by side; None for what the session that handed them over says.
        minutes: Stop after this long; None for no limit.
        allow_changed: Whether the versions of Python and the packages may differ from those of the sweep.

    Raises:
        ConfigError: The sweep has no jobs for workers, or was planned with other versions.
    """
    launcher, (sessions, known) = sweep.launcher, sweep.read()
    if launcher is None:
        command = quoting.command("-m", quoting.override("resume", sweep.name), "hydra/launcher=workers")
        raise ConfigError(f"{sweep.name}: this sweep has no jobs for workers; {command} hands over what is left")
    its_jobs = _left(known)
    if not its_jobs:
        log.info(f"{sweep.name}: all jobs have ended, {len(known)} in all")
        return 0
    if not (allow_changed or sessions[-1]["allow_changed"]):
        before = sessions[-1]["versions"]
        plan.require_same_versions(before, before | provenance.versions())
    at_once = n_jobs or launcher["n_jobs"] or _at_once(composer.rebuild(its_jobs[0], sweep.folder), launcher)
    with workers.living(sweep.folder, at_once, _stop_silent_worker) as worker:
        known = _known(sweep)  # nobody changes the list from now on, because this worker lives
        its = _Batches(
            context, main, composer, Sweep(sweep.folder, worker, sweep.name), worker, launcher, known, at_once, minutes
        )
        log.info(
            f"{worker.name}: takes jobs of {sweep.name}, {len(_left(known))} of {len(known)} are left, {at_once} at "
            "once"
        )
        with _stopping(its.sweep, minutes):
            code = its.train()
        if code and minutes and its.is_slow(minutes):
            log.error("the time is too short: no epoch ended in it; give the worker more minutes")
            code = 1  # a scheduler need not start it again
        its.claims.close()
        workers.end(worker)
    return code


def left(sweep: Sweep) -> list[Job]:
    """Return the jobs of a sweep that workers have to run."""
    return _left(sweep.ledger.read()[1])


def wait_for_others(sweep: Sweep) -> None:
    """Wait until no worker of a sweep is left."""
    liveness = Liveness(sweep.folder)
    while liveness.living():
        time.sleep(POLL / 3)


def _known(sweep: Sweep) -> dict[int, Job]:
    """Return the jobs of a sweep by number, when no other command is about to change them."""
    while True:
        with suppress(BlockingIOError), sweep.not_planned():
            return sweep.read()[1]
        time.sleep(POLL / 3)


def _left(known: Mapping[int, Job]) -> list[Job]:
    return [job for job in known.values() if job.status not in ENDED and job.batch is not None]


class _Batches:
    """The batches that a worker takes."""

    def __init__(
        self, context: HydraContext, main: Main, composer: Composer, sweep: Sweep, worker: Worker,
        launcher: Mapping[str, Any], known: dict[int, Job], at_once: int, minutes: float | None,
    ) -> None:  # fmt: skip
        self.context, self.main, self.composer, self.sweep = context, main, composer, sweep
        self.launcher, self.known, self.at_once = launcher, known, at_once
        self.numbers: dict[int, list[int]] = {}  # of the jobs of each batch
        for job in known.values():
            if job.batch is not None:
                self.numbers.setdefault(job.batch, []).append(job.number)
        open_batches = {number for number in self.numbers if any(self._is_left(job) for job in self._jobs_of(number))}
        self.claims, self.liveness = Claims(sweep.folder, worker.name, open_batches), Liveness(sweep.folder)
        self.task = _WorkersTask(main, sweep, list(known.values()), keeping.of(launcher))
        self.waiting: deque[Work] = deque()
        self.claimed: dict[Claim, set[int]] = {}  # the jobs of each claim that have not ended
        margin = min(LAST_MINUTE, 6 * minutes) if minutes else 0  # at most a tenth of the time
        self.deadline = time.monotonic() + 60 * minutes - margin if minutes else float("inf")
        self.begin, self.epochs = time.monotonic(), dict[int, int]()  # of each job, when this worker took it
        self.ended = 0  # jobs that this worker has trained to the end

    def train(self) -> int:
        """Take batches and train their jobs until all have ended; return the exit code."""
        told = False
        while True:
            for work, outcomes in self.task.run_in_turn(self._next_work, self.at_once):
                self._record(work, outcomes)
            if self.sweep.is_stopped:
                log.info(f"stopped after {self.ended} jobs; what was running continues from its last epoch")
                return self.sweep.exit_code
            if self.claims.are_done():
                log.info(f"all jobs have ended; this worker trained {self.ended} of {len(self.known)}")
                return 0
            if time.monotonic() >= self.deadline:
                log.info(f"the time is over after {self.ended} jobs; other workers go on")
                return TIME_IS_OVER
            if not told:
                log.info("nothing is free now; waiting for what other workers have taken")
                told = True
            time.sleep(POLL)

    def is_slow(self, minutes: float) -> bool:
        """Return whether the worker had jobs, and most of the time did not suffice for a single epoch of them."""
        are_behind = [self._epochs(number) <= before for number, before in self.epochs.items()]
        is_long = time.monotonic() - self.begin > 30 * minutes
        return bool(are_behind) and all(are_behind) and is_long and not self.ended

    def _epochs(self, number: int) -> int:
        """Return the number of lines in the metrics of a job."""
        path = self.sweep.job_folder(number) / METRICS
        return path.read_bytes().count(b"\n") if path.exists() else 1  # of a job that begins: the header

    def _next_work(self) -> Work | None:
        """Return what to train next; None if nothing is free now, or the time is nearly over."""
        while not self.waiting and time.monotonic() < self.deadline:
            try:
                with self.sweep.not_planned():
                    claim = self.claims.take(self.liveness.is_dead)
            except BlockingIOError:  # a command that resumes the sweep is about to change its list
                return None
            if not claim:
                return None
            self._open(claim)
        return self.waiting.popleft() if self.waiting else None

    def _open(self, claim: Claim) -> None:
        """Make works of the jobs of a batch that are left."""
        if claim.attempt > 1:  # another worker has had it
            self.known |= self.sweep.ledger.read()[1]
        dead = [job for job in self._jobs_of(claim.batch) if job.status == "running"]
        if dead:
            self.sweep.ledger.append(*map(self.sweep.settled, dead))
            self.known |= self.sweep.ledger.read()[1]
        left = [job._replace(attempt=job.attempt + 1) for job in self._jobs_of(claim.batch) if self._is_left(job)]
        self.claimed[claim] = {job.number for job in left}
        if left and not self.epochs:
            self.begin = time.monotonic()
        self.epochs |= {job.number: self._epochs(job.number) for job in left}
        self.task.attempts |= {job.number: job.attempt for job in left}
        configs = [self._config(job) for job in left]
        if configs:
            with suppress(Exception):  # the jobs meet the same error, and record it
                jobs.prepare_process(configs[0])
        if self.launcher["fused"]:
            groups = [[configs[index] for index in group.jobs] for group in grouping.group_jobs(configs)]
        else:
            groups = [[config] for config in configs]
        self.waiting.extend(Work([config.hydra for config in group], self._training(group)) for group in groups)
        self._finish(claim)

    def _training(self, group: Sequence[DictConfig]) -> Callable[[], None]:
        """Return what trains jobs; beside others, on a GPU of its own."""
        train = partial(_train, self.context, self.main, group)
        return gpus.on_its_own(group[0], train) if self.at_once > 1 else train

    def _config(self, job: Job) -> DictConfig:
        """Return the config of a job as it will run: from its last epoch, if another worker has begun it."""
        planned = plan.prepared(self.composer.rebuild(job, self.sweep.folder), self.sweep.folder, job)
        config = planned.config.config()
        with read_write(config), read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = str(self.sweep.job_folder(job.number))
            config.threads = min(config.threads, max(1, resources.cores() // self.at_once))
        return config

    def _record(self, work: Work, outcomes: Outcomes) -> None:
        """Note which jobs have ended, and mark a batch as done when all its jobs have."""
        ended = {number for number, each in outcomes.items() if each["status"] in ENDED}
        self.ended += len(ended)
        for claim, left in list(self.claimed.items()):
            left -= ended
            self._finish(claim)

    def _finish(self, claim: Claim) -> None:
        if not self.claimed[claim]:
            self.claims.finish(claim)
            del self.claimed[claim]

    def _jobs_of(self, batch: int) -> list[Job]:
        return [self.known[number] for number in self.numbers[batch]]

    def _is_left(self, job: Job) -> bool:
        return job.status not in ENDED


class _WorkersTask(Task):
    """Runs jobs, and records them in the worker's own file."""

    def __init__(self, main: Main, sweep: Sweep, known: Sequence[Job], keep: str) -> None:
        super().__init__(main, sweep.folder, known, keep=keep)
        self.sweep = sweep
        self.attempts: dict[int, int] = {}

    def _entry(self, number: int) -> dict[str, Any]:
        return {"job": number, "attempt": self.attempts[number]}

    def _progress(self) -> str:
        """Return nothing: what the others do is not known here; `mnist-exp status` says it."""
        return ""


def _train(context: HydraContext, main: Main, configs: Sequence[DictConfig]) -> None:
    """Train the jobs of these configs, several as one, in a process of their own.

    Raises:
        Exception: What a run, or the preparation of its folder, raised.
    """
    if len(configs) > 1:
        runs = [_returned(context, run_config, config) for config in configs]
        fused_group.train(main, runs)
    else:
        _returned(context, partial(_without_console, main), configs[0])


def _returned(context: HydraContext, function: Any, config: DictConfig) -> Any:
    """Return what Hydra's call of a function with a config returns."""
    result = run_job_of(context, function, config)
    if result.status == JobStatus.FAILED:
        raise result._return_value
    return result._return_value


def _without_console(main: Main, cfg: DictConfig) -> Any:
    jobs.silence_console()
    return main(cfg)


def _at_once(planned: PlannedJob, launcher: Mapping[str, Any]) -> int:
    """Return how many jobs fill this machine: one for each `threads` of its cores. Fused groups fill a GPU each."""
    config = planned.config.config()
    if launcher["fused"] and (number := run_in_subprocess(partial(_num_gpus, config))):
        return number
    return max(1, resources.cores() // int(config.threads))


def _num_gpus(config: DictConfig) -> int:
    """Return how many GPUs train jobs of this config; 0 on a CPU."""
    from mnist_exp import build

    return 0 if build.device(config).type == "cpu" else build.num_devices(config)


@contextmanager
def _stopping(sweep: Sweep, minutes: float | None) -> Iterator[None]:
    """Stop the worker at a signal, and when its time is over."""

    def stop(number: int, _: Any) -> None:
        sweep.stop(128 + number)

    timer = threading.Timer(60 * minutes if minutes else 0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    with signals.handled_by(stop):
        if minutes:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _stop_silent_worker() -> None:
    log.warning("this worker was suspended for so long that others may have taken its jobs: it stops")
    os.kill(os.getpid(), signal.SIGTERM)
