"""A search over intervals is read back: its trials, its finalists, and what fresh seeds say of the best one."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import set_accuracy, sweep

from mnist_exp.report import figures, sentences, space_search, tables
from mnist_exp.report.results import Results, read
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
    [search] = space_search.searches(searched(tmp_path / "s", SEEN, 0.98))
    assert (search.label, search.keys, search.log_keys) == (
        "",
        ("optimizer.lr", "model.dropout"),
        frozenset({"optimizer.lr"}),
    )
    assert [trial.reached for trial in search.trials] == pytest.approx(SEEN)
    assert search.best_so_far == pytest.approx([0.9, 0.92, 0.94, 0.95, *[0.985] * 8])
    assert [each.label for each in search.finalists] == ["lr=0.005 dropout=0.2", "lr=0.01 dropout=0.2"]
    assert search.default is not None
    assert len(search.default.runs) == 5


def test_the_best_is_compared_with_the_default_and_with_what_the_search_saw(tmp_path: Path) -> None:
    how, verdict, curse = sentences.searched(searched(tmp_path / "s", SEEN, 0.98))
    assert how.startswith(
        "A search tried 12 settings of optimizer.lr and model.dropout, each with 1 seed, compared by validation "
        "accuracy. Other seeds judge the best ones and the default. Its 12 runs took 0:01:37 of run time, the 15 runs"
    )
    assert verdict.startswith("The search's best against the default: `lr=0.005 dropout=0.2` beats `default` by 1.0")
    assert curse.startswith(
        "The search's own figure for `lr=0.005 dropout=0.2` was 98.50 %; with 5 fresh seeds it is 98.0"
    )
    assert curse.endswith("the best of many trials looks better than it is, which is called the winner's curse.")


def test_where_fresh_seeds_do_as_well_no_curse_is_claimed(tmp_path: Path) -> None:
    curse = sentences.searched(searched(tmp_path / "s", SEEN, 0.99))[-1]
    assert "here it is no lower, though the best of many trials tends to look better than it is" in curse


def test_a_failed_trial_has_no_result_and_is_counted(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98, spoiled={0: "failed", 2: "failed", 3: "killed"})
    [search] = space_search.searches(found)
    assert [number for number, trial in enumerate(search.trials) if isnan(trial.reached)] == [0, 2, 3]
    assert isnan(search.best_so_far[0])
    assert "2 trials failed (2 diverged): the search took that as the worst." in sentences.searched(found)


def test_importance_goes_to_the_key_that_matters(tmp_path: Path) -> None:
    found = searched(tmp_path / "s", SEEN, 0.98)
    [search] = space_search.searches(found)
    assert space_search.importance(search) == {"optimizer.lr": 1.0, "model.dropout": 0.0}
    assert tables.importance(found).rows == [["optimizer.lr", "100"], ["model.dropout", "0"]]
    assert space_search.importance(search._replace(trials=search.trials[:9])) == {}  # too few


def test_finalists_stand_in_a_table_above_the_default(tmp_path: Path) -> None:
    table = tables.finalists(searched(tmp_path / "s", SEEN, 0.98))
    assert [row[:3] for row in table.rows] == [
        ["lr=0.005 dropout=0.2", "5", "98.50"],
        ["lr=0.01 dropout=0.2", "6", "98.00"],
        ["default", "", ""],
    ]


@pytest.mark.pictures
def test_a_search_has_a_figure(tmp_path: Path) -> None:
    assert "search.png" in dict(figures.figures(searched(tmp_path / "s", SEEN, 0.98)))


def test_a_sweep_without_a_search_says_nothing(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer.lr": [0.1, 0.2]}, [0])])
    assert space_search.searches(found) == []
    assert sentences.searched(found) == []
    assert tables.finalists(found).rows == tables.importance(found).rows == []
