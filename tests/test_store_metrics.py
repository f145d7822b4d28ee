"""metrics.csv, read as csv and pandas-like readers see it, and what a torn or deleted file gives."""

import csv
from pathlib import Path

import pytest

from mnist_exp.store import metrics
from mnist_exp.store.metrics import Row

ROWS = [Row(1, 0.5, 0.8, 0.4, 0.85, 0.001, 1.25), Row(2, 0.3, 0.9, 0.35, 0.875, 0.001, 1.5)]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(metrics.table(ROWS[:1]), newline="")
    assert metrics.has_rows(path)
    metrics.append(path, ROWS[1])
    with open(path, newline="") as file:
        read = [Row(int(epoch), *map(float, figures)) for epoch, *figures in map(dict.values, csv.DictReader(file))]
    assert read == ROWS
    assert metrics.read_columns(path)["val_accuracy"] == [0.85, 0.875]
    assert path.read_bytes().startswith(b"epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds\r\n")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(metrics.table(ROWS)[:-12], newline="")
    assert metrics.read_columns(path)["epoch"] == [1]


@pytest.mark.parametrize("text", ["", metrics.header(), "a,b\n1,2\n", metrics.header() + "1,x,0,0,0,0,0\n"])
def test_a_file_without_rows_or_with_damaged_ones_has_no_columns(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text, newline="")
    assert metrics.read_columns(path) == {}
    assert metrics.read_columns(tmp_path / "missing.csv") == {}


def test_appending_does_not_create_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        metrics.append(tmp_path / "metrics.csv", ROWS[0])
    assert not (tmp_path / "metrics.csv").exists()
