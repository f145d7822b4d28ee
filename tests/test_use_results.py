"""mnist_exp.results: the rows equal what the report and the summaries say."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import TINY
from helpers.run_folders import summary
from helpers.sweeps import sweep

import mnist_exp
from mnist_exp.report import results
from mnist_exp.report.runs import MEASURED
from mnist_exp.report.text import to_csv
from mnist_exp.use.in_process import train

GRID: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.1, 0.01]}


@pytest.fixture
def without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)


def test_a_sweep_has_the_rows_of_its_report(tmp_path: Path, without_pandas: None) -> None:
    folder = sweep(tmp_path / "sweep", GRID, seeds=(0, 1), spoiled={3: "failed", 5: "pending", 7: "running"})
    rows: list[dict[str, Any]] = mnist_exp.results(folder)
    report = list(csv.DictReader(io.StringIO(to_csv(results.read([folder])))))
    assert len(rows) == len(report) == 8
    for row, line in zip(rows, report, strict=True):
        assert row["folder"] == str(folder / line["number"])
        assert row["optimizer.lr"] in (0.1, 0.01)
        for key, text in line.items():
            if key not in ("number", "tags"):
                assert ("" if row[key] is None else str(row[key])) == text, key
    assert rows[3]["failure"] == "diverged"
    assert [rows[number]["status"] for number in (5, 7)] == ["pending", "interrupted"]


def test_pandas_gets_a_table(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep", GRID, seeds=(0, 1))
    table = mnist_exp.results(folder)
    assert isinstance(table, pandas.DataFrame)
    by_hand = pandas.read_csv(io.StringIO(to_csv(results.read([folder]))))
    for column in ("optimizer", "optimizer.lr", "seed", "val_accuracy", "test_misses", "seconds"):
        pandas.testing.assert_series_equal(table[column], by_hand[column])
    assert table.groupby("optimizer")["test_accuracy"].count().to_dict() == {"adam": 4, "sgd": 4}


def test_single_runs_and_sweeps_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_pandas: None) -> None:
    monkeypatch.chdir(tmp_path)
    train(*TINY, "hydra.run.dir=runs/a", "tags=[mine]")
    train(*TINY, "optimizer=sgd", "seed=3", "hydra.run.dir=runs/b")
    with pytest.raises(FloatingPointError):
        train(*TINY, "optimizer.lr=1e30", "hydra.run.dir=runs/c")
    (tmp_path / "runs/d").mkdir()
    (tmp_path / "runs/d/metrics.csv").touch()  # killed as it started
    (tmp_path / "runs/a/summary.json").rename(tmp_path / "of a")
    assert mnist_exp.results("runs/a")[0]["status"] == "running"
    (tmp_path / "of a").rename(tmp_path / "runs/a/summary.json")
    sweep(tmp_path / "more/sweep", {"optimizer": ["adam"]}, seeds=(0,))
    rows = mnist_exp.results("runs", Path("more"), "runs")
    assert [row["folder"] for row in rows] == ["runs/a", "runs/b", "runs/c", "more/sweep/0"]
    assert [row["optimizer"] for row in rows] == ["adam", "sgd", "adam", "adam"]
    assert [row["status"] for row in rows] == ["completed", "completed", "failed", "completed"]
    assert (rows[0]["tags"], rows[2]["failure"]) == (["mine"], "diverged")
    assert rows[0].keys() == rows[3].keys()
    for row in rows[:3]:
        facts = summary(tmp_path / row["folder"])
        assert (row["seed"], row["config_id"]) == (facts["seed"], facts["config_id"])
        assert (row["val_accuracy"], row["test_misses"]) == (facts["best_val_accuracy"], facts["test_errors"])
    assert list(mnist_exp.results("runs/b")[0])[:3] == ["folder", "seed", "status"]


def test_rows_have_what_is_computed_from_predictions(tmp_path: Path, without_pandas: None) -> None:
    folder = sweep(tmp_path / "sweep", GRID, seeds=(0,), images=500)
    (folder / "1/predictions.npz").write_bytes(b"altered")
    rows: list[dict[str, Any]] = mnist_exp.results(folder)
    report = list(csv.DictReader(io.StringIO(to_csv(results.read([folder])))))
    for row, line in zip(rows, report, strict=True):
        for column in ("val_balanced_accuracy", "val_log_loss", "val_calibration_error", "test_log_loss"):
            assert ("" if row[column] is None else str(row[column])) == line[column]
    assert [row["test_calibration_error"] is None for row in rows] == [False, True, False, False]
    assert 0.01 < rows[0]["val_log_loss"] < 0.2
    assert tuple(report[0])[-len(MEASURED) :] == MEASURED


def test_rows_of_several_splits_say_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_pandas: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in (0, 1):
        train(*TINY, f"data.seed={split}", f"hydra.run.dir=runs/{split}")
    rows = mnist_exp.results("runs")
    assert [(row["data.seed"], row["seed"]) for row in rows] == [(0, 0), (1, 0)]
    assert "data.seed" not in mnist_exp.results("runs/0")[0]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_runs(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty/in it").mkdir(parents=True)
    with pytest.raises(mnist_exp.ConfigError, match=rf"{name}: no "):
        mnist_exp.results(tmp_path / name)
