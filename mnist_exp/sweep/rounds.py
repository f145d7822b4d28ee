"""Adds seeds to a sweep in rounds until its question is answered: hydra.sweeper.until=decided.

The ledger is the only state. A decision is a function of what its jobs came to, made when all of them have ended, so a
sweep that is killed and resumed decides as one that nothing disturbs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

from mnist_exp import config
from mnist_exp.report import formats, results, sequential
from mnist_exp.report.results import Arm, Results
from mnist_exp.report.sequential import AHEAD, BEHIND, OPEN, Finding, Rule, Standing
from mnist_exp.store.ledger import Job, Ledger, keys_beside_identity
from mnist_exp.store.run_folder import ENDED_WELL, SEARCHES
from mnist_exp.sweep.arms import arm_names
from mnist_exp.sweep.compose import Plan, PlannedJob
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system.errors import ConfigError

FIRST_SEEDS = range(5)  # if the command types none: with fewer, no difference of two arms is large enough for a claim
ENDED = (*ENDED_WELL, "failed")
MAX_NAMES = 4  # of arms in a line of the log; more are counted
REASONS = {
    sequential.DECIDED: "every comparison with the leader is decided",
    sequential.MOST: "hydra.sweeper.max_seeds allows no more seeds",
    sequential.ALONE: "fewer than two arms without failed runs are left",
}


class Until(NamedTuple):
    """What the keys of hydra.sweeper ask for.

    Attributes:
        until: `decided`, or None for the seeds that are typed.
        max_seeds: The most seeds of an arm.
        smallest: The smallest difference that matters, in percentage points.
        typed: The keys of the section `hydra` that the command sets. Others do not change the rule of a sweep.
    """

    until: str | None
    max_seeds: int
    smallest: float
    typed: frozenset[str]

    def check(self) -> None:
        """Raise ConfigError for a value that is not allowed."""
        if self.until not in (None, sequential.DECIDED):
            raise ConfigError(
                f"hydra.sweeper.until={self.until}: must be {sequential.DECIDED}, or null for the seeds that are typed"
            )
        if self.max_seeds < 2:
            raise ConfigError(f"hydra.sweeper.max_seeds={self.max_seeds}: must be 2 or more seeds per arm")
        if not 0 < self.smallest < math.inf:
            raise ConfigError(f"hydra.sweeper.smallest={self.smallest:g}: must be more than 0 percentage points")

    def new_rule(self) -> Rule | None:
        """Return the rule of a new sweep; None for fixed seeds.

        Raises:
            ConfigError: The command sets a key of sequential sweeps, and asks for none.
        """
        if self.until:
            return Rule(self.max_seeds, self.smallest)
        for key in ("hydra.sweeper.max_seeds", "hydra.sweeper.smallest"):
            if key in self.typed:
                raise ConfigError(
                    f"{key}: is for sweeps with hydra.sweeper.until={sequential.DECIDED}; add it, or remove this"
                )
        return None

    def rule_of(self, folder: Path, before: Rule | None) -> Rule | None:
        """Return the rule of a sweep that exists.

        Args:
            folder: The folder of the sweep.
            before: Its rule so far; None if its seeds are fixed.

        Raises:
            ConfigError: The command would change what may not change once results have been seen.
        """
        if before is None:
            if self.until:
                raise ConfigError(
                    f"hydra.sweeper.until={self.until}: {folder} began with fixed seeds, and a test that is looked at "
                    "once can't be continued as one that is looked at often; choose another hydra.sweep.dir"
                )
            return self.new_rule()
        if "hydra.sweeper.smallest" in self.typed and self.smallest != before.smallest:
            raise ConfigError(
                f"hydra.sweeper.smallest={self.smallest:g}: {folder} began with {before.smallest:g}, and a margin "
                "that is chosen after results were seen proves nothing; remove it"
            )
        return before._replace(max_seeds=self.max_seeds) if "hydra.sweeper.max_seeds" in self.typed else before


def known_rule(folder: Path) -> Rule | None:
    """Return the rule of a sweep, or of the search that comes before it; None if the seeds are fixed."""
    if Sweep(folder).exists:
        return sequential.rule(Ledger(folder).read()[0])
    folders = [folder / name for name in SEARCHES if Sweep(folder / name).exists]
    searches = [session for each in folders for session in Ledger(each).read()[0] if "then" in session]
    return Rule.read(searches[-1].get("then_until"))


def require_comparable(planned: Sequence[PlannedJob], rule: Rule) -> None:
    """Raise ConfigError if a sequential sweep of these first jobs could not work."""
    seeds: defaultdict[str, set[int]] = defaultdict(set)
    for arm, each in zip(arm_names(planned), planned, strict=True):
        seeds[arm].add(each.job.seed)
    splits = sorted({each.job.seeds.split for each in planned})
    typed = f"hydra.sweeper.until={sequential.DECIDED}"
    if len(splits) > 1:
        raise ConfigError(
            f"data.seed={','.join(map(str, splits))}: with {typed}, data.seed has one value, because the test is for "
            "one split"
        )
    if len(seeds) < 2:
        raise ConfigError(f"{typed}: compares arms, and there is one; sweep over a key, as in optimizer=adam,sgd")
    first, *others = seeds.values()
    if different := [other for other in others if other != first]:
        raise ConfigError(
            f"{typed}: pairs arms by their seeds, so all arms must begin with the same ones; here one has "
            f"{_list_of(first)} and another {_list_of(different[0])}"
        )
    if len(first) > rule.max_seeds:
        raise ConfigError(
            f"hydra.sweeper.max_seeds={rule.max_seeds}: must be {len(first)} or more, the seeds to begin with"
        )


class Decision(NamedTuple):
    """How a sweep goes on when all its jobs have ended."""

    jobs: list[PlannedJob]  # of the next round; none if the sweep is over
    text: str  # for the log; empty if the seeds are fixed
    ended: Sequence[int] = ()  # pruned jobs that never go on


class Rounds(NamedTuple):
    """The rounds that follow the first jobs of a sweep."""

    rule: Rule | None  # None: the seeds are fixed, and no round follows
    plan: Plan
    at_once: int  # jobs that the launcher runs at once
    least: int  # seeds of an arm in a round

    @property
    def versions(self) -> dict[str, str]:
        """The versions of further packages that the results depend on: none."""
        return {}

    def next(self, sweep: Sweep) -> Decision:
        """Decide how a sweep goes on; nothing is decided before all its jobs have ended."""
        if not self.rule:
            return Decision([], "")
        found = results.read([sweep.folder])
        if any(run.job.status not in ENDED for run in found.runs):
            return Decision([], "")
        stands = sequential.standing(found, self.rule)
        text = _describe(stands)
        if stands.over:
            return Decision([], f"{text}\nno more seeds: {REASONS[stands.over]} ({len(found.runs):,} runs)")
        missing = _missing(found, stands.race) or self._new(found, stands.race, self.rule)
        overrides = {run.job.arm: run.job.overrides for run in found.runs}
        return Decision([self.plan(_with_seed(overrides[arm], seed)) for arm, seed in missing], text)

    def _new(self, found: Results, race: Sequence[Arm], rule: Rule) -> list[tuple[str, int]]:
        """Return new seeds for every arm in the race, without those of a search."""
        before = {run.job.seed for run in found.runs}
        of_trials = {run.job.seed for run in (found.search.runs if found.search else ())}
        number = min(self._seeds(len(race)), rule.max_seeds - len(before))
        new = islice((seed for seed in count(max(before) + 1) if seed not in of_trials), number)
        return [(arm, seed) for seed in new for arm in _in_order(found, race)]

    def _seeds(self, arms: int) -> int:
        """Return how many seeds of each arm fill a batch of the launcher."""
        return max(self.least, self.at_once // arms)

    def outlook(self, jobs: Iterable[Job]) -> str:
        """Return what may follow the jobs of a sequential sweep, for a dry run."""
        if not self.rule:
            return ""
        jobs = list(jobs)
        beside = keys_beside_identity(jobs)
        arms = len({job.arm_beside(beside) for job in jobs})
        seeds = "one seed" if self._seeds(arms) == 1 else f"{self._seeds(arms)} seeds"
        return (
            f"then {seeds} at a time for each arm that is still in the race, up to {self.rule.max_seeds} seeds: at "
            f"most {arms * self.rule.max_seeds:,} runs"
        )


def _missing(found: Results, race: Sequence[Arm]) -> list[tuple[str, int]]:
    """Return the seeds that others have and an arm in the race has not.

    A crash may have torn the list of a round, or the arm may be in the race again.
    """
    known = {(run.job.arm, run.job.seed) for run in found.runs}
    seeds = sorted({seed for _, seed in known})
    return [(arm, seed) for seed in seeds for arm in _in_order(found, race) if (arm, seed) not in known]


def _in_order(found: Results, race: Sequence[Arm]) -> list[str]:
    """Return the arms in the race, in the order in which they were typed."""
    ids = {arm.id for arm in race}
    return [arm for arm in dict.fromkeys(run.job.arm for run in found.runs) if arm in ids]


def _with_seed(overrides: Sequence[str], seed: int) -> list[str]:
    """Return the overrides of a job with another seed."""
    return [*(word for word in overrides if config.key_of(word) != "seed"), f"seed={seed}"]


def _describe(stands: Standing) -> str:
    """Return what the rounds so far show: "8 seeds: adam leads; sgd is behind (p = 0.001); rmsprop is open"."""
    if not stands.compared:
        return "no arm is without failed runs"
    parts = [f"{stands.compared[0].label} leads"]
    words = dict.fromkeys(found.word for found in stands.findings)
    for word in words:
        pairs = zip(stands.compared[1:], stands.findings, strict=True)
        names = [f"{arm.label} is {word}{_p(found)}" for arm, found in pairs if found.word == word]
        parts += names if len(names) <= MAX_NAMES else [f"{len(names)} arms are {word}"]
    seeds = max(arm.planned for arm in stands.race)
    return f"{formats.count(seeds, 'seed')}: {'; '.join(parts)}"


def _p(found: Finding) -> str:
    """Return the p-value of a difference; nothing for arms that are equal, because it is not what shows that."""
    return f" ({formats.p_value(found.p)})" if found.word in (OPEN, BEHIND, AHEAD) and not math.isnan(found.p) else ""


def _list_of(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
