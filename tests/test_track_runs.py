"""What is read of run folders, for the trackers."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import TINY, Outcome
from helpers.sweeps import edit_ledger, sweep

from mnist_exp.store import metrics
from mnist_exp.store.run_folder import SWEEP_LOCK, read_summary
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import runs

GRID = {"optimizer": ["adam", "sgd"]}


def test_a_run_is_what_its_files_say(run: Callable[..., Outcome]) -> None:
    [folder] = run(*TINY, "plots=true", "tags=[baseline]", "seed=3").folders
    snapshot = runs.read(folder)
    [tracked] = snapshot.runs
    summary = read_summary(folder)
    assert summary
    assert (tracked.status, snapshot.status, snapshot.command) == ("completed", "completed", None)
    assert tracked.rows == metrics.read(folder / "metrics.csv")
    assert tracked.results == {key: dict(summary)[key] for key in runs.RESULTS}
    assert tracked.tags["config_id"] == summary["config_id"]
    assert (tracked.tags["seed"], tracked.labels) == ("3", ["baseline"])
    assert (tracked.choices["optimizer"], tracked.choices["model.hidden_layers"]) == ("adam", [16])
    assert [path.name for path in tracked.pictures][:3] == ["samples.png", "augmented.png", "curves.png"]
    assert len(tracked.pictures) == 6


def test_times_are_those_of_the_log(run: Callable[..., Outcome]) -> None:
    before = datetime.now().timestamp()
    [folder] = run(*TINY).folders
    [tracked] = runs.read(folder).runs
    said = [line[1:24] for line in (folder / "train.log").read_text().splitlines() if "] epoch " in line]
    assert [datetime.fromtimestamp(time).isoformat(" ", "milliseconds") for time in tracked.times] == [
        time.replace(",", ".") for time in said
    ]
    assert tracked.ended
    assert before - 0.001 <= tracked.started < tracked.times[0] < tracked.times[1] <= tracked.ended
    assert tracked.ended <= datetime.now().timestamp()


def test_without_a_log_epochs_follow_one_another(tmp_path: Path) -> None:
    [tracked, *_] = runs.read(sweep(tmp_path / "s", GRID, epochs=3)).runs
    assert [time - tracked.started for time in tracked.times] == pytest.approx([1.5, 3.0, 4.5])


def test_a_sweep_has_its_runs_and_arms(tmp_path: Path) -> None:
    spoiled = {1: "failed", 2: "interrupted", 3: "pending"}
    snapshot = runs.read(sweep(tmp_path / "s", GRID, seeds=[0, 1], spoiled=spoiled))
    assert [(run.name, run.status) for run in snapshot.runs] == [
        ("adam seed=0", "completed"),
        ("adam seed=1", "failed"),
        ("sgd seed=0", "interrupted"),
    ]
    assert snapshot.status == "interrupted"  # nobody works on it, and a job is left
    assert "nan" in snapshot.runs[1].tags["error"]
    assert snapshot.command == "python train.py -m optimizer=adam,sgd seed=0,1"


def test_a_job_runs_as_long_as_its_sweep_does(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "running"})
    (folder / "1").mkdir()
    assert [run.status for run in runs.read(folder).runs] == ["completed", "interrupted"]
    with files.locked(folder / SWEEP_LOCK):
        snapshot = runs.read(folder)
    assert (snapshot.status, [run.status for run in snapshot.runs]) == ("running", ["completed", "running"])
    assert snapshot.runs[1].ended is None
    assert runs.read(folder).status == "interrupted"


def test_a_sweep_that_was_handed_over_runs_as_long_as_workers_may_come(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "running"})
    edit_ledger(folder, lambda entry: entry.update(launcher={}) if "command" in entry else None)
    snapshot = runs.read(folder)
    assert (snapshot.status, snapshot.runs[1].status) == ("running", "interrupted")


def test_identities_survive_a_move_and_differ_between_sweeps(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID)
    before = runs.read(folder)
    shutil.move(folder, tmp_path / "moved")
    after = runs.read(tmp_path / "moved")
    other = sweep(tmp_path / "other", GRID)
    edit_ledger(other, lambda entry: entry.update(command="another") if "command" in entry else None)
    assert (after.id, [run.id for run in after.runs]) == (before.id, [run.id for run in before.runs])
    assert len({run.id for run in (*before.runs, *runs.read(other).runs)}) == 20


def test_the_state_changes_with_what_is_shown(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    [before, _] = runs.read(folder).runs
    assert runs.read(folder).runs[0].state == before.state
    (folder / "0" / "plots").mkdir()
    (folder / "0" / "plots" / "curves.png").write_bytes(b"")
    [with_picture, _] = runs.read(folder).runs
    metrics.append(folder / "0" / "metrics.csv", metrics.Row(6, *(0.5,) * 6))
    [with_row, _] = runs.read(folder).runs
    assert len({before.state, with_picture.state, with_row.state}) == 3


def test_another_folder_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    (tmp_path / "empty").mkdir()
    for path, message in {
        tmp_path / "nowhere": "no such folder",
        tmp_path / "empty": "neither a run nor a sweep of this program: it has no metrics.csv and no ledger.jsonl",
        folder / "0": f"a job of a sweep; name the folder of the sweep, {folder}",
    }.items():
        with pytest.raises(ConfigError) as error:
            runs.read(path)
        assert str(error.value) == f"{path}: {message}"
    edit_ledger(folder, lambda entry: entry.update(ledger=9) if "ledger" in entry else None)
    with pytest.raises(ConfigError, match=r"has format 9; this version reads formats 2 and 3$"):
        runs.read(folder)
