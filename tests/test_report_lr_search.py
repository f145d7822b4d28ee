"""A learning-rate search is read back: its trials, the rates that can be chosen, and the best one."""

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from helpers.sweeps import sweep

from mnist_exp.report import figures, lr_search, sentences, tables
from mnist_exp.report.results import Results, read

RATES = [0.001, 0.01, 0.1]


def searched(folder: Path, rates: list[float] = RATES, spoiled: dict[int, str] | None = None) -> Results:
    """Read a sweep of two arms, whose rates a search of two seeds has chosen."""
    sweep(folder, {"optimizer": ["adam", "sgd"]}, range(5))
    sweep(folder / "lr_search", {"optimizer": ["adam", "sgd"], "optimizer.lr": rates}, [7, 8], spoiled=spoiled)
    return read([folder])


def searches(found: Results) -> list[lr_search.Search]:
    assert found.lr_search
    return lr_search.searches(found.lr_search)


def test_search_chooses_the_rate_with_the_best_validation(tmp_path: Path) -> None:
    adam, sgd = searches(searched(tmp_path / "s"))
    assert (adam.label, adam.rates, len(adam.trials)) == ("adam", RATES, 6)
    means = [fmean(run.val_accuracy for run in arm.runs) for arm in sgd.arms]
    assert sgd.chosen == RATES[int(np.argmax(means))]
    assert sgd.reached == pytest.approx(max(means))
    assert sgd.seconds == pytest.approx(6 * 8.1)


@pytest.mark.parametrize(("rate", "is_at_edge"), [(0, True), (1, False), (2, True)])
def test_best_rate_at_an_edge_is_known(tmp_path: Path, rate: int, is_at_edge: bool) -> None:
    adam, _ = searches(searched(tmp_path / "s"))
    assert adam._replace(best=adam.arms[rate]).is_at_edge is is_at_edge


def test_rate_with_a_failed_trial_is_excluded(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", spoiled={2: "failed"})
    adam, sgd = searches(found)
    assert [lr_search.rate(arm.runs[0]) for arm in adam.arms] == [0.001, 0.1]
    assert adam.rates == RATES
    text = sentences.learning_rates(found)
    assert len(text) == 2 + adam.is_at_edge + sgd.is_at_edge
    assert text[0] == (
        "A search chose the learning rate of each arm: 3 rates with 2 seeds each, compared by validation accuracy. "
        "Other seeds judge the chosen rate. The 12 trials took 0:01:37 of run time, the 10 runs of the sweep 0:01:21."
    )
    assert text[1] == "1 rate was excluded because trials failed there (1 diverged)."
    edges = {search.label: search.chosen for search in (adam, sgd) if search.is_at_edge}
    assert edges
    for sentence, (label, chosen) in zip(text[2:], edges.items(), strict=True):
        edge = "lowest" if chosen == RATES[0] else "highest"
        assert sentence == (
            f"`{label}` did best at the {edge} rate, {chosen:g}: a better one may lie outside optimizer.lr_range."
        )
    table = tables.learning_rates(found)
    assert [row[table.headers.index("failed")] for row in table.rows] == ["1 diverged", ""]
    assert [row[:2] for row in table.rows] == [["adam", "0.001 to 0.1"], ["sgd", "0.001 to 0.1"]]
    assert table.rows[1][2] == f"{sgd.chosen:g}"
    assert table.headers[4] == "within 0.5 pp"
    assert "lr_search.png" in dict(figures.figures(found))


def test_arm_without_a_usable_rate_has_no_best_one(tmp_path: Path) -> None:
    adam, _ = searches(found := searched(tmp_path / "s", spoiled=dict.fromkeys(range(6), "failed")))
    assert (adam.best, adam.arms, adam.is_at_edge) == (None, (), False)
    assert tables.learning_rates(found).rows[0][2:4] == ["", ""]


def test_killed_trial_leaves_its_rate_to_the_others(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"model.max_norm": [1.5]}, range(2))
    grid = {"model.max_norm": [1.5], "optimizer.lr": RATES}
    sweep(folder / "lr_search", grid, [7, 8], spoiled={2: "killed", 4: "killed", 5: "killed"})
    found = read([folder])
    [search] = searches(found)
    assert sentences.learning_rates(found)[1] == "3 trials did not finish; the others judge the rates."
    assert [lr_search.rate(arm.runs[0]) for arm in search.arms] == [0.001, 0.01]
    assert [arm.seeds for arm in search.arms] == ["2", "1 of 2"]


def test_sweep_without_a_search_says_nothing_about_rates(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer.lr": RATES}, [0])])
    assert sentences.learning_rates(found) == []
    assert tables.learning_rates(found).rows == []


def test_search_has_a_label_that_explains_itself(tmp_path: Path) -> None:
    grid = {"model.dropout": [0, 0.5], "optimizer.lr": [0.001, 0.01]}
    trials = read([sweep(tmp_path / "s", grid, [7])])
    assert [search.label for search in lr_search.searches(trials)] == ["dropout=0", "dropout=0.5"]
