"""A search before a sweep: it tries settings inside each arm, and validation chooses the finalists.

It is a sweep of its own in a folder of that sweep, run in batches. Its ledger is the only state: a batch is a function
of the trials before it, so a search that is killed and resumed tries what one does that nothing disturbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

from mnist_exp import config
from mnist_exp.report import formats
from mnist_exp.report.labels import label
from mnist_exp.store import run_folder
from mnist_exp.store.ledger import Job, Session
from mnist_exp.sweep import lr_search
from mnist_exp.sweep.compose import Plan, PlannedJob
from mnist_exp.sweep.launchers import grouping
from mnist_exp.sweep.rounds import ENDED, Decision
from mnist_exp.sweep.search import samplers, space
from mnist_exp.sweep.search.journal import Journal
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
    """

    words: tuple[str, ...]
    sampler: Sampler
    finalists: int
    batch: int
    alike: bool

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Spec:
        """Return what the ledger keeps of a search, the inverse of `saved`."""
        return cls(**{**saved, "words": tuple(saved["words"]), "sampler": Sampler.read(saved["sampler"])})

    @property
    def saved(self) -> dict[str, Any]:
        """This spec in JSON."""
        return self._asdict() | {"words": list(self.words), "sampler": self.sampler.typed}

    def continued(self, before: Spec, folder: Path) -> Spec:
        """Return the spec of a search that exists, typed once more: only the number of finalists may change.

        Raises:
            ConfigError: It is another search.
        """
        for key, now, was in (
            ("space", " ".join(self.words), " ".join(before.words)),
            ("hydra.sweeper.search", self.sampler.typed, before.sampler.typed),
        ):
            if now != was:
                raise ConfigError(f"{key}: {folder} searches {was}, not {now}; choose another hydra.sweep.dir")
        return before._replace(finalists=self.finalists)


class Arm(NamedTuple):
    """What a search tunes: runs that differ in the searched keys and the seed alone."""

    name: str  # lr_search.arms
    overrides: tuple[str, ...]  # without the seed
    label: str
    space: Space
    trials: int
    seeds: tuple[int, ...]  # of each trial

    def is_of(self, overrides: Iterable[str]) -> bool:
        """Return whether a trial with these overrides, but for those of its setting and its seed, is of this arm."""
        return sorted(self.overrides) == sorted(overrides)


