"""A sweep from its command to its report: plan, launch, and tell, whatever happens to its jobs."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from tqdm import tqdm

from mnist_exp import command_line, config
from mnist_exp.store import provenance, run_folder
from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger, keys_beside_identity
from mnist_exp.sweep import jobs, plan, request
from mnist_exp.sweep.launchers import grouping, joblib_workers
from mnist_exp.system import errors, files, quoting, resources, signals
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

log = logging.getLogger(__name__)

PATIENCE = 10  # seconds for running jobs to close their folders after a Ctrl-C


class Options(NamedTuple):
    """The sweeper's own keys; hydra_plugins/mnist_exp/sweeper.py says what they mean."""

    dry_run: bool
    stop_on_failure: bool
    retry_failed: bool
    allow_changed: bool
    max_jobs: int


def sweep(
    context: HydraContext,
    main: TaskFunction,
    master: DictConfig,
    params: Mapping[str, str],
    arguments: Sequence[str],
    options: Options,
) -> None:
    """Run, or go on with, the sweep that `params` and the command's `arguments` ask for, and report on it.

    Ends the process with exit code 1 when jobs failed and 130 after Ctrl-C. Raises ConfigError for what can't work.
    """
    folder, points, compose = request.read(
        context.config_loader, master, params, arguments, options.max_jobs, options.retry_failed
    )
    trials = plan.trials(points, compose)
    is_fused = grouping.is_fused(_launcher(master))
    if options.dry_run:
        _list(points, trials, is_fused)
        return
    run = partial(_run, context=context, main=main, master=master, options=options)
    if trials:
        then = {"then": [point.job.overrides for point in points], "trials": [point.trials for point in points]}
        run([trial.point for trial in trials], folder / run_folder.LR_SEARCH, then)
        rates = _chosen(trials, folder / run_folder.LR_SEARCH)
        points = [
            compose([*point.job.overrides, rates[arm]] if arm in rates else point.job.overrides)
            for arm, point in plan.with_arms(points)
        ]
    run(points, folder)


def _list(points: Sequence[plan.Point], trials: Sequence[plan.Trial], is_fused: bool) -> None:
    """Say what would be run."""
    groups = [[trial.point for trial in trials], points] if trials else [points]
    for group in groups:
        log.info("\n".join(" ".join(point.job.overrides) for point in group))
        if is_fused:
            log.info(grouping.describe(grouping.group_jobs(point.word.config() for point in group)))
        if group is not points:
            log.info(f"and then, each with the {config.LR} that does best in validation:")


def _launcher(master: DictConfig) -> dict[str, Any]:
    """The launcher's config."""
    return cast(dict[str, Any], OmegaConf.to_container(master.hydra.launcher, resolve=True))


def _run(
    points: Sequence[plan.Point],
    folder: Path,
    then: dict[str, Any] | None = None,
    *,
    context: HydraContext,
    main: TaskFunction,
    master: DictConfig,
    options: Options,
) -> None:
    """Run what is left of these jobs, and report. For trials, `then` is what the ledger keeps of what comes after."""
    todo = _todo(points, folder, options)
    at_a_time = min(_workers(master), max(1, len(todo)))
    with joblib_workers.started(_launcher(master), _workers(master) if todo else 1):
        _check(todo, folder, options, at_a_time)
    if not Ledger(folder).path.exists():  # a sweep that goes on has its folder
        run_folder.create(folder, "hydra.sweep.dir")
    with _alone(folder):
        todo = _begin(points, folder, options, then or {})
        with read_write(master.hydra), open_dict(master.hydra):
            master.hydra.sweep.dir = quoting.literal(str(folder))
        if not (folder / "multirun.yaml").exists():
            OmegaConf.save(master, folder / "multirun.yaml")
        _launch(todo, folder, context, main, master, options)
        _end(folder, [point.job.number for point in todo], are_trials=then is not None)


