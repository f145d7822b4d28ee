"""What a sweep shows, in sentences that claim no more than the figures do. Names of arms stand in backticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from math import isnan
from shlex import quote

from mnist_exp.sweep import plan, stats, tuning
from mnist_exp.sweep.results import Arm, Results, Run, seconds

ALPHA = 0.05  # of a claim, as stats.LEVEL is of an interval
MOST = 10  # sentences about single arms; more are counted
FAR = 1000  # seeds: an estimate beyond it is no plan
STATUSES = ("completed", "running", "failed", "interrupted", "pending")
RANKING = (
    "Arms are ranked by their mean accuracy on the validation images, at each run's best epoch; the test figures stand "
    "beside and choose nothing. What validation has chosen looks a little better there than it is."
)
METHOD = (
    "Intervals: 95 %, each for itself. p: corrected (Holm) for comparing every pair of arms. pp: percentage points."
)


def title(results: Results) -> str:
    """What was swept, and on which data."""
    data = dict.fromkeys(str(run.summary["data"]["name"]) for arm in results.arms for run in arm.runs)
    return (" \u00d7 ".join(results.crossed) or "One config") + (f" on {', '.join(data)}" if data else "")


def scope(results: Results) -> str:
    """How many arms, seeds and runs there are."""
    seeds = {run.job.seed for run in results.runs}
    counts = (len({run.job.arm for run in results.runs}), "arm"), (len(seeds), "seed"), (len(results.runs), "run")
    return ", ".join(_count(n, word) for n, word in counts)


def progress(runs: Sequence[Run]) -> str:
    """How many runs have which status."""
    counts = Counter(run.job.status for run in runs)
    rest = [f"{counts[status]:,} {status}" for status in STATUSES[1:] if counts[status]]
    return ", ".join([f"{counts['completed']:,} of {len(runs):,} completed", *rest])


def notes(results: Results) -> list[str]:
    """What a reader should know of the sweep before its figures."""
    told = []
    unfinished = [run.sweep for run in results.runs if run.job.status in ("running", "interrupted", "pending")]
    if unfinished:
        commands = " and ".join(
            f"`python train.py -m resume={quote(str(sweep))}`" for sweep in dict.fromkeys(unfinished)
        )
        told.append(
            f"Not finished: {progress(results.runs)}. What follows is what has completed so far. "
            f"What was stopped goes on with {commands}."
        )
    if len(results.sessions) > len(results.folders):
        sweeps = "the sweep" if len(results.folders) == 1 else f"{len(results.folders)} sweeps"
        told.append(f"Resumed: {len(results.sessions)} commands worked on {sweeps}.")
    return told


def warnings(results: Results) -> list[str]:
    """Why figures may not be comparable."""
    changed = sum(bool(session.get("allow_changed")) for session in results.sessions)
    told = (
        f"{_count(changed, 'command')} had leave to go on although code, packages or data had changed (allow_changed)"
    )
    return [*results.warnings, *([told] if changed else [])]


def trials(results: Results) -> list[str]:
    """How the learning rates were chosen, what that cost, and where it looks as if the range was too narrow."""
    if not results.trials:
        return []
    found, seeds = tuning.searches(results.trials), {run.job.seed for run in results.trials.runs}
    before, judging = (clock(seconds(it.runs)) for it in (results.trials, results))
    rates = sorted({len(it.rates) for it in found})
    told = (
        f"Each arm tried {' or '.join(map(str, rates))} learning rates before, with {_count(len(seeds), 'seed')} each; "
        f"validation chose among them, and other seeds judged. The {_count(len(results.trials.runs), 'trial')} took "
        f"{before} of run time, the {_count(len(results.runs), 'run')} that judged {judging}."
    )
    ends = [
        f"{in_backticks(it.label)} did best at the {'lowest' if it.chosen == it.rates[0] else 'highest'} rate that was "
        f"tried, {it.chosen:g}: a better one may lie beyond optimizer.lr_range."
        for it in found
        if it.is_at_an_end
    ]
    return [told, *ends]


def answer(results: Results) -> list[str]:
    """The headline, and what bears it out: a sentence an arm, or counts where arms are many."""
    arms, comparisons = results.arms, results.comparisons
    if not arms:
        return ["Nothing has completed, so there is nothing to compare."]
    pairs = list(zip(arms[1:], comparisons, strict=True))
    told = [sentence(arms[0], arm, it) for arm, it in pairs[:MOST] if not isnan(it.p) or arms[0].val.n > 1]
    if len(pairs) > MOST and told:
        told.append(f"Further down, it {_tally(pairs[MOST:])}.")
    return [headline(arms, comparisons), *told, *advice(arms)]


def headline(arms: Sequence[Arm], comparisons: Sequence[stats.Comparison]) -> str:
    """Which arm leads on validation, and which others it beats."""
    leader, pairs = arms[0], list(zip(arms[1:], comparisons, strict=True))
    figure = f"{percent(leader.val.mean)} on validation{_in_brackets(leader.val)}"
    if not pairs:
        return f"{name(leader)} reaches {figure}; there is no other arm to compare it with."
    if all(isnan(it.p) for it in comparisons):
        return f"{name(leader)} has the highest accuracy, {figure}, but whether it is better than others is not shown."
    return f"{name(leader)} leads with {figure}. It {_tally(pairs)}."


def sentence(leader: Arm, other: Arm, it: stats.Comparison) -> str:
    """What the seeds say of the leader and one other arm."""
    seeds = _seeds(leader, other, it)
    if isnan(it.p):
        return f"No claim can be made of {name(leader)} and {name(other)}: {points(it.difference)} apart, with {seeds}."
    figures = f"{interval(it)}, {p_value(it.p)}"
    if it.p < ALPHA and it.difference > 0:
        return f"{name(leader)} beats {name(other)} by {points(it.difference)} ({figures}, {seeds})."
    if it.p < ALPHA:
        return f"{name(leader)} is beaten by {name(other)} by {points(-it.difference)} on the seeds that both have."
    found = f"{name(leader)} and {name(other)} can't be told apart with {seeds} ({points(it.difference)}, {figures})"
    if it.needed is None:
        return f"{found}."
    needed = f"about {it.needed:,}" if it.needed <= FAR else f"more than {FAR:,}"
    return f"{found}: {needed} seeds an arm would resolve the difference seen."


def verdict(it: stats.Comparison) -> str:
    """A comparison with the leader in a table's cell."""
    if isnan(it.p):
        return "no claim"
    if it.p >= ALPHA:
        return f"can't be told apart, {p_value(it.p)}"
    return f"{'behind' if it.difference > 0 else 'ahead'}, {p_value(it.p)}"


