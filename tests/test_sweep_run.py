"""Sweeps as a user sees them: their files, what stops them, and how they resume."""

import errno
import faulthandler
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned as bits
from helpers.run_folders import summary
from omegaconf import OmegaConf

from mnist_exp.data.images import DataSet
from mnist_exp.report import figures, report
from mnist_exp.store import run_folder
from mnist_exp.store.ledger import Ledger
from mnist_exp.sweep import jobs, preflight, template
from mnist_exp.sweep import launch as sweep_launch
from mnist_exp.system import errors, files
from mnist_exp.training.run import TrainingRun

Run = Callable[..., Outcome]
QUICK = [word for word in TINY if not word.startswith("plots")]
SEEDS = [*QUICK, "seed=0,1,2"]


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's pictures take seconds, and have tests of their own."""
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def sweep_folder(tmp_path: Path) -> Path:
    (path,) = tmp_path.glob("multirun/*/*/ledger.jsonl")
    return path.parent


def statuses(folder: Path) -> dict[int, str]:
    return {number: job.status for number, job in Ledger(folder).read()[1].items()}


def started(folder: Path) -> list[int]:
    """The jobs in the order in which they were started, each time that they were."""
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line["job"] for line in lines if line.get("status") == "running"]


@pytest.mark.pictures
def test_what_a_sweep_leaves(run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *QUICK, "optimizer=adam,sgd", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert "4 jobs: optimizer (2) x seed (2)" in outcome.out
    assert "4/4" in outcome.out
    folder = sweep_folder(tmp_path)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "0", "1", "2", "3", "ledger.jsonl", "multirun.yaml", "plots", "report.html", "report.md", "results.csv"
    }  # fmt: skip
    assert {path.name for path in (folder / "0").iterdir()} == {
        ".hydra", "train.log", "metrics.csv", "summary.json", "predictions.npz", "checkpoints"
    }  # fmt: skip
    session, jobs = Ledger(folder).read()[0][0], Ledger(folder).read()[1]
    assert {"command", "versions", "git", "machine"} <= session.keys()
    assert [job.overrides[-2:] for job in jobs.values()] == [
        (f"optimizer={optimizer}", f"seed={seed}") for optimizer in ("adam", "sgd") for seed in (0, 1)
    ]
    for number, job in jobs.items():
        facts = summary(folder / str(number))
        assert (job.status, job.value, job.config_id) == ("completed", facts["best_val_loss"], facts["config_id"])
    assert jobs[0].arm == jobs[1].arm != jobs[2].arm == jobs[3].arm


@pytest.mark.parametrize(
    ("seeds", "basis"),
    [(["data.seed=0,1", "seed=0,1"], "4 runs in 2 splits"), (["data.seed=3,5", "seed=${data.seed}"], "2 splits")],
)
def test_runs_of_several_splits_are_one_arm(seeds: list[str], basis: str, run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *QUICK, *seeds)
    assert outcome.code == 0, outcome.err
    jobs = Ledger(sweep_folder(tmp_path)).read()[1].values()
    assert len({job.arm for job in jobs}) == 1
    assert len({job.config_id for job in jobs}) == len(jobs)
    assert basis in outcome.out
    lines = (sweep_folder(tmp_path) / "results.csv").read_text().splitlines()
    assert lines[0].startswith("number,config_id,data.seed,seed,status,")


def test_pictures_of_jobs_are_made_when_asked_for(run: Run, tmp_path: Path) -> None:
    assert run("-m", *QUICK, "plots=true").code == 0
    assert (sweep_folder(tmp_path) / "0" / "plots" / "curves.png").exists()


