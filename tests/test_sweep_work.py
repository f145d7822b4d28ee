"""Sweeps whose jobs are taken by workers, as on several machines: what each leaves, and what stops it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned
from test_sweep_run import wait_for

from mnist_exp.report import figures
from mnist_exp.store import claims, workers
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import LR_SEARCH
from mnist_exp.sweep import work

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
WORKERS = ["hydra/launcher=workers", "hydra.sweep.dir=it"]
FUSED = "hydra.launcher.fused=true"
WORK = ["-m", "resume=it", "hydra.sweeper.work=true"]
IT = Path("it")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `mnist-exp work it`, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_exp", "work", "it", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    out = process.communicate(timeout=300)[0]
    return process.returncode, out


def statuses() -> dict[int, str]:
    return {number: job.status for number, job in Ledger(IT).read()[1].items()}


def bits(folder: Path) -> dict[int, Any]:
    return {number: learned(folder / str(number)) for number in Ledger(folder).read()[1]}


def epochs(folder: Path) -> int:
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def begun(number: int, least: int = 2) -> Callable[[], bool]:
    """Whether a job has trained some epochs."""
    return lambda: epochs(IT / str(number)) >= least


def all_batches_are_done() -> bool:
    batches = {job.batch for job in Ledger(IT).read()[1].values() if job.batch is not None}
    states = claims.read(IT, batches)
    return bool(batches) and all(batch in states and states[batch].is_done for batch in batches)


def test_a_sweep_is_handed_over_and_a_worker_trains_it(run: Run) -> None:
    words = [*QUICK, "optimizer=adam,sgd", "seed=0,1"]
    handed = run("-m", *words, *WORKERS)
    assert handed.code == 0, handed.err
    assert "ready for workers: 4 jobs in 4 batches" in handed.out
    assert f" work {IT.absolute()}\n" in handed.out
    assert set(statuses().values()) == {"pending"}
    assert not (IT / "0").exists()
    worked = run(*WORK)
    assert worked.code == 0, worked.err
    assert "all jobs have ended; this worker trained 4 of 4" in worked.out
    assert "4 of 4 runs completed" in worked.out  # the report
    assert set(statuses().values()) == {"completed"}
    assert all_batches_are_done()
    run("-m", *words, "hydra.sweep.dir=local")
    assert bits(IT) == bits(Path("local"))


def test_what_a_job_leaves_is_what_a_local_sweep_leaves(run: Run) -> None:
    run("-m", *QUICK, *WORKERS)
    run(*WORK)
    run("-m", *QUICK, "hydra.sweep.dir=local")
    names = {path.relative_to(IT / "0") for path in (IT / "0").rglob("*")}
    assert names == {path.relative_to(Path("local", "0")) for path in Path("local", "0").rglob("*")}
    assert "epoch" in (IT / "0" / "train.log").read_text()


def test_a_worker_on_a_finished_sweep_says_so_and_writes_nothing(run: Run) -> None:
    run("-m", *QUICK, *WORKERS)
    run(*WORK)
    before = {path: path.stat().st_mtime_ns for path in IT.rglob("*") if path.is_file()}
    again = run(*WORK)
    assert again.code == 0
    assert again.out == f"{IT.absolute()}: all jobs have ended, 1 in all\n"
    assert {path for path, mtime in before.items() if path.stat().st_mtime_ns != mtime} == set()


def test_a_job_that_fails_is_recorded_and_ends_the_sweep_with_code_1(run: Run) -> None:
    run("-m", *QUICK, "optimizer=sgd", "optimizer.lr=0.1,1e30", *WORKERS)
    worked = run(*WORK)
    assert worked.code == 1
    assert statuses() == {0: "completed", 1: "failed"}
    assert "1 of 2 jobs failed" in worked.err + worked.out
    retried = run("-m", "resume=it", "hydra.sweeper.retry_failed=true")
    assert "ready for workers: 1 job in 1 batch." in retried.out
    assert Ledger(IT).read()[1][1].batch == 2  # that of the first attempt is done
    assert run(*WORK).code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume=nowhere", "hydra.sweeper.work=true"], "resume=nowhere: no such folder"),
        (["hydra.sweeper.work=true"], "hydra.sweeper.work=true: a worker needs resume=FOLDER"),
        ([*WORK[1:], "hydra.sweeper.minutes=0"], "hydra.sweeper.minutes=0: must be more than 0"),
        ([*WORK[1:], "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs=0: must be 1 or more"),
        ([*QUICK, "hydra/launcher=workers", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: must be 1 or more"),
        (
            [*QUICK, "hydra/launcher=workers", FUSED, "hydra.launcher.max_models=0"],
            "hydra.launcher.max_models=0: must be 1 or more",
        ),
        (
            [*QUICK, "hydra/launcher=workers", "hydra/sweeper=basic"],
            "hydra/launcher=workers: needs hydra/sweeper=resumable",
        ),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, run: Run) -> None:
    outcome = run("-m", *words)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") <= 1


def test_a_sweep_that_was_not_handed_over_has_no_jobs_for_workers(run: Run) -> None:
    run("-m", *QUICK, "hydra.sweep.dir=it")
    outcome = run(*WORK)
    assert outcome.code == 1
    assert "this sweep has no jobs for workers" in outcome.err
    assert "hydra/launcher=workers hands over what is left" in outcome.err


def test_a_sweep_is_not_planned_while_workers_take_its_jobs(run: Run) -> None:
    run("-m", *QUICK, *WORKERS)
    with workers.living(IT, 1, lambda: None):
        refused = run("-m", "resume=it")
    assert refused.code == 1
    assert "1 worker takes jobs of this sweep" in refused.err
    assert run("-m", "resume=it").code == 0


def test_resume_hands_over_again_and_keeps_the_batches(run: Run) -> None:
    run("-m", *QUICK, "seed=0,1", *WORKERS)
    before = {number: job.batch for number, job in Ledger(IT).read()[1].items()}
    outcome = run("-m", "resume=it")
    assert "ready for workers: 2 jobs in 2 batches" in outcome.out
    assert {number: job.batch for number, job in Ledger(IT).read()[1].items()} == before
    assert run(*WORK).code == 0


def test_another_launcher_may_take_what_is_left(run: Run) -> None:
    run("-m", *QUICK, "seed=0,1", *WORKERS)
    outcome = run("-m", "resume=it", "hydra/launcher=basic")
    assert outcome.code == 0, outcome.err
    assert set(statuses().values()) == {"completed"}
    assert "all jobs have ended, 2 in all" in run(*WORK).out


def test_closing_reports_and_starts_nothing_while_jobs_are_left(run: Run) -> None:
    run("-m", *QUICK, "seed=0,1", *WORKERS)
    closed = run("-m", "resume=it", "hydra.sweeper.close=true")
    assert closed.code == 0
    assert "to resume: python train.py -m resume=it" in closed.out
    assert "ready for workers" not in closed.out
    assert set(statuses().values()) == {"pending"}
    assert (IT / "report.md").exists()


def test_a_worker_begins_nothing_when_its_time_is_nearly_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("-m", *QUICK, *WORKERS)
    monkeypatch.setattr(work, "LAST_MINUTE", 6000)
    ticks = count(0, 59)  # seconds
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    outcome = run(*WORK, "hydra.sweeper.minutes=1")
    assert outcome.code == work.TIME_IS_OVER
    assert "the time is over after 0 jobs" in outcome.out
    assert statuses() == {0: "pending"}


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_two_workers_at_once_give_the_bits_of_an_undisturbed_sweep(fused: bool, run: Run) -> None:
    words = [*QUICK, "epochs=5", "optimizer=adam,sgd", "seed=range(0,4)", "threads=1"]
    if fused:
        run("-m", *words, "hydra/launcher=fused", "hydra.launcher.max_models=4", "hydra.sweep.dir=local")
        words += [FUSED, "hydra.launcher.max_models=2"]
    else:
        run("-m", *words, "hydra.sweep.dir=local")
    assert run("-m", *words, *WORKERS).code == 0
    both = [start("--n-jobs", "1"), start("--n-jobs", "1")]
    outs = [end(process) for process in both]
    assert [code for code, _ in outs] == [0, 0], outs
    assert all_batches_are_done()
    trained = {job.worker for job in Ledger(IT).read()[1].values()}
    assert len(trained) == 2
    assert bits(IT) == bits(Path("local"))
    assert sum("8 of 8 runs completed" in out for _, out in outs) == 1  # one of them reports


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_another_worker_goes_on_where_a_stopped_one_was(number: signal.Signals, fused: bool, run: Run) -> None:
    words = [*QUICK, "epochs=12", "seed=range(0,3)", "threads=1", *([FUSED] if fused else [])]
    run("-m", *words, "hydra/launcher=workers", "hydra.sweep.dir=undisturbed")
    run("-m", "resume=undisturbed", "hydra.sweeper.work=true", "hydra.sweeper.n_jobs=1")
    run("-m", *words, *WORKERS)
    first = start("--n-jobs", "1")
    wait_for(begun(0))
    first.send_signal(number)
    code, out = end(first)
    assert code == (-number if number == signal.SIGKILL else 128 + number), out
    if number != signal.SIGKILL:
        assert "stopped after 0 jobs; what was running continues from its last epoch" in out
    assert 0 < epochs(IT / "0") < 12
    second = end(start("--n-jobs", "1"))
    assert second[0] == 0, second
    assert bits(IT) == bits(Path("undisturbed"))
    resumed = [job for job in (IT / "0" / "train.log").read_text().splitlines() if "resum" in job]
    assert len(resumed) == 1  # it did not begin anew


@pytest.mark.slow
def test_a_sequential_sweep_goes_on_with_further_rounds(run: Run) -> None:
    words = [*QUICK, "optimizer=adam,rmsprop", "seed=0,1", "hydra.sweeper.until=decided", "hydra.sweeper.max_seeds=4"]
    assert run("-m", *words, *WORKERS).code == 0
    worked = run(*WORK)
    assert worked.code == 0, worked.err
    assert "no more seeds" in worked.out
    assert len(statuses()) > 4
    assert all_batches_are_done()
    run("-m", *words, "hydra.sweep.dir=local")
    assert bits(IT) == bits(Path("local"))


@pytest.mark.slow
def test_the_sweep_after_a_learning_rate_search_is_handed_over_too(run: Run) -> None:
    words = [*QUICK, "seed=0,1", "hydra.sweeper.trials=2", "hydra.sweeper.trial_seeds=[7]"]
    assert run("-m", *words, *WORKERS).code == 0
    assert not Ledger(IT).path.exists()
    worked = run(*WORK)
    assert worked.code == 0, worked.err
    assert "the learning-rate search chose" in worked.out
    assert set(statuses().values()) == {"completed"}
    assert Ledger(IT / LR_SEARCH).path.exists()
