"""The sentences of a report. They claim no more than the statistics do. Names of arms stand in backticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from math import isnan

from mnist_exp.report import lr_search, stats
from mnist_exp.report.results import Arm, Results, RunResult, count_failures, total_seconds
from mnist_exp.system import quoting

ALPHA = 0.05  # of a claim, as stats.LEVEL is of an interval
MAX_SENTENCES = 10  # about single arms; further arms are counted
MAX_NAMES = 3  # of failing arms in the headline
MAX_SEEDS = 1000  # a higher number of needed seeds is not worth stating
STATUSES = ("completed", "running", "failed", "interrupted", "pending")
RANKING = (
    "Arms are ranked by mean validation accuracy, at the best epoch of each run. The test results are shown beside it "
    "and choose nothing. Validation accuracies look slightly better than they are, because validation chose the epoch "
    "and the order."
)
FAILING = (
    "An arm with runs that failed themselves (because the loss diverged, for example) has no rank and is not compared: "
    "its surviving runs are a selection."
)
METHOD = (
    "Intervals: 95 %, each on its own, of the mean's log odds, so that none leaves 0 to 100 %. p: corrected (Holm) for "
    "comparing every pair of arms. pp: percentage points."
)
ALMOST_NOTHING = "two seeds say almost nothing"
SAME = "the same results in every run"
NO_EFFECT = "this setting has no effect here"


def title(results: Results) -> str:
    """Return what was swept, and on which data."""
    data = dict.fromkeys(run.data["name"] for arm in results.arms for run in arm.runs)
    swept = " \u00d7 ".join(results.crossed) or "One config"
    return f"{swept} on {', '.join(data)}" if data else swept


def scope(results: Results) -> str:
    """Return how many arms, seeds and runs there are."""
    jobs = [run.job for run in results.runs]
    arms, seeds = {job.arm for job in jobs}, {job.seed for job in jobs}
    return f"{_count(len(arms), 'arm')}, {_count(len(seeds), 'seed')}, {_count(len(jobs), 'run')}"


def progress(runs: Sequence[RunResult]) -> str:
    """Return how many runs have each status."""
    counts = Counter(run.job.status for run in runs)
    rest = [f"{counts[status]:,} {status}" for status in STATUSES[1:] if counts[status]]
    return ", ".join([f"{counts['completed']:,} of {len(runs):,} completed", *rest])


def notes(results: Results) -> list[str]:
    """Return what a reader should know first: runs are left to do, the sweep was resumed, the test images are cut."""
    found = []
    unfinished = [run.sweep for run in results.runs if run.job.status in ("running", "interrupted", "pending")]
    if unfinished:
        commands = [
            f"`{quoting.command('-m', quoting.override('resume', sweep))}`" for sweep in dict.fromkeys(unfinished)
        ]
        found.append(
            f"Not finished: {progress(results.runs)}. This report covers the runs that have completed so far. "
            f"To resume: {' and '.join(commands)}."
        )
    if len(results.sessions) > len(results.folders):
        sweeps = "the sweep" if len(results.folders) == 1 else f"{len(results.folders)} sweeps"
        found.append(f"Resumed: {len(results.sessions)} commands worked on {sweeps}.")
    data = {run.data["name"]: run.data.get("test") for arm in results.arms for run in arm.runs}
    if cut := [name for name, test in data.items() if test == "cut"]:
        found.append(
            f"The source of {' and '.join(cut)} has no test images: they are cut from its training images, "
            "by data.test and data.seed."
        )
    return found


def warnings(results: Results) -> list[str]:
    """Return why results may not be comparable."""
    allowed = sum(bool(session.get("allow_changed")) for session in results.sessions)
    if not allowed:
        return results.warnings
    commands = f"{_count(allowed, 'command')} {'was' if allowed == 1 else 'were'} allowed to continue"
    return [*results.warnings, f"{commands} although code, packages or data had changed (allow_changed)"]


def learning_rates(results: Results) -> list[str]:
    """Return how the learning rates were chosen, what that cost, and where the range may have been too narrow."""
    if not results.lr_search:
        return []
    trials = results.lr_search
    found = lr_search.searches(trials)
    rates = " or ".join(map(str, sorted({len(search.rates) for search in found})))
    seeds = " or ".join(map(str, sorted({len({run.job.seed for run in search.trials}) for search in found})))
    how = f"{rates} rates with {seeds} {'seed' if seeds == '1' else 'seeds'} each, compared by validation accuracy"
    cost = f"The {_count(len(trials.runs), 'trial')} took {clock(total_seconds(trials.runs))} of run time"
    cost += f", the {_count(len(results.runs), 'run')} of the sweep {clock(total_seconds(results.runs))}"
    sentences = [f"A search chose the learning rate of each arm: {how}. Other seeds judge the chosen rate. {cost}."]
    failed = [run for search in found for run in search.failed]
    if failed:
        excluded = len({run.job.arm for run in failed})
        verb = "was" if excluded == 1 else "were"
        sentences.append(
            f"{_count(excluded, 'rate')} {verb} excluded because trials failed there ({count_failures(failed)})."
        )
    missing = len(trials.runs) - len(failed) - sum(len(arm.runs) for arm in trials.arms)
    if missing:
        sentences.append(f"{_count(missing, 'trial')} did not finish; the others judge the rates.")
    for search in found:
        if search.is_at_edge:
            edge = "lowest" if search.chosen == search.rates[0] else "highest"
            sentences.append(
                f"{in_backticks(search.label)} did best at the {edge} rate, {search.chosen:g}: "
                "a better one may lie outside optimizer.lr_range."
            )
    return sentences


def ranking(results: Results) -> str:
    """Return how arms are ranked."""
    return f"{RANKING} {FAILING}" if results.failing else RANKING


def answer(results: Results) -> list[str]:
    """Return the headline and what supports it: one sentence per arm, or counts if there are many."""
    compared, failing = results.compared, results.failing
    pairs = list(zip(compared[1:], results.comparisons, strict=True))
    sentences = [
        comparison(compared[0], arm, test)
        for arm, test in pairs[:MAX_SENTENCES]
        if not isnan(test.claim.p) or compared[0].val.n > 1 or compared[0].equals(arm)
    ]
    if len(pairs) > MAX_SENTENCES and sentences:
        sentences.append(f"Further down, it {_tally(compared[0], pairs[MAX_SENTENCES:])}.")
    sentences += equal_arms(results)[:MAX_SENTENCES]
    sentences += [failed_runs(arm) for arm in failing[:MAX_SENTENCES]]
    if len(failing) > MAX_SENTENCES:
        sentences.append(f"Runs of {_count(len(failing) - MAX_SENTENCES, 'further arm')} failed.")
    return [headline(results), *sentences, *advice(results)]


def headline(results: Results) -> str:
    """Return which arm leads on validation, which others it beats, and which can't be compared."""
    compared, failing = results.compared, results.failing
    if compared:
        pairs = list(zip(compared[1:], results.comparisons, strict=True))
        first = _lead(compared[0], pairs, is_alone=len({run.job.arm for run in results.runs}) < 2)
    elif results.arms:
        first = "No arm leads, because runs of every arm failed."
    else:
        first = "No run has completed, so there is nothing to compare."
    if not failing:
        return first
    names = [f"{name(arm)} ({_seeds_of(arm)})" for arm in failing[:MAX_NAMES]]
    if len(failing) > MAX_NAMES:
        names.append(f"{len(failing) - MAX_NAMES:,} more")
    reason = "Not compared, because runs failed" if compared else "Runs failed"
    return f"{first} {reason}: {_join(names)}."