def test_a_dry_run_lists_the_jobs_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    outcome = run("-m", *QUICK, "optimizer.lr=0.1,0.01", "hydra.sweeper.dry_run=true")
    assert outcome.code == 0
    assert [line.split()[-1] for line in outcome.out.splitlines()[1:]] == ["optimizer.lr=0.1", "optimizer.lr=0.01"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_sweep_syntax_of_hydra(run: Run) -> None:
    def jobs(*words: str) -> list[list[str]]:
        outcome = run("-m", *words, "hydra.sweeper.dry_run=true")
        assert outcome.code == 0, outcome.err
        return [line.split() for line in outcome.out.splitlines()[1:]]

    assert jobs("seed=range(0,3)") == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert jobs("seed=choice(4,2)", "epochs=3") == [["seed=4", "epochs=3"], ["seed=2", "epochs=3"]]
    assert jobs("data=glob(*mnist,exclude=[e*,f*])") == [["data=kmnist"], ["data=mnist"], ["data=qmnist"]]
    assert sorted(jobs("seed=shuffle(range(0,4))")) == [[f"seed={seed}"] for seed in range(4)]
    assert jobs("model.hidden_layers=[8],[8,8]") == [["model.hidden_layers=[8]"], ["model.hidden_layers=[8,8]"]]
    kept = jobs(
        "experiment=activations", "seed=7", "hydra.sweeper.trials=0"
    )  # of the keys in the file, the command may change some
    assert (len(kept), kept[1]) == (9, ["activation=sigmoid", "seed=7", "experiment=activations"])
    assert jobs() == [[]]


@pytest.mark.slow
def test_jobs_that_share_the_work_of_composing_are_composed_as_any_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configs(folder: str) -> list[str]:
        run("-m", *QUICK, "epochs=1", "data.seed=1", "seed=1,12,3", f"hydra.sweep.dir={tmp_path / folder}")
        written = [path.read_text() for path in sorted(tmp_path.glob(f"{folder}/*/.hydra/*.yaml"))]
        return [text.replace(folder, "") for text in written]

    shared = configs("shared")
    monkeypatch.setattr(template, "is_value", lambda word: False)
    assert len(shared) == 9
    assert shared == configs("single")


@pytest.mark.slow
def test_a_sweep_with_a_ledger_of_version_2_is_resumed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    shutil.copy(ROOT / "tests/ledgers/version_2.jsonl", tmp_path / "it/ledger.jsonl")
    outcome = run("-m", "resume=it", "hydra.sweeper.allow_changed=true")
    assert outcome.code == 0, outcome.err
    sessions, jobs = Ledger(tmp_path / "it").read()
    assert [session["ledger"] for session in sessions] == [2, 3]
    # Job 1 was running when its process died: that it was interrupted is its first attempt.
    assert [(job.status, job.attempt) for job in jobs.values()] == [("completed", 1), ("completed", 2)]


def test_equal_choices_run_once(run: Run, tmp_path: Path) -> None:
    assert run("-m", *QUICK, "optimizer.lr=0.1,1e-1,0.10").code == 0
    assert statuses(sweep_folder(tmp_path)) == {0: "completed"}
    lines = run("-m", "optimizer.lr=0.1,1e-1", "seed=0,0,1", "hydra.sweeper.dry_run=true").out.splitlines()
    assert lines[0] == "4 of 6 jobs repeat others; equal ones run once"
    assert len(lines) == 4


@pytest.mark.slow
def test_nothing_is_left_to_do_for_a_finished_sweep(run: Run, tmp_path: Path) -> None:
    run("-m", *SEEDS)
    folder = sweep_folder(tmp_path)
    before = (folder / "ledger.jsonl").read_bytes()
    for again in (["resume=latest"], [f"resume={folder}"], [*SEEDS, f"hydra.sweep.dir={folder}"]):
        outcome = run("-m", *again)
        assert outcome.code == 0, outcome.err
        assert "3 of 3 jobs are completed, 0 to run" in outcome.out
    assert (folder / "ledger.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["multirun"]


@pytest.mark.slow
def test_an_extended_grid_runs_the_new_points_under_new_numbers(run: Run, tmp_path: Path) -> None:
    run("-m", *QUICK, "optimizer=adam,sgd", "seed=0,1")
    folder = sweep_folder(tmp_path)
    before = {number: (folder / str(number) / "metrics.csv").read_bytes() for number in range(4)}
    assert run("-m", *QUICK, "seed=1,2", "optimizer=sgd,adam,rmsprop", f"hydra.sweep.dir={folder}").code == 0
    assert started(folder) == list(range(8))
    assert {number: (folder / str(number) / "metrics.csv").read_bytes() for number in range(4)} == before
    new = [Ledger(folder).read()[1][number].choices for number in range(4, 8)]
    assert [(choices["seed"], choices["optimizer"]) for choices in new] == [
        (1, "rmsprop"),
        (2, "sgd"),
        (2, "adam"),
        (2, "rmsprop"),
    ]


def fail_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in which a job is known to fail, by its seed; seed 0 completes."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def run_away() -> None:
        raise FloatingPointError("the loss became nan")

    def bug() -> None:
        raise KeyError("a bug")

    def no_memory() -> None:
        raise MemoryError("too large")

    def leave() -> None:
        os._exit(3)

    ways = [lambda: None, kill, run_away, bug, no_memory, leave]
    start = TrainingRun.start

    def spoiled(self: TrainingRun, *parts: Any) -> None:
        seed = self.summary["seed"]
        assert seed is not None
        ways[seed]()
        start(self, *parts)

    monkeypatch.setattr(TrainingRun, "start", spoiled)


def test_failures_are_told_and_the_rest_runs_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_by_seed(monkeypatch)
    outcome = run("-m", *QUICK, "seed=1,2,3,4,5,0")
    assert outcome.code == 1
    folder = sweep_folder(tmp_path)
    assert statuses(folder) == dict.fromkeys(range(5), "failed") | {5: "completed"}
    jobs = Ledger(folder).read()[1]
    errors = ["killed by SIGKILL: memory ran out", "the loss became nan", "'a bug'", "too large", "exit code 3"]
    for number, error in enumerate(errors):
        assert error in str(jobs[number].error)
    causes = [None, "diverged", "error", "out of memory", "error"]  # only the first has a cause outside the job
    assert [jobs[number].failure for number in range(5)] == causes
    assert [summary(folder / str(number))["failure"] for number in (1, 2, 3)] == causes[1:4]
    assert "1 of 6; 1 diverged, 2 failed, 1 ran out of memory" in outcome.out
    assert "5 of 6 jobs failed" in outcome.out
    for seed in range(1, 6):
        assert f"      python train.py {' '.join(QUICK[:3])} 'model.hidden_layers=[16]' epochs=2 seed={seed}\n" in (
            outcome.out
        )
    assert "Traceback" not in outcome.out + outcome.err
    assert "Traceback" in (folder / "2" / "train.log").read_text()

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = run("-m", "resume=latest")
    assert (again.code, len(started(folder))) == (1, 6)  # a failed job is tried again only when asked
    assert run("-m", "resume=latest", "hydra.sweeper.retry_failed=true").code == 0
    assert set(statuses(folder).values()) == {"completed"}
    assert started(folder)[6:] == [0, 1, 2, 3, 4]
    assert "Traceback" in (folder / "2" / "train.log").read_text()  # what the first attempt said stays


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (FloatingPointError("the loss became nan"), "diverged"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out of memory"),
        (ZeroDivisionError(), "error"),
        (errors.ConfigError("a key"), "error"),
        (OSError(errno.ENOSPC, "No space left on device", "metrics.csv"), None),
        (PermissionError(errno.EACCES, "Permission denied", "metrics.csv"), None),
        (errors.FusedGroupError("of one of them, or all"), None),
    ],
)
@pytest.mark.parametrize(
    "may_write", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["summary", "no summary"]
)
def test_how_a_run_failed(
    error: Exception, failure: str | None, may_write: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TrainingRun, *_: object) -> None:
        self._may_write = may_write
        raise error

    monkeypatch.setattr(TrainingRun, "start", fail)
    assert run("-m", *QUICK).code == 1
    folder = sweep_folder(tmp_path)
    (job,) = Ledger(folder).read()[1].values()
    assert (job.status, job.failure) == ("failed", failure)
    assert (folder / "0" / "summary.json").exists() is may_write


@pytest.mark.parametrize(
    ("number", "failure"),
    [(signal.SIGKILL, None), (signal.SIGSEGV, "error"), pytest.param(signal.SIGABRT, "error", marks=pytest.mark.slow)],
)
def test_a_crash_is_a_runs_own_doing_and_a_kill_is_not(
    number: int, failure: str | None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        faulthandler.disable()  # pytest's, or it would show where
        os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingRun, "start", die)
    assert run("-m", *QUICK).code == 1
    (job,) = Ledger(sweep_folder(tmp_path)).read()[1].values()
    assert f"killed by {signal.Signals(number).name}" in str(job.error)
    assert job.failure == failure


@pytest.mark.slow
def test_summaries_and_ledgers_of_before_failures_had_causes_are_read(run: Run, tmp_path: Path) -> None:
    run("-m", *QUICK, "optimizer=sgd", "optimizer.lr=0.1,1e15")
    folder = sweep_folder(tmp_path)
    for path in folder.glob("*/summary.json"):
        facts = files.unseal(path.read_text())
        del facts["failure"]
        path.write_text(files.seal(facts))
    path = folder / "ledger.jsonl"
    lines = files.unseal_lines(path.read_bytes().splitlines())
    path.write_text("".join(files.seal({k: v for k, v in line.items() if k != "failure"}) + "\n" for line in lines))
    summaries = [run_folder.read_summary(folder / str(number)) for number in (0, 1)]
    assert [run["failure"] for run in summaries if run] == [None, None]
    assert [(job.status, job.failure) for job in Ledger(folder).read()[1].values()] == [
        ("completed", None), ("failed", None)
    ]  # fmt: skip
    assert "lr=0.1 reaches" in report.write([folder])


def test_a_sweep_may_stop_at_the_first_failure(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_by_seed(monkeypatch)
    outcome = run("-m", *QUICK, "seed=0,2,6,7", "hydra.sweeper.stop_on_failure=true")
    folder = sweep_folder(tmp_path)
    assert outcome.code == 1
    assert list(statuses(folder).values()) == ["completed", "failed", "pending", "pending"]
    assert not (folder / "2").exists()
    assert f"to resume: python train.py -m resume={folder.relative_to(tmp_path)}" in outcome.out


@pytest.mark.slow
def test_a_job_that_can_not_be_composed_stops_the_sweep_before_it_begins(run: Run, tmp_path: Path) -> None:
    for bad, message in (
        ("optimizer=adam,nosuch", "optimizer=nosuch: no such option"),
        ("optimizer.nosuch=1,2", "optimizer.nosuch=1: optimizer=adam has no key nosuch, choose from"),
        ("nosuch=1,2", "nosuch"),
        ("optimizer.lr=0.1,-1", "optimizer.lr=-1: must be more than 0"),
        ("epochs=1,many", "epochs"),
        ("data.batch_size=32,1301", "data.batch_size=1301: must be 1 to 1,300, the number of training images (in the "),
        ("activation=relu,prelu activation.num_parameters=7", "activation.num_parameters"),
        ("data.root=. data=digits,mnist data.validation=60000", "data.validation=60000"),
    ):
        outcome = run("-m", *QUICK, *bad.split())
        assert outcome.code == 1
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=range(0,0)"], "seed: has no values, so the sweep has no jobs"),
        (
            ["seed=range(0,200)", "epochs=range(1,101)"],
            "more than 10,000 jobs; hydra.sweeper.max_jobs=N allows that many",
        ),
        (["seed=range(0,1000000000)"], "more than 10,000 jobs"),
        (["optimizer.lr=interval(0,1)"], "takes a list of values"),
        (["resume=nowhere"], "resume=nowhere: no such folder"),
        (["resume=latest"], "resume=latest: no sweep under"),
        (["resume="], "resume=: no such folder"),
        (["resume=a,b"], "resume=a,b: takes the folder of one sweep"),
        (["hydra.sweep.subdir=mine"], "hydra.sweep.subdir: can't be changed"),
        (["seed=0,1", "hydra.sweeper.max_jobs=-1"], "hydra.sweeper.max_jobs=-1: must be 1 or more"),
        (["resume=."], "this is not a sweep of this program: it has no ledger.jsonl"),
        (["hydra.sweeper.nosuch=1"], "nosuch"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], message: str, run: Run) -> None:
    outcome = run("-m", *words)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_resume_takes_sweeps_of_this_program_alone(run: Run, tmp_path: Path) -> None:
    (single,) = run(*TINY).folders
    assert "a single run; without -m, python train.py resume=" in run("-m", f"resume={single}").err
    (single / "ledger.jsonl").write_text(files.seal({"time": "", "program": "another"}) + "\n")
    assert "not the ledger of a sweep by mnist_exp" in run("-m", f"resume={single}").err
    assert "a sweep; python train.py -m resume=" in run(f"resume={single}").err


def altered(whole: str, *changes: tuple[str, str], without: str = "never") -> str:
    """A ledger with other words in its lines, as if they had been written so."""
    lines = [json.dumps(line) for line in files.unseal_lines(whole.encode().splitlines())]
    for before, after in changes:
        lines = [re.sub(before, after, line) for line in lines]
    return "".join(files.seal(json.loads(line)) + "\n" for line in lines if without not in line)


@pytest.mark.slow
def test_resume_keeps_to_what_the_sweep_was_begun_with(run: Run, tmp_path: Path) -> None:
    run("-m", *SEEDS)
    path = sweep_folder(tmp_path) / "ledger.jsonl"
    for word in ("optimizer=sgd", "device=cpu,cuda"):
        assert f"{word}: a resumed sweep keeps its configs" in run("-m", "resume=latest", word).err

    whole, last_job = path.read_text(), '"job": 2'
    other_torch = ('"torch": "', '"torch": "1.')
    again = [*SEEDS, f"hydra.sweep.dir={path.parent}"]

    path.write_text(altered(whole, other_torch, without=last_job))
    outcome = run("-m", *again)
    assert outcome.code == 1
    assert "started with other versions: torch was 1." in outcome.err

    ids = {job.config_id: job.config_id[::-1] for job in Ledger(path.parent).read()[1].values()}
    other_lr = [('"completed"', '"interrupted"'), ('"optimizer.lr": 0.001', '"optimizer.lr": 7.0'), *ids.items()]
    path.write_text(altered(whole, *other_lr))
    outcome = run("-m", *again)
    assert outcome.code == 1
    assert "another config: optimizer.lr was 7.0 and is 0.001" in outcome.err

    path.write_text(altered(whole, ('"new": 3', '"new": 4'), without=last_job))
    assert "a crash tore its list of jobs" in run("-m", "resume=latest").err

    path.write_text(altered(whole, ('"data": "(?=[0-9a-f]{64})', '"data": "0'), without=last_job))
    outcome = run("-m", *again)
    assert outcome.code == 1
    assert "was trained on other data" in outcome.err

    path.write_text(altered(whole, other_torch, without=last_job))
    assert run("-m", *again, "hydra.sweeper.allow_changed=true").code == 0
    assert set(statuses(path.parent).values()) == {"completed"}


@pytest.mark.slow
def test_a_summary_of_another_job_makes_no_job_completed(run: Run, tmp_path: Path) -> None:
    run("-m", *SEEDS)
    folder = sweep_folder(tmp_path)
    expected, path = bits(folder / "1"), folder / "ledger.jsonl"
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if not ('"job": 1,' in line and '"completed"' in line)))
    (folder / "1" / "summary.json").write_bytes((folder / "0" / "summary.json").read_bytes())
    assert run("-m", "resume=latest").code == 0
    assert started(folder) == [0, 1, 2, 1]
    assert bits(folder / "1") == expected


