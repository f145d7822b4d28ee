import math
from pathlib import Path
from statistics import fmean

import pytest
from conftest import MakeResults
from helpers.sweeps import change_metrics

from mnist_exp.report import stats
from mnist_exp.report.figures import averages
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.results import Results


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> Results:
    return make_results({"optimizer": ["adam", "nadam"]}, seeds=range(3))


def test_means_are_in_percent(results: Results) -> None:
    assert averages.mean(results.arms, ACCURACY) == pytest.approx(100 * fmean(arm.val.mean for arm in results.arms))
    assert math.isnan(averages.mean([], ACCURACY))


def test_a_loss_has_the_values_of_its_measure(make_results: MakeResults) -> None:
    found = make_results({"optimizer": ["adam", "nadam"]}, by="log_loss", seeds=range(3), images=2000)
    assert averages.mean(found.arms, found.measure) == pytest.approx(fmean(arm.val.mean for arm in found.arms))
    for arm in found.arms:
        assert averages.interval([arm], found.measure) == pytest.approx((arm.val.low, arm.val.high))
    low, high = averages.limits(found.measure, [0.05, 0.051, 2.3])
    assert [averages.is_beyond(value, (low, high), found.measure) for value in (0.01, 0.05, 2.3)] == [
        False,
        False,
        True,
    ]
    assert [averages.is_beyond(value, (97, 98), ACCURACY) for value in (96, 97.5, 99)] == [True, False, False]
    assert (averages.label(ACCURACY), averages.label(found.measure)) == ("accuracy (%)", "log loss")


def test_the_interval_of_one_arm_is_its_own(results: Results) -> None:
    for arm in results.arms:
        assert averages.interval([arm], ACCURACY) == pytest.approx((100 * arm.val.low, 100 * arm.val.high))


def test_the_interval_of_several_arms_is_over_seeds(results: Results) -> None:
    first, second = results.arms
    pairs = zip(first.runs, second.runs, strict=True)
    expected = stats.summary([fmean(run.val_accuracy for run in pair) for pair in pairs])
    assert averages.interval(results.arms, ACCURACY) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_arms_with_different_seeds_or_one_seed_have_no_interval(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "sgd"]}
    assert averages.interval(make_results(grid, seeds=[0]).arms, ACCURACY) is None
    assert averages.interval(make_results(grid, seeds=range(3), spoiled={2: "killed"}).arms, ACCURACY) is None
    assert averages.interval([], ACCURACY) is None


def test_a_curve_has_the_epochs_that_all_runs_have(make_results: MakeResults) -> None:
    [arm] = make_results({}, lambda folder: change_metrics(folder, 0, lambda rows: rows[:3]), seeds=range(2)).arms
    epochs, lowest, mean, highest = averages.curve(arm, "val_accuracy", 100)
    assert epochs.tolist() == [1, 2, 3]
    columns = [run.curves["val_accuracy"][:3] for run in arm.runs]
    assert lowest == pytest.approx([100 * min(values) for values in zip(*columns, strict=True)])
    assert mean == pytest.approx([100 * fmean(values) for values in zip(*columns, strict=True)])
    assert highest == pytest.approx([100 * max(values) for values in zip(*columns, strict=True)])


def test_a_curve_has_a_gap_where_a_value_is_not_finite(make_results: MakeResults) -> None:
    def change(folder: Path) -> None:
        change_metrics(
            folder, 0, lambda rows: [rows[0] | {"val_loss": "nan"}, rows[1] | {"val_loss": "inf"}, *rows[2:]]
        )

    [arm] = make_results({}, change, seeds=range(2)).arms
    assert [math.isnan(value) for value in averages.curve(arm, "val_loss")[2]] == [True, True, False, False, False]


def test_an_arm_without_metrics_has_no_curve(make_results: MakeResults) -> None:
    [arm] = make_results({}, lambda folder: (folder / "0" / "metrics.csv").unlink(), seeds=range(2)).arms
    assert averages.curve(arm, "val_accuracy").size == 0