class Trial(NamedTuple):
    """One setting of an arm, with every seed of the search."""

    setting: Setting
    jobs: list[Job]

    @property
    def has_ended(self) -> bool:
        """Whether no job of the trial is left to run."""
        return all(job.status in ENDED for job in self.jobs)


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
    _accuracies: dict[int, float] = field(default_factory=dict)  # of completed jobs, which never change

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
        package = samplers.EXTRAS.get(self.spec.sampler.name)
        return {package: version(package)} if package else {}

    def first(self, sweep: Sweep, retry_failed: bool) -> list[PlannedJob]:
        """Return the jobs that are left of the batches so far."""
        if self.is_of_rates:  # all trials are known: a changed file is found before one runs
            return self._jobs({})
        return [self.plan(overrides) for overrides in sweep.unfinished(retry_failed)]

    def next(self, sweep: Sweep) -> Decision:
        """Return the next batch of every arm; nothing is decided before all trials have ended."""
        trials = self._trials(sweep)
        if any(not trial.has_ended for found in trials.values() for trial in found):
            return Decision([], "")
        told = {
            arm: [Told(trial.setting, self._value(trial, sweep)) for trial in found] for arm, found in trials.items()
        }
        if sweep.exists and not self.is_of_rates:
            self.journal.write({arm.label: (arm.space, told[arm.name]) for arm in self.arms})
        return Decision(self._jobs(told), "" if self.is_of_rates else self._progress(told))

    def _jobs(self, told: Mapping[str, Sequence[Told]]) -> list[PlannedJob]:
        return [
            self.plan([*arm.overrides, *space.words(setting), f"seed={seed}"])
            for arm in self.arms
            for setting in self._batch(arm, told.get(arm.name, ()))
            for seed in arm.seeds
        ]

    def _batch(self, arm: Arm, told: Sequence[Told]) -> list[Setting]:
        """Return the settings of an arm's next batch. One whose list a crash tore is suggested again, as it was."""
        start = len(told) - len(told) % self.spec.batch
        if len(told) >= arm.trials:
            return []
        alike = [each.key for each in arm.space if not grouping.is_free(each.key)] if self.spec.alike else []
        count = min(self.spec.batch, arm.trials - start)
        return self.spec.sampler.suggest(arm.space, told[:start], count, arm.trials, alike)

    def _trials(self, sweep: Sweep) -> dict[str, list[Trial]]:
        """Return the trials of each arm, in the order in which they were suggested; those with all their seeds."""
        jobs = sorted(sweep.read()[1].values(), key=lambda job: job.number)
        found: dict[str, dict[tuple[str, ...], Trial]] = {arm.name: {} for arm in self.arms}
        for job in (job for job in jobs if job.status != "replaced"):
            overrides = lr_search.without_seed(job.overrides)
            for arm in self.arms:
                keys = {each.key for each in arm.space}
                setting = dict(word.split("=", 1) for word in overrides if word.partition("=")[0] in keys)
                if arm.is_of(word for word in overrides if word.partition("=")[0] not in keys):
                    found[arm.name].setdefault(tuple(setting.values()), Trial(setting, [])).jobs.append(job)
        return {
            arm.name: [
                trial for trial in found[arm.name].values() if {job.seed for job in trial.jobs}.issuperset(arm.seeds)
            ]
            for arm in self.arms
        }

    def _value(self, trial: Trial, sweep: Sweep) -> float | None:
        """Return the mean validation accuracy of a trial; None if a run failed itself, or none completed."""
        if any(job.status == "failed" and job.failure for job in trial.jobs):
            return None
        values = [self._accuracy(job, sweep) for job in trial.jobs if job.status == "completed"]
        return fmean(values) if values else None

    def _accuracy(self, job: Job, sweep: Sweep) -> float:
        if job.number not in self._accuracies:
            summary = run_folder.read_summary(sweep.job_folder(job.number))
            self._accuracies[job.number] = cast(float, summary["best_val_accuracy"] if summary else 0.0)
        return self._accuracies[job.number]

    def chosen(self, sweep: Sweep) -> dict[str, list[Told]]:
        """Return the best settings of each arm, the best one first: of equal ones, the earlier.

        Raises:
            ConfigError: No setting of an arm has completed its trials.
        """
        trials, best = self._trials(sweep), dict[str, list[Told]]()
        for arm in self.arms:
            told = [Told(trial.setting, self._value(trial, sweep)) for trial in trials[arm.name]]
            completed = [trial for trial in told if trial.value is not None]
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
        for name, each in zip(lr_search.arms(planned), planned, strict=True):
            tuned = [self.plan([*each.job.overrides, *space.words(trial.setting)]) for trial in best.get(name, [])]
            jobs += tuned if self.is_of_rates and tuned else [each, *tuned]
        if self.is_of_rates:
            chosen = ", ".join(f"{label(best[arm.name][0].setting)} for {arm.label}" for arm in self.arms)
            return jobs, f"the learning-rate search chose {chosen}"
        chosen = "; ".join(
            formats.join([label(trial.setting) for trial in best[arm.name]]) + self._in(arm) for arm in self.arms
        )
        defaults = "their defaults" if len(self.arms) > 1 else "the default"
        return jobs, f"the search chose {chosen}. These and {defaults} run now, with seeds that took no part in it"

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
        tries = f"{formats.count(first.trials, 'trial')} of {keys}"
        if len(self.arms) > 1:
            tries = f"{len(self.arms)} arms, each with {tries}"
        best = f"the best {self.spec.finalists} settings" if self.spec.finalists > 1 else "the best setting"
        judges = formats.count(seeds, "other seed")
        return (
            f"{tries}, {formats.count(len(first.seeds), 'seed')} a trial: {runs:,} runs; then the default and {best} "
            f"of {'each arm' if len(self.arms) > 1 else 'the search'}, with {judges}"
        )

    def _progress(self, told: Mapping[str, Sequence[Told]]) -> str:
        """Return how far each arm came, and the best setting so far."""
        lines = []
        for arm in self.arms:
            completed = [trial for trial in told[arm.name] if trial.value is not None]
            if completed:
                best = max(completed, key=lambda trial: trial.value or 0)
                lines.append(
                    f"{len(told[arm.name])} of {arm.trials} trials{self._in(arm)}; best so far: "
                    f"{formats.percent(best.value or 0)} with {label(best.setting)}"
                )
        return "\n".join(lines)