@pytest.mark.slow
def test_a_sweep_that_runs_is_left_alone(run: Run, tmp_path: Path) -> None:
    run("-m", *SEEDS)
    folder = sweep_folder(tmp_path)
    for lock in (files.locked(folder / ".lock"), files.locked(folder / ".running", shared=True)):
        with lock:
            outcome = run("-m", "resume=latest")
        assert outcome.code == 1
        assert "another process is working on this sweep" in outcome.err


@pytest.mark.slow
def test_the_latest_sweep_is_that_at_which_work_went_on_last(run: Run, tmp_path: Path) -> None:
    for name in ("multirun/z/9", "multirun/a", "multirun/b/1/2"):
        run("-m", *QUICK, "epochs=1", f"hydra.sweep.dir={name}")
    assert "multirun/b/1/2: 1 of 1 jobs are completed" in run("-m", "resume=latest").out
    (tmp_path / "multirun/z/9/ledger.jsonl").touch()
    assert "multirun/z/9: 1 of 1 jobs are completed" in run("-m", "resume=latest").out


def test_a_job_may_change_the_directory(run: Run, tmp_path: Path) -> None:
    assert run("-m", *QUICK, "seed=0,1", "hydra.job.chdir=true").code == 0
    assert statuses(sweep_folder(tmp_path)) == {0: "completed", 1: "completed"}