def _chosen(trials: Sequence[plan.Trial], folder: Path) -> dict[str, str]:
    """The rate of each arm, as an override, that did best in its trials. Raises ConfigError for an arm without one."""
    from mnist_exp.report import lr_search, results

    found = lr_search.searches(results.read([folder]))
    beside = keys_beside_identity(trial.point.job for trial in trials)
    best = {run.job.id_beside(beside) for search in found if search.best for run in search.best.runs}
    rates = {trial.arm: trial.rate for trial in trials if trial.point.job.id_beside(beside) in best}
    for trial in trials:
        if trial.arm not in rates:
            words = " ".join(trial.point.job.overrides)
            raise ConfigError(f"{words}: no rate of this arm has completed all its trials; {folder}/report.md says why")
    log.info(f"the trials chose {', '.join(f'lr={search.chosen:g} for {search.label}' for search in found)}")
    return rates


def _todo(points: Sequence[plan.Point], folder: Path, options: Options) -> list[plan.Point]:
    known = plan.known(folder)[1]
    return plan.todo(points, known, folder, retry_failed=options.retry_failed, allow_changed=options.allow_changed)


def _check(todo: Sequence[plan.Point], folder: Path, options: Options, times: int) -> None:
    """Raise ConfigError for a job that can't be built, or that would mix results. Nothing has been written so far."""
    if not todo:
        return
    sessions, known = plan.known(folder)
    if sessions and not options.allow_changed:
        plan.refuse_other_versions(sessions[-1]["versions"], provenance.versions())

    arms = plan.arms(todo).values()  # seeds make no difference
    for _, alike in groupby(arms, key=lambda point: str(point.word.config().data)):
        _rehearse(list(alike), times)
    if not options.allow_changed:
        _refuse_other_data(todo, known.values())


def _rehearse(arms: Sequence[plan.Point], times: int) -> None:
    """Build every part of arms that have the same data, of which so many run at a time. Raises ConfigError."""
    with plan.naming(arms[0].job.overrides):
        jobs.make_ready(arms[0].word.config())
    from mnist_exp import build  # imports torch, and nobody should wait for that to hear of a mistyped key

    def build_all() -> None:
        for point in tqdm(arms, desc="building", unit="arm", leave=False, disable=None):
            with plan.naming(point.job.overrides):
                build.check_build(point.word.config(), times)

    run_in_subprocess(build_all)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one to work on this sweep: a job that outlives its sweep counts as well. Raises ConfigError."""
    with ExitStack() as locks:
        try:
            locks.enter_context(files.locked(folder / ".lock"))
            with files.locked(folder / jobs.RUNNING):
                pass
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process is at work on this sweep") from None
        yield


def _begin(points: Sequence[plan.Point], folder: Path, options: Options, then: dict[str, Any]) -> list[plan.Point]:
    """Write down what is to be done, and make room for it."""
    if Ledger(folder).path.exists():
        _settle(folder)
    known, todo = plan.known(folder)[1], _todo(points, folder, options)
    again = [point.job.number for point in todo]
    if lost := [number for number in again if number in known and known[number].status == "lost"]:
        log.warning(f"{folder}: the results of job {', '.join(map(str, lost))} are gone or damaged; run again")
    if known:
        done = sum(job.status == "completed" for job in known.values())
        log.info(f"{folder}: {done} of {len(known)} jobs are completed, {len(todo)} to run")
    (folder / jobs.STOP).unlink(missing_ok=True)
    if not todo:
        return []
    session = {
        "program": PROGRAM,
        "ledger": VERSION,
        "command": shlex.join(["python", sys.argv[0], *command_line.typed()]),
        "versions": provenance.versions(),
        "git": provenance.git(),
        "machine": provenance.machine(),
        "allow_changed": options.allow_changed,
        "new": sum(point.job.number not in known for point in todo),  # without all of these, the list is torn
        **then,
    }
    todo = [_ready(point, folder, known) for point in todo]
    replaced = [{"job": job.number, "status": "replaced"} for job in plan.replaced(todo, known)]
    Ledger(folder).append(session, *replaced, *(point.job.introduction() for point in todo))
    return todo


def _ready(point: plan.Point, folder: Path, known: dict[int, Job]) -> plan.Point:
    """The job as it is to run: on from its last checkpoint where it was interrupted, else from the start."""
    job = folder / str(point.job.number)
    before = known.get(point.job.number)
    # One that waits for its turn again was interrupted before, for what a failed one has left is cleared at once.
    if before and before.status in ("pending", "interrupted", "lost") and (job / run_folder.LAST).is_file():
        return point.resuming(job / run_folder.LAST)
    run_folder.clear(job)
    return point


def _settle(folder: Path) -> None:
    """Close the ledger's account of jobs whose process is gone without a word."""
    ledger = Ledger(folder)
    for job in ledger.read()[1].values():
        if job.status == "running":
            ledger.append({"job": job.number, **jobs.job_outcome(folder / str(job.number), job.config_id)})


