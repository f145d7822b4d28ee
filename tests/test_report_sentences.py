"""The sentences of a report claim what the statistics allow, and no more."""

import math
from dataclasses import replace
from pathlib import Path

from helpers.arms import arm, comparison, results, run
from helpers.sweeps import sweep

from mnist_exp.report import formats, measures, sentences, status, status_text
from mnist_exp.report.results import Arm, read
from mnist_exp.report.stats import Comparison


def test_headline_counts_wins_and_names_what_is_unclear() -> None:
    arms = [arm(name) for name in "abcdef"]

    def headline(comparisons: list[Comparison]) -> str:
        return sentences.headline(results(arms[: len(comparisons) + 1], comparisons))

    assert headline([comparison(0.0003, p=0.4), *[comparison()] * 4]) == (
        "`a` leads with 98.00 % on validation (95 % interval 97.90 to 98.10, 5 seeds). "
        "It beats 4 of 5 others and can't be told apart from `b`."
    )
    assert headline([comparison()] * 5).endswith("It beats all 5 others.")
    assert headline([comparison()]).endswith("It beats `b`.")
    assert headline([comparison(p=0.4)] * 5).endswith("It can't be told apart from any of the 5 others.")
    mixed = headline([comparison(), *[comparison(p=0.4)] * 3, comparison(p=math.nan)])
    assert mixed.endswith("It beats 1 of 5 others, can't be told apart from 3 and allows no claim about `f`.")


def test_many_arms_are_counted_after_the_first_ten() -> None:
    arms = [arm(chr(ord("a") + i)) for i in range(30)]
    found = sentences.answer(results(arms, [comparison()] * 29))
    assert len(found) == 1 + sentences.MAX_SENTENCES + 1
    assert found[-1] == "Further down, it beats all 19 others."


def test_single_arm_has_its_accuracy() -> None:
    accuracy = "98.00 % on validation (95 % interval 97.90 to 98.10, 5 seeds)"
    expected = f"`adam` reaches {accuracy}; there is no other arm to compare it with."
    assert sentences.answer(results([arm("adam")])) == [expected]


def test_one_seed_allows_no_claim() -> None:
    accuracy = "98.00 % on validation (1 seed)"
    images = "With 10,000 test images, an accuracy of 98.00 % has a standard deviation of 0.14 pp"
    assert sentences.answer(results([arm("a", n=1), arm("b", n=1)], [comparison(p=math.nan)])) == [
        f"`a` has the highest accuracy, {accuracy}, but the runs do not show whether it is better than `b`.",
        "Each arm has one seed, so the spread over seeds is unknown and no claim is made.",
        f"{images} from the choice of the images alone; seeds add to it.",
        "Five seeds per arm say more: type the command with `seed=0,1,2,3,4`.",
    ]


def test_a_measure_is_named_once() -> None:
    found = results([arm("a", n=1), arm("b", n=1)], [comparison(p=math.nan)])._replace(
        measure=measures.find("log_loss")
    )
    assert sentences.headline(found).startswith("`a` has the lowest log loss, 0.9800 on validation (1 seed), but ")


def test_some_arms_of_one_seed_are_counted() -> None:
    arms = [arm("a"), arm("b", n=1), arm("c", n=1)]
    found = sentences.answer(results(arms, [comparison(p=math.nan)] * 2))
    assert "2 of 3 arms have one seed, so" in " ".join(found)
    assert sentences.advice(results([arm("a", n=1)]))[0].startswith("The arm has one seed, so")


def test_size_of_a_test_set_without_misses_is_unknown() -> None:
    assert sentences.test_images([arm("a", misses=0)]) is None
    assert not any("test images" in each for each in sentences.advice(results([arm("a", n=1, misses=0)])))
    assert sentences.test_images([arm("a", misses=0), arm("b", misses=1)]) == 10_000


def test_sweep_without_completed_runs_has_nothing_to_compare() -> None:
    assert sentences.answer(results([])) == ["No run has completed, so there is nothing to compare."]


def test_two_seeds_far_apart_have_no_interval() -> None:
    far = arm("a", n=2)
    far = far._replace(val=far.val._replace(low=math.nan, high=math.nan))
    assert formats.interval(far.val) == "too wide"
    assert "% on validation (2 seeds, whose 95 % interval is too wide to show)" in sentences.headline(results([far]))