def test_what_goes_wrong_around_a_job_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory() -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(preflight, "run_in_subprocess", lambda work: work())
    monkeypatch.setattr(os, "fork", no_memory)
    outcome = run("-m", *QUICK, "seed=0,1")
    assert outcome.code == 1
    assert statuses(sweep_folder(tmp_path)) == {0: "failed", 1: "failed"}
    assert "seed=1: [Errno 12] Cannot allocate memory" in outcome.out


@pytest.mark.slow
def test_where_there_is_no_fork_jobs_run_in_the_sweeps_process(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = undisturbed(run, *SEEDS)
    monkeypatch.setattr(jobs, "CAN_FORK", False)
    run("-m", *SEEDS, "hydra.sweep.dir=it")
    assert {number: bits(Path("it", str(number))) for number in range(3)} == forked


def test_a_long_error_does_not_hang_the_sweep(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("x" * 200_000)

    monkeypatch.setattr(TrainingRun, "start", fail)
    assert run("-m", *QUICK).code == 1


def test_a_report_that_can_not_be_written_hides_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.md")

    fail_by_seed(monkeypatch)
    monkeypatch.setattr(report, "write", full)
    outcome = run("-m", *QUICK, "seed=0,1")
    assert outcome.code == 1
    assert "1 of 2 jobs failed" in outcome.out
    assert "no report: report.md: No space left on device" in outcome.out


@pytest.mark.slow
def test_a_mended_option_replaces_the_job_that_failed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = tmp_path / "mine" / "optimizer" / "mine.yaml"
    option.parent.mkdir(parents=True)
    words = ["-m", f"--config-dir={tmp_path / 'mine'}", *QUICK, "optimizer=mine", "seed=0,1", "hydra.sweep.dir=it"]
    option.write_text("_target_: torch.optim.SGD\nlr: 1.0e+30\n")
    outcome = run(*words)
    assert outcome.code == 1
    assert f"python train.py --config-dir={tmp_path / 'mine'} data=digits" in outcome.out
    option.write_text("_target_: torch.optim.SGD\nlr: 0.1\n")
    assert "optimizer.lr was 1e+30 and is 0.1" in run(*words).err
    assert run(*words, "hydra.sweeper.allow_changed=true").code == 0
    assert statuses(Path("it")) == {0: "replaced", 1: "replaced", 2: "completed", 3: "completed"}
    assert run(*words).code == 0


def test_a_damaged_ledger_is_told_by_its_line(run: Run, tmp_path: Path) -> None:
    run("-m", *SEEDS)
    path = sweep_folder(tmp_path) / "ledger.jsonl"
    lines = path.read_text().splitlines(True)
    path.write_text("".join([*lines[:2], "rubbish\n", *lines[2:]]))
    outcome = run("-m", "resume=latest")
    assert outcome.code == 1
    assert "ledger.jsonl: line 3 is damaged" in outcome.err


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "-m", *words]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)