def comparison(leader: Arm, other: Arm, test: stats.Comparison) -> str:
    """Return what the seeds say of the leader and one other arm."""
    seeds = _seeds_of_comparison(leader, other, test)
    if leader.equals(other):
        return f"{name(leader)} and {name(other)} have {SAME}: {NO_EFFECT}."
    if isnan(test.claim.p):
        apart = points(test.difference)
        return f"No claim about {name(leader)} and {name(other)} is possible: they are {apart} apart, with {seeds}."
    evidence = f"{interval(test.claim)}, {p_value(test.claim.p)}"
    if test.claim.p < ALPHA and test.difference > 0:
        return f"{name(leader)} beats {name(other)} by {points(test.difference)} ({evidence}, {seeds})."
    if test.claim.p < ALPHA:
        return f"{name(leader)} is beaten by {name(other)} by {points(-test.difference)} on their shared seeds."
    unclear = f"{name(leader)} and {name(other)} can't be told apart with {seeds}"
    unclear += f" ({points(test.difference)}, {evidence})"
    if test.needed is None:
        return f"{unclear}."
    needed = f"about {test.needed:,}" if test.needed <= MAX_SEEDS else f"more than {MAX_SEEDS:,}"
    return f"{unclear}: {needed} seeds per arm would be needed to detect this difference."


