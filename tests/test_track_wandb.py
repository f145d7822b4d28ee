"""W&B's offline files, read back as its protocol buffers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Outcome
from helpers import wandb_files
from helpers.sweeps import edit_summary, sweep
from wandb import Run

from mnist_exp.store import run_folder
from mnist_exp.store.metrics import COLUMNS
from mnist_exp.system import extras
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import runs, wandb
from mnist_exp.track.runs import TrackedRun
from mnist_exp.track.wandb import STATE, WandB

GRID = {"optimizer": ["adam", "sgd"]}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # wandb's sockets


@pytest.fixture(autouse=True)
def without_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home in which nobody has logged in."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))


@pytest.fixture(scope="module", autouse=True)
def _service() -> Iterator[None]:
    """Stop wandb's process in the end."""
    yield
    import wandb

    wandb.teardown()


def write(folder: Path, to: Path) -> int:
    snapshot = runs.read(folder)
    tracker = WandB(str(to))
    assert tracker.mode == "offline"
    try:
        return tracker.write(snapshot, snapshot.runs)
    finally:
        tracker.close()


def written(to: Path, tracked: TrackedRun) -> Path:
    """The only folder that W&B has of a run."""
    [folder] = (to / "wandb").glob(f"offline-run-*-{tracked.id}")
    return folder


def records(to: Path, tracked: TrackedRun) -> dict[str, list[Any]]:
    return wandb_files.read(written(to, tracked) / f"run-{tracked.id}.wandb")


def check(to: Path, tracked: TrackedRun) -> dict[str, list[Any]]:
    """Compare every figure with the run's files."""
    found = records(to, tracked)
    rows = [wandb_files.items(each.item) for each in found["history"]]
    assert [{key: row[key] for key in COLUMNS} for row in rows] == [row._asdict() for row in tracked.rows]
    assert [row["_timestamp"] for row in rows] == list(tracked.times)
    assert [each.step.num for each in found["history"]] == [row.epoch for row in tracked.rows]
    summary: dict[str, Any] = {}
    for each in found["summary"]:
        summary |= wandb_files.items(each.update)
    assert {key: summary[key] for key in tracked.results} == dict(tracked.results)
    [described] = found["run"]
    config = wandb_files.items(described.config.update)
    assert tracked.choices.items() <= {key: config[key] for key in tracked.choices}.items()
    assert (described.run_id, described.display_name, described.run_group) == (tracked.id, tracked.name, tracked.arm)
    assert (described.project, described.job_type) == ("mnist_exp", "train")
    return found


def test_every_figure_is_that_of_the_sweep(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0, 1], spoiled={1: "failed", 3: "interrupted"}, epochs=200)
    assert write(folder, tmp_path) == 4
    tracked = runs.read(folder).runs
    found = [check(tmp_path, each) for each in tracked]
    assert [each["exit"][0].exit_code for each in found] == [0, 1, 0, 130]
    assert [each["run"][0].run_group for each in found] == ["adam", "adam", "sgd", "sgd"]


def test_a_run_has_its_pictures(run: Callable[..., Outcome], tmp_path: Path) -> None:
    [folder] = run(*TINY, "plots=true", "tags=[a,b]").folders
    assert write(folder, tmp_path) == 1
    [tracked] = runs.read(folder).runs
    found = check(tmp_path, tracked)
    assert list(found["run"][0].tags) == ["a", "b"]
    last = wandb_files.items(found["history"][-1].item)
    for name in run_folder.FIGURES:
        path = written(tmp_path, tracked) / "files" / last[f"{name}.path"]
        assert path.read_bytes() == (folder / "plots" / f"{name}.png").read_bytes()


def test_a_second_export_changes_nothing(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    assert write(folder, tmp_path) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "wandb").rglob("*run-*")}
    assert write(folder.rename(tmp_path / "moved"), tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "wandb").rglob("*run-*")} == before


def test_an_interrupted_export_goes_on(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    [first, second] = runs.read(folder).runs
    write(folder, tmp_path)
    (written(tmp_path, second) / STATE).unlink()  # as if it had been ended before the file was written
    (written(tmp_path, second) / f"run-{second.id}.wandb").write_bytes(b"")
    assert write(folder, tmp_path) == 1
    for each in (first, second):
        check(tmp_path, each)


def test_a_file_that_is_cut_by_a_full_disk_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0], epochs=200)
    [tracked] = runs.read(folder).runs
    finish, left = Run.finish, [0, 20, 4096, 32_768, 32_771]  # LevelDB's blocks have 32,768 bytes

    def cut(self: Run, exit_code: int) -> None:
        patch.setattr(wandb, "PATIENCE", 5)
        finish(self, exit_code)
        path = written(tmp_path, tracked) / f"run-{tracked.id}.wandb"
        assert wandb._is_written(path)
        path.write_bytes(path.read_bytes()[: left.pop()])
        patch.setattr(wandb, "PATIENCE", 0)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", cut)
        while left:
            with pytest.raises(ConfigError, match=r"^[^\n]*: W&B could not write all of it; the disk may be full$"):
                write(folder, tmp_path)
            assert not (written(tmp_path, tracked) / STATE).exists()
    assert [write(folder, tmp_path), write(folder, tmp_path)] == [1, 0]
    check(tmp_path, tracked)


def test_a_run_that_goes_on_is_written_as_it_grows(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0])
    snapshot = runs.read(folder)
    [run] = snapshot.runs
    tracker = WandB(str(tmp_path))
    for rows in (0, 2, 5):
        part = TrackedRun(**{**vars(run), "rows": run.rows[:rows], "times": run.times[:rows], "status": "running"})
        vars(part).update(ended=None, results={})
        tracker.write(snapshot, [part])
    assert not (written(tmp_path, run) / STATE).exists()
    tracker.write(snapshot, [run])
    tracker.close()
    check(tmp_path, run)
    assert (written(tmp_path, run) / STATE).read_text() == run.state


def test_a_changed_run_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    write(folder, tmp_path)
    edit_summary(folder / "0", {"test_accuracy": 0.25})
    assert write(folder, tmp_path) == 1
    check(tmp_path, runs.read(folder).runs[0])


def test_it_goes_online_where_there_is_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert WandB(str(tmp_path)).mode == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandB(str(tmp_path)).mode == "offline"


def test_what_can_not_be_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        WandB(str(tmp_path / "file"))
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^wandb: not installed; type pip install 'mnist_exp\[wandb\]'$"):
        WandB(None)