def undisturbed(run: Run, *words: str) -> dict[int, tuple[Any, ...]]:
    """The results of each job of the sweep when nothing disturbs it."""
    run("-m", *words, "hydra.sweep.dir=undisturbed")
    return {number: bits(Path("undisturbed", str(number))) for number in statuses(Path("undisturbed"))}


needs_joblib = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="the extra `parallel`"
)
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
LAUNCHERS = [[], pytest.param(JOBLIB, marks=[pytest.mark.slow, needs_joblib])]


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["plain", "joblib"])
@pytest.mark.parametrize("to_the_group", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["terminal", "kill"])
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_sweep_cleanly(launcher: list[str], to_the_group: bool, number: int, tmp_path: Path) -> None:
    words = [*QUICK, "epochs=300", "seed=range(0,6)"]
    sweep = subprocess.Popen(
        command(*words, *launcher, "hydra.sweep.dir=it"), cwd=tmp_path, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    folder = tmp_path / "it"
    at_once = 2 if launcher else 1  # all that run are well under way
    wait_for(lambda: sum(len(path.read_text().splitlines()) > 3 for path in folder.glob("*/metrics.csv")) == at_once)
    (os.killpg if to_the_group else os.kill)(sweep.pid, number)
    out, err = sweep.communicate(timeout=300)
    assert (sweep.returncode, err) == (128 + number, ""), err
    assert "to resume: python train.py -m resume=it" in out
    assert (folder / "report.md").exists()
    found = statuses(folder)
    assert set(found.values()) == {"interrupted", "pending"}, out
    for job, status in found.items():
        if status == "interrupted":
            assert summary(folder / str(job))["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_a_job_without_a_folder_fails_alone(launcher: str, run: Run) -> None:
    run("-m", *SEEDS, "hydra.sweep.dir=it")
    folder = Path("it")
    ledger = Ledger(folder).path
    introduced = [line for line in ledger.read_text().splitlines() if '"job"' not in line or "pending" in line]
    ledger.write_text("".join(f"{line}\n" for line in introduced))
    for job in folder.glob("[0-9]*"):
        shutil.rmtree(job)
    (folder / "1" / "train.log" / "full").mkdir(parents=True)
    (folder / "2").touch()
    outcome = run("-m", "resume=it", f"hydra/launcher={launcher}")
    assert outcome.code == 1
    found = Ledger(folder).read()[1]
    failed = {number: job.error for number, job in found.items() if job.status == "failed"}
    assert failed == {1: "it/1/train.log: Is a directory", 2: "it/2: File exists"}
    assert all(job.status == "completed" for number, job in found.items() if number not in failed)


@pytest.mark.slow
@needs_joblib
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_workers_begin(number: int, tmp_path: Path) -> None:
    sweep = subprocess.Popen(
        command(*SEEDS, *JOBLIB), cwd=tmp_path, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children")
    wait_for(lambda: len(children.read_text().split()) > 2)  # joblib's tracker and two workers
    os.killpg(sweep.pid, number)
    _, err = sweep.communicate(timeout=300)
    assert (sweep.returncode, err) == (128 + number, "")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["plain", "joblib"])
def test_a_job_that_is_killed_from_outside_is_one_failed_job(launcher: list[str], tmp_path: Path) -> None:
    sweep = subprocess.Popen(
        command(*QUICK, "epochs=40", "seed=range(0,5)", *launcher, "hydra.sweep.dir=it"), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    folder = tmp_path / "it"
    wait_for((folder / "1" / "metrics.csv").exists)
    worker = next(job.pid for job in Ledger(folder).read()[1].values() if job.number == 1)
    (child,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    out, err = sweep.communicate(timeout=300)
    assert (sweep.returncode, err) == (1, ""), err
    assert statuses(folder) == dict.fromkeys(range(5), "completed") | {1: "failed"}
    assert "seed=1: killed by SIGKILL: memory ran out, or another process killed it" in out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["plain", "joblib"])
def test_what_outlives_a_killed_sweep_does_not_disturb_its_resume(launcher: list[str], tmp_path: Path) -> None:
    words = [*QUICK, "epochs=100", "seed=range(0,6)", *launcher, "hydra.sweep.dir=it"]
    sweep = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL)
    folder = tmp_path / "it"
    wait_for(lambda: any(len(path.read_text().splitlines()) > 3 for path in folder.glob("*/metrics.csv")))
    sweep.kill()  # it alone, and not the jobs
    sweep.wait()

    def resume() -> bool:
        again = subprocess.run(command("resume=it", *launcher), cwd=tmp_path, capture_output=True, text=True)
        assert again.returncode == 0 or "another process is working" in again.stderr, again.stdout + again.stderr
        return again.returncode == 0

    wait_for(resume)
    assert completed_once(folder, 6)


@pytest.mark.slow
@needs_joblib
def test_a_worker_that_is_killed_takes_no_job_with_it(tmp_path: Path) -> None:
    words = [*QUICK, "epochs=60", "seed=range(0,4)", *JOBLIB]
    sweep = subprocess.Popen(
        command(*words, "hydra.sweep.dir=it"), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    folder = tmp_path / "it"
    wait_for(lambda: (folder / "0" / "metrics.csv").exists() and (folder / "1" / "metrics.csv").exists())
    worker = Ledger(folder).read()[1][0].pid
    assert worker
    os.kill(worker, signal.SIGKILL)
    out, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out
    assert statuses(folder) == dict.fromkeys(range(4), "completed")


def kill_and_resume(words: list[str], moments: list[int], folder: Path) -> None:
    """Kill the sweep, with all its processes, so many epochs after it goes on with its jobs; in the end let it be."""
    resume = ["hydra.sweep.dir=it", *words]
    for moment in moments:
        jobs_before, epochs_before = jobs_begun(folder), epochs_trained(folder)
        sweep = subprocess.Popen(
            command(*resume), cwd=folder.parent, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_for(lambda: jobs_begun(folder) > jobs_before)  # noqa: B023  # used before they change
        wait_for(lambda: epochs_trained(folder) >= epochs_before + moment)  # noqa: B023
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
        assert sweep.returncode == -signal.SIGKILL, "the sweep was over before it could be killed"
        resume = ["resume=it"]
    last = subprocess.run(command("resume=it"), cwd=folder.parent, capture_output=True, text=True)
    assert last.returncode == 0, last.stdout + last.stderr


def jobs_begun(folder: Path) -> int:
    try:
        return len(started(folder))
    except (OSError, ValueError):  # the ledger is being written, or not there yet
        return 0


def epochs_trained(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") - 1 for path in folder.glob("*/metrics.csv"))


def completed_once(folder: Path, count: int) -> bool:
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return sorted(line["job"] for line in lines if line.get("status") == "completed") == list(range(count))


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(run: Run, tmp_path: Path) -> None:
    words = [*QUICK, "epochs=10", "optimizer=adam,sgd", "seed=range(0,3)"]
    kill_and_resume(words, [2], tmp_path / "it")
    assert completed_once(tmp_path / "it", 6)
    assert {n: bits(tmp_path / "it" / str(n)) for n in range(6)} == undisturbed(run, *words)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS, ids=["plain", "joblib"])
def test_a_sweep_survives_many_kills(launcher: list[str], run: Run, tmp_path: Path) -> None:
    words = [*QUICK, "epochs=30", "optimizer=adam,sgd", "activation=relu,tanh", "seed=range(0,3)", *launcher]
    moments = [(7 * number) % 10 for number in range(4 if launcher else 10)]
    kill_and_resume(words, moments, tmp_path / "it")
    assert completed_once(tmp_path / "it", 12)
    assert {n: bits(tmp_path / "it" / str(n)) for n in range(12)} == undisturbed(run, *words)


def test_the_data_are_loaded_once_for_all_jobs(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mnist_exp.data import sources

    digits, calls = sources.digits, tmp_path / "calls"

    def counted(root: str) -> DataSet:
        with open(calls, "a") as file:
            file.write("once ")
        return digits(root)

    counted.__module__, counted.__qualname__ = "mnist_exp.data.sources", "digits"
    monkeypatch.setattr(sources, "digits", counted)
    run("-m", *SEEDS)
    assert calls.read_text() == "once "


def test_hydra_keeps_no_configs_of_jobs_that_are_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a sweep of 10,000 jobs would take 1.8 GB."""
    plain = sweep_launch._launch_once
    kept: list[Any] = []

    def listen(launcher: Any, *more: Any) -> Any:
        launch = launcher.launch

        def launch_and_keep(*arguments: Any, **named: Any) -> list[Any]:
            kept.extend(launch(*arguments, **named))
            return kept

        launcher.launch = launch_and_keep
        return plain(launcher, *more)

    monkeypatch.setattr(sweep_launch, "_launch_once", listen)
    assert run("-m", *SEEDS).code == 0
    assert [(job.return_value is not None, job.cfg, job.hydra_cfg) for job in kept] == 3 * [(True, None, None)]


def test_jobs_at_once_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 8)
    for at_once, asked, threads in ((1, 8, 8), (2, 8, 4), (3, 1, 1), (20, 2, 1)):
        cfg = OmegaConf.create({"threads": asked, "device": "auto"})
        jobs._share_the_machine(cfg, lambda: None, at_once)
        assert (cfg.threads, cfg.device) == (threads, "auto")


GPU_IS_LEFT = """
import os, runpy, sys, torch
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(torch.cuda._is_in_bad_fork())
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_a_sweep_leaves_gpus_to_its_jobs(launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has asked CUDA for anything has no children that can use it."""
    words = ["-m", *SEEDS, "device=cpu", f"hydra/launcher={launcher}"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # conftest.py has set it
    command = [sys.executable, "-c", GPU_IS_LEFT, str(ROOT / "train.py"), *words]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
