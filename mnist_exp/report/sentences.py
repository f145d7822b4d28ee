"""The sentences of a report. They claim no more than the statistics do. Names of arms stand in backticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from mnist_exp.report import sequential, stats, status, verdicts
from mnist_exp.report.formats import (
    ALL_EQUAL,
    TOO_WIDE,
    count,
    difference,
    in_backticks,
    interval,
    join,
    name,
    percent,
    value,
)
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.results import Arm, Results, image_source
from mnist_exp.report.runs import RunResult
from mnist_exp.report.verdicts import NO_EFFECT, SAME, Verdict
from mnist_exp.store.run_folder import INTERRUPTED, PENDING, RUNNING, SEARCHES
from mnist_exp.system import program, quoting

MAX_SENTENCES = 10  # about single arms; further arms are counted
MAX_NAMES = 3  # of failing arms in the headline
MAX_EQUAL = 20  # arms with the same results, in one sentence
MIN_SEEDS = 3  # of an arm; with fewer, the report asks for more
RANKING = (
    "Arms are ranked by mean validation {measure}, at the best epoch of each run. The test results are shown beside it "
    "and choose nothing. Validation results look slightly better than they are, because validation chose the epoch and "
    "the order."
)
TRIALS = "These are the trials of a search. The best ones run again with other seeds, and are compared then."
FINALISTS = "From search: a setting that the search chose. From default: the same run without a search."
FAILING = (
    "An arm of which a run failed through its own fault (its loss diverged, for example) has no rank and is not "
    "compared: the runs that are left are a selection."
)
METHOD = (
    "Each interval, on its own, holds the mean over all possible seeds with 95 % confidence{scale}. p is corrected "
    "(Holm) for comparing every pair of arms. sd: standard deviation over seeds."
)
TALLY = {  # what the headline says of the arms with each verdict
    Verdict.BETTER: "beats {}",
    Verdict.BETTER_HERE: "is better than {} on these images (not shown for new ones)",
    Verdict.EQUAL: "is equal to {} within {smallest} pp",
    Verdict.EQUAL_HERE: "is equal to {} within {smallest} pp on these images",
    Verdict.UNCLEAR: "can't be told apart from {}",
    Verdict.SAME: f"has {SAME} as {{}}",
    Verdict.WORSE: "is beaten by {} on their shared seeds",
    Verdict.WORSE_HERE: "is worse than {} on these images and their shared seeds",
    Verdict.NO_CLAIM: "allows no claim about {}",
}
LEADER_ONLY = (
    " With more than {most} arms, only the pairs with the leader are computed: the others count in the correction as "
    "if they showed nothing, so p is never too small."
)
LOG_ODDS = "; it is computed on the scale of log odds, so that none leaves 0 to 100 %"
COMPARISONS = (
    "The intervals are of the difference, 95 %. Claims rest on the first, for new seeds and new images of the same "
    "source; the other one is for new seeds on the same images. P(better) is how often the leader does better with a "
    "new seed, with its 95 % interval; from 0.75 on, a difference is meaningful (Bouthillier et al. 2021, arXiv "
    "2103.03098)."
)
COMPARISONS_OF_SPLITS = (
    "The intervals are of the difference, 95 %. They are for new splits of the same source: other training images, "
    "other validation images, and other seeds. P(better) is how often the leader does better with a new split."
)


def title(results: Results) -> str:
    """Return what was swept, and on which data."""
    data = dict.fromkeys(run.data["name"] for arm in results.arms for run in arm.runs)
    alone = f"Search of {join(list(results.tuned))}" if results.tuned else "One config"
    swept = " \u00d7 ".join(results.crossed) or alone
    return f"{swept} on {', '.join(data)}" if data else swept


def scope(results: Results) -> str:
    """Return how many arms, splits, seeds and runs there are."""
    jobs = [run.job for run in results.runs]
    arms, seeds = {job.arm for job in jobs}, {job.seed for job in jobs}
    splits = {job.seeds.split for job in jobs} if "data.seed" not in results.swept else ()
    counts = [count(len(arms), "arm"), count(len(seeds), "seed"), count(len(jobs), "run")]
    return ", ".join([counts[0], *([count(len(splits), "split")] if len(splits) > 1 else []), *counts[1:]])


def progress(runs: Sequence[RunResult]) -> str:
    """Return how many runs have each status."""
    return status.counted(Counter(run.job.status for run in runs), len(runs))


def notes(results: Results) -> list[str]:
    """Return what a reader should know first: runs are left to do, the sweep was resumed, the test images are cut."""
    return [*left(results), *facts(results)]


def left(results: Results) -> list[str]:
    """Return that runs are left to do, and who does them or how to go on; nothing if there are none."""
    unfinished = dict.fromkeys(run.sweep for run in results.runs if run.job.status in (RUNNING, INTERRUPTED, PENDING))
    if not unfinished:
        return []
    found = f"Not finished: {progress(results.runs)}. This report covers the runs that have completed so far."
    busy = dict.fromkeys(run.sweep for run in results.runs if run.job.status == RUNNING)
    kept = status.kept(results.sessions) if len(results.folders) == 1 else []
    if idle := [f"`{status.resume(_whole(sweep), kept)}`" for sweep in unfinished if sweep not in busy]:
        found += f" To resume: {join(idle)}."
    if looks := [f"`{program.tool('status')} {quoting.for_shell(str(_whole(sweep)))}`" for sweep in busy]:
        found += f" When the rest will be done: {join(looks)}."
    return [found]


def _whole(sweep: Path) -> Path:
    """Return the folder of a sweep, also for that of the search before it."""
    return sweep.parent if sweep.name in SEARCHES else sweep


def facts(results: Results) -> list[str]:
    """Return what else a reader should know first: the sweep was resumed, the test images are cut."""
    found = []
    if len(results.sessions) > len(results.folders):
        sweeps = "the sweep" if len(results.folders) == 1 else f"{len(results.folders)} sweeps"
        found.append(f"Resumed: {len(results.sessions)} commands worked on {sweeps}.")
    found += sequential.sentences(results)
    if len({image_source(arm) for arm in results.compared}) > 1:
        found.append(
            "Not all arms were validated on the same images, so some of a difference may be due to the images; "
            "comparisons between such arms are not for new images."
        )
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
    commands = f"{count(allowed, 'command')} {'was' if allowed == 1 else 'were'} allowed to continue"
    return [*results.warnings, f"{commands} although code, packages or data had changed (allow_changed)"]


def ranking(results: Results) -> str:
    """Return how arms are ranked."""
    text = RANKING.format(measure=results.measure.title)
    return " ".join([text, *([FINALISTS] if results.has_finalists else []), *([FAILING] if results.failing else [])])


def method(results: Results) -> str:
    """Return what the intervals and p-values of the leaderboard are."""
    text = METHOD.format(scale=LOG_ODDS if results.measure.is_fraction else "")
    if len(results.compared) > stats.EVERY_PAIR:
        text += LEADER_ONLY.format(most=stats.EVERY_PAIR)
    return f"{text} pp: percentage points." if results.measure.is_fraction else text


def about_comparisons(results: Results) -> str:
    """Return what the comparisons with the leader hold for."""
    return COMPARISONS_OF_SPLITS if any(test.splits > 1 for test in results.comparisons) else COMPARISONS


def answer(results: Results) -> list[str]:
    """Return the headline and what supports it: one sentence per arm, or counts if there are many."""
    compared, failing, pairs = results.compared, results.failing, _pairs(results)
    sentences = [
        verdicts.sentence(compared[0], arm, test, results.measure, sequential.smallest(results))
        for arm, test in pairs[:MAX_SENTENCES]
        if not isnan(test.claim.p) or test.mcnemar or compared[0].val.n > 1 or compared[0].equals(arm)
    ]
    if len(pairs) > MAX_SENTENCES and sentences:
        sentences.append(f"Further down, it {_tally(results, pairs[MAX_SENTENCES:])}.")
    sentences += equal_arms(results)[:MAX_SENTENCES]
    sentences += [failed_runs(arm, results.measure) for arm in failing[:MAX_SENTENCES]]
    if len(failing) > MAX_SENTENCES:
        sentences.append(f"Runs of {count(len(failing) - MAX_SENTENCES, 'further arm')} failed.")
    return [headline(results), *sentences, *advice(results)]


def headline(results: Results) -> str:
    """Return which arm leads on validation, which others it beats, and which can't be compared."""
    compared, failing = results.compared, results.failing
    if compared:
        first = _lead(results)
    elif results.arms:
        first = "No arm leads, because runs of every arm failed."
    else:
        first = "No run has completed, so there is nothing to compare."
    if not failing:
        return first
    arms = [f"{name(arm)} ({_seeds_of(arm)})" for arm in failing]
    reason = "Not compared, because runs failed" if compared else "Runs failed"
    return f"{first} {reason}: {join(arms, most=MAX_NAMES)}."