def _refuse_other_data(todo: Sequence[plan.Point], known: Iterable[Job]) -> None:
    """Raise ConfigError when completed jobs have learned from other data than those to come would."""
    from mnist_exp import build

    no_matter = {f"data.{key}" for key in (*build.SPLIT_KEYS, "root")}

    def source(job: Job) -> str:
        keys = {key for key in job.choices if key.partition(".")[0] == "data"} - no_matter
        return repr([(key, job.choices[key]) for key in sorted(keys)])

    learned = {source(job): job for job in known if job.status == "completed" and job.data}
    for wanted, point in {source(point.job): point for point in todo if source(point.job) in learned}.items():
        now = build.cached_source(point.word.config()).sha256
        if now != learned[wanted].data:
            raise ConfigError(
                f"data={point.job.choices['data']}: job {learned[wanted].number} learned from other data (SHA-256 "
                f"{learned[wanted].data}, now {now}); hydra.sweeper.allow_changed=true goes on all the same"
            )


def _launch(
    todo: Sequence[plan.Point],
    folder: Path,
    context: HydraContext,
    main: TaskFunction,
    master: DictConfig,
    options: Options,
) -> None:
    """Have the chosen launcher run the jobs, all of them, unless the sweep is told to stop."""
    if not todo:
        return
    _say_threads(todo, _workers(master))
    task = jobs.Task(main, folder, [point.job for point in todo], _workers(master), options.stop_on_failure)
    context.callbacks.callbacks.append(jobs.LetGo())
    hydra_context = HydraContext(cast(ConfigLoader, plan.ComposedOnce(folder / jobs.STOP)), context.callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context, task, master)
    tried = Counter[int]()
    with signals.handled_by(_stop(folder)), suppress(plan.Stop):
        while todo and (error := _broke(launcher, todo, Ledger(folder))):
            _settle(folder)
            told = Ledger(folder).read()[1]
            todo = [point for point in todo if told[point.job.number].status in ("pending", "interrupted")]
            given_up = _without_a_folder(todo, folder)
            if not given_up:  # a worker was killed and took the others with it: once more, not for ever
                suspects = [point for point in todo if told[point.job.number].status == "interrupted"] or todo[:1]
                tried.update(point.job.number for point in suspects)
                given_up = {point.job.number: error for point in suspects if tried[point.job.number] > 1}
            Ledger(folder).append(
                *({"job": number, "status": "failed", "error": why} for number, why in given_up.items())
            )
            todo = [point for point in todo if point.job.number not in given_up]
            todo = [_ready(point, folder, told) for point in todo]
    _settle(folder)


def _without_a_folder(todo: Sequence[plan.Point], sweep: Path) -> dict[int, str]:
    """The jobs whose folder can't be made, or whose log can't be written, and why."""
    found = dict[int, str]()
    for number in (point.job.number for point in todo):
        log_file = sweep / str(number) / run_folder.LOG
        try:
            log_file.parent.mkdir(exist_ok=True)
            log_file.open("ab").close()
        except OSError as error:
            found[number] = errors.explain(error)
    return found


