"""The rule by which a sequential sweep stops, and what a report says about its course.

A sequential sweep (hydra.sweeper.until=decided) adds seeds until the question is answered. The rule reads the estimates
of a report and nothing else, so a reader can check every decision. They allow for looking after every round
(report/anytime.py), so the rule needs no correction of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from mnist_exp.report import anytime, stats, verdicts
from mnist_exp.report.formats import count
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.results import Arm, Results
from mnist_exp.report.verdicts import ALPHA
from mnist_exp.store.ledger import Session

# What is known about another arm than the leader.
OPEN, BEHIND, AHEAD, EQUAL, SAME = "open", "behind", "ahead", "equal", "the same"
DECIDED, MOST, ALONE = "decided", "max_seeds", "alone"  # why a sweep is over
ALLOWED = "p and the intervals of differences allow for looking after every round; those of single arms do not."


class Rule(NamedTuple):
    """When a sequential sweep stops."""

    max_seeds: int  # of an arm
    smallest: float  # the smallest difference that matters, in percentage points

    @classmethod
    def read(cls, entry: Mapping[str, float] | None) -> Rule | None:
        """Return the rule that an entry of a ledger holds; None without one."""
        return cls(int(entry["max_seeds"]), float(entry["smallest"])) if entry else None


class Finding(NamedTuple):
    """What the rule takes from a comparison with the leader."""

    word: str  # OPEN, BEHIND, AHEAD, EQUAL or SAME: the other arm
    p: float  # of the estimate that shows it, against no difference; nan for SAME
    for_new_images: bool  # false: more seeds could show it for these images alone


class Standing(NamedTuple):
    """Where a sequential sweep stands."""

    compared: list[Arm]  # the leader first
    findings: list[Finding]  # about each other arm
    race: list[Arm]  # the arms that would get more seeds: the leader, and those that are not shown to be behind
    over: str | None  # DECIDED, MOST or ALONE; None if the sweep goes on


def rule(sessions: Sequence[Session]) -> Rule | None:
    """Return the rule of the last command that worked on a sequential sweep; None for a sweep of fixed seeds."""
    found = [session["until"] for session in sessions if "until" in session]
    return Rule.read(found[-1]) if found else None


def smallest(results: Results) -> float | None:
    """Return the smallest difference that matters, in percentage points; None if nobody has said."""
    found = rule(results.sessions)
    return found.smallest if found and len(results.folders) == 1 and results.measure is ACCURACY else None


def standing(results: Results, rule: Rule) -> Standing:
    """Return where a sweep stands whose jobs have all ended.

    An arm with failed runs is not compared and gets no more seeds. One that is behind gets none either, as long as the
    runs that there are show it.
    """
    compared, tests = results.compared, results.comparisons
    pairs = len(compared) * (len(compared) - 1) // 2
    findings = [
        finding(test, rule.smallest, pairs) if not compared[0].equals(other) else Finding(SAME, math.nan, True)
        for other, test in zip(compared[1:], tests, strict=True)
    ]
    others = zip(compared[1:], findings, strict=True)
    race = [*compared[:1], *(arm for arm, found in others if found.word != BEHIND)]
    over = None
    if len(compared) < 2:
        over = ALONE
    elif not any(found.word == OPEN for found in findings):
        over = DECIDED
    elif min(arm.planned for arm in race) >= rule.max_seeds:
        over = MOST
    return Standing(compared, findings, race, over)


def finding(test: stats.Comparison, smallest: float, pairs: int = 1) -> Finding:
    """Return what a comparison shows: for new images if it can, for these images if more seeds could show no more.

    Args:
        test: The leader's comparison with another arm.
        smallest: The smallest difference that matters, in percentage points.
        pairs: The number of comparisons that p is corrected for.
    """
    wide, narrow = (_shown(test.difference, each, smallest) for each in (test.claim, test.on_these_images))
    if wide != OPEN:
        return Finding(wide, test.claim.p, True)
    if narrow != OPEN and _images_are_the_limit(test, narrow, smallest / 100, pairs):
        return Finding(narrow, test.on_these_images.p, False)
    return Finding(OPEN, test.claim.p, True)


def _shown(difference: float, estimate: stats.Estimate, smallest: float) -> str:
    """Return what an estimate shows; `smallest` is in percentage points."""
    if estimate.p < ALPHA:
        return BEHIND if difference > 0 else AHEAD
    return EQUAL if verdicts.is_equal(estimate, smallest) else OPEN


def _images_are_the_limit(test: stats.Comparison, narrow: str, smallest: float, pairs: int) -> bool:
    """Return whether the choice of the images alone leaves the claim open, however many seeds there were.

    Without any spread over seeds, the margin would be the images' part of it: the squares of both parts add up. A
    difference must exceed it by more if p is corrected for several pairs; equal arms must leave room for it.
    """
    from scipy.special import ndtri

    margins = [(each.high - each.low) / 2 for each in (test.claim, test.on_these_images)]
    of_images = math.sqrt(max(0.0, margins[0] ** 2 - margins[1] ** 2))
    if narrow == EQUAL:
        return of_images >= smallest - abs(test.difference)
    strictest = float(ndtri(1 - ALPHA / 2 / pairs) / ndtri(1 - ALPHA / 2))
    return of_images * strictest >= abs(test.difference)


def course(results: Results) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return the evidence that the leader and another arm differ, after each of their shared seeds.

    Returns:
        For each other arm that is not the leader's equal to the bit, its label and its points: the number of seeds, 2
        or more, and the common logarithm of the e-value for new seeds on the same images, for this pair alone. Points
        without spread are left out.
    """
    if not results.compared:
        return []
    leader, *others = results.compared
    found = [(arm.label, _evidence(leader, arm)) for arm in others if not leader.equals(arm)]
    return [(label, points) for label, points in found if points]


