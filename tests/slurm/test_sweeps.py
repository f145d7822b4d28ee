"""Sweeps that a real Slurm trains: each fault once. `python -m tests.slurm` has each of them often."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm import faults
from slurm.cluster import Cluster
from slurm.faults import FAULTS, FUSED, SlurmSweep

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What the jobs learn in an undisturbed sweep on one machine."""
    return faults.undisturbed(tmp_path_factory.mktemp("undisturbed"))


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