def equal_arms(results: Results) -> list[str]:
    """Return which arms have the same results as each other, beside the leader.

    Nothing if `keys_without_effect` explains it.
    """
    if keys_without_effect(results):
        return []
    arms_of_values: dict[tuple[tuple[float, ...], ...], list[Arm]] = {}
    compared = results.compared
    for arm in compared:
        arms_of_values.setdefault(arm.values, []).append(arm)
    groups = [arms for arms in arms_of_values.values() if len(arms) > 1 and arms[0] is not compared[0]]
    return [f"{join([name(arm) for arm in arms], most=MAX_EQUAL)} have {SAME}: {NO_EFFECT}." for arms in groups]


def failed_runs(arm: Arm, measure: Measure = ACCURACY) -> str:
    """Return how the runs of a failing arm ended."""
    if len(arm.failed) == arm.planned and "," not in arm.failures:
        which = "The only run" if arm.planned == 1 else f"All {arm.planned:,} runs"
        return f"{which} of {name(arm)} {arm.failures.partition(' ')[2]}."
    failures = f"Of the {count(arm.planned, 'run')} of {name(arm)}, {arm.failures}"
    if not arm.runs:
        return f"{failures}, and none completed."
    completed = f"the {len(arm.runs):,} that completed ({value(arm.val.mean, measure)})"
    return f"{failures}; {completed} {'is' if len(arm.runs) == 1 else 'are'} not compared."