def _evidence(leader: Arm, other: Arm) -> list[tuple[int, float]]:
    first, second = ({run.job.seeds: run.val for run in arm.runs} for arm in (leader, other))
    differences = [first[seeds] - second[seeds] for seeds in sorted(first.keys() & second.keys())]
    points = []
    for n in range(2, len(differences) + 1):
        spread = stdev(differences[:n])
        if spread > stats.ROUNDING:
            t = fmean(differences[:n]) / spread * math.sqrt(n)
            points.append((n, math.log10(anytime.e_value(t, n))))
    return [(n, evidence) for n, evidence in points if math.isfinite(evidence)]


def sentences(results: Results) -> list[str]:
    """Return that a sweep was sequential, what stopped it, and how many runs that saved; nothing for fixed seeds."""
    found = rule(results.sessions)
    if not found:
        return []
    if len(results.folders) > 1:
        return [f"A sweep among these was sequential: its results decided its seeds. {ALLOWED}"]
    if results.measure is not ACCURACY:
        return [f"The sweep was sequential: accuracy decided when it stopped. {ALLOWED}"]
    unfinished = any(run.job.status not in ("completed", "failed") for run in results.runs)
    stands = standing(results, found)
    arms = len({run.job.arm for run in results.runs})
    most = max(arm.planned for arm in stands.compared) if stands.compared else 0
    equal = f"shown to be equal to it within {found.smallest:g} pp"
    how = (
        f"The sweep was sequential: it added seeds until each arm was told apart from the leader, or {equal}. {ALLOWED}"
    )
    if unfinished or not stands.over:
        return [f"{how} It is not over: {count(len(results.runs), 'run')} so far, {found.max_seeds} seeds at most."]
    cost = count(len(results.runs), "run")
    fixed = f"{found.max_seeds} seeds for each of {count(arms, 'arm')} would have taken {arms * found.max_seeds:,}"
    end = f"It stopped after {count(most, 'seed')}, because {_reason(stands, found)}: {cost}; {fixed}."
    return [f"{how} {end}"]


def _reason(stands: Standing, rule: Rule) -> str:
    if stands.over == ALONE:
        return "fewer than two arms without failed runs were left"
    still_open = sum(found.word == OPEN for found in stands.findings)
    if stands.over == MOST:
        return f"it may take no more (max_seeds={rule.max_seeds}), with {count(still_open, 'comparison')} open"
    on_these = sum(not found.for_new_images for found in stands.findings)
    if not on_these:
        return "every comparison with the leader was decided"
    return (
        f"more seeds could decide no more: {on_these} of {count(len(stands.findings), 'comparison')} with the leader "
        f"{'is' if on_these == 1 else 'are'} decided for these validation images alone"
    )
