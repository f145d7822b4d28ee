"""Sweeps that stop when their question is answered, against sweeps of fixed seeds, in simulation.

python -m benchmarks.sequential [--sweeps 20000] [--smallest 0.9]

The accuracy of each arm with each seed is normal. Units are the standard deviation of the difference between two arms
with equal seeds (0.11 percentage points, if an arm's own is 0.08). The rule is that of mnist_exp/report/sequential.py,
for all sweeps at once. `tests/test_report_sequential.py` holds one against the other.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from benchmarks import figures
from mnist_exp.report import anytime

Array = NDArray[Any]
ALPHA = 0.05
FIRST, MOST = 5, 40  # seeds to begin with, and at most
FIXED = (10, 20)
ARMS = (2, 3, 6, 12)


class Outcome(NamedTuple):
    """What many sweeps came to."""

    false: float  # the share in which, in any round, a leader was said to beat an arm that is as good, or better
    found: float  # the share in which the best arm led, and was told apart from every other one
    equal: float  # the share in which an arm was called equal that differs by `smallest` or more
    open: float  # the share in which a comparison was left open
    runs: float  # mean number of runs


class _Pairs:
    """The differences between all pairs of arms, after each number of seeds."""

    def __init__(self, values: Array) -> None:
        """Prepare accuracies, (sweeps, arms, seeds)."""
        arms, seeds = values.shape[1:]
        self.pairs = np.array(list(combinations(range(arms), 2)))
        n = np.arange(1, seeds + 1)
        difference = values[:, self.pairs[:, 0]] - values[:, self.pairs[:, 1]]  # (sweeps, pairs, seeds)
        total, squares = difference.cumsum(axis=2), (difference**2).cumsum(axis=2)
        self.mean = total / n
        with np.errstate(divide="ignore", invalid="ignore"):
            self.error = np.sqrt(np.maximum(squares - n * self.mean**2, 0) / (n - 1) / n)
        self.n = n
        self.means = values.cumsum(axis=2) / n  # of the arms

    def at(self, table: Array, seeds: Array) -> Array:
        """Return a table's entries after each pair's number of seeds, (sweeps, pairs)."""
        return np.take_along_axis(table, seeds[:, :, None] - 1, axis=2)[:, :, 0]


def holm(p: Array) -> Array:
    """Correct the p-values of each sweep, (sweeps, pairs), by the method of Holm 1979."""
    order = p.argsort(axis=1)
    steps = np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(1, np.maximum.accumulate(steps, axis=1)), axis=1)
    return corrected


def draw(means: Array, sweeps: int, seeds: int, rng: np.random.Generator) -> Array:
    """Draw accuracies, (sweeps, arms, seeds). The difference of two arms has a standard deviation of 1."""
    return means[None, :, None] + rng.normal(scale=np.sqrt(0.5), size=(sweeps, len(means), seeds))


def sequential(means: Array, sweeps: int, smallest: float, rng: np.random.Generator) -> Outcome:
    """Simulate sweeps that add one seed for each arm in the race until everything is decided."""
    arms = len(means)
    values = draw(means, sweeps, MOST, rng)
    table = _Pairs(values)
    seeds = np.full((sweeps, arms), FIRST)
    active = np.ones(sweeps, bool)
    claimed, equal = np.zeros((2, sweeps, len(table.pairs)), bool)  # by the last decision of each sweep
    leaders = np.zeros(sweeps, int)
    false = np.zeros(sweeps, bool)
    first, second = table.pairs.T
    while active.any():
        shared = np.minimum(seeds[:, first], seeds[:, second])
        mean, error = table.at(table.mean, shared), table.at(table.error, shared)
        p = holm(anytime.p_value(mean / error, shared))
        margin = anytime.critical(shared, ALPHA) * error
        reached = np.take_along_axis(table.means, seeds[:, :, None] - 1, axis=2)[:, :, 0]
        leader = reached.argmax(axis=1)
        of_leader = (first == leader[:, None]) | (second == leader[:, None])
        tested = of_leader & (p < ALPHA)
        alike = of_leader & ~tested & (np.abs(mean) + margin < smallest)
        claimed[active], equal[active], leaders[active] = tested[active], alike[active], leader[active]
        false |= active & _false(means, table, tested, leader)
        behind = np.zeros((sweeps, arms), bool)
        for pair, (a, b) in enumerate(table.pairs):
            behind[:, b] |= tested[:, pair] & (leader == a) & (mean[:, pair] > 0)
            behind[:, a] |= tested[:, pair] & (leader == b) & (mean[:, pair] < 0)
        race = ~behind
        race[np.arange(sweeps), leader] = True
        decided = (tested | alike | ~of_leader).all(axis=1)
        exhausted = np.where(race, seeds, MOST).min(axis=1) >= MOST
        active &= ~decided & ~exhausted
        most = seeds.max(axis=1, keepdims=True)
        lacks = race & (seeds < most)
        target = np.where(lacks.any(axis=1, keepdims=True), most, most + 1)  # first what others have
        seeds = np.where(race & active[:, None], target, seeds)
    return _outcome(means, table, false, claimed, equal, leaders, smallest, float(seeds.sum(axis=1).mean()))


def fixed(means: Array, sweeps: int, seeds: int, rng: np.random.Generator) -> Outcome:
    """Simulate sweeps of so many seeds for each arm, with paired t tests and Holm's correction."""
    table = _Pairs(draw(means, sweeps, seeds, rng))
    mean, error = table.mean[:, :, -1], table.error[:, :, -1]
    p = holm(2 * stdtr(seeds - 1, -np.abs(mean / error)))
    leaders = table.means[:, :, -1].argmax(axis=1)
    first, second = table.pairs.T
    claimed = (p < ALPHA) & ((first == leaders[:, None]) | (second == leaders[:, None]))
    false = _false(means, table, claimed, leaders)
    return _outcome(means, table, false, claimed, np.zeros_like(claimed), leaders, np.inf, float(len(means) * seeds))