def _say_threads(todo: Sequence[plan.Point], workers: int) -> None:
    """Say where jobs get fewer threads than they ask for, because several run at a time."""
    asked, most = {int(point.job.choices["threads"]) for point in todo}, max(1, resources.cores() // workers)
    if workers > 1 and max(asked) > most:
        log.warning(
            f"threads={max(asked)}: {workers} jobs at a time share {resources.cores()} cores, so each gets {most}"
        )


def _broke(launcher: Launcher, todo: Sequence[plan.Point], ledger: Ledger) -> str | None:
    """Launch the jobs. What broke the launcher, in a line; None where it came to its end."""
    try:
        returns = launcher.launch([[point.word] for point in todo], initial_job_idx=todo[0].job.number)
    except Exception as broken:
        return errors.explain(broken) or type(broken).__name__
    for point, result in zip(todo, returns, strict=True):
        if result.status == JobStatus.FAILED:  # not the job, which has told its own failure, but what is around it
            error = errors.explain(result._return_value) or type(result._return_value).__name__
            ledger.append({"job": point.job.number, "status": "failed", "error": error})
    return None


def _stop(folder: Path) -> Callable[[int, Any], None]:
    """What a signal that asks the sweep to stop does: no further job begins, those that run get the time to close their
    folders, and Stop is raised. (While this process waits for a job, its Task is in charge.)
    """

    def stop(number: int, _: Any) -> None:
        signals.ignore()
        jobs.stop(folder, 128 + number)
        deadline, signalled = time.monotonic() + PATIENCE, set[int]()
        while (running := _pids(folder)) and time.monotonic() < deadline:
            for pid in running - signalled:  # in a terminal they have it already, and a second does no harm
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            signalled |= running
            time.sleep(0.05)
        raise plan.Stop

    return stop


def _pids(folder: Path) -> set[int]:
    """The other processes that jobs run in, as far as the ledger knows."""
    running = {job.pid for job in Ledger(folder).read()[1].values() if job.status == "running" and job.pid}
    return running - {os.getpid()}


def _workers(master: DictConfig) -> int:
    """How many jobs the launcher runs at once; joblib's negative numbers count from that of the cores, -1 being all."""
    asked: int = master.hydra.launcher.get("n_jobs") or 1
    return asked if asked > 0 else max(1, resources.cores() + 1 + asked)


def _end(folder: Path, numbers: Sequence[int], are_trials: bool) -> None:
    """Say what failed and how to go on, write the report, and end the process accordingly.

    After trials that are all through, failed ones too, it does not end: some rates are meant to be too high.
    """
    from mnist_exp.report import report

    stop = folder / jobs.STOP
    code = int(stop.read_text() or 0) if stop.exists() else 0
    if code:
        signals.ignore()  # a second Ctrl-C must not cost the report
    told = [job for job in Ledger(folder).read()[1].values() if job.status != "replaced"]
    failed = [job for job in told if job.status == "failed"]
    flags = command_line.config_flags(command_line.typed())
    if failed and are_trials:
        log.warning(f"{len(failed)} of {len(told)} trials failed: {folder / 'report.md'}")
    elif failed:
        _tell_of(failed, len(told), flags)
    is_unfinished = any(job.status in ("pending", "interrupted") for job in told)
    if is_unfinished or (are_trials and code):
        launcher = [word for word in command_line.typed() if word.startswith(("hydra/launcher", "hydra.launcher"))]
        whole = quoting.override("resume", folder.parent if are_trials else folder)
        log.info(f"to go on: {quoting.command('-m', *flags, whole, *launcher)}")
    completed = {job.number for job in told if job.status == "completed"}
    are_through = are_trials and not is_unfinished
    succeeded = are_through or (not failed and completed.issuperset(numbers))
    try:
        short = report.write([folder])
        if not are_through:
            log.info(short)
    except OSError as error:
        log.error(f"no report: {errors.explain(error)}")
        succeeded = False
    if code or not succeeded:
        sys.exit(code or 1)


def _tell_of(failed: Sequence[Job], among: int, flags: Sequence[str]) -> None:
    """Say of each job that failed why, and what runs it alone."""
    log.error(f"{len(failed)} of {among} jobs failed:")
    for job in failed:
        again = quoting.command(*flags, *job.overrides)
        log.error(f"  #{job.number} {' '.join(job.overrides)}: {job.error}\n      {again}")
