"""A sweep's folder: the stop file, the lock, and the outcome of jobs whose process is gone."""

import signal
from pathlib import Path
from typing import Any, cast

import pytest
from helpers.sweeps import sweep as made_up_sweep

from mnist_exp.store import run_folder
from mnist_exp.store.run_folder import Summary
from mnist_exp.sweep import sweep
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError


def left_by(folder: Path, **facts: Any) -> Path:
    summary = run_folder.empty_summary()
    known = {"config_id": "abc", "data": {"name": "digits", "sha256": "12"}}
    run_folder.write_summary(folder, cast(Summary, summary | known | facts))
    return folder


@pytest.mark.parametrize(
    ("facts", "end", "expected"),
    [
        ({"status": "completed", "best_val_loss": 0.5}, (0,), {"status": "completed", "value": 0.5, "data": "12"}),
        ({"status": "completed", "best_val_loss": 0.5}, (), {"status": "completed", "value": 0.5, "data": "12"}),
        ({"status": "failed", "error": "nan", "failure": "diverged"}, (1,), {"error": "nan", "failure": "diverged"}),
        ({"status": "interrupted"}, (130,), {"status": "interrupted"}),
        ({}, (128 + signal.SIGTERM,), {"status": "interrupted"}),
        ({}, (), {"status": "interrupted"}),  # its parent is gone
        ({}, (3,), {"status": "failed", "failure": None}),
        ({}, (-9, "killed by SIGKILL"), {"error": "killed by SIGKILL", "failure": None}),
        ({}, (1, "KeyError", "error"), {"error": "KeyError", "failure": "error"}),
    ],
)
def test_the_outcome_of_a_job(facts: dict[str, Any], end: tuple[Any, ...], expected: Any, tmp_path: Path) -> None:
    if facts:
        left_by(tmp_path, **facts)
    found = sweep.outcome(tmp_path, "abc", *end)
    assert found | expected == found


def test_the_results_of_another_config_are_not_the_jobs(tmp_path: Path) -> None:
    left_by(tmp_path, status="completed", best_val_loss=0.5)
    assert sweep.outcome(tmp_path, "other", 0)["status"] == "failed"


def test_a_damaged_summary_says_nothing(tmp_path: Path) -> None:
    left_by(tmp_path, status="completed", best_val_loss=0.5)
    (tmp_path / "summary.json").write_text("{}")
    assert sweep.outcome(tmp_path, "abc", 3)["error"] == f"exit code 3: see {tmp_path / 'train.log'}"


def test_a_stop_keeps_the_first_exit_code_until_a_signal_gives_one(tmp_path: Path) -> None:
    found = Sweep(tmp_path)
    assert (found.is_stopped, found.exit_code) == (False, 0)
    found.stop()
    assert (found.is_stopped, found.exit_code) == (True, 0)
    found.stop(130)
    found.stop()
    assert found.exit_code == 130


def test_two_processes_do_not_work_on_one_sweep(tmp_path: Path) -> None:
    with Sweep(tmp_path).locked(), pytest.raises(ConfigError, match="another process is working on this sweep"):
        Sweep(tmp_path).locked().__enter__()
    with Sweep(tmp_path).running(), pytest.raises(ConfigError, match="another process is working on this sweep"):
        Sweep(tmp_path).locked().__enter__()
    with Sweep(tmp_path).locked():
        pass


def test_completed_jobs_whose_results_are_gone_are_lost_and_left_to_run(tmp_path: Path) -> None:
    folder = made_up_sweep(tmp_path / "it", {"optimizer": ["adam", "sgd"]}, [0, 1])
    assert Sweep(folder).unfinished(retry_failed=False) == []
    (folder / "2" / "summary.json").unlink()
    jobs = Sweep(folder).read()[1]
    assert [number for number, job in jobs.items() if job.status == "lost"] == [2]
    assert Sweep(folder).unfinished(retry_failed=False) == [jobs[2].overrides]


def test_a_torn_list_of_jobs_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    folder = made_up_sweep(tmp_path / "it", {"optimizer": ["adam", "sgd"]}, [0, 1])
    Sweep(folder).ledger.append({"command": "python train.py -m", "new": 5})
    with pytest.raises(ConfigError, match="a crash tore its list of jobs; type the whole command again"):
        Sweep(folder).require_whole_list()


def test_jobs_whose_process_died_are_recorded_by_what_they_left(tmp_path: Path) -> None:
    folder = made_up_sweep(tmp_path / "it", {"optimizer": ["adam", "sgd"]}, [0])
    found = Sweep(folder)
    found.ledger.append({"job": 0, "status": "running", "pid": 1}, {"job": 1, "status": "running", "pid": 1})
    (folder / "1" / "summary.json").unlink()
    assert found.running_pids() == {1}
    found.record_dead_jobs()
    assert [job.status for job in found.ledger.read()[1].values()] == ["completed", "interrupted"]
    assert files.unseal_lines(found.ledger.path.read_bytes().splitlines()[-1:])[0]["job"] == 1
