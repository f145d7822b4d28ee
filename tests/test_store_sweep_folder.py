"""Which folder a sweep is in, and whether a command works on it."""

import os
from pathlib import Path

import pytest

from mnist_exp.store import sweep_folder
from mnist_exp.store.ledger import PROGRAM, VERSION, Ledger
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError


def _ledger(folder: Path, seconds: float = 0) -> Path:
    """Make a folder with a ledger of a search, and of what comes after it, that was written at a time."""
    folder.mkdir(parents=True)
    Ledger(folder).append({"program": PROGRAM, "ledger": VERSION, "then": []})
    os.utime(folder / "ledger.jsonl", (seconds, seconds))
    return folder


def test_a_sweep_is_found_by_its_folder_or_that_of_its_search(tmp_path: Path) -> None:
    sweep = _ledger(tmp_path / "sweep")
    assert sweep_folder.find(str(sweep)) == sweep
    search = _ledger(tmp_path / "searching" / "lr_search")
    assert sweep_folder.find(str(search)) == sweep_folder.find(str(search.parent)) == search.parent


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "no such folder"),
        ("file", "no such folder"),
        ("run", "a single run, not a sweep"),
        ("empty", "not a sweep of this program: it has no ledger.jsonl"),
        ("sweep/0", "a job of a sweep; name the folder of the sweep, sweep"),
    ],
)
def test_another_folder_is_refused(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _ledger(Path("sweep"))
    for folder in ("empty", "run", "sweep/0"):
        Path(folder).mkdir()
    Path("file").touch()
    Path("run/metrics.csv").touch()
    with pytest.raises(ConfigError) as error:
        sweep_folder.find(name)
    assert str(error.value) == f"{name}: {reason}"


def test_latest_is_what_was_written_last_by_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^latest: no sweep under .*/multirun$"):
        sweep_folder.find("latest")
    _ledger(Path("multirun/day/old"), 1)
    _ledger(Path("multirun/new"), 2)
    assert sweep_folder.find("latest") == Path("multirun/new")
    Path("multirun/day/old/workers").mkdir()
    worker = Path("multirun/day/old/workers/node.jsonl")
    worker.touch()
    os.utime(worker, (3, 3))
    assert sweep_folder.find("latest") == Path("multirun/day/old")
    _ledger(Path("multirun/day/searching/lr_search"), 4)
    assert sweep_folder.find("latest") == Path("multirun/day/searching")


def test_a_sweep_is_active_while_its_lock_is_held(tmp_path: Path) -> None:
    assert not sweep_folder.is_active(tmp_path)
    assert not list(tmp_path.iterdir())
    with files.locked(tmp_path / SWEEP_LOCK):
        assert sweep_folder.is_active(tmp_path)
    assert not sweep_folder.is_active(tmp_path)
