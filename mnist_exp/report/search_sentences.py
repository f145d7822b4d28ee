"""The sentences of a report about the search before a sweep. Names of settings stand in backticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mnist_exp.config import LR
from mnist_exp.report import search, sequential, verdicts
from mnist_exp.report.formats import clock, count, in_backticks, join, percent
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.results import Results
from mnist_exp.report.runs import RunResult, count_failures, total_seconds
from mnist_exp.report.search import Search
from mnist_exp.store.run_folder import ENDED_WELL, PRUNED

IMPORTANCE = (
    "Importance: how much worse a random forest predicts the trials when the values of a key are shuffled, as a share "
    "of all keys. It describes these trials, in these intervals; correlated keys share it."
)


def searched(results: Results) -> list[str]:
    """Return what a search tried, what it cost, and what its best setting is worth with seeds that took no part."""
    found = search.searches(results)
    if not found or not results.search:
        return []
    sentences = [_tried(found, results, results.search.runs), *_without_result(found, results)]
    for each in found:
        if each.best and each.edge:
            sentences.append(
                f"The best {LR}{_of(each)}, {each.best.setting[LR]}, is the {each.edge} that was tried: one beyond "
                "it may be better."
            )
        if each.finalists and each.finalists[0].fresh.runs:
            sentences += _against_default(each, results, len(found))
            sentences += _winners_curse(each, results)
    return sentences


def _tried(found: Sequence[Search], results: Results, runs: Sequence[RunResult]) -> str:
    """Return what the runs of a search tried, and what they cost."""
    keys = join(list(dict.fromkeys(key for each in found for key in each.keys)))
    pruned = any(trial.unbegun for each in found for trial in each.trials)
    seeds = f"{'at most ' if pruned else ''}{count(len({run.job.seed for run in runs}), 'seed')}"
    arms = f" in {len(found)} arms" if len(found) > 1 else ""
    judged = "the best one"
    if results.has_finalists:
        judged = f"{judged if max(len(each.finalists) for each in found) < 2 else 'the best ones'} and the default"
    trials = count(sum(len(each.trials) for each in found), "setting")
    return (
        f"A search tried {trials} of {keys}{arms}, each with {seeds}, compared by validation accuracy. Other seeds "
        f"judge {judged}{' of each arm' if arms else ''}. Its {count(len(runs), 'run')} took "
        f"{clock(total_seconds(runs))} together, the {count(len(results.runs), 'run')} of the sweep "
        f"{clock(total_seconds(results.runs))}."
    )


def _without_result(found: Sequence[Search], results: Results) -> Iterator[str]:
    """Yield how many trials and runs of a search have no result, and why."""
    runs, is_over = results.search.runs if results.search else [], bool(results.runs)
    failed = [trial for each in found for trial in each.trials if trial.failed]
    if failed:
        reasons = count_failures([run for trial in failed for run in trial.failed])
        yield f"{count(len(failed), 'trial')} failed ({reasons}): the search took that as the worst."
    if pruned := [run for run in runs if run.job.status == PRUNED]:
        saved = sum(int(run.job.choices["epochs"]) - (run.summary["epochs"] or 0) for run in pruned)
        planned = sum(int(run.job.choices["epochs"]) for run in runs)
        yield (
            f"Pruning ended {count(len(pruned), 'run')} early, which saved {saved:,} of {planned:,} epochs. The trials "
            "of these runs have no result."
        )
    fewer = [trial for each in found for trial in each.trials if trial.unbegun and not trial.failed]
    if fewer and is_over:
        saved = sum(trial.unbegun for trial in fewer)
        planned = sum(trial.seeds for each in found for trial in each.trials)
        yield (
            f"Pruning ended {count(len(fewer), 'trial')} before the last seed, which saved {saved:,} of "
            f"{count(planned, 'run')}. These trials have no result."
        )
    done = sum(run.job.status in ENDED_WELL for run in runs) + sum(len(trial.failed) for trial in failed)
    if unfinished := len(runs) - done:
        yield f"{count(unfinished, 'run')} of the search did not finish; the others stand for their trials."


def _against_default(found: Search, results: Results, count_of_arms: int) -> Iterator[str]:
    """Yield how the best setting of an arm compares with the arm's default."""
    best = found.finalists[0]
    if (test := search.gain(found, results, count_of_arms)) and found.default:
        chosen, default = best.fresh._replace(choices=best.trial.setting), found.default._replace(choices={})
        verdict = verdicts.sentence(chosen, default, test, results.measure, sequential.smallest(results))
        one = "one planned comparison" if count_of_arms == 1 else f"one of {count_of_arms} planned comparisons"
        yield f"The search's best{_of(found)} against the default, {one}: {verdict}"


def _winners_curse(found: Search, results: Results) -> Iterator[str]:
    """Yield how the best setting of an arm compares with what the search saw of it."""
    if results.measure is not ACCURACY:
        return
    best = found.finalists[0]
    seen, fresh = best.trial.reached, best.fresh.val
    end = "the best of many trials looks better than it is, which is called the winner's curse"
    if fresh.mean >= seen:
        end = "here it is no lower, though the best of many trials tends to look better than it is"
    yield (
        f"The search's own figure for {in_backticks(best.label)}{_of(found)} was {percent(seen)}; with "
        f"{count(fresh.n, 'fresh seed')} it is {percent(fresh.mean)}: {end}."
    )


def _of(found: Search) -> str:
    return f" of {in_backticks(found.label)}" if found.label else ""
