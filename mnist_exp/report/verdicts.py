"""What the comparison of an arm with the leader shows, in words that claim no more than the statistics do."""

from __future__ import annotations

from enum import Enum, auto
from math import isnan

from mnist_exp.report import stats
from mnist_exp.report.formats import count, difference, interval, join, name, p_value
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.results import Arm

ALPHA = 0.05  # of a claim, as stats.LEVEL is of an interval
MAX_SEEDS = 1000  # a higher number that would be needed is not worth stating
SAME = "the same results in every run"
NO_EFFECT = "this setting has no effect here"


class Verdict(Enum):
    """What a comparison shows of the leader."""

    BETTER = auto()  # with new seeds, and on new images of the same source if it is known what the runs predicted
    BETTER_HERE = auto()  # with new seeds on the same images; for new images it is not shown
    WORSE = auto()  # on the seeds that both arms have
    WORSE_HERE = auto()
    EQUAL = auto()  # for practical purposes, as BETTER; of a sweep that was told which difference matters
    EQUAL_HERE = auto()
    UNCLEAR = auto()
    SAME = auto()  # equal to the bit
    NO_CLAIM = auto()  # an arm has one seed, or the seeds make no difference


def verdict(leader: Arm, other: Arm, test: stats.Comparison, smallest: float | None = None) -> Verdict:
    """Return what a comparison shows.

    Args:
        leader: The leader.
        other: Another arm.
        test: Their comparison.
        smallest: The smallest difference that matters, in percentage points; None if nobody has said.
    """
    if leader.equals(other):
        return Verdict.SAME
    if isnan(test.claim.p):
        return Verdict.NO_CLAIM
    if test.claim.p < ALPHA:
        return Verdict.BETTER if test.difference > 0 else Verdict.WORSE
    if is_equal(test.claim, smallest):
        return Verdict.EQUAL
    if test.on_these_images.p < ALPHA:
        return Verdict.BETTER_HERE if test.difference > 0 else Verdict.WORSE_HERE
    return Verdict.EQUAL_HERE if is_equal(test.on_these_images, smallest) else Verdict.UNCLEAR


def is_equal(estimate: stats.Estimate, smallest: float | None) -> bool:
    """Return whether arms are equal for practical purposes: no difference in the interval matters.

    At 95 % it is stricter than the two one-sided tests of Schuirmann 1987 (Journal of Pharmacokinetics and
    Biopharmaceutics 15, 657-680), whose interval is at 90 %.
    """
    return smallest is not None and -smallest / 100 < estimate.low and estimate.high < smallest / 100


def sentence(
    leader: Arm, other: Arm, test: stats.Comparison, measure: Measure = ACCURACY, smallest: float | None = None
) -> str:
    """Return what the runs say of the leader and one other arm; for `smallest` see `verdict`."""
    a, b, apart = name(leader), name(other), difference(test.difference, measure)
    rests_on = basis(leader, other, test)
    claim, here = (_evidence(each, measure) for each in (test.claim, test.on_these_images))
    match verdict(leader, other, test, smallest):
        case Verdict.SAME:
            return f"{a} and {b} have {SAME}: {NO_EFFECT}."
        case Verdict.NO_CLAIM if test.mcnemar:
            return _of_one_seed(leader, other, test.mcnemar)
        case Verdict.NO_CLAIM:
            return f"{a} and {b} are {apart} apart with {rests_on}, and no claim is possible{_why_no_claim(test)}."
        case Verdict.BETTER:
            images = f", {count(test.images, 'image')}" if test.images else ""
            return f"{a} beats {b} by {apart} ({claim}, {rests_on}{images}){_superiority(test)}."
        case Verdict.WORSE:
            return f"{a} is beaten by {b} by {difference(-test.difference, measure)} on their shared seeds."
        case Verdict.BETTER_HERE | Verdict.WORSE_HERE as found:
            how = "better" if found is Verdict.BETTER_HERE else "worse"
            these = f"these {count(test.images or 0, 'image')}"
            new = f"For new images of the same kind this is not shown ({claim}){_needed(test)}"
            return f"{a} is {how} than {b} on {these} ({apart}, {here}, {rests_on}). {new}."
        case Verdict.EQUAL | Verdict.EQUAL_HERE as found:
            where, estimate = ("", test.claim) if found is Verdict.EQUAL else (" on these images", test.on_these_images)
            within = f"{apart} ({interval(estimate, measure)}) lies within {smallest} pp"
            return f"{a} and {b} are equal for practical purposes{where}: their difference of {within}."
        case Verdict.UNCLEAR:
            return f"{a} and {b} can't be told apart with {rests_on} ({apart}, {claim}){_needed(test)}."