def advice(arms: Sequence[Arm]) -> list[str]:
    """Where arms have one seed: what spread is to be expected all the same, and what to type."""
    lone = [arm for arm in arms if arm.val.n == 1]
    if not lone:
        return []
    which = " of each arm" if len(lone) == len(arms) else f" of {len(lone)} of {len(arms)} arms"
    told = [f"One seed{which * (len(arms) > 1)}: where another seed would land is unknown, so no claim is made."]
    if images := test_images(arms):
        spread = stats.sampling_spread(lone[0].test.mean, images)
        told.append(
            f"The choice of the {images:,} test images alone spreads an accuracy of {percent(lone[0].test.mean)} by "
            f"{points(spread)} (one standard deviation); seeds add theirs."
        )
    return [*told, "To know more, type the command with `seed=0,1,2,3,4`: five seeds of each arm."]


def test_images(arms: Sequence[Arm]) -> int | None:
    """How many images a test set has, from a run's misses and accuracy; None where no run missed any."""
    summaries = [run.summary for arm in arms for run in arm.runs]
    most = max(summaries, key=lambda summary: int(summary["test_errors"]))
    return round(most["test_errors"] / (1 - most["test_accuracy"])) if most["test_errors"] else None


def again(run: Run) -> str:
    """What to type to run one job again, alone."""
    return plan.command(*run.job.overrides)


def name(arm: Arm) -> str:
    """An arm's label in backticks."""
    return in_backticks(arm.label)


def in_backticks(label: str) -> str:
    """The label as code, whatever is in it."""
    return f"`{' '.join(label.replace('`', chr(39)).split())}`"


def clock(seconds: float) -> str:
    """91 -> "0:01:31"."""
    return str(timedelta(seconds=round(seconds)))


def percent(fraction: float) -> str:
    """0.97864 -> "97.86 %"."""
    return f"{100 * fraction:.2f} %"


def points(difference: float) -> str:
    """A difference of two fractions, in percentage points."""
    return f"{100 * difference:z.2f} pp"


def interval(it: stats.Comparison | stats.Summary) -> str:
    """A 95 % interval, in percent or percentage points; empty where there is none."""
    return "" if isnan(it.low) else f"{100 * it.low:z.2f} to {100 * it.high:z.2f}"


def p_value(p: float) -> str:
    """Three digits where they matter."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _tally(pairs: Sequence[tuple[Arm, stats.Comparison]]) -> str:
    """How many others the leader beats, and which it can't be told apart from where these are few."""
    others = f"{len(pairs):,} others"
    beaten = [arm for arm, it in pairs if it.p < ALPHA and it.difference > 0]
    behind = [arm for arm, it in pairs if it.p < ALPHA and it.difference <= 0]
    alike = [arm for arm, it in pairs if it.p >= ALPHA]
    unclear = sum(isnan(it.p) for _, it in pairs)
    told = []
    if beaten:
        some = f"all {others}" if len(beaten) == len(pairs) else f"{len(beaten):,} of {others}"
        told.append(f"beats {name(beaten[0]) if len(pairs) == 1 else some}")
    if len(alike) < 3:
        some = " and ".join(map(name, alike))
    else:
        some = f"any of the {others}" if len(alike) == len(pairs) else f"{len(alike):,}"
    if alike:
        told.append(f"can't be told apart from {some}")
    if behind:
        told.append(f"is beaten by {len(behind):,} on the seeds that both have")
    if unclear:
        told.append(f"allows no claim about {unclear:,}")
    return ", ".join(told[:-1]) + " and " * (len(told) > 1) + told[-1]


def _seeds(leader: Arm, other: Arm, it: stats.Comparison) -> str:
    """What a comparison rests on."""
    if leader.val.n == other.val.n and (not it.paired or it.n == leader.val.n):
        return _count(other.val.n, "seed")
    return f"{_count(it.n, 'shared seed')}" if it.paired else f"{leader.val.n} and {_count(other.val.n, 'seed')}"


def _in_brackets(val: stats.Summary) -> str:
    limits = "" if isnan(val.low) else f"95 % interval {interval(val)}, "
    return f" ({limits}{_count(val.n, 'seed')})"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"
