"""What a sweep shows, in sentences that claim no more than the figures do. Names of arms stand in backticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from math import isnan
from typing import Any

from mnist_exp.report import lr_search, stats
from mnist_exp.report.results import Arm, Results, Run, causes, seconds
from mnist_exp.system import quoting

ALPHA = 0.05  # of a claim, as stats.LEVEL is of an interval
MOST = 10  # sentences about single arms; more are counted
NAMED = 3  # arms in the headline
FAR = 1000  # seeds: an estimate beyond it is no plan
STATUSES = ("completed", "running", "failed", "interrupted", "pending")
RANKING = (
    "Arms are ranked by their mean accuracy on the validation images, at each run's best epoch; the test figures stand "
    "beside and choose nothing. What validation has chosen looks a little better there than it is."
)
FAILING = (
    "An arm whose runs failed by their own doing (the loss ran away, say) has no rank: the runs that survived are a "
    "selection, and are not compared."
)
METHOD = (
    "Intervals: 95 %, each for itself, of the mean's log odds, so that none leaves 0 to 100 %. p: corrected (Holm) for "
    "comparing every pair of arms. pp: percentage points."
)
NEARLY_NOTHING = "two seeds say nearly nothing"
SAME = "the same results in every run"
NO_EFFECT = "this setting changed nothing here"


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
            f"`{quoting.command('-m', quoting.override('resume', sweep))}`" for sweep in dict.fromkeys(unfinished)
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
    found = lr_search.searches(results.trials)
    before, judging = (clock(seconds(it.runs)) for it in (results.trials, results))
    rates = " or ".join(map(str, sorted({len(it.rates) for it in found})))
    seeds = " or ".join(map(str, sorted({len({run.job.seed for run in it.runs}) for it in found})))
    told = (
        f"Each arm tried {rates} learning rates before, with {seeds} seed{'s' * (seeds != '1')} each; validation chose "
        f"among them, and other seeds judged. The {_count(len(results.trials.runs), 'trial')} took {before} of run "
        f"time, the {_count(len(results.runs), 'run')} that judged {judging}."
    )
    ends = [
        f"{in_backticks(it.label)} did best at the {'lowest' if it.chosen == it.rates[0] else 'highest'} rate that was "
        f"tried, {it.chosen:g}: a better one may lie beyond optimizer.lr_range."
        for it in found
        if it.is_at_an_end
    ]
    failed = [run for it in found for run in it.failed]
    left = len({run.job.arm for run in failed})
    without = f"{_count(left, 'rate')} can't be chosen, because trials failed there ({causes(failed)})."
    missing = len(results.trials.runs) - len(failed) - sum(len(arm.runs) for arm in results.trials.arms)
    others = f"{_count(missing, 'trial')} did not come to an end; the others judge the rates."
    return [told, *[without] * bool(failed), *[others] * bool(missing), *ends]


def ranking(results: Results) -> str:
    """How arms are ranked."""
    return f"{RANKING} {FAILING}" if results.failing else RANKING


def answer(results: Results) -> list[str]:
    """The headline, and what bears it out: a sentence an arm, or counts where arms are many."""
    compared, failing = results.compared, results.failing
    pairs = list(zip(compared[1:], results.comparisons, strict=True))
    told = [
        sentence(compared[0], arm, it)
        for arm, it in pairs[:MOST]
        if not isnan(it.p) or compared[0].val.n > 1 or compared[0].equals(arm)
    ]
    if len(pairs) > MOST and told:
        told.append(f"Further down, it {_tally(compared[0], pairs[MOST:])}.")
    told += same_further_down(results)[:MOST]
    told += [survival(arm) for arm in failing[:MOST]]
    if len(failing) > MOST:
        told.append(f"Runs of {_count(len(failing) - MOST, 'further arm')} failed.")
    return [headline(results), *told, *advice(results)]


def headline(results: Results) -> str:
    """Which arm leads on validation, which others it beats, and which can't be compared."""
    compared, failing = results.compared, results.failing
    pairs = list(zip(compared[1:], results.comparisons, strict=True))
    told = ["Nothing has completed, so there is nothing to compare."]
    if compared:
        told = [_lead(compared[0], pairs, alone=len({run.job.arm for run in results.runs}) < 2)]
    elif results.arms:
        told = ["No arm leads, for each has runs that failed by their own doing."]
    if failing:
        named = [f"{name(arm)} ({_seeds_of(arm)})" for arm in failing[:NAMED]]
        named += [f"{len(failing) - NAMED:,} more"] * (len(failing) > NAMED)
        told.append(f"{'Not compared, because runs failed' if compared else 'Runs failed'}: {_listed(named)}.")
    return " ".join(told)


def _lead(leader: Arm, pairs: Sequence[tuple[Arm, stats.Comparison]], alone: bool) -> str:
    """What the best arm reaches, and how it compares with the others."""
    figure = f"{percent(leader.val.mean)} on validation ({_basis(leader)})"
    if not pairs:
        no_other = "there is no other arm to compare it with" if alone else "no other arm can be compared with it"
        return f"{name(leader)} reaches {figure}; {no_other}."
    if all(leader.equals(arm) for arm, _ in pairs):
        told = f"{name(pairs[0][0])} has {SAME}: {NO_EFFECT}" if len(pairs) == 1 else f"All others have {SAME}"
        return f"{name(leader)} reaches {figure}. {told}."
    if all(isnan(it.p) for _, it in pairs):
        return f"{name(leader)} has the highest accuracy, {figure}, but whether it is better than others is not shown."
    return f"{name(leader)} leads with {figure}. It {_tally(leader, pairs)}."


