"""Runs a sweep from its command to its report, whatever happens to its jobs."""

from __future__ import annotations

import copy
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_exp import command_line, config, limits
from mnist_exp.report import terminal
from mnist_exp.report.sequential import Rule
from mnist_exp.store import claims, keeping, provenance, run_folder
from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Session, introductions
from mnist_exp.store.run_folder import PRUNED, SEARCHES
from mnist_exp.sweep import batches, jobs, launch, plan, preflight, request, work
from mnist_exp.sweep.compose import Composer, Plan, PlannedJob, StopLaunching
from mnist_exp.sweep.finish import finish
from mnist_exp.sweep.launchers import grouping, joblib_workers, slurm
from mnist_exp.sweep.launchers import workers as workers_launcher
from mnist_exp.sweep.launchers.workers import HandOver
from mnist_exp.sweep.rounds import Rounds, Until
from mnist_exp.sweep.search import request as search_request
from mnist_exp.sweep.search.search import Search
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import extras, files, program, quoting, resources, signals
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import beside

log = logging.getLogger(__name__)

FUSED_SEEDS = 5  # of each arm in a round of a sequential sweep: they train as one
SCHEDULERS = {"WorkersLauncher": workers_launcher, "SlurmLauncher": slurm}
CLOSING_LOCK = ".closing.lock"  # held by the worker that reports, and plans what follows


