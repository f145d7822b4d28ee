"""Sweeps with hydra/launcher=fused, as a user meets them."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Outcome
from helpers.run_folders import learned, summary
from omegaconf import OmegaConf

from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.report import figures
from mnist_exp.store.ledger import Job, Ledger
from mnist_exp.sweep.launchers import grouping
from mnist_exp.system import resources

Run = Callable[..., Outcome]
TINY_JOB = [override for override in TINY if not override.startswith("plots")]  # a sweep's report has no say in them
FUSED = ["-m", *TINY_JOB, "hydra/launcher=fused"]
SWEEP = [*FUSED, "hydra.sweep.dir=sweep"]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fused groups at a time, and no figures in the report, which take seconds."""
    monkeypatch.setattr(resources, "cores", lambda: 2)
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def jobs() -> dict[int, Job]:
    return Ledger(Path("sweep")).read()[1]


def statuses() -> dict[int, str]:
    return {number: job.status for number, job in jobs().items()}


@pytest.mark.slow
def test_every_job_keeps_a_folder_as_if_it_were_alone(run: Run) -> None:
    outcome = run(*SWEEP, "activation=relu,tanh", "seed=0,1,2")
    assert outcome.code == 0, outcome.err
    assert "3 jobs are trained as one (activation=relu)" in outcome.out
    for number in (0, 5):
        fused, alone = Path("sweep", str(number)), Path("alone", str(number))
        overrides = [
            str(word) for word in OmegaConf.load(fused / ".hydra" / "overrides.yaml") if "hydra" not in str(word)
        ]
        assert run(*overrides, "plots=false", f"hydra.run.dir={alone}").code == 0
        files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (fused, alone)]
        assert files[0] == files[1]
        assert OmegaConf.load(fused / ".hydra" / "hydra.yaml").hydra.job.num == number
        ours, theirs = summary(fused), summary(alone)
        same = ("status", "config_id", "seed", "parameters", "epochs", "best_epoch", "device", "threads", "data")
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
        assert ours["best_val_loss"] == pytest.approx(theirs["best_val_loss"], rel=1e-4)
        assert [path.stat().st_size for path in fused.glob("checkpoints/*")] == pytest.approx(
            [path.stat().st_size for path in alone.glob("checkpoints/*")], abs=300
        )


@pytest.mark.slow
def test_the_same_groups_give_the_same_bits(run: Run) -> None:
    words = [*FUSED, "optimizer.lr=0.01,0.001", "seed=0,1", "model.dropout=0.2", "hydra.launcher.max_models=2"]
    for folder in ("one", "two"):
        assert run(*words, f"hydra.sweep.dir={folder}").code == 0
    for number in range(4):
        assert learned(Path("one", str(number))) == learned(Path("two", str(number)))


def test_a_run_that_diverges_stops_no_other(run: Run) -> None:
    outcome = run(*SWEEP, "activation=relu", "seed=0,1", "optimizer.lr=0.01,1e30")
    assert outcome.code == 1
    failed = ("failed", "diverged")
    found = {number: (job.status, job.failure) for number, job in jobs().items()}
    assert found == {0: ("completed", None), 1: failed, 2: ("completed", None), 3: failed}
    message = "the loss became nan at epoch 1, step 2: a smaller optimizer.lr usually helps"
    assert message in outcome.out
    assert summary(Path("sweep/3"))["failure"] == "diverged"
    assert f"FloatingPointError: {message}" in Path("sweep/3/train.log").read_text()


def test_a_job_like_no_other_runs_on_its_own(run: Run) -> None:
    outcome = run(*SWEEP, "data.batch_size=20,30")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("1 job runs on its own") == 2
    assert statuses() == {0: "completed", 1: "completed"}


def test_a_dry_run_shows_the_groups(run: Run) -> None:
    outcome = run(*SWEEP, "seed=0,1,2", "hydra.sweeper.dry_run=true")
    assert "3 jobs are trained as one" in outcome.out
    assert not Path("sweep").exists()


@pytest.mark.slow
def test_groups_resume_after_an_interruption(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*FUSED, "epochs=4", "optimizer.lr=0.01,0.001", "seed=0,1", "model.dropout=0.2"]
    assert run(*words, "hydra.sweep.dir=undisturbed").code == 0
    train_epoch = FusedTrainer.train_epoch

    def interrupted(self: FusedTrainer, epoch: int) -> Any:
        if epoch == 3:
            signal.raise_signal(signal.SIGTERM)
        return train_epoch(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(FusedTrainer, "train_epoch", interrupted)
        assert run(*words, "hydra.sweep.dir=sweep").code == 143
    assert set(statuses().values()) == {"interrupted"}
    assert run("-m", "resume=sweep", "hydra/launcher=fused").code == 0
    for number in range(4):
        assert learned(Path("sweep", str(number))) == learned(Path("undisturbed", str(number)))
        assert summary(Path("sweep", str(number)))["resumed"] == [{"after_epoch": 2, "changed": {}}]


def test_an_error_of_the_group_is_no_failure_of_a_single_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr("mnist_exp.sweep.launchers.fused_group.FusedTrainer", fail)
    assert run(*SWEEP, "seed=range(0,4)").code == 1
    assert [(job.status, job.failure) for job in jobs().values()] == [("failed", None)] * 4
    assert all("out of memory: too large" in (job.error or "") for job in jobs().values())


def test_a_group_that_does_not_fit_into_memory_trains_in_rounds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_per_model", lambda *_: 1_000_000)
    monkeypatch.setattr(resources, "free_memory", lambda _: 9_000_000)  # two in each of two groups, in half of it
    found: list[list[Sequence[int]]] = []
    rounds = grouping.rounds

    def noted(*arguments: Any) -> list[list[Sequence[int]]]:
        found.extend(rounds(*arguments))
        return found

    monkeypatch.setattr(grouping, "rounds", noted)
    outcome = run(*SWEEP, "seed=range(0,7)", "epochs=1")
    assert outcome.code == 0, outcome.err
    assert "7 models train in 2 rounds, up to 2 in a fused group" in outcome.out
    assert [[len(group) for group in groups] for groups in found] == [[1, 2], [2, 2]]
    assert set(statuses().values()) == {"completed"}


@pytest.mark.parametrize("most", [0, -5])
def test_a_group_of_no_models_is_refused(most: int, run: Run) -> None:
    outcome = run(*SWEEP, "seed=0,1", f"hydra.launcher.max_models={most}")
    assert (outcome.code, outcome.err) == (
        1, f"error: hydra.launcher.max_models={most}: must be 1 or more, or null for no limit"
    )  # fmt: skip
    assert not Path("sweep").exists()