def equal_arms(results: Results) -> list[str]:
    """Return which arms have the same results as each other, beside the leader.

    Nothing if `keys_without_effect` explains it.
    """
    if keys_without_effect(results):
        return []
    arms_of_values: dict[tuple[tuple[float, ...], ...], list[Arm]] = {}
    for arm in results.compared:
        arms_of_values.setdefault(arm.values, []).append(arm)
    groups = [arms for arms in arms_of_values.values() if len(arms) > 1 and results.compared[0] not in arms]
    return [f"{_join([name(arm) for arm in arms])} have {SAME}: {NO_EFFECT}." for arms in groups]


def failed_runs(arm: Arm) -> str:
    """Return how the runs of a failing arm ended."""
    failures = f"Of the {_count(arm.planned, 'run')} of {name(arm)}, {arm.failures}"
    if not arm.runs:
        return f"{failures}, and none completed."
    completed = f"the {len(arm.runs):,} that completed ({percent(arm.val.mean)})"
    return f"{failures}; {completed} {'is' if len(arm.runs) == 1 else 'are'} not compared."


def verdict(leader: Arm, other: Arm, test: stats.Comparison) -> str:
    """Return a comparison with the leader for a cell of a table."""
    if leader.equals(other):
        return "the same results"
    if isnan(test.claim.p):
        return "no claim"
    if test.claim.p >= ALPHA:
        return f"can't be told apart, {p_value(test.claim.p)}"
    return f"{'behind' if test.difference > 0 else 'ahead'}, {p_value(test.claim.p)}"


def verdicts(results: Results) -> list[str]:
    """Return a cell for each arm of the leaderboard: how it compares with the leader."""
    compared = results.compared
    cells = ["the leader"] if compared else []
    cells += [verdict(compared[0], arm, test) for arm, test in zip(compared[1:], results.comparisons, strict=True)]
    return cells + ["not compared" if arm.runs else "failed" for arm in results.failing]


def advice(results: Results) -> list[str]:
    """Return which keys had no effect; and, if arms have one seed, what spread to expect and what to type."""
    idle = [
        f"{in_backticks(key)} has no effect here: every value gives {SAME}." for key in keys_without_effect(results)
    ]
    return [*idle, *_more_seeds(results.compared)]


def keys_without_effect(results: Results) -> list[str]:
    """Return the keys for which all arms that differ in that key alone have the same results in every run."""
    if len(results.arms) <= 2 or results.failing:  # the sentence about two arms says it
        return []
    found = []
    for key in results.crossed:
        arms_of_others: dict[tuple[str, ...], list[Arm]] = {}
        for arm in results.arms:
            others = tuple(value for other, value in arm.choices.items() if other != key)
            arms_of_others.setdefault(others, []).append(arm)
        pairs = [(arms[0], arm) for arms in arms_of_others.values() for arm in arms[1:]]
        if pairs and all(arm.equals(other) for arm, other in pairs):
            found.append(key)
    return found


def test_images(arms: Sequence[Arm]) -> int | None:
    """Return the size of the test set, from the misses and accuracy of a run; None if no run missed an image."""
    most = max((run for arm in arms for run in arm.runs), key=lambda run: run.misses)
    return round(most.misses / (1 - most.test_accuracy)) if most.misses else None


def command(run: RunResult) -> str:
    """Return the command that runs one job again, alone."""
    return quoting.command(*run.job.overrides)


def name(arm: Arm) -> str:
    """Return the label of an arm in backticks."""
    return in_backticks(arm.label)


def in_backticks(text: str) -> str:
    """Return text as code on one line. Backticks within it become apostrophes."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: 91 -> "0:01:31"."""
    return str(timedelta(seconds=round(seconds)))


def percent(fraction: float) -> str:
    """Return a fraction in percent: 0.97864 -> "97.86 %"."""
    return f"{100 * fraction:.2f} %"


def points(difference: float) -> str:
    """Return the difference of two fractions in percentage points."""
    return f"{100 * difference:z.2f} pp"