def _false(means: Array, table: _Pairs, claimed: Array, leaders: Array) -> Array:
    """Return which sweeps claim a difference between the leader and an arm that is as good, or better."""
    first, second = table.pairs.T
    other = np.where(first == leaders[:, None], second, first)
    false: Array = (claimed & (means[leaders][:, None] <= means[other])).any(axis=1)
    return false


def _outcome(
    means: Array,
    table: _Pairs,
    false: Array,
    claimed: Array,
    equal: Array,
    leaders: Array,
    smallest: float,
    runs: float,
) -> Outcome:
    first, second = table.pairs.T
    of_leader = (first == leaders[:, None]) | (second == leaders[:, None])
    other = np.where(first == leaders[:, None], second, first)
    ahead = means[leaders][:, None] - means[other]  # what is true of the leader, (sweeps, pairs)
    unlike = (equal & (np.abs(ahead) >= smallest - 1e-9)).any(axis=1)
    found = (claimed | ~of_leader).all(axis=1) & (leaders == 0)
    left = (of_leader & ~claimed & ~equal).any(axis=1)
    return Outcome(*map(float, (false.mean(), found.mean(), unlike.mean(), left.mean(), runs)))


def one_better(arms: int, by: float) -> Array:
    """Return the means of arms of which the first is better than the others."""
    return np.array([by, *[0.0] * (arms - 1)])


def many(function: Any, means: Array, sweeps: int, *rest: Any) -> Outcome:
    """Simulate in parts that fit into memory, and return the mean outcome."""
    part = max(200, 40_000 // (len(means) * (len(means) - 1)))
    sizes = [min(part, sweeps - begun) for begun in range(0, sweeps, part)]
    outcomes = [function(means, size, *rest) for size in sizes]
    return Outcome(*np.average(outcomes, axis=0, weights=sizes).tolist())


def main() -> None:
    """Print the table, and the figures as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=20_000)
    parser.add_argument("--smallest", type=float, default=0.9, help="in standard deviations of a difference")
    options = parser.parse_args()
    rng, sweeps, smallest = np.random.default_rng(0), options.sweeps, options.smallest
    found: dict[str, list[Outcome]] = {}
    print(f"{sweeps:,} sweeps a row. Runs: mean per sweep.\n")
    print("No difference: sweeps with a false claim. `until=decided` looks after each seed from 5 to 40.")
    print("Half: only half of the arms are alike, the others are 1 sd worse.\n")
    print("| arms | `until=decided` | never equal | never equal, half | 10 seeds | 20 seeds | runs, `until=decided` |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for arms in ARMS:
        null = one_better(arms, 0.0)
        stops, never = (many(sequential, null, sweeps, size, rng) for size in (smallest, 0.0))
        half = many(sequential, np.repeat([1.0, 0.0], [arms - arms // 2, arms // 2]), sweeps, 0.0, rng)
        others = [many(fixed, null, sweeps, seeds, rng) for seeds in FIXED]
        cells = [f"{100 * each.false:.1f} %" for each in (stops, never, half, *others)]
        print(f"| {arms} | {' | '.join(cells)} | {stops.runs:.0f} of {arms * MOST} |", flush=True)
        found[f"no difference, {arms} arms"] = [stops, never, half, *others]
    print("\nOne arm is better than the others: it leads, and is told apart from all of them (runs).\n")
    print("| arms | difference (sd) | `until=decided` | 10 seeds | 20 seeds | false claims, `until=decided` |")
    print("|--:|--:|--:|--:|--:|--:|")
    for arms in ARMS:
        for by in (0.5, 1.0, 1.5):
            means = one_better(arms, by)
            rows = [many(sequential, means, sweeps, 0.0, rng), *(many(fixed, means, sweeps, n, rng) for n in FIXED)]
            cells = [f"{100 * each.found:.0f} % ({each.runs:.0f})" for each in rows]
            print(f"| {arms} | {by} | {' | '.join(cells)} | {100 * rows[0].false:.1f} % |", flush=True)
            found[f"one of {arms} arms better by {by}"] = rows
    print(f"\nOne arm is better by exactly `smallest`, {smallest:g} sd: sweeps that call such a pair equal.\n")
    print("| arms | called equal | told apart | false claims | left open | runs |")
    print("|--:|--:|--:|--:|--:|--:|")
    for arms in ARMS:
        row = many(sequential, one_better(arms, smallest), sweeps, smallest, rng)
        shares = (row.equal, row.found, row.false, row.open)
        cells = [f"{100 * share:.1f} %" for share in shares]
        print(f"| {arms} | {' | '.join(cells)} | {row.runs:.0f} of {arms * MOST} |", flush=True)
        found[f"one of {arms} arms better by smallest"] = [row]
    print()
    for name, outcomes in found.items():
        for place, outcome in enumerate(outcomes):
            for what, value in outcome._asdict().items():
                unit, facts = "runs" if what == "runs" else "", {"row": place, "smallest": smallest}
                figures.line(f"{name}: {what}", value, unit, sweeps, **facts)


if __name__ == "__main__":
    main()
