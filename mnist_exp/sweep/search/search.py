"""A search before a sweep: it tries settings inside each arm, and validation chooses the finalists.

It is a sweep of its own in a folder of that sweep, run in batches. Its ledger is the only state: a batch is a function
of the trials before it, so a search that is killed and resumed tries what one does that nothing disturbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

from mnist_exp import config
from mnist_exp.report import formats
from mnist_exp.report.labels import label
from mnist_exp.store import metrics, run_folder
from mnist_exp.store.ledger import Job, Session
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import ENDED_WELL, PRUNED
from mnist_exp.sweep.arms import arm_names, without_seed
from mnist_exp.sweep.compose import Plan, PlannedJob
from mnist_exp.sweep.launchers import grouping
from mnist_exp.sweep.rounds import ENDED, Decision
from mnist_exp.sweep.search import pruners, samplers, space
from mnist_exp.sweep.search.journal import Journal
from mnist_exp.sweep.search.pruners import NONE, Batch, Pruner, Rung
from mnist_exp.sweep.search.samplers import Sampler, Told
from mnist_exp.sweep.search.space import Setting, Space
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system.errors import ConfigError


class Spec(NamedTuple):
    """What a command asks a search to do. The ledger of the search keeps it.

    Attributes:
        words: The overrides that tune.
        sampler: What suggests the settings.
        finalists: How many settings of each arm are compared with its default run.
        batch: The trials of each arm that run before the sampler learns from them.
        alike: Whether the trials of a batch are trained as one, so that they must share their structure.
        pruner: What ends trials early.
    """

    words: tuple[str, ...]
    sampler: Sampler
    finalists: int
    batch: int
    alike: bool
    pruner: Pruner = Pruner()

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Spec:
        """Return what the ledger keeps of a search, the inverse of `saved`."""
        pruner = Pruner.read(saved.get("pruner", NONE))  # older versions did not prune
        sampler = Sampler.read(saved["sampler"])
        return cls(**{**saved, "words": tuple(saved["words"]), "sampler": sampler, "pruner": pruner})

    @property
    def saved(self) -> dict[str, Any]:
        """This spec in JSON."""
        parts = {"sampler": self.sampler.typed, "pruner": self.pruner.typed}
        return self._asdict() | {"words": list(self.words)} | parts

    def continued(self, before: Spec, folder: Path) -> Spec:
        """Return the spec of a search that exists, typed once more: only the number of finalists may change.

        Raises:
            ConfigError: It is another search.
        """
        for key, now, was in (
            ("space", " ".join(self.words), " ".join(before.words)),
            ("hydra.sweeper.search", self.sampler.typed, before.sampler.typed),
            ("hydra.sweeper.prune", self.pruner.typed, before.pruner.typed),
        ):
            if now != was:
                raise ConfigError(f"{differs(key, now, was, folder)}; choose another hydra.sweep.dir")
        return before._replace(finalists=self.finalists)


def differs(key: str, now: Any, was: Any, folder: Path) -> str:
    """Return how the value that a command gives a key differs from that of the search in a folder."""
    before_and_now = f"has {config.spell(was)}, not {config.spell(now)}".replace('"', "")
    return f"{key}: the search in {folder} {before_and_now}"


class Arm(NamedTuple):
    """What a search tunes: runs that differ in the searched keys and the seed alone."""

    name: str  # arm_names
    overrides: tuple[str, ...]  # without the seed
    label: str
    space: Space
    trials: int
    seeds: tuple[int, ...]  # of each trial
    epochs: int = 1  # of a run

    def is_of(self, overrides: Iterable[str]) -> bool:
        """Return whether a trial with these overrides, but for those of its setting and its seed, is of this arm."""
        return sorted(self.overrides) == sorted(overrides)


class Trial(NamedTuple):
    """One setting of an arm, with the seeds that it was given."""

    setting: Setting
    seeds: tuple[int, ...]  # of a trial that comes to its end
    jobs: list[Job]

    @property
    def has_ended(self) -> bool:
        """Whether no job of the trial is left to run."""
        return all(job.status in ENDED for job in self.jobs)

    @property
    def has_all_seeds(self) -> bool:
        """Whether every seed has a job."""
        return {job.seed for job in self.jobs}.issuperset(self.seeds)

    def lacks(self, rung: Rung) -> bool:
        """Return whether the trial must train more to stand on a rung."""
        jobs = {job.seed: job for job in self.jobs}
        new = [jobs.get(seed) for seed in rung.new(self.seeds)]
        return any(
            not job or (rung.epochs and job.status == PRUNED and job.choices["stop_after"] < rung.epochs) for job in new
        )


class Step(NamedTuple):
    """What an arm does next."""

    settings: Sequence[Setting]  # that begin, or go on
    jobs: list[PlannedJob]


@dataclass(frozen=True)
class Search:
    """The search of one sweep.

    Attributes:
        arms: The arms to search. Others have no trials.
        spec: How to search.
        plan: Composes a job.
        folder: The folder of the search.
        journal: The file for optuna-dashboard.
    """

    arms: Sequence[Arm]
    spec: Spec
    plan: Plan
    folder: Path
    journal: Journal
    _summaries: dict[tuple[int, int], run_folder.Summary] = field(default_factory=dict)  # by job and attempt
    _curves: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    @property
    def sweep(self) -> Sweep:
        """The search as a sweep, which commands know by the folder that it is in."""
        return Sweep(self.folder, name=self.folder.parent)

    @property
    def is_of_rates(self) -> bool:
        """Whether this is a learning-rate search: it has a fixed list of trials, and its best replaces the default."""
        return not self.spec.words

    @property
    def facts(self) -> Session:
        """What the ledger of the search keeps, so that it can be resumed."""
        return {} if self.is_of_rates else {"search": self.spec.saved}

    @property
    def versions(self) -> dict[str, str]:
        """The versions of further packages that the results depend on."""
        packages = samplers.EXTRAS.get(self.spec.sampler.name), pruners.PACKAGES.get(self.spec.pruner.name)
        return {package: version(package) for package in packages if package}

    def first(self, sweep: Sweep, retry_failed: bool) -> list[PlannedJob]:
        """Return the jobs that are left of the batches so far."""
        if self.is_of_rates:  # all trials are known: a changed file is found before one runs
            return [job for arm in self.arms for job in self._next_step(arm, [], [], sweep).jobs]
        return [self.plan(overrides) for overrides in sweep.unfinished(retry_failed)]

    def next(self, sweep: Sweep) -> Decision:
        """Return what every arm trains next; nothing is decided before all trials have ended."""
        trials = self._trials(sweep)
        if any(not trial.has_ended for found in trials.values() for trial in found):
            return Decision([], "")
        told = {arm: [self._told(trial, sweep) for trial in found] for arm, found in trials.items()}
        steps = {arm.name: self._next_step(arm, trials[arm.name], told[arm.name], sweep) for arm in self.arms}
        going_on = {arm: steps[arm].settings for arm in trials}
        if sweep.exists and not self.is_of_rates:
            self.journal.write(
                {
                    arm.label: (arm.space, told[arm.name][: _count_ended(trials[arm.name], going_on[arm.name])])
                    for arm in self.arms
                }
            )
        ended = [
            job.number
            for arm, found in trials.items()
            for trial in found
            if trial.setting not in going_on[arm]
            for job in trial.jobs
            if job.status == PRUNED
        ]
        jobs = [job for step in steps.values() for job in step.jobs]
        return Decision(jobs, "" if self.is_of_rates else self._progress(told, going_on), ended)

    def _next_step(self, arm: Arm, trials: Sequence[Trial], told: Sequence[Told], sweep: Sweep) -> Step:
        """Return an arm's next batch, or those of its last one that go on.

        A batch whose list a crash tore is suggested again, as it was.
        """
        for batch in self.spec.pruner.batches(arm.trials, arm.epochs, len(arm.seeds), self.spec.batch):
            if len(trials) > batch.end:
                continue  # a later batch has begun, so this one is over
            first, earlier = batch.rungs[0], trials[: batch.start]
            members = [trial for trial in trials[batch.start : batch.end] if not trial.lacks(first)]
            settings = self._suggest(arm, told[: batch.start], batch.size) if len(members) < batch.size else []
            if len(settings) > len(members):
                below = self._limits(earlier, told[: batch.start], sweep)
                return Step(settings, self._jobs(arm, settings, first, below))
            if promoted := self._promoted(batch, members, self._best(earlier, told, sweep), sweep):
                settings, rung = promoted
                return Step(settings, self._jobs(arm, settings, rung))
        return Step([], [])

    def _jobs(
        self, arm: Arm, settings: Sequence[Setting], rung: Rung, below: Sequence[float] | None = None
    ) -> list[PlannedJob]:
        """Return the jobs that bring trials to a rung, with what ends them early."""
        limits = {"stop_below": below, "stop_after": rung.epochs}
        words = [[*space.words(setting), f"seed={seed}"] for setting in settings for seed in rung.new(arm.seeds)]
        planned = [self.plan([*arm.overrides, *of_job]) for of_job in words]
        return [job.pruned_by(limits) for job in planned] if any(limits.values()) else planned

    def _suggest(self, arm: Arm, told: Sequence[Told], count: int) -> list[Setting]:
        alike = [each.key for each in arm.space if not grouping.is_free(each.key)] if self.spec.alike else []
        return self.spec.sampler.suggest(arm.space, told, count, arm.trials, alike)

    def _promoted(
        self, batch: Batch, trials: Sequence[Trial], best: Mapping[int, float], sweep: Sweep
    ) -> tuple[list[Setting], Rung] | None:
        """Return which trials of a batch go on, and to which rung; None if it is over."""
        left = list(trials)
        for rung, following in pairwise(batch.rungs):
            reached = [self._reached(trial, rung, sweep) for trial in left]
            left = [left[place] for place in self.spec.pruner.going_on(reached, best)]
            if any(trial.lacks(following) for trial in left):
                return [trial.setting for trial in left], following
        return None

    def _best(self, trials: Sequence[Trial], told: Sequence[Told], sweep: Sweep) -> Mapping[int, float]:
        """Return what the best of some trials reached, by seed; nothing if none has a result."""
        ended = [(trial, known.value or 0) for trial, known in zip(trials, told, strict=False) if known.has_result]
        return self._reached(max(ended, key=lambda each: each[1])[0], Rung(), sweep) if ended else {}

    def _reached(self, trial: Trial, rung: Rung, sweep: Sweep) -> dict[int, float]:
        """Return the best validation accuracy of each run up to a rung, by seed; nothing if the trial failed."""
        if self._told(trial, sweep).value is None:
            return {}
        jobs = {job.seed: job for job in trial.jobs if job.status in ENDED_WELL}
        return {seed: self._accuracy(jobs[seed], rung, sweep) for seed in rung.so_far(trial.seeds) if seed in jobs}

    def _accuracy(self, job: Job, rung: Rung, sweep: Sweep) -> float:
        if rung.epochs is None:
            return cast(float, self._summary(job, sweep)["best_val_accuracy"])
        return max(self._curve(job, sweep)[: rung.epochs], default=0.0)

    def _limits(self, trials: Sequence[Trial], told: Sequence[Told], sweep: Sweep) -> Sequence[float] | None:
        """Return what prunes the runs of an arm's next batch, by the batches before it."""
        return self.spec.pruner.limits(
            [
                [self._curve(job, sweep) for job in trial.jobs if job.status == "completed"]
                for trial, known in zip(trials, told, strict=True)
                if known.has_result
            ]
        )

    def _trials(self, sweep: Sweep) -> dict[str, list[Trial]]:
        """Return the trials of each arm, in the order in which they were suggested."""
        jobs = sorted(sweep.read()[1].values(), key=lambda job: job.number)
        found: dict[str, dict[tuple[str, ...], Trial]] = {arm.name: {} for arm in self.arms}
        for job in (job for job in jobs if job.status != "replaced"):
            overrides = without_seed(job.overrides)
            for arm in self.arms:
                keys = {each.key for each in arm.space}
                setting = dict(word.split("=", 1) for word in overrides if word.partition("=")[0] in keys)
                if arm.is_of(word for word in overrides if word.partition("=")[0] not in keys):
                    trial = found[arm.name].setdefault(tuple(setting.values()), Trial(setting, arm.seeds, []))
                    trial.jobs.append(job)
        return {arm: list(trials.values()) for arm, trials in found.items()}

    def _told(self, trial: Trial, sweep: Sweep) -> Told:
        """Return how a trial ended. It failed if a run failed itself, or none came to its end."""
        summaries = [self._summary(job, sweep) for job in trial.jobs if job.status in ENDED_WELL]
        if not summaries or any(job.status == "failed" and job.failure for job in trial.jobs):
            return Told(trial.setting, None)
        pruned = [cast(int, each["epochs"]) for each in summaries if each["status"] == PRUNED]
        if not trial.has_all_seeds:
            pruned.append(len(trial.jobs))
        values = [cast(float, each["best_val_accuracy"]) for each in summaries]
        return Told(trial.setting, fmean(values), min(pruned, default=None))

    def _summary(self, job: Job, sweep: Sweep) -> run_folder.Summary:
        key = job.number, job.attempt
        if key not in self._summaries:
            found = run_folder.read_summary(sweep.job_folder(job.number))
            assert found  # or the job would be lost
            self._summaries[key] = found
        return self._summaries[key]

    def _curve(self, job: Job, sweep: Sweep) -> list[float]:
        """Return the validation accuracy of a job at each epoch."""
        key = job.number, job.attempt
        if key not in self._curves:
            columns = metrics.read_columns(sweep.job_folder(job.number) / METRICS)
            self._curves[key] = columns.get("val_accuracy", [])
        return self._curves[key]

    def chosen(self, sweep: Sweep) -> dict[str, list[Told]]:
        """Return the best settings of each arm, the best one first: of equal ones, the earlier.

        Raises:
            ConfigError: No setting of an arm has completed its trials.
        """
        trials, best = self._trials(sweep), dict[str, list[Told]]()
        for arm in self.arms:
            told = [self._told(trial, sweep) for trial in trials[arm.name]]
            completed = [trial for trial in told if trial.has_result]
            if not completed:
                noun = "rate" if self.is_of_rates else "setting"
                raise ConfigError(
                    f"{' '.join(arm.overrides) or 'the default run'}: no {noun} of this arm has completed all its "
                    f"trials; {sweep.folder}/report.md says why"
                )
            best[arm.name] = sorted(completed, key=lambda trial: -(trial.value or 0))[: self.spec.finalists]
        return best

    def finals(self, planned: Sequence[PlannedJob], sweep: Sweep) -> tuple[list[PlannedJob], str]:
        """Return the jobs of the sweep after its search, and a line about what was chosen.

        Every searched arm has its default run and its finalists; after a learning-rate search, the best rate alone.
        """
        best = self.chosen(sweep)
        jobs: list[PlannedJob] = []
        for name, each in zip(arm_names(planned), planned, strict=True):
            tuned = [self.plan([*each.job.overrides, *space.words(trial.setting)]) for trial in best.get(name, [])]
            jobs += tuned if self.is_of_rates and tuned else [each, *tuned]
        if self.is_of_rates:
            chosen = ", ".join(f"{label(best[arm.name][0].setting)} for {arm.label}" for arm in self.arms)
            return jobs, f"the learning-rate search chose {chosen}"
        chosen = "; ".join(
            formats.join([label(trial.setting) for trial in best[arm.name]]) + self._in(arm) for arm in self.arms
        )
        defaults = "their defaults" if len(self.arms) > 1 else "the default"
        these = "It" if sum(map(len, best.values())) == 1 else "These"
        return jobs, f"the search chose {chosen}. {these} and {defaults} run now, with seeds that took no part in it"

    def _in(self, arm: Arm) -> str:
        """Return which arm is meant, if there are several."""
        return f" for {arm.label}" if len(self.arms) > 1 else ""

    def outlook(self, planned: Sequence[Job]) -> str:
        """Return what follows the trials that a dry run has listed, before the jobs that it lists next."""
        if self.is_of_rates:
            return f"then, each with the {config.LR} that has the best validation:"
        return f"{self.describe(planned)}. The default runs:"

    def describe(self, planned: Sequence[Job]) -> str:
        """Return what a search tries, and what judges it."""
        first, seeds = self.arms[0], len({job.seed for job in planned})
        runs = sum(arm.trials * len(arm.seeds) for arm in self.arms)
        keys = formats.join(
            list(
                dict.fromkeys(
                    each.key for arm in sorted(self.arms, key=lambda arm: -len(arm.space)) for each in arm.space
                )
            )
        )
        at_most = "at most " if self.spec.pruner.divides_seeds else ""
        tries = f"{formats.count(first.trials, 'trial')} of {keys}"
        if len(self.arms) > 1:
            tries = f"{len(self.arms)} arms, each with {tries}"
        best = f"the best {self.spec.finalists} settings" if self.spec.finalists > 1 else "the best setting"
        judges = formats.count(seeds, "other seed")
        return (
            f"{tries}, {at_most}{formats.count(len(first.seeds), 'seed')} a trial: {runs:,} runs; then the default and "
            f"{best} of {'each arm' if len(self.arms) > 1 else 'the search'}, with {judges}"
        )

    def _progress(self, told: Mapping[str, Sequence[Told]], going_on: Mapping[str, Sequence[Setting]]) -> str:
        """Return how far each arm came, and the best setting so far. Trials that go on do not count."""
        lines = []
        for arm in self.arms:
            completed = [trial for trial in told[arm.name] if trial.has_result]
            ended = [trial for trial in told[arm.name] if trial.setting not in going_on[arm.name]]
            pruned = sum(trial.pruned_after is not None for trial in ended)
            if completed:
                best = max(completed, key=lambda trial: trial.value or 0)
                lines.append(
                    f"{len(ended)} of {arm.trials} trials{self._in(arm)}"
                    f"{f', {pruned} pruned' if pruned else ''}; best so far: "
                    f"{formats.percent(best.value or 0)} with {label(best.setting)}"
                )
        return "\n".join(lines)


def _count_ended(trials: Sequence[Trial], going_on: Sequence[Setting]) -> int:
    """Return the number of trials before the first one that goes on."""
    return next((number for number, trial in enumerate(trials) if trial.setting in going_on), len(trials))