def interval(estimate: stats.Estimate | stats.Summary) -> str:
    """Return a 95 % interval in percent or percentage points; why there is none, or nothing if that is plain."""
    if isinstance(estimate, stats.Summary) and estimate.n == 2 and estimate.sd > 0 and isnan(estimate.low):
        return ALMOST_NOTHING
    return "" if isnan(estimate.low) else f"{100 * estimate.low:z.2f} to {100 * estimate.high:z.2f}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals where they matter."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _lead(leader: Arm, pairs: Sequence[tuple[Arm, stats.Comparison]], is_alone: bool) -> str:
    """Return what the best arm reaches, and how it compares with the others."""
    accuracy = f"{percent(leader.val.mean)} on validation ({_basis(leader)})"
    if not pairs:
        why = "there is no other arm to compare it with" if is_alone else "no other arm can be compared with it"
        return f"{name(leader)} reaches {accuracy}; {why}."
    if all(leader.equals(arm) for arm, _ in pairs):
        one = f"{name(pairs[0][0])} has {SAME}: {NO_EFFECT}"
        return f"{name(leader)} reaches {accuracy}. {one if len(pairs) == 1 else f'All others have {SAME}'}."
    if all(isnan(test.claim.p) for _, test in pairs):
        return (
            f"{name(leader)} has the highest accuracy, {accuracy}, but the runs do not show whether it is better than "
            "the others."
        )
    return f"{name(leader)} leads with {accuracy}. It {_tally(leader, pairs)}."


def _tally(leader: Arm, pairs: Sequence[tuple[Arm, stats.Comparison]]) -> str:
    """Return how many others the leader beats; and which it can't be told apart from, if these are few."""
    others = f"{len(pairs):,} others"
    same = [arm for arm, _ in pairs if leader.equals(arm)]
    beaten = [arm for arm, test in pairs if test.claim.p < ALPHA and test.difference > 0]
    ahead = [arm for arm, test in pairs if test.claim.p < ALPHA and test.difference <= 0]
    unclear = [arm for arm, test in pairs if test.claim.p >= ALPHA]
    without_claim = sum(isnan(test.claim.p) for _, test in pairs) - len(same)
    parts = []
    if len(pairs) == 1 and beaten:
        parts.append(f"beats {name(beaten[0])}")
    elif beaten:
        parts.append(f"beats all {others}" if len(beaten) == len(pairs) else f"beats {len(beaten):,} of {others}")
    if 0 < len(unclear) < 3:
        parts.append(f"can't be told apart from {' and '.join(map(name, unclear))}")
    elif unclear:
        which = f"any of the {others}" if len(unclear) == len(pairs) else f"{len(unclear):,}"
        parts.append(f"can't be told apart from {which}")
    if same:
        parts.append(f"has {SAME} as {' and '.join(map(name, same)) if len(same) < 3 else f'{len(same):,}'}")
    if ahead:
        parts.append(f"is beaten by {len(ahead):,} on their shared seeds")
    if without_claim:
        parts.append(f"allows no claim about {without_claim:,}")
    return _join(parts)


def _more_seeds(arms: Sequence[Arm]) -> list[str]:
    """Return what arms of one seed can't show, and how to find out more."""
    single = [arm for arm in arms if arm.val.n == 1]
    if not single:
        return []
    if len(arms) == 1:
        which = "There is one seed"
    elif len(single) == len(arms):
        which = "Each arm has one seed"
    else:
        which = f"{len(single)} of {len(arms)} arms have one seed"
    found = [f"{which}, so the spread over seeds is unknown and no claim is made."]
    if images := test_images(arms):
        accuracy = single[0].test.mean
        spread = points(stats.sampling_spread(accuracy, images))
        found.append(
            f"The choice of the {images:,} test images alone gives an accuracy of {percent(accuracy)} a standard "
            f"deviation of {spread}; seeds add to it."
        )
    return [*found, "To learn more, add `seed=0,1,2,3,4` to the command: five seeds per arm."]


def _basis(arm: Arm) -> str:
    """Return what the mean of an arm rests on: its interval and its seeds."""
    limits = interval(arm.val)
    if limits == ALMOST_NOTHING:
        return limits
    return f"95 % interval {limits}, {_seeds_of(arm)}" if limits else _seeds_of(arm)


def _seeds_of(arm: Arm) -> str:
    """Return how many seeds of an arm completed: "5 seeds", or "3 of 5 seeds; 2 diverged"."""
    count, separator, failures = arm.seeds.partition(";")
    return f"{count} {'seed' if arm.planned == 1 else 'seeds'}{separator}{failures}"


def _seeds_of_comparison(leader: Arm, other: Arm, test: stats.Comparison) -> str:
    """Return what a comparison rests on."""
    if leader.val.n == other.val.n and (not test.paired or test.n == leader.val.n):
        return _count(other.val.n, "seed")
    return _count(test.n, "shared seed") if test.paired else f"{leader.val.n} and {_count(other.val.n, 'seed')}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _join(parts: Sequence[str]) -> str:
    """Return parts as an enumeration: "a, b and c"."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
