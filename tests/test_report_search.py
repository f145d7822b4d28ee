"""A search is read back: its trials, its finalists, and what fresh seeds say of the best one."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import edit_summary, set_accuracy, sweep

from mnist_exp.report import figures, search, search_sentences, sentences, tables
from mnist_exp.report.results import Results, read
from mnist_exp.report.text import to_terminal
from mnist_exp.store.ledger import Ledger
from mnist_exp.system import files

WORDS = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"]
RATES = [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.06, 0.08, 0.1]


def searched(folder: Path, seen: Sequence[float], fresh: float, spoiled: dict[int, str] | None = None) -> Results:
    """Read a sweep of the default and two finalists, after a search whose trials reached `seen`."""
    grid: dict[str, list[Any]] = {"optimizer.lr": ["default", 0.005, 0.01], "model.dropout": [0.2]}
    sweep(folder, grid, range(5))
    path = Ledger(folder).path
    lines = [files.unseal(line) for line in path.read_text().splitlines()]
    for entry in lines:  # the default run has no override of a searched key
        if entry.get("status") == "pending" and "optimizer.lr=default" in entry["overrides"]:
            entry["overrides"] = entry["overrides"][2:]
    path.write_text("".join(files.seal(entry) + "\n" for entry in lines))
    for job in range(15):
        set_accuracy(folder, job, 0.97 + 0.0001 * (job % 5) if job < 5 else fresh + 0.0001 * (job * job % 7))
    sweep(folder / "search", {"optimizer.lr": RATES[: len(seen)], "model.dropout": [0.2]}, [7], spoiled=spoiled)
    for job, value in enumerate(seen):
        if not (spoiled or {}).get(job):
            set_accuracy(folder / "search", job, value)
    session: Any = {"then": [], "trials": [], "search": {"words": WORDS}}
    Ledger(folder / "search").append(session)
    return read([folder])


SEEN = [0.9, 0.92, 0.94, 0.95, 0.985, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92]


def test_trials_and_finalists_are_read_back(tmp_path: Path) -> None:
    [only] = search.searches(searched(tmp_path / "s", SEEN, 0.98))
    assert (only.label, only.keys, only.log_keys) == (
        "",
        ("optimizer.lr", "model.dropout"),
        frozenset({"optimizer.lr"}),
    )
    assert [trial.reached for trial in only.trials] == pytest.approx(SEEN)
    assert only.best_so_far == pytest.approx([0.9, 0.92, 0.94, 0.95, *[0.985] * 8])
    assert [each.label for each in only.finalists] == ["lr=0.005 dropout=0.2", "lr=0.01 dropout=0.2"]
    assert only.default is not None
    assert len(only.default.runs) == 5


def test_the_best_is_compared_with_the_default_and_with_what_the_search_saw(tmp_path: Path) -> None:
    how, verdict, curse = search_sentences.searched(searched(tmp_path / "s", SEEN, 0.98))
    assert how.startswith(
        "A search tried 12 settings of optimizer.lr and model.dropout, each with 1 seed, compared by validation "
        "accuracy. Other seeds judge the best ones and the default. Its 12 runs took 0:01:37 together, the 15 runs"
    )
    assert verdict.startswith(
        "The search's best against the default, one planned comparison: `lr=0.005 dropout=0.2` beats `default` by 1.0"
    )
    assert curse.startswith(
        "The search's own figure for `lr=0.005 dropout=0.2` was 98.50 %; with 5 fresh seeds it is 98.0"
    )
    assert curse.endswith("the best of many trials looks better than it is, which is called the winner's curse.")


def test_the_default_arm_is_marked_wherever_arms_are_named(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98)
    table = tables.leaderboard(found)
    assert [row[table.headers.index("from")] for row in table.rows] == ["search", "search", "default"]
    assert [arm.label.endswith(" (default)") for arm in found.arms] == [False, False, True]
    assert "from" in to_terminal(found).splitlines()[0]
    assert "(default)" in to_terminal(found, width=60)
    assert sentences.FINALISTS in sentences.ranking(found)


def test_one_finalist_is_the_best_one(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98)
    runs = [run for run in found.runs if "optimizer.lr=0.01" not in run.job.overrides]
    [one] = [each for each in found.arms if each.choices["optimizer.lr"] == "0.01"]
    less = found._replace(runs=runs, arms=[each for each in found.arms if each is not one])
    assert "Other seeds judge the best one and the default." in search_sentences.searched(less)[0]


def test_a_sweep_without_finalists_has_no_default(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]})])
    assert "from" not in tables.leaderboard(found).headers
    assert not any(arm.is_default for arm in found.arms)


def test_where_fresh_seeds_do_as_well_no_curse_is_claimed(tmp_path: Path) -> None:
    curse = search_sentences.searched(searched(tmp_path / "s", SEEN, 0.99))[-1]
    assert "here it is no lower, though the best of many trials tends to look better than it is" in curse


def test_a_failed_trial_has_no_result_and_is_counted(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98, spoiled={0: "failed", 2: "failed", 3: "killed"})
    [only] = search.searches(found)
    assert [number for number, trial in enumerate(only.trials) if isnan(trial.reached)] == [0, 2, 3]
    assert isnan(only.best_so_far[0])
    assert "2 trials failed (2 diverged): the search took that as the worst." in search_sentences.searched(found)


def test_importance_goes_to_the_key_that_matters(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98)
    [only] = search.searches(found)
    assert search.importance(only) == {"optimizer.lr": 1.0, "model.dropout": 0.0}
    assert tables.importance(found).rows == [["optimizer.lr", "100"], ["model.dropout", "0"]]
    assert search.importance(only._replace(trials=only.trials[:9])) == {}  # too few


def test_finalists_stand_in_a_table_above_the_default(tmp_path: Path) -> None:
    table = tables.finalists(searched(tmp_path / "s", SEEN, 0.98))
    assert [row[:3] for row in table.rows] == [
        ["lr=0.005 dropout=0.2", "5", "98.50"],
        ["lr=0.01 dropout=0.2", "6", "98.00"],
        ["default", "", ""],
    ]


@pytest.mark.pictures
def test_a_search_has_figures_and_none_that_averages_over_its_finalists(tmp_path: Path) -> None:
    drawn = dict(figures.figures(searched(tmp_path / "s", SEEN, 0.98)))
    assert {"search.png", "lr_search.png"} & drawn.keys() == {"search.png"}
    assert not {"effects.png", "heat_maps.png", "parallel_coordinates.png"} & drawn.keys()


def rates_searched(folder: Path, spoiled: dict[int, str] | None = None) -> Results:
    """Read a sweep of two arms, after a search of two seeds for the rate of each."""
    sweep(folder, {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.01]}, range(5))
    trials: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.001, 0.01, 0.1]}
    sweep(folder / "lr_search", trials, [7, 8], spoiled=spoiled)
    return read([folder])


def test_a_search_of_learning_rates_is_read_as_any_other(tmp_path: Path) -> None:
    found = rates_searched(tmp_path / "s")
    adam, sgd = search.searches(found)
    assert (adam.label, adam.keys, *adam.log_keys, adam.default) == ("adam", ("optimizer.lr",), "optimizer.lr", None)
    assert [trial.setting["optimizer.lr"] for trial in sgd.trials] == ["0.001", "0.01", "0.1"]
    assert sgd.best == max(sgd.trials, key=lambda trial: trial.reached)
    assert len(sgd.best.runs) == 2
    assert tables.finalists(found).rows[0][:3] == ["adam", "lr=0.01", "2"]
    how = search_sentences.searched(found)[0]
    assert how == (
        "A search tried 6 settings of optimizer.lr in 2 arms, each with 2 seeds, compared by validation accuracy. "
        "Other seeds judge the best one of each arm. Its 12 runs took 0:01:37 together, the 10 runs of the sweep "
        "0:01:21."
    )


@pytest.mark.parametrize(("kept", "edge"), [((0, 1, 2), "lowest"), ((2, 1, 0), "highest"), ((1, 0, 2), "")])
def test_a_best_rate_at_an_edge_is_known(tmp_path: Path, kept: tuple[int, ...], edge: str) -> None:
    adam, _ = search.searches(rates_searched(tmp_path / "s"))
    best = sorted(adam.trials, key=lambda trial: -trial.reached)
    settings = [adam.trials[place].setting for place in kept]
    trials = [each._replace(setting=setting) for each, setting in zip(best, settings, strict=True)]
    assert adam._replace(trials=trials).edge == edge


def test_a_rate_with_a_failed_run_can_not_be_the_best(tmp_path: Path) -> None:
    found = rates_searched(tmp_path / "s", spoiled={2: "failed", 3: "killed", 4: "killed"})
    adam, _ = search.searches(found)
    assert [trial.setting["optimizer.lr"] for trial in adam.completed] == ["0.001", "0.1"]
    text = search_sentences.searched(found)
    assert "1 trial failed (1 diverged): the search took that as the worst." in text
    assert "2 runs of the search did not finish; the others stand for their trials." in text


def test_a_search_of_rates_that_all_failed_has_no_best(tmp_path: Path) -> None:
    adam, _ = search.searches(rates_searched(tmp_path / "s", spoiled=dict.fromkeys(range(6), "failed")))
    assert (adam.best, adam.edge, adam.completed) == (None, "", [])


def test_a_sweep_without_a_search_says_nothing(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer.lr": [0.1, 0.2]}, [0])])
    assert search.searches(found) == []
    assert search_sentences.searched(found) == []
    assert tables.finalists(found).rows == tables.importance(found).rows == []


def test_a_pruned_trial_has_no_result_and_what_it_saved_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    searched(folder, SEEN, 0.98)
    Ledger(folder / "search").append({"job": 0, "status": "pruned"})
    edit_summary(folder / "search" / "0", {"status": "pruned", "epochs": 2})
    found = read([folder])
    assert found.search
    for run in found.search.runs:
        run.job.choices["epochs"] = 12
    [only] = search.searches(found)
    assert [number for number, trial in enumerate(only.trials) if isnan(trial.reached)] == [0]
    texts = search_sentences.searched(found)
    saved = "Pruning ended 1 run early, which saved 10 of 144 epochs. The trials of these runs have no result."
    assert saved in texts
