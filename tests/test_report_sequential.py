"""When a sequential sweep stops, and what the report says about it; the rule in simulation."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeResults
from helpers.arms import arm, comparison
from helpers.arms import results as results_of
from helpers.sweeps import edit_ledger

from benchmarks import sequential as simulation
from mnist_exp.report import anytime, sequential, stats
from mnist_exp.report.results import Results
from mnist_exp.report.sequential import AHEAD, ALONE, BEHIND, DECIDED, EQUAL, MOST, OPEN, SAME, Rule
from mnist_exp.report.stats import Comparison, Estimate

RULE = Rule(40, 0.1)
UNTIL = {"max_seeds": 40, "smallest": 0.1}


def shown_by(
    difference: float, wide: float, narrow: float, p: float = 0.5, p_narrow: float | None = None
) -> Comparison:
    """A comparison, by the half widths of its intervals; all in percentage points but p."""
    nothing = comparison(difference / 100, 0.5)
    claim, on_these = (
        Estimate((difference - margin) / 100, (difference + margin) / 100, value)
        for margin, value in ((wide, p), (narrow, p if p_narrow is None else p_narrow))
    )
    return nothing._replace(claim=claim, on_these_images=on_these)


@pytest.mark.parametrize(
    ("test", "word", "for_new_images"),
    [
        (shown_by(0.3, 0.2, 0.2, p=0.01), BEHIND, True),
        (shown_by(-0.3, 0.2, 0.2, p=0.01), AHEAD, True),
        (shown_by(0.05, 0.02, 0.02, p=0.01), BEHIND, True),  # less than what matters, and shown
        (shown_by(0.02, 0.07, 0.07), EQUAL, True),
        (shown_by(0.02, 0.08, 0.08), OPEN, True),  # 0.02 + 0.08 is not less than 0.1
        (shown_by(0.3, 0.29, 0.29, p=0.05), OPEN, True),
        (shown_by(0.3, 0.5, 0.2, p=0.2, p_narrow=0.01), BEHIND, False),  # the images' part is 0.46
        (shown_by(0.3, 0.35, 0.2, p=0.06, p_narrow=0.01), OPEN, True),  # it is 0.29, and more seeds may help
        (shown_by(0.3, 0.361, 0.2, p=0.06, p_narrow=0.01), BEHIND, False),  # it is 0.3
        (shown_by(0.0, 0.15, 0.09), EQUAL, False),
        (shown_by(0.0, 0.12, 0.09), OPEN, True),  # the images' part is 0.08, and leaves room
        (shown_by(0.3, 0.5, 0.2, p=0.2, p_narrow=0.06), OPEN, True),  # the seeds come first
        (shown_by(0.3, math.inf, math.inf), OPEN, True),
        (comparison(0.003, math.nan), OPEN, True),
    ],
)
def test_what_a_comparison_shows(test: Comparison, word: str, for_new_images: bool) -> None:
    found = sequential.finding(test, RULE.smallest)
    assert (found.word, found.for_new_images) == (word, for_new_images)


def test_with_many_pairs_a_difference_must_exceed_the_images_part_by_more() -> None:
    test = shown_by(0.3, 0.35, 0.2, p=0.2, p_narrow=0.01)  # the images' part is 0.287
    assert sequential.finding(test, 0.1, pairs=1).word == OPEN
    assert sequential.finding(test, 0.1, pairs=2) == (BEHIND, 0.01, False)  # z of 1 - 0.05 / 4 is 1.14 times 1.96


def sweep_of(tests: Sequence[Comparison], n: int = 12) -> Results:
    names = ["adam", "sgd", "rmsprop", "nadam"][: len(tests) + 1]
    return results_of([arm(name, n=n) for name in names], tests)


@pytest.mark.parametrize(
    ("tests", "n", "over", "race"),
    [
        ([shown_by(0.3, 0.2, 0.2, p=0.01), shown_by(0.0, 0.05, 0.05)], 12, DECIDED, ["adam", "rmsprop"]),
        ([shown_by(0.3, 0.2, 0.2, p=0.01), shown_by(0.0, 0.5, 0.5)], 12, None, ["adam", "rmsprop"]),
        ([shown_by(0.3, 0.2, 0.2, p=0.01), shown_by(0.0, 0.5, 0.5)], 40, MOST, ["adam", "rmsprop"]),
        ([shown_by(-0.3, 0.2, 0.2, p=0.01)], 12, DECIDED, ["adam", "sgd"]),
        ([], 12, ALONE, ["adam"]),
    ],
)
def test_where_a_sweep_stands(tests: list[Comparison], n: int, over: str | None, race: list[str]) -> None:
    found = sequential.standing(sweep_of(tests, n), RULE)
    assert (found.over, [each.label for each in found.race]) == (over, race)


def test_arms_that_are_equal_to_the_bit_are_decided() -> None:
    found = results_of([arm("adam", same_as="a"), arm("sgd", same_as="a")], [comparison(0.0, math.nan)])
    stands = sequential.standing(found, RULE)
    assert ([found.word for found in stands.findings], stands.over) == ([SAME], DECIDED)


def test_arms_with_failed_runs_are_out() -> None:
    found = sequential.standing(results_of([arm("adam"), arm("sgd", diverged=1)]), RULE)
    assert (found.over, [each.label for each in found.race]) == (ALONE, ["adam"])
    assert sequential.standing(results_of([]), RULE).over == ALONE


def test_the_last_command_says_what_the_rule_is() -> None:
    assert sequential.rule([]) is None
    assert sequential.rule([{}, {"until": UNTIL}, {"until": UNTIL | {"max_seeds": 60}}]) == (60, 0.1)


def until(folder: Path, facts: dict[str, Any]) -> None:
    """Make a sequential sweep of a sweep of fixed seeds."""
    edit_ledger(folder, lambda entry: entry.update({"until": facts} if "job" not in entry else {}))


def test_the_course_is_the_evidence_after_each_seed(make_results: MakeResults) -> None:
    found = make_results({"optimizer": ["adam", "sgd", "rmsprop"]}, seeds=range(6), spread=0.002)
    course = dict(sequential.course(found))
    assert list(course) == ["rmsprop", "sgd"]
    leader, *others = found.compared
    for other in others:
        pairs = zip(leader.runs, other.runs, strict=True)
        differences = np.array([first.val_accuracy - second.val_accuracy for first, second in pairs])
        for n, evidence in course[other.label]:
            t = differences[:n].mean() / differences[:n].std(ddof=1) * math.sqrt(n)
            assert evidence == pytest.approx(math.log10(anytime.e_value(t, n)))
        assert [n for n, _ in course[other.label]] == [2, 3, 4, 5, 6]
    assert sequential.course(results_of([])) == []
    same = results_of([arm("adam", same_as="a"), arm("sgd", same_as="a")])
    assert sequential.course(same) == []


def test_differences_without_spread_have_no_evidence() -> None:
    assert sequential.course(results_of([arm("adam", 0.98), arm("sgd", 0.97)])) == []


def test_a_sweep_of_fixed_seeds_has_no_sentence(make_results: MakeResults) -> None:
    assert sequential.sentences(make_results({"optimizer": ["adam", "sgd"]})) == []


def sentences(tests: Sequence[Comparison], n: int = 12, **until: float) -> str:
    found = sweep_of(tests, n)
    sessions: Any = [{"until": UNTIL | until}]
    return " ".join(sequential.sentences(found._replace(sessions=sessions)))


def test_sentences_say_what_stopped_the_sweep() -> None:
    decided, alike, undecided = shown_by(0.3, 0.2, 0.2, p=0.01), shown_by(0.0, 0.05, 0.05), shown_by(0.0, 0.5, 0.5)
    text = sentences([decided, alike])
    assert "The sweep was sequential: it added seeds until each arm was told apart from the leader, " in text
    assert "or shown to be equal to it within 0.1 pp" in text
    assert "It stopped after 12 seeds, because every comparison with the leader was decided: 36 runs; " in text
    assert text.endswith("40 seeds for each of 3 arms would have taken 120.")
    text = sentences([decided, undecided], max_seeds=12)
    assert "because it may take no more (max_seeds=12), with 1 comparison open: 36 runs" in text
    text = sentences([decided, undecided])
    assert "It is not over: 36 runs so far, 40 seeds at most." in text
    text = sentences([decided, shown_by(0.3, 0.5, 0.2, p=0.2, p_narrow=0.01)])
    assert "because more seeds could decide no more: 1 of 2 comparisons with the leader is decided for these " in text
    assert "fewer than two arms without failed runs were left" in sentences([])


def test_of_several_sweeps_only_what_holds_for_all_is_said() -> None:
    found = sweep_of([shown_by(0.3, 0.2, 0.2, p=0.01)])
    sessions: Any = [{"until": UNTIL}, {}]
    assert sequential.sentences(found._replace(sessions=sessions, folders=(Path("a"), Path("b")))) == [
        f"A sweep among these was sequential: its results decided its seeds. {sequential.ALLOWED}"
    ]


def test_a_sweep_with_jobs_to_do_is_not_over(make_results: MakeResults) -> None:
    def change(folder: Path) -> None:
        until(folder, UNTIL)

    found = make_results({"optimizer": ["adam", "sgd"]}, seeds=range(6), spoiled={11: "pending"}, change=change)
    [sentence] = sequential.sentences(found)
    assert sentence.endswith("It is not over: 12 runs so far, 40 seeds at most.")


def verdicts_of(values: np.ndarray[Any, Any], smallest: float) -> tuple[list[str], int, list[int]]:
    """The rule, step by step, on the accuracies (arms, seeds) of one sweep: words by arm, the leader, seeds by arm.

    The estimates are those of paired t tests that may be looked at after every seed.
    """
    arms = len(values)
    seeds = [simulation.FIRST] * arms
    while True:
        raw = {}
        for a, b in combinations(range(arms), 2):
            n = min(seeds[a], seeds[b])
            difference = values[a, :n] - values[b, :n]
            raw[a, b] = (difference.mean(), difference.std(ddof=1) / math.sqrt(n), n)
        p = stats.holm([float(anytime.p_value(mean / error, n)) for mean, error, n in raw.values()])
        corrected = dict(zip(raw, p, strict=True))
        means = [values[i, : seeds[i]].mean() for i in range(arms)]
        leader = int(np.argmax(means))
        words = ["leader"] * arms
        for other in set(range(arms)) - {leader}:
            pair = (min(leader, other), max(leader, other))
            mean, error, n = raw[pair]
            ahead = mean if leader < other else -mean
            margin = float(anytime.critical(n, 0.05)) * error
            estimate = Estimate(ahead - margin, ahead + margin, corrected[pair])
            test = comparison(ahead, 0.5)._replace(claim=estimate, on_these_images=estimate)
            words[other] = sequential.finding(test, 100 * smallest).word
        race = [i for i in range(arms) if words[i] != BEHIND]
        if OPEN not in words or min(seeds[i] for i in race) >= simulation.MOST:
            return words, leader, seeds
        missing = any(seeds[i] < max(seeds) for i in race)
        most = max(seeds) if missing else max(seeds) + 1
        seeds = [most if i in race else n for i, n in enumerate(seeds)]


@pytest.mark.parametrize("arms", [2, 5])
def test_the_simulation_follows_the_rule(arms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(arms)
    means = np.linspace(0.9, 0, arms)
    values = simulation.draw(means, 60, simulation.MOST, rng)
    monkeypatch.setattr(simulation, "draw", lambda *_: values)
    found = simulation.sequential(means, 60, 0.9, rng)
    alone = [verdicts_of(each, 0.9) for each in values]
    assert found.runs == pytest.approx(np.mean([sum(seeds) for _, _, seeds in alone]))
    assert found.open == pytest.approx(np.mean([OPEN in words for words, _, _ in alone]))
    everything = [leader == 0 and set(words) == {"leader", BEHIND} for words, leader, _ in alone]
    assert found.found == pytest.approx(np.mean(everything))


@pytest.mark.slow
@pytest.mark.parametrize("arms", [2, 3, 6, 12])
def test_false_claims_stay_below_5_percent(arms: int) -> None:
    """Bounds: 5 % by Ville's inequality and Holm's method; 4 binomial standard errors of 4,000 sweeps are 1.4 %."""
    rng, sweeps = np.random.default_rng(arms), 4000
    none = simulation.one_better(arms, 0.0)
    for smallest in (0.0, 0.9):
        assert simulation.many(simulation.sequential, none, sweeps, smallest, rng).false < 0.05 + 0.014
    at_smallest = simulation.many(simulation.sequential, simulation.one_better(arms, 0.9), sweeps, 0.9, rng)
    assert at_smallest.equal < 0.05 + 0.014
    better = simulation.many(simulation.sequential, simulation.one_better(arms, 1.5), sweeps, 0.9, rng)
    fixed = simulation.many(simulation.fixed, simulation.one_better(arms, 1.5), sweeps, 20, rng)
    assert better.found > 0.99
    assert better.runs < fixed.runs


def test_looking_after_every_seed_without_paying_for_it_claims_falsely() -> None:
    """The simulation sees it: with the p of Student's t test, a quarter of the sweeps without a difference."""
    from scipy.special import stdtr, stdtrit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anytime, "p_value", lambda t, n: 2 * stdtr(n - 1, -np.abs(t)))
        patch.setattr(anytime, "critical", lambda n, alpha: stdtrit(n - 1, 1 - alpha / 2))
        found = simulation.many(
            simulation.sequential, simulation.one_better(2, 0.0), 2000, 0.0, np.random.default_rng(0)
        )
    assert found.false > 0.2
