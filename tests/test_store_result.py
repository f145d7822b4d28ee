"""What the ledger records of completed runs is what their files say, and files that have changed are opened."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.sweeps import edit_ledger, edit_summary, sweep

from mnist_exp.report import results
from mnist_exp.report.runs import MEASURED, CompletedRun, RunResult, read_sweep
from mnist_exp.report.text import to_csv, to_markdown
from mnist_exp.store import result, run_folder, workers
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import PREDICTIONS, SUMMARY
from mnist_exp.system import files

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
GRID: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.001, 0.01]}
SPOILED = {1: "failed", 6: "interrupted", 7: "running", 11: "pending", 12: "killed"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sweep(tmp_path / "s", GRID, seeds=range(4), spoiled=SPOILED, images=40)


def _forget(folder: Path) -> Path:
    """Let the ledger of a sweep be as an older version wrote it."""
    for path in (folder / "ledger.jsonl", *folder.glob("workers/*.jsonl")):
        entries = files.unseal_lines(path.read_bytes().split(b"\n")[:-1])
        for entry in entries:
            entry.pop("result", None)
        path.write_text("".join(files.seal_line(entry) + "\n" for entry in entries))
    return folder


def _without_record(run: RunResult) -> RunResult:
    """A run without what depends on whether its files were opened."""
    kept = {name: sha for name, sha in (run.summary["files"] or {}).items() if name == PREDICTIONS}
    summary = cast(run_folder.Summary, {**run.summary, "files": kept})
    return replace(run, job=run.job._replace(result=None), summary=summary, is_as_recorded=False)


def _require_equal(folder: Path) -> list[RunResult]:
    """Compare the runs and the texts of a report with what the files alone say; return the former."""
    found, text = read_sweep(folder)[1], results.read([folder])
    opened, same_text = read_sweep(_forget(folder))[1], results.read([folder])
    assert not any(run.is_as_recorded for run in opened)
    assert list(map(_without_record, found)) == list(map(_without_record, opened))
    assert to_csv(text) == to_csv(same_text)
    assert to_markdown(text, []) == to_markdown(same_text, [])
    return found


def test_runs_are_read_from_the_ledger_as_from_their_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, opened = run_folder.read_summary, list[Path]()

    def count(folder: Path) -> run_folder.Summary | None:
        opened.append(folder)
        return read(folder)

    monkeypatch.setattr(run_folder, "read_summary", count)
    found = read_sweep(folder)[1]
    completed = [run for run in found if isinstance(run, CompletedRun)]
    assert len(completed) == 11
    assert all(run.is_as_recorded for run in completed)
    assert [path for path in opened if path.name in {run.folder.name for run in completed}] == [folder / "0"]
    monkeypatch.undo()
    _require_equal(folder)


def test_workers_and_a_torn_line(folder: Path) -> None:
    """A worker has the ends of some runs in its own file, and died while it wrote another one."""
    ledger, name = Ledger(folder), "host-1-abcd"
    lines = ledger.path.read_text().splitlines()
    entries = [files.unseal(line) for line in lines]
    ended = [entry for entry in entries if entry.get("job", 0) > 7 and entry["status"] != "pending"]
    of_worker = [entry | {"attempt": 1} for entry in ended]
    left = [entry for entry in entries if entry.get("job", 0) <= 7 or entry["status"] == "pending"]
    ledger.path.write_text("".join(files.seal(entry) + "\n" for entry in left))
    ledger.workers.mkdir()
    text = "".join(files.seal_line(entry) + "\n" for entry in [{"time": "", "worker": name, "boot": None}, *of_worker])
    workers.file_of(folder, name).write_text(text[:-20])
    os.utime(workers.file_of(folder, name), (0, 0))
    found = read_sweep(folder)[1]
    assert [run.is_as_recorded for run in found[8:]] == [True, True, True, False, False, True, True, False]
    assert found[-1].job.status == "interrupted"


def test_a_real_sweep_and_a_worker_record_what_their_runs_reached(run: Run) -> None:
    here, there = Path("here"), Path("there")
    assert run("-m", *QUICK, "seed=0,1", f"hydra.sweep.dir={here}").code == 0
    to_workers = ["hydra/launcher=workers", "hydra.launcher.keep=best", f"hydra.sweep.dir={there}"]
    assert run("-m", *QUICK, "seed=0,1", *to_workers).code == 0
    assert run("-m", f"resume={there}", "hydra.sweeper.work=true").code == 0
    for folder in (here, there):
        assert [each.is_as_recorded for each in read_sweep(folder)[1]] == [True, True]
        recorded = [job.result for job in Ledger(folder).read()[1].values()]
        assert [len(each["measured"]) for each in recorded if each] == 2 * [len(MEASURED)]
        _require_equal(folder)


@pytest.mark.parametrize(
    "alter",
    [
        lambda run: edit_summary(run, {"best_val_accuracy": 0.5}),
        lambda run: (run / SUMMARY).write_bytes((run / SUMMARY).read_bytes().replace(b"MNIST", b"mnist")),
        lambda run: (run / SUMMARY).unlink(),
        lambda run: (run / METRICS).write_bytes((run / METRICS).read_bytes().replace(b"1.5", b"2.5")),
        lambda run: (run / METRICS).unlink(),
        lambda run: (run / PREDICTIONS).write_bytes(b""),
        shutil.rmtree,
        lambda run: edit_summary(run, {"config_id": "another"}),
    ],
)
def test_files_that_were_altered_are_opened(folder: Path, alter: Callable[[Path], Any]) -> None:
    before = to_markdown(results.read([folder]), [])
    alter(folder / "0")
    assert to_markdown(results.read([folder]), []) != before
    _require_equal(folder)


def test_a_summary_with_the_time_of_another_one_is_not_believed(folder: Path) -> None:
    """What is shared is checked as well: the first run's summary is read for it."""

    def change(entry: dict[str, Any]) -> None:
        if "result" in entry:
            entry["result"]["rest"] = "0" * 16

    edit_ledger(folder, change)
    assert not any(run.is_as_recorded for run in _require_equal(folder))


def test_a_copy_has_the_same_results(folder: Path, tmp_path: Path) -> None:
    """Its files have new times, so they are opened."""
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert not any(run.is_as_recorded for run in read_sweep(tmp_path / "copy")[1])
    first, second = (to_csv(results.read([each])) for each in (folder, tmp_path / "copy"))
    assert first == second


def test_a_sweep_of_version_2_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes((ROOT / "tests" / "ledgers" / "version_2.jsonl").read_bytes())
    assert [job.result for job in Ledger(tmp_path).read()[1].values()] == [None, None]


def test_a_run_whose_files_are_gone_has_no_result(folder: Path) -> None:
    (folder / "0" / METRICS).unlink()
    assert result.of(folder / "0") is None
    assert result.of(folder / "99") is None
    (folder / "2" / SUMMARY).write_text("{}")
    assert result.of(folder / "2") is None
