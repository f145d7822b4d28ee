"""Numbers and names as a report writes them."""

import pytest

from mnist_exp.report import formats
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.stats import Estimate

LOG_LOSS = ACCURACY._replace(name="log_loss", title="log loss", is_fraction=False, sign=-1)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "p < 0.001"),
        (0.0009, "p < 0.001"),
        (0.002, "p = 0.002"),
        (0.0496, "p = 0.0496"),
        (0.05, "p = 0.050"),
        (0.0503, "p = 0.0503"),
        (0.4, "p = 0.40"),
    ],
)
def test_p_value_has_as_many_digits_as_matter(p: float, text: str) -> None:
    assert formats.p_value(p) == text


def test_negative_zero_is_shown_as_zero() -> None:
    assert formats.difference(-0.00001) == "0.00 pp"


def test_things_are_counted() -> None:
    assert [formats.count(n, "arm") for n in (0, 1, 2, 1000)] == ["0 arms", "1 arm", "2 arms", "1,000 arms"]


def test_names_beyond_the_most_are_counted() -> None:
    assert formats.join(["a"], most=1) == "a"
    assert formats.join(["a", "b", "c"]) == formats.join(["a", "b", "c"], most=3) == "a, b and c"
    assert formats.join(["a", "b", "c", "d"], "or", most=2) == "a, b or 2 more"


def test_text_in_backticks_stays_code_on_one_line() -> None:
    assert formats.in_backticks("a `b`\nc") == "`a 'b' c`"


def test_other_measures_are_named_and_have_their_own_digits() -> None:
    assert formats.value(0.98064) == "98.06 %"
    assert formats.value(0.07124, LOG_LOSS) == "a log loss of 0.0712"
    assert formats.value(0.9, ACCURACY._replace(title="accuracy on 8")) == "an accuracy on 8 of 90.00 %"
    assert formats.difference(0.00314) == "0.31 pp"
    assert formats.difference(0.00314, LOG_LOSS) == "0.0031"
    assert formats.interval(Estimate(-1.2, 2.4, 0.3)) == ""
    assert formats.interval(Estimate(-0.00314, 0.001, 0.3), LOG_LOSS) == "-0.0031 to 0.0010"


def test_lists_read_as_english() -> None:
    assert formats.join(["a"]) == "a"
    assert formats.join(["a", "b", "c"], "or") == "a, b or c"
    assert (formats.count(1, "seed"), formats.count(1200, "seed")) == ("1 seed", "1,200 seeds")