def test_two_seeds_are_advised_alike_whether_their_interval_is_shown() -> None:
    near, far = arm("a", n=2), arm("b", n=2)
    far = far._replace(val=far.val._replace(low=math.nan, high=math.nan))
    few = "have two seeds, which say little about the spread over seeds: intervals are wide, or too wide to show."
    more = "Five seeds per arm say more: type the command with `seed=0,1,2,3,4`."
    for arms in ([near, far], [far, near], [near, near]):
        assert sentences.advice(results(arms, [comparison(p=0.4)])) == [few.replace("have", "Each arm has"), more]
    found = results([near, far, arm("c")], [comparison(p=0.4)] * 2)
    assert sentences.advice(found) == [f"2 of 3 arms {few}", more]


def test_more_seeds_are_not_advised_while_some_are_to_come() -> None:
    found = results([arm("a", n=2)._replace(missing=3), arm("b", n=2)._replace(missing=3)], [comparison(p=0.4)])
    assert sentences.advice(found)[0].startswith("Each arm has two seeds so far, which ")
    assert not any("seed=0,1,2,3,4" in sentence for sentence in sentences.advice(found))


def test_equal_values_of_several_seeds_are_said_to_be_equal() -> None:
    equal = arm("a", n=3)
    equal = equal._replace(val=equal.val._replace(sd=0.0, low=math.nan, high=math.nan))
    assert formats.interval(equal.val) == "all equal"
    assert "% on validation (3 seeds, all equal)" in sentences.headline(results([equal]))
    assert formats.interval(arm("a", n=1).val) == ""


# Settings without effect


def test_two_arms_with_equal_results_are_named() -> None:
    arms = [arm(value, same_as="x", choices={"model.max_norm": value}) for value in ("null", "1.5")]
    found = results(arms, [comparison(0, p=math.nan)], swept=("model.max_norm",))
    same = "the same results in every run: this setting has no effect here."
    headline, sentence = sentences.answer(found)
    assert headline.endswith(f"5 seeds). `max_norm=1.5` has {same}")
    assert sentence == f"`max_norm=null` and `max_norm=1.5` have {same}"
    assert sentences.against_the_leader(found) == ["the leader", "the same results"]


def grid(*same_as: str) -> list[Arm]:
    """Return four arms, of two optimizers by two values of max_norm, with equal results where `same_as` is equal."""
    choices = [{"optimizer": name, "model.max_norm": value} for name in ("adam", "sgd") for value in ("null", "1.5")]
    return [
        arm(f"{i}", same_as=same, choices=chosen) for i, (same, chosen) in enumerate(zip(same_as, choices, strict=True))
    ]


def test_key_without_effect_is_named_if_every_pair_is_equal() -> None:
    swept = ("optimizer", "model.max_norm")
    tests = [comparison(0, p=math.nan), comparison(), comparison()]
    found = results(grid("a", "a", "b", "b"), tests, swept)
    assert sentences.advice(found) == [
        "`model.max_norm` has no effect here: every value gives the same results in every run."
    ]
    assert sentences.headline(found).endswith(
        "It beats 2 of 3 others and has the same results in every run as `adam max_norm=1.5`."
    )
    assert sentences.answer(found)[1] == (
        "`adam max_norm=null` and `adam max_norm=1.5` have the same results in every run: "
        "this setting has no effect here."
    )
    assert sentences.equal_arms(found) == []  # the sentence about the key covers them
    assert sentences.advice(results(grid("a", "a", "b", "c"), tests, swept)) == []
    failing = [
        *grid("a", "a", "b", "b"),
        arm("x", diverged=1, same_as="b", choices={"optimizer": "sgd", "model.max_norm": "9"}),
    ]
    assert sentences.advice(results(failing, tests, swept)) == []  # the results of the failed runs are unknown


def test_equal_arms_below_the_leader_are_named_once() -> None:
    arms = grid("a", "b", "c", "c")
    found = sentences.answer(results(arms, [comparison()] * 3, ("optimizer", "model.max_norm")))
    same = "`sgd max_norm=null` and `sgd max_norm=1.5` have the same results in every run: this setting has no effect"
    assert sum(same in sentence for sentence in found) == 1


# Failed runs


def test_arm_with_failed_runs_is_not_compared() -> None:
    found = results([arm("rmsprop"), arm("sgd"), arm("adam", mean=0.99, n=3, diverged=2)], [comparison()])
    assert sentences.headline(found).endswith(
        "It beats `sgd`. Not compared, because runs failed: `adam` (3 of 5 seeds; 2 diverged)."
    )
    assert sentences.answer(found)[-1] == (
        "Of the 5 runs of `adam`, 2 diverged; the 3 that completed (99.00 %) are not compared."
    )
    assert sentences.against_the_leader(found) == ["the leader", "behind, p = 0.002", "not compared"]
    assert "has no rank" in sentences.ranking(found)
    assert "has no rank" not in sentences.ranking(results([arm("sgd")]))