def against_the_leader(results: Results) -> list[str]:
    """Return a cell for each arm of the leaderboard: how it compares with the leader."""
    compared, smallest = results.compared, sequential.smallest(results)
    cells = ["the leader"] if compared else []
    cells += [verdicts.cell(compared[0], arm, test, smallest) for arm, test in _pairs(results)]
    return cells + ["not compared" if arm.runs else "failed" for arm in results.failing]


def advice(results: Results) -> list[str]:
    """Return which keys had no effect, what more seeds can't show, and what to type if arms have one seed."""
    idle = [
        f"{in_backticks(key)} has no effect here: every value gives {SAME}." for key in keys_without_effect(results)
    ]
    if any(folder.name in SEARCHES for folder in results.folders):
        return [*idle, TRIALS]
    return [*idle, *_for_these_images(results), *_more_images(results), *_more_seeds(results)]


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


def _pairs(results: Results) -> list[tuple[Arm, stats.Comparison]]:
    """Return each other arm with its comparison with the leader."""
    return list(zip(results.compared[1:], results.comparisons, strict=True))


def _lead(results: Results) -> str:
    """Return what the best arm reaches, and how it compares with the others."""
    leader, pairs, measure = results.compared[0], _pairs(results), results.measure
    smallest = sequential.smallest(results)
    found = {verdicts.verdict(leader, arm, test, smallest) for arm, test in pairs}
    on_validation = f"on validation ({_basis(leader, measure)})"
    reached = f"{value(leader.val.mean, measure)} {on_validation}"
    if not pairs:
        why = "no run of another arm has completed yet"
        if len({run.job.arm for run in results.runs}) < 2:
            why = "there is no other arm to compare it with"
        elif results.failing or len(results.arms) > 1:
            why = "no other arm can be compared with it"
        return f"{name(leader)} reaches {reached}; {why}."
    if found == {Verdict.SAME}:
        one = f"{name(pairs[0][0])} has {SAME}: {NO_EFFECT}"
        return f"{name(leader)} reaches {reached}. {one if len(pairs) == 1 else f'All others have {SAME}'}."
    if found <= {Verdict.SAME, Verdict.NO_CLAIM}:
        best = f"the {'highest' if measure.sign > 0 else 'lowest'} {measure.title}, "
        best += f"{measure.show(leader.val.mean)}{measure.unit} {on_validation}"
        others = name(pairs[0][0]) if len(pairs) == 1 else "the others"
        return f"{name(leader)} has {best}, but the runs do not show whether it is better than {others}."
    return f"{name(leader)} leads with {reached}. It {_tally(results, pairs)}."


