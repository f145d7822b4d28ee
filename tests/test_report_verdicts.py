"""What a report says of two arms: what the statistics allow, and no more."""

import math

import pytest
from helpers.arms import arm, comparison, results

from mnist_exp.report import sentences, verdicts
from mnist_exp.report.stats import McNemar
from mnist_exp.report.verdicts import Verdict

NAN = math.nan


def test_clear_difference_is_a_win() -> None:
    assert verdicts.sentence(arm("adam"), arm("sgd"), comparison()) == (
        "`adam` beats `sgd` by 0.31 pp (0.22 to 0.40, p = 0.002, 5 seeds); P(better) = 0.90 (0.60 to 0.98)."
    )


def test_unclear_difference_says_how_many_seeds_would_be_needed() -> None:
    relu, gelu = arm("relu"), arm("gelu")
    assert verdicts.sentence(relu, gelu, comparison(0.0003, p=0.4)) == (
        "`relu` and `gelu` can't be told apart with 5 seeds (0.03 pp, -0.06 to 0.12, p = 0.40): "
        "about 14 seeds per arm would be needed to detect this difference."
    )
    assert verdicts.sentence(relu, gelu, comparison(0, p=1, needed=None)).endswith("p = 1.00).")
    assert "more than 1,000 seeds" in verdicts.sentence(relu, gelu, comparison(0, p=1, needed=4321))


def test_corrected_p_of_five_percent_is_no_win() -> None:
    assert "beats" not in verdicts.sentence(arm("a"), arm("b"), comparison(p=0.05))


@pytest.mark.parametrize(
    ("leader", "other", "n", "paired", "basis"),
    [
        (5, 5, 5, True, "5 seeds"),
        (5, 3, 3, True, "3 shared seeds"),
        (4, 2, 2, False, "4 and 2 seeds"),
        (5, 5, 5, False, "5 seeds"),
    ],
)
def test_comparison_says_what_it_rests_on(leader: int, other: int, n: int, paired: bool, basis: str) -> None:
    test = comparison(n=n, paired=paired)
    assert f", {basis})" in verdicts.sentence(arm("a", n=leader), arm("b", n=other), test)


def test_leader_that_loses_on_shared_seeds_does_not_win() -> None:
    a, b, test = arm("a"), arm("b"), comparison(-0.002)
    assert verdicts.sentence(a, b, test) == "`a` is beaten by `b` by 0.20 pp on their shared seeds."
    assert "is beaten by `b` on their shared seeds" in sentences.headline(results([a, b], [test]))
    assert verdicts.cell(a, b, test) == "ahead, p = 0.002"


# New seeds and new images


def test_claim_for_new_images_says_how_many_it_rests_on() -> None:
    assert verdicts.sentence(arm("a"), arm("b"), comparison(images=5000, p_on_these=0.0001)) == (
        "`a` beats `b` by 0.31 pp (0.22 to 0.40, p = 0.002, 5 seeds, 5,000 images); P(better) = 0.90 (0.60 to 0.98)."
    )


def test_claim_about_the_same_images_alone_says_so() -> None:
    a, b, test = arm("a"), arm("b"), comparison(0.0007, 0.2, 10, needed=40, images=5000, p_on_these=0.003)
    here = "`a` is better than `b` on these 5,000 images (0.07 pp, 0.03 to 0.11, p = 0.003, 10 shared seeds)."
    new = "For new images of the same kind this is not shown (-0.02 to 0.16, p = 0.20)"
    needed = "would be needed to detect this difference"
    assert verdicts.sentence(a, b, test) == f"{here} {new}: about 40 seeds per arm {needed}."
    both = verdicts.sentence(a, b, test._replace(needed_images=21_432))
    assert both == f"{here} {new}: about 40 seeds per arm or about 21,000 validation images {needed}."
    limited = test._replace(needed=None, needed_images=21_432)
    assert verdicts.sentence(a, b, limited) == (
        f"{here} {new}: about 21,000 validation images {needed}; more seeds alone are hardly enough."
    )
    assert verdicts.cell(a, b, test) == "behind on these images"
    worse = test._replace(difference=-0.0007)
    assert verdicts.sentence(a, b, worse).startswith("`a` is worse than `b` on these 5,000 images (-0.07 pp")
    assert verdicts.cell(a, b, worse) == "ahead on these images"
    found = results([a, b], [limited])
    assert sentences.headline(found).endswith("It is better than `b` on these images (not shown for new ones).")
    [advice] = sentences.advice(found)
    assert advice == (
        "More seeds alone will hardly tell `a` from `b` on new images: the validation images are too few for a "
        "difference of this size. `data.validation=N` takes more."
    )


def test_many_arms_that_images_limit_are_counted() -> None:
    arms = [arm(name) for name in "abcdefg"]
    limited = comparison(p=0.2, needed=None, needed_images=21_000, images=5000, p_on_these=0.003)
    found = results(arms, [comparison(), *[limited] * 5])
    assert sentences.headline(found).endswith(
        "It beats 1 of 6 others and is better than 5 on these images (not shown for new ones)."
    )
    assert "from `c`, `d`, `e` or 2 more on new images" in sentences.advice(found)[0]


def test_it_is_said_why_seeds_without_spread_allow_no_claim() -> None:
    a, b = arm("a", n=2), arm("b", n=2)
    same = comparison(0.001, p=NAN, n=2)._replace(paired=True)
    why = "no claim is possible: their difference is the same with each seed."
    assert verdicts.sentence(a, b, same) == f"`a` and `b` are 0.10 pp apart with 2 seeds, and {why}"
    few = comparison(0.001, p=NAN, n=1)._replace(paired=False)
    expected = "`a` and `b` are 0.10 pp apart with 5 and 1 seed, and no claim is possible."
    assert verdicts.sentence(arm("a"), arm("b", n=1), few) == expected


def test_one_seed_each_says_what_the_images_show() -> None:
    test = comparison(p=NAN)._replace(mcnemar=McNemar(61, 30, 0.0016))
    a, b = arm("a", n=1), arm("b", n=1)
    assert verdicts.sentence(a, b, test) == (
        "With this one seed, `a` alone is right on 61 images, and `b` alone on 30 (McNemar's exact test: p = 0.002). "
        "What another seed would give is unknown."
    )
    assert verdicts.verdict(a, b, test) is Verdict.NO_CLAIM
    assert verdicts.sentence(a, b, test) in sentences.answer(results([a, b], [test]))


def test_splits_are_counted_in_place_of_seeds() -> None:
    test = comparison(p=0.2, splits=3, needed=8)
    assert verdicts.sentence(arm("a"), arm("b"), test) == (
        "`a` and `b` can't be told apart with 3 splits (0.31 pp, 0.22 to 0.40, p = 0.20): "
        "about 8 splits per arm would be needed to detect this difference."
    )