def sentence(leader: Arm, other: Arm, it: stats.Comparison) -> str:
    """What the seeds say of the leader and one other arm."""
    seeds = _seeds(leader, other, it)
    if leader.equals(other):
        return f"{name(leader)} and {name(other)} have {SAME}: {NO_EFFECT}."
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


def same_further_down(results: Results) -> list[str]:
    """Which arms have the same results as each other, beside the leader; nothing where a key explains it (idle)."""
    alike = dict[Any, list[Arm]]()
    for arm in [] if idle(results) else results.compared:
        alike.setdefault(arm.results, []).append(arm)
    groups = [arms for arms in alike.values() if len(arms) > 1 and results.compared[0] not in arms]
    return [f"{_listed([*map(name, arms)])} have {SAME}: {NO_EFFECT}." for arms in groups]


def survival(arm: Arm) -> str:
    """What became of an arm of which runs failed by their own doing."""
    told = f"Of the {_count(arm.asked, 'run')} of {name(arm)}, {arm.failures}"
    if not arm.runs:
        return f"{told}, and none completed."
    verb = "is" if len(arm.runs) == 1 else "are"
    return f"{told}; the {len(arm.runs):,} that completed, with {percent(arm.val.mean)}, {verb} not compared."


def verdict(leader: Arm, other: Arm, it: stats.Comparison) -> str:
    """A comparison with the leader in a table's cell."""
    if leader.equals(other):
        return "the same results"
    if isnan(it.p):
        return "no claim"
    if it.p >= ALPHA:
        return f"can't be told apart, {p_value(it.p)}"
    return f"{'behind' if it.difference > 0 else 'ahead'}, {p_value(it.p)}"


def verdicts(results: Results) -> list[str]:
    """A cell for each arm of the leaderboard: how it compares with the leader."""
    pairs = zip(results.compared[1:], results.comparisons, strict=True)
    told = ["the leader", *(verdict(results.compared[0], arm, it) for arm, it in pairs)][: len(results.compared)]
    return told + ["not compared" if arm.runs else "failed" for arm in results.failing]


def advice(results: Results) -> list[str]:
    """Which keys changed nothing; and where arms have one seed, what spread is to be expected, and what to type."""
    return [*map(_idle, idle(results)), *_more_seeds(results.compared)]


def idle(results: Results) -> list[str]:
    """The keys that changed nothing: arms that differ in them alone have the same results in every run."""
    found = []
    for key in results.crossed:
        alike = dict[tuple[str, ...], list[Arm]]()
        for arm in results.arms:
            alike.setdefault(tuple(v for k, v in arm.choices.items() if k != key), []).append(arm)
        pairs = [(arms[0], arm) for arms in alike.values() for arm in arms[1:]]
        if pairs and all(arm.equals(other) for arm, other in pairs):
            found.append(key)
    return found if len(results.arms) > 2 and not results.failing else []  # of two arms, their own sentence says it


def _idle(key: str) -> str:
    return f"{in_backticks(key)} changed nothing here: whatever its value, {SAME}."


def _more_seeds(arms: Sequence[Arm]) -> list[str]:
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
    return quoting.command(*run.job.overrides)


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
    """A 95 % interval, in percent or percentage points; why there is none, or empty where that is plain."""
    if isinstance(it, stats.Summary) and it.n == 2 and it.sd > 0 and isnan(it.low):
        return NEARLY_NOTHING
    return "" if isnan(it.low) else f"{100 * it.low:z.2f} to {100 * it.high:z.2f}"


def p_value(p: float) -> str:
    """Three digits where they matter."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _tally(leader: Arm, pairs: Sequence[tuple[Arm, stats.Comparison]]) -> str:
    """How many others the leader beats, and which it can't be told apart from where these are few."""
    others = f"{len(pairs):,} others"
    same = [arm for arm, _ in pairs if leader.equals(arm)]
    beaten = [arm for arm, it in pairs if it.p < ALPHA and it.difference > 0]
    behind = [arm for arm, it in pairs if it.p < ALPHA and it.difference <= 0]
    alike = [arm for arm, it in pairs if it.p >= ALPHA]
    unclear = sum(isnan(it.p) for _, it in pairs) - len(same)
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
    if same:
        told.append(f"has {SAME} as {' and '.join(map(name, same)) if len(same) < 3 else f'{len(same):,}'}")
    if behind:
        told.append(f"is beaten by {len(behind):,} on the seeds that both have")
    if unclear:
        told.append(f"allows no claim about {unclear:,}")
    return _listed(told)


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + " and " * (len(parts) > 1) + parts[-1]


def _seeds(leader: Arm, other: Arm, it: stats.Comparison) -> str:
    """What a comparison rests on."""
    if leader.val.n == other.val.n and (not it.paired or it.n == leader.val.n):
        return _count(other.val.n, "seed")
    return f"{_count(it.n, 'shared seed')}" if it.paired else f"{leader.val.n} and {_count(other.val.n, 'seed')}"


def _basis(arm: Arm) -> str:
    """What an arm's mean rests on: its interval, and its seeds."""
    limits = interval(arm.val)
    if limits == NEARLY_NOTHING:
        return limits
    return f"95 % interval {limits}, {_seeds_of(arm)}" if limits else _seeds_of(arm)


def _seeds_of(arm: Arm) -> str:
    """How many seeds of an arm completed: "5 seeds", or "3 of 5 seeds; 2 diverged"."""
    count, _, rest = arm.seeds.partition(";")
    return f"{count} seed{'s' * (arm.asked != 1)}{';' * bool(rest)}{rest}"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'s' * (n != 1)}"