def _tally(results: Results, pairs: Sequence[tuple[Arm, stats.Comparison]]) -> str:
    """Return how many others the leader beats; and which it can't be told apart from, if these are few."""
    leader, smallest = results.compared[0], sequential.smallest(results)
    arms: dict[Verdict, list[Arm]] = {found: [] for found in TALLY}
    for arm, test in pairs:
        arms[verdicts.verdict(leader, arm, test, smallest)].append(arm)
    others = f"{len(pairs):,} others"

    def which(found: Verdict) -> str:
        """Return the arms of a verdict by name if they are few, else how many they are."""
        names, counts = [name(arm) for arm in arms[found]], found is Verdict.BETTER and len(pairs) > 1
        if len(names) < 3 and not counts:
            return join(names)
        if len(names) == len(pairs):
            return f"{'any of the' if found in (Verdict.UNCLEAR, Verdict.NO_CLAIM) else 'all'} {others}"
        return f"{len(names):,} of {others}" if counts or not arms[Verdict.BETTER] else f"{len(names):,}"

    return join([words.format(which(found), smallest=smallest) for found, words in TALLY.items() if arms[found]])


def _for_these_images(results: Results) -> list[str]:
    """Return why comparisons are not for new images, and how to change that."""
    if len(results.compared) < 2:
        return []
    if results.measure.of_images is None:
        why, then = f"the {results.measure.title} is no mean over images", ""
    elif without := results.without_predictions:
        folders = " ".join(quoting.for_shell(str(folder)) for folder in results.folders)
        why = f"{without:,} of {sum(len(arm.runs) for arm in results.arms):,} runs kept no predictions"
        then = f"; `{program.tool('report')} {folders} --predict` computes them"
    else:
        return []
    return [f"Comparisons are for these images, not for new ones, because {why}{then}."]


def _more_images(results: Results) -> list[str]:
    """Return which arms more images would tell apart, and more seeds alone would hardly do."""
    limited = [arm for arm, test in _pairs(results) if verdicts.is_limited_by_images(test)]
    if not limited:
        return []
    leader, others = name(results.compared[0]), join([name(arm) for arm in limited], "or", MAX_NAMES)
    limit = "the validation images are too few for a difference of this size. `data.validation=N` takes more"
    return [f"More seeds alone will hardly tell {leader} from {others} on new images: {limit}."]


def _more_seeds(results: Results) -> list[str]:
    """Return what arms of one or two seeds can't show, and how to find out more."""
    arms, found = results.compared, list[str]()
    single = [arm for arm in arms if arm.val.n == 1]
    double = [arm for arm in arms if arm.val.n == 2 and arm.runs[0].job.seeds.split == arm.runs[1].job.seeds.split]
    if single:
        found.append(f"{_so_many(single, arms, 'one seed')}, so the spread over seeds is unknown and no claim is made.")
    elif double:
        found.append(
            f"{_so_many(double, arms, 'two seeds')}, which say little about the spread over seeds: intervals are wide, "
            "or too wide to show."
        )
    if single and results.measure is ACCURACY and (images := test_images(arms)):
        accuracy = 1 - single[0].misses / images
        spread = difference(stats.sampling_spread(accuracy, images))
        found.append(
            f"With {images:,} test images, an accuracy of {percent(accuracy)} has a standard deviation of {spread} "
            "from the choice of the images alone; seeds add to it."
        )
    if any(arm.planned < MIN_SEEDS for arm in arms):
        found.append("Five seeds per arm say more: type the command with `seed=0,1,2,3,4`.")
    return found


def _so_many(few: Sequence[Arm], arms: Sequence[Arm], seeds: str) -> str:
    """Return which of the arms have so few seeds: "Each arm has one seed", "2 of 3 arms have one seed"."""
    if any(arm.missing for arm in few):
        seeds = f"{seeds} so far"
    if len(arms) == 1:
        return f"The arm has {seeds}"
    return f"Each arm has {seeds}" if len(few) == len(arms) else f"{len(few)} of {len(arms)} arms have {seeds}"


def _basis(arm: Arm, measure: Measure) -> str:
    """Return what the mean of an arm rests on: its interval and its seeds."""
    limits = interval(arm.val, measure)
    if limits == TOO_WIDE:
        return f"{_seeds_of(arm)}, whose 95 % interval is {limits} to show"
    if limits == ALL_EQUAL:
        return f"{_seeds_of(arm)}, {limits}"
    return f"95 % interval {limits}, {_seeds_of(arm)}" if limits else _seeds_of(arm)


def _seeds_of(arm: Arm) -> str:
    """Return how many seeds of an arm completed: "5 seeds", "6 runs in 3 splits", or "3 of 5 seeds; 2 diverged"."""
    completed, separator, failures = arm.seeds.partition(";")
    splits = len({run.job.seeds.split for run in arm.runs})
    unit = f"runs in {splits} splits" if splits > 1 else "seed" if arm.planned == 1 else "seeds"
    if splits == arm.planned > 1:
        unit = "splits"
    return f"{completed} {unit}{separator}{failures}"