def test_arm_of_which_no_run_completed_is_named() -> None:
    found = results([arm("sgd"), arm("adam", n=0, diverged=3)])
    assert "no other arm can be compared with it" in sentences.headline(found)
    assert sentences.headline(found).endswith("Not compared, because runs failed: `adam` (0 of 3 seeds; 3 diverged).")
    assert sentences.answer(found)[-1] == "All 3 runs of `adam` diverged."
    assert sentences.against_the_leader(found) == ["the leader", "failed"]


def test_no_arm_leads_if_runs_of_every_arm_failed() -> None:
    found = results([arm("adam", n=4, diverged=1), arm("sgd", n=4, diverged=1)])
    assert sentences.headline(found).startswith(
        "No arm leads, because runs of every arm failed. Runs failed: `adam` (4 of 5 seeds; 1 diverged)"
    )
    assert sentences.title(found) == "optimizer on MNIST"


def test_failing_arms_are_counted_after_the_first_ones() -> None:
    found = results([arm(f"arm{i}", n=0, diverged=1) for i in range(12)])
    assert sentences.headline(found).endswith(
        "`arm1` (0 of 1 seed; 1 diverged), `arm2` (0 of 1 seed; 1 diverged) and 9 more."
    )
    assert sentences.answer(found)[-1] == "Runs of 2 further arms failed."


# The sweep


def test_unfinished_sweep_says_how_to_resume() -> None:
    runs = [run("a", seed, status) for seed, status in enumerate(["completed", "running", "pending", "interrupted"])]
    found = results([])._replace(runs=runs)
    assert sentences.progress(found.runs) == "1 of 4 runs completed, 1 running, 1 interrupted, 1 pending"
    assert sentences.scope(found) == "1 arm, 4 seeds, 4 runs"
    [note] = sentences.notes(found)
    assert note.startswith("Not finished: 1 of 4 runs completed, 1 running, 1 interrupted, 1 pending.")
    assert " When the rest will be done: `" in note
    assert note.endswith(" status sweep`.")
    idle = found._replace(runs=[each for each in runs if each.job.status != "running"])
    assert sentences.notes(idle)[0].endswith(" -m resume=sweep`.")


def test_a_resume_keeps_the_launcher_and_is_that_of_the_whole_sweep() -> None:
    search = Path("mine", "search")
    runs = [replace(run("a", 0, "interrupted"), sweep=search)]
    command = "python train.py -m hydra/launcher=fused optimizer=adam"
    found = results([])._replace(folders=(search,), sessions=[{"command": command}], runs=runs)
    assert " -m hydra/launcher=fused resume=mine`." in sentences.notes(found)[0]


def test_trials_get_no_advice_of_their_own() -> None:
    for n in (1, 3):
        trials = results([arm("a", n=n), arm("b", n=n)], [comparison(p=0.4)])._replace(folders=(Path("s", "search"),))
        assert sentences.advice(trials) == [sentences.TRIALS]


def test_a_report_and_a_status_have_the_same_words(tmp_path: Path) -> None:
    fates = {1: "failed", 2: "interrupted", 3: "running", 4: "pending", 5: "pruned"}
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, spoiled=fates)
    counted = sentences.progress(read([folder]).runs)
    assert counted == "5 of 10 runs completed, 1 pruned, 1 failed, 2 interrupted, 1 pending"  # nobody works on it
    assert counted in status_text.summary(status.read(str(folder)))


def test_an_arm_without_others_says_whether_they_are_to_come() -> None:
    runs = [run("a", 0, "completed"), run("b", 0, "pending")]
    only = results([arm("a", n=1)])
    assert "; there is no other arm to compare it with." in sentences.headline(only)
    assert "; no run of another arm has completed yet." in sentences.headline(only._replace(runs=runs))


def test_arms_with_different_validation_images_are_mentioned() -> None:
    first, second = arm("a"), arm("b")
    assert sentences.notes(results([first, second], [comparison()])) == []
    runs = [replace(each, job=each.job._replace(choices={"data.validation": 2000})) for each in second.runs]
    [note] = sentences.notes(results([first, second._replace(runs=tuple(runs))], [comparison()]))
    assert note.startswith("Not all arms were validated on the same images")


def test_resumed_sweep_and_allowed_changes_are_mentioned() -> None:
    found = results([])._replace(sessions=[{}, {"allow_changed": True}], warnings=["other"])
    assert sentences.notes(found) == ["Resumed: 2 commands worked on the sweep."]
    allowed = "1 command was allowed to continue although code, packages or data had changed (allow_changed)"
    assert sentences.warnings(found) == ["other", allowed]
