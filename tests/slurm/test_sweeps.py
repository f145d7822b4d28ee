"""Sweeps that a real Slurm trains: each fault once. `python -m tests.slurm` has each of them often."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm import faults
from slurm.cluster import Cluster
from slurm.faults import FAULTS, FUSED, SlurmSweep
from torture import forks

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What the jobs learn in an undisturbed sweep on one machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("undisturbed"))
        return faults.undisturbed(Path.cwd())


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmSweep:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.chdir(tmp_path)
    return SlurmSweep(cluster, tmp_path / "sweep")


def test_the_command_returns_and_the_tasks_do_the_rest(sweep: SlurmSweep, expected: dict[int, Any]) -> None:
    said = sweep.submit()
    assert "4 jobs in 2 tasks" in said
    assert sweep.queued()
    sweep.wait_for_the_end()
    assert not sweep.faults(expected)


SLOW = {faults.time_limit}  # Slurm looks every 30 s; test_launcher has it


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in SLOW])
def test_a_fault_costs_nothing(
    fault: Callable[[SlurmSweep], None], sweep: SlurmSweep, expected: dict[int, Any]
) -> None:
    assert not faults.survive(sweep, fault, expected)


def test_fused_groups_go_on_as_the_same_groups(sweep: SlurmSweep, tmp_path: Path) -> None:
    expected = faults.undisturbed(tmp_path / "undisturbed", *FUSED, "hydra/launcher=workers")
    sweep.words = tuple(FUSED)
    assert not faults.survive(sweep, faults.preempted, expected)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tasks=0", "hydra.launcher.tasks=0: must be 1 or more"),
        ("partition=nope", "Slurm refuses this: invalid partition specified: nope"),
        ("gpus_per_task=9", "Slurm refuses this: Requested node configuration is not available"),
    ],
)
def test_what_slurm_would_refuse_writes_nothing(key: str, message: str, sweep: SlurmSweep) -> None:
    ended = forks.run(*sweep.command, f"hydra.launcher.{key}")
    assert ended.is_one_line_error
    assert message in ended.err
    assert not sweep.folder.exists()
    assert not sweep.queued()


def test_each_task_has_a_gpu_of_its_own(sweep: SlurmSweep) -> None:
    sweep.words = ("hydra.launcher.gpus_per_task=1", "hydra.launcher.setup=['echo GPU $CUDA_VISIBLE_DEVICES']")
    sweep.submit()
    logs = [sweep.folder / "slurm" / f"{sweep.array}_{task}.log" for task in (0, 1)]
    sweep.cluster.wait_until(lambda: all(log.exists() and "GPU" in log.read_text() for log in logs))
    assert {line for log in logs for line in log.read_text().splitlines() if "GPU" in line} == {"GPU 0", "GPU 1"}
    sweep.cluster.call("scancel", "--user=root")
    sweep.wait_for_the_end()


def test_a_time_that_is_too_short_for_an_epoch_ends_the_task(sweep: SlurmSweep) -> None:
    ended = forks.run("-m", *faults.GRID, "hydra/launcher=workers", f"hydra.sweep.dir={sweep.folder}")
    assert ended.code == 0, ended
    command = [sys.executable, "-m", "mnist_exp", "work", str(sweep.folder), "--minutes", "0.001"]
    work = subprocess.run(command, cwd=forks.ROOT, capture_output=True, text=True)
    assert (work.returncode, "the time is too short: no epoch ended in it" in work.stdout) == (1, True), work
