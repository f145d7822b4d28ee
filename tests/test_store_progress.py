"""The quick look at a ledger says what Ledger.read says."""

from pathlib import Path

import pytest
from conftest import ROOT
from helpers.sweeps import sweep

from mnist_exp.store import progress, workers
from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger, introductions
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

SPOILED = {2: "failed", 3: "interrupted", 6: "running", 7: "pending"}


def _require_equal(folder: Path) -> None:
    """Compare the quick look with the whole reading of a folder."""
    sessions, jobs = Ledger(folder).read()
    quick_sessions, quick = progress.read(folder)
    assert [each["command"] for each in quick_sessions] == [each["command"] for each in sessions]
    assert list(quick) == list(jobs)
    for number, job in jobs.items():
        found = quick[number]
        ended = job.ended if job.status not in ("pending", "running") else None
        assert (found.status, found.attempt, found.worker) == (job.status, job.attempt, job.worker)
        assert (found.started, found.ended) == (job.started, ended)
        assert (found.arm, tuple(found.overrides)) == (job.arm, job.overrides)
        if job.status == "failed":
            assert found.error == job.error
        for key in ("epochs", "optimizer", "nothing"):
            assert progress.choice(quick, number, key) == job.choices.get(key)


def test_a_sweep_of_one_machine(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, spoiled=SPOILED)
    _require_equal(folder)
    Ledger(folder).append({"job": 3, "status": "replaced"}, {"job": 6, "status": "interrupted"})
    Ledger(folder).append(Ledger(folder).read()[1][6]._replace(attempt=1).introduction())
    _require_equal(folder)


def test_a_sweep_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes((ROOT / "tests" / "ledgers" / "version_2.jsonl").read_bytes())
    _require_equal(tmp_path)


def test_workers_and_attempts(tmp_path: Path) -> None:
    """A worker that was taken for dead, and others that took its jobs after it."""
    jobs = [Job(n, (f"seed={n}",), f"id{n}", "arm", n, {"epochs": 5, "seed": n}, batch=n) for n in range(3)]
    Ledger(tmp_path).append({"program": PROGRAM, "ledger": VERSION, "command": "c"}, *introductions(jobs))
    first, second = "b-1-ab", "a-1-ab"  # the later one is read first
    (tmp_path / "workers").mkdir()
    for name in (first, second):
        workers.file_of(tmp_path, name).write_text(files.seal_line({"worker": name}) + "\n")
    Ledger(tmp_path, first).append(*({"job": n, "status": "running", "attempt": 1, "pid": 7} for n in range(3)))
    Ledger(tmp_path, second).append({"job": 1, "attempt": 2, "status": "interrupted"})
    Ledger(tmp_path, second).append({"status": "interrupted", "attempt": 2, "job": 1})
    Ledger(tmp_path, second).append({"job": 1, "status": "running", "pid": 8, "attempt": 2})
    Ledger(tmp_path, first).append({"job": 1, "status": "failed", "error": "x", "attempt": 1})
    Ledger(tmp_path, first).append({"job": 2, "status": "completed", "value": 0.5, "data": "d", "attempt": 1})
    _require_equal(tmp_path)
    assert [each.status for each in progress.read(tmp_path)[1].values()] == ["running", "running", "completed"]
    assert progress.read(tmp_path)[1][1].worker == second


def test_a_torn_line_is_ignored(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam"]}, seeds=[0], spoiled={0: "running"})
    with open(folder / "ledger.jsonl", "ab") as file:
        file.write(b'{"time": "2026-11-23T11:00:00.000+00:00", "job": 0, "status": "failed", "err')
    _require_equal(folder)


def test_the_ledger_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text('{"program": "other"}\n')
    with pytest.raises(ConfigError, match=r"ledger\.jsonl: is not the ledger of a sweep by mnist_exp$"):
        progress.read(tmp_path)