def cell(leader: Arm, other: Arm, test: stats.Comparison, smallest: float | None = None) -> str:
    """Return a comparison with the leader for a cell of a table; for `smallest` see `verdict`."""
    p = p_value(test.claim.p)
    return {
        Verdict.SAME: "the same results",
        Verdict.NO_CLAIM: "no claim",
        Verdict.BETTER: f"behind, {p}",
        Verdict.WORSE: f"ahead, {p}",
        Verdict.BETTER_HERE: "behind on these images",
        Verdict.WORSE_HERE: "ahead on these images",
        Verdict.EQUAL: f"equal within {smallest} pp",
        Verdict.EQUAL_HERE: f"equal within {smallest} pp on these images",
        Verdict.UNCLEAR: f"can't be told apart, {p}",
    }[verdict(leader, other, test, smallest)]


def basis(leader: Arm, other: Arm, test: stats.Comparison) -> str:
    """Return the seeds, or the splits, that a comparison rests on."""
    if test.splits > 1:
        return count(test.splits, "split")
    if leader.val.n == other.val.n and (not test.paired or test.n == leader.val.n):
        return count(other.val.n, "seed")
    return count(test.n, "shared seed") if test.paired else f"{leader.val.n} and {count(other.val.n, 'seed')}"


def is_limited_by_images(test: stats.Comparison) -> bool:
    """Return whether more images would settle a comparison, and more seeds would not."""
    return bool(test.images) and test.claim.p >= ALPHA and test.needed is None and test.needed_images is not None


def _evidence(estimate: stats.Estimate, measure: Measure) -> str:
    """Return the interval of a difference, if there is one, and its p-value."""
    return ", ".join(filter(None, [interval(estimate, measure), p_value(estimate.p)]))


def _superiority(test: stats.Comparison) -> str:
    """Return how often the leader is the better one with a new seed; nothing if that is unknown."""
    share, low, high = test.superiority
    return "" if isnan(low) else f"; P(better) = {share:.2f} ({low:.2f} to {high:.2f})"


def _needed(test: stats.Comparison) -> str:
    """Return how many seeds or images a claim would take; nothing if that is unknown."""
    unit = "splits" if test.splits > 1 else "seeds"
    found = []
    if test.needed is not None:
        seeds = f"about {test.needed:,}" if test.needed <= MAX_SEEDS else f"more than {MAX_SEEDS:,}"
        found.append(f"{seeds} {unit} per arm")
    if test.needed_images is not None:
        found.append(f"about {_two_digits(test.needed_images):,} validation images")
    if not found:
        return ""
    needed = f": {join(found, 'or')} would be needed to detect this difference"
    return f"{needed}; more {unit} alone are hardly enough" if is_limited_by_images(test) else needed


def _why_no_claim(test: stats.Comparison) -> str:
    """Return why a comparison allows no claim; nothing if there are too few runs, which the numbers say."""
    return ": their difference is the same with each seed" if test.paired and test.n > 1 else ""


def _of_one_seed(leader: Arm, other: Arm, found: stats.McNemar) -> str:
    """Return what the images alone say of two arms of one seed each."""
    return (
        f"With this one seed, {name(leader)} alone is right on {count(found.first, 'image')}, and {name(other)} alone "
        f"on {found.second:,} (McNemar's exact test: {p_value(found.p)}). What another seed would give is unknown."
    )


def _two_digits(n: int) -> int:
    """Return a number rounded to two significant digits."""
    return int(float(f"{n:.2g}"))