@dataclass(frozen=True)
class Runner:
    """Runs sweeps for one command.

    The last fifteen attributes are keys of hydra.sweeper; hydra_plugins/mnist_exp/sweeper.py explains them.

    Attributes:
        context: Hydra's config loader and callbacks.
        main: The function that does one run.
        master: The config of the sweep.
    """

    context: HydraContext
    main: TaskFunction
    master: DictConfig
    dry_run: bool
    stop_on_failure: bool
    retry_failed: bool
    allow_changed: bool
    max_jobs: int
    until: str | None
    max_seeds: int
    smallest: float
    search: Any
    prune: Any
    finalists: int
    work: bool
    close: bool
    n_jobs: int | None
    minutes: float | None

    def run(self, params: Mapping[str, str], arguments: Sequence[str]) -> None:
        """Run, or resume, the sweep that a command asks for, and report on it.

        The process ends with exit code 1 if jobs failed, and 130 after Ctrl-C.

        Args:
            params: hydra.sweeper.params.
            arguments: The overrides on the command line.

        Raises:
            ConfigError: The command asks for something that can't work.
        """
        keeping.of(self.launcher_config)  # a mistyped value is refused before anything is written
        if self.launcher_config.get("n_jobs") == 0:
            raise ConfigError("hydra.launcher.n_jobs=0: must be 1 or more jobs at once")
        if self.scheduler and self.stop_on_failure:
            raise ConfigError(
                "hydra.sweeper.stop_on_failure=true: workers do not stop each other; remove it, or run the sweep with "
                "another launcher"
            )
        if self.work:
            self._work(params, arguments)
            return
        for key, value in {"n_jobs": self.n_jobs, "minutes": self.minutes}.items():
            if value is not None and not self.close:
                raise ConfigError(
                    f"hydra.sweeper.{key}={value:g}: is for workers, which {program.tool('work')} FOLDER starts; "
                    f"remove it{', or set hydra.launcher.n_jobs' if key == 'n_jobs' else ''}"
                )
        extras.require_trackers(config.trackers(self.master))
        typed = frozenset(map(config.key_of, self.master.hydra.overrides.hydra))
        until = Until(self.until, self.max_seeds, self.smallest, typed)
        asked = request.read(
            self.context.config_loader, self.master, params, arguments, self.max_jobs, self.retry_failed, until
        )
        if self.master.resume and "hydra/launcher" not in typed and (launcher := _stage(asked.folder).launcher):
            self._launched_by(launcher)._run_asked(asked)
        else:
            self._run_asked(asked)

    def _run_asked(self, asked: request.Request) -> None:
        """Run a sweep after a search, if one comes before it; or list what would run."""
        planned, further = asked.jobs, self._rounds(asked.rule, asked.plan)
        search, sweep = self._search(asked), Sweep(asked.folder)
        if self.dry_run:
            self._list(planned, search)
            if outlook := further.outlook([*sweep.read()[1].values(), *(each.job for each in planned)]):
                log.info(outlook)
            return
        with self._tracked(asked):
            if search:
                trials = search.sweep
                if self._run_search(search, trials, planned, asked.rule):
                    return
                planned, text = search.finals(planned, trials)
                log.info(text)
            self._run(planned, sweep, further, {"until": asked.rule._asdict()} if asked.rule else {})

    @contextmanager
    def _tracked(self, asked: request.Request) -> Iterator[None]:
        """Show the sweep in trackers while this command trains it. If workers do, log the command that shows it."""
        typed, stored = config.trackers(self.master), (each.job.choices.get("tracker") for each in asked.jobs[:1])
        names = extras.require_trackers(typed or limits.listed(next(stored, None)))
        is_here = not self.close and (not self.scheduler or self.launcher_config.get("wait", False))
        with beside.shown_in(names if is_here else [], [asked.folder, *(asked.folder / name for name in SEARCHES)]):
            yield
        for name in [] if is_here or self.close else names:
            follow = f"{program.tool('track')} {name} {quoting.for_shell(str(_stage(asked.folder).folder))} --follow"
            log.info(f"tracker={name}: workers train the jobs; to show them meanwhile: {follow}")

    def _search(self, asked: request.Request) -> Search | None:
        """Return the search that comes before the jobs, if there is one."""
        is_fused = grouping.is_fused(self.launcher_config)
        options = search_request.Options(self.search, self.prune, self.finalists, self.at_once, is_fused, self.max_jobs)
        loader = self.context.config_loader
        return search_request.new(asked.jobs, asked.plan, asked.tuned, options, loader, asked.folder)

    def _run_search(self, search: Search, trials: Sweep, planned: Sequence[PlannedJob], rule: Rule | None) -> bool:
        """Run the search that comes before jobs; return whether trials are left, which workers have to run."""
        facts: Session = {
            "then": [list(each.job.overrides) for each in planned],
            "trials": [list(each.search) for each in planned],
            **search.facts,
        }
        facts |= {"then_until": rule._asdict()} if rule else {}
        if not search.is_of_rates:
            log.info(search.describe([each.job for each in planned]))
        return self._run(search.first(trials, self.retry_failed), trials, search, facts)

    def _work(self, params: Mapping[str, str], arguments: Sequence[str]) -> None:
        """Be a worker of the sweep that `resume` names, and close the sweep if no other worker will."""
        self._require_worker_options()
        folder = request.find(self.master.resume).absolute()
        composer = Composer(self.context.config_loader, self.master)
        end = time.monotonic() + 60 * self.minutes if self.minutes else None
        while True:
            sweep = _stage(folder)
            minutes = (end - time.monotonic()) / 60 if end else None
            if minutes is not None and minutes <= 0:
                sys.exit(work.TIME_IS_OVER)
            with terminal.shown(folder):
                code = work.work(self.context, self.main, composer, sweep, self.n_jobs, minutes, self.allow_changed)
            if code:
                sys.exit(code)
            if SCHEDULERS.get(_name(sweep.launcher or {})) is not workers_launcher:
                return  # the scheduler starts what closes the sweep
            with files.locked_in_turn(folder / CLOSING_LOCK, lambda: log.info("another worker closes the sweep")):
                if not work.left(_stage(folder)):  # nobody else has handed over what follows
                    work.wait_for_others(sweep)
                    if not sweep.is_closed:
                        self._close(sweep, params, arguments)
            if not work.left(_stage(folder)):
                return

    def _require_worker_options(self) -> None:
        """Raise ConfigError for what a worker can't do."""
        if self.master.resume is None:
            raise ConfigError("hydra.sweeper.work=true: a worker needs resume=FOLDER, the folder of a sweep")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"hydra.sweeper.minutes={self.minutes:g}: must be more than 0, or null for no limit")
        if self.n_jobs is not None and self.n_jobs < 1:
            raise ConfigError(f"hydra.sweeper.n_jobs={self.n_jobs}: must be 1 or more jobs at once")

    def _close(self, sweep: Sweep, params: Mapping[str, str], arguments: Sequence[str]) -> None:
        """Report on a sweep whose jobs have ended, or hand over what follows."""
        try:
            replace(self, work=False, close=True).run(params, arguments)
        except SystemExit:  # some jobs have failed
            sweep.mark_closed()
            raise
        sweep.mark_closed()

    def _launched_by(self, launcher: Mapping[str, Any]) -> Runner:
        """Return this command with the launcher that has handed jobs of its sweep over to workers before."""
        master = copy.deepcopy(self.master)
        with read_write(master.hydra), open_dict(master.hydra):
            master.hydra.launcher = launcher
        return replace(self, master=master)

    @property
    def scheduler(self) -> ModuleType | None:
        """The module that hands the sweep over to workers; None if the launcher runs the jobs itself."""
        return SCHEDULERS.get(_name(self.launcher_config))

    @property
    def launcher_config(self) -> dict[str, Any]:
        """The config of the launcher."""
        return cast(dict[str, Any], OmegaConf.to_container(self.master.hydra.launcher, resolve=True))

    @property
    def workers(self) -> int:
        """The number of jobs that run at once. A negative n_jobs counts from the number of cores, -1 being all."""
        n_jobs: int = self.launcher_config.get("n_jobs") or 1
        return n_jobs if n_jobs > 0 else max(1, resources.cores() + 1 + n_jobs)

    @property
    def at_once(self) -> int:
        """The number of jobs that the launcher runs at once, on all machines that it has."""
        return self.workers * (batches.tasks(self.launcher_config) if self.scheduler else 1)

    def _list(self, planned: Sequence[PlannedJob], search: Search | None) -> None:
        """Log what would run."""
        is_fused = grouping.is_fused(self.launcher_config)
        if search:
            trials = search.sweep
            _list_jobs(search.first(trials, self.retry_failed) or search.next(trials).jobs, is_fused)
            log.info(search.outlook([each.job for each in planned]))
        _list_jobs(planned, is_fused)

    def _rounds(self, rule: Rule | None, plan_job: Plan) -> Rounds:
        """Return the rounds of a sweep with this rule, each a batch of the launcher."""
        if grouping.is_fused(self.launcher_config):
            return Rounds(rule, plan_job, resources.cores(), FUSED_SEEDS)
        return Rounds(rule, plan_job, self.at_once, 1)

    def _run(self, planned: Sequence[PlannedJob], sweep: Sweep, further: Rounds | Search, facts: Session) -> bool:
        """Run what is left of the jobs, then further rounds, and report. Or hand them over to workers.

        Returns:
            Whether jobs are left, which workers have to run.

        Args:
            planned: The jobs that the command asks for.
            sweep: The sweep.
            further: The rounds that may follow.
            facts: What the ledger keeps about this command, beside how it was typed and where it runs.
        """
        if self.close:
            work.wait_for_others(sweep)  # one that was killed on another machine is known to be dead only after a while
        sweep.require_no_workers()
        slurm.require_no_tasks(sweep.folder)
        sessions, known = sweep.read()
        left = self._left(planned, sweep, known)
        is_left_alone = self.close and any(each.job.number in known for each in left)  # somebody cancelled them
        left = [] if is_left_alone else left or self._left(further.next(sweep).jobs, sweep, known)
        facts |= {"versions": provenance.versions() | further.versions}
        with joblib_workers.started(self.launcher_config, self.workers if left else 1):
            self._check(left, sweep, sessions, known, facts)
        if not sweep.exists:
            run_folder.create(sweep.folder, "hydra.sweep.dir")
        with sweep.locked():
            sweep.require_no_workers()
            left = [] if is_left_alone else self._open(planned, sweep, further)
            with read_write(self.master.hydra), open_dict(self.master.hydra):
                self.master.hydra.sweep.dir = quoting.literal(str(sweep.folder))
            if not (sweep.folder / "multirun.yaml").exists():
                OmegaConf.save(self.master, sweep.folder / "multirun.yaml")
            if not self.scheduler or not left:
                self._run_here(left, sweep, further, facts)
                return is_left_alone
            hand_over, submitted = self._submit(self.scheduler, left, sweep, facts)
        self.scheduler.start(hand_over, submitted)
        return True

    def _check(
        self,
        left: Sequence[PlannedJob],
        sweep: Sweep,
        sessions: Sequence[Session],
        known: Mapping[int, Job],
        facts: Session,
    ) -> None:
        """Raise ConfigError for jobs that can't run, or would mix results. Nothing is written yet."""
        if not left:
            return
        if sessions and not self.allow_changed:
            plan.require_same_versions(sessions[-1]["versions"], facts["versions"])
        preflight.require_buildable(left, self.workers)
        if not self.allow_changed:
            preflight.require_same_data(left, known)
        if self.scheduler:
            self.scheduler.check(self._hand_over(self._in_batches(left, sweep), sweep, facts))

    def _submit(
        self, scheduler: ModuleType, left: Sequence[PlannedJob], sweep: Sweep, facts: Session
    ) -> tuple[HandOver, Session]:
        """Write the list of jobs in their batches, with what the scheduler submits for them."""
        left = self._in_batches(left, sweep)
        hand_over = self._hand_over(left, sweep, facts)
        submitted: Session = scheduler.submit(hand_over)
        try:
            self._introduce(left, sweep, facts | {"launcher": self.launcher_config} | submitted)
        except BaseException:
            scheduler.withdraw(submitted)
            raise
        return hand_over, submitted

    def _run_here(self, left: list[PlannedJob], sweep: Sweep, further: Rounds | Search, facts: Session) -> None:
        """Run the jobs on this machine, then further rounds, and report."""
        left = self._introduce(left, sweep, facts)
        ran = [each.job.number for each in left]
        self.context.callbacks.callbacks.append(jobs.DropConfigs())
        shown = terminal.shown(sweep.name if left else None)
        with shown, signals.handled_by(launch.stop_handler(sweep)), suppress(StopLaunching):
            while left:
                launch.launch(self.context, self.main, self.master, left, sweep, self.workers, self.stop_on_failure)
                left = self._introduce(self._next_round(further, sweep), sweep)
                ran += [each.job.number for each in left]
        sweep.record_dead_jobs()
        finish(sweep, ran, is_search="then" in facts, is_sequential="until" in facts)

    def _in_batches(self, left: Sequence[PlannedJob], sweep: Sweep) -> list[PlannedJob]:
        """Return the jobs with the batches in which workers take them."""
        known = {job.batch for job in sweep.read()[1].values() if job.batch is not None}
        done = {batch for batch, state in claims.read(sweep.folder, known).items() if state.is_done}
        return batches.divide(left, self.launcher_config, known, done)

    def _hand_over(self, left: Sequence[PlannedJob], sweep: Sweep, facts: Session) -> HandOver:
        """Return what a launcher hears that hands jobs over to workers, given the jobs in their batches."""
        return HandOver(
            self.launcher_config,
            Path(os.path.abspath(sweep.name)),
            jobs=len(left),
            batches=len({each.job.batch for each in left}),
            is_last=not ("then" in facts or "until" in facts),
            by_worker=self.close,
        )

    def _left(self, planned: Sequence[PlannedJob], sweep: Sweep, known: Mapping[int, Job]) -> list[PlannedJob]:
        return plan.left_to_run(
            planned, known, sweep.folder, retry_failed=self.retry_failed, allow_changed=self.allow_changed
        )

    def _open(self, planned: Sequence[PlannedJob], sweep: Sweep, further: Rounds | Search) -> list[PlannedJob]:
        """Return the jobs with which the command begins, after saying how far earlier ones came."""
        if sweep.exists:
            sweep.record_dead_jobs()
        known = sweep.read()[1]
        left = self._left(planned, sweep, known)
        numbers = [each.job.number for each in left]
        if lost := [number for number in numbers if number in known and known[number].status == "lost"]:
            log.warning(
                f"{sweep.folder}: the results of job {', '.join(map(str, lost))} are gone or damaged; run again"
            )
        if known:
            counts = Counter(job.status for job in known.values())
            pruned = f", {counts[PRUNED]} pruned" if counts[PRUNED] else ""
            completed = f"{counts['completed']} of {len(known)} jobs are completed"
            log.info(f"{sweep.folder}: {completed}{pruned}, {len(left)} to run")
        sweep.stop_file.unlink(missing_ok=True)
        return left or self._next_round(further, sweep)

    def _next_round(self, further: Rounds | Search, sweep: Sweep) -> list[PlannedJob]:
        """Log what the runs so far show, and return the jobs of the next round; none if the sweep is over."""
        if sweep.is_stopped:
            return []
        decision = further.next(sweep)
        if decision.text:
            log.info(decision.text)
        for number in decision.ended:
            keeping.drop(sweep.job_folder(number), keeping.of(self.launcher_config), may_go_on=False)
        return self._left(decision.jobs, sweep, sweep.read()[1])

    def _introduce(self, left: Sequence[PlannedJob], sweep: Sweep, facts: Session | None = None) -> list[PlannedJob]:
        """Write jobs into the ledger, after the entry of this command if it has none yet, and prepare their folders."""
        if not left:
            return []
        known = sweep.read()[1]
        left = [plan.prepared(each, sweep.folder, known.get(each.job.number)) for each in left]
        sessions = []
        if facts is not None:
            session: Session = {
                "program": PROGRAM,
                "ledger": VERSION,
                "command": quoting.command(*command_line.typed(), script=sys.argv[0]),
                "versions": provenance.versions(),
                "git": provenance.git(),
                "machine": provenance.machine(),
                "allow_changed": self.allow_changed,
                "new": sum(each.job.number not in known for each in left),
            }
            session.update(facts)
            sessions.append(session)
        replaced = [
            {"job": job.number, "attempt": job.attempt + 1, "status": "replaced"} for job in plan.replaced(left, known)
        ]
        sweep.ledger.append(*sessions, *replaced, *introductions(each.job for each in left))
        return left


def _stage(folder: Path) -> Sweep:
    """Return the sweep in a folder, or the search that comes before it as long as it is not over."""
    sweeps = [Sweep(folder), *(Sweep(folder / name, name=folder) for name in SEARCHES)]
    return next((sweep for sweep in sweeps if sweep.exists), sweeps[0])


def _name(launcher: Mapping[str, Any]) -> str:
    """Return the name of a launcher's class, by its config."""
    return str(launcher.get("_target_", "")).rpartition(".")[2]


def _list_jobs(planned: Sequence[PlannedJob], is_fused: bool) -> None:
    log.info("\n".join(" ".join(each.job.overrides) for each in planned))
    if is_fused:
        log.info(grouping.describe(grouping.group_planned(planned)))
