"""The Slurm of the tests itself."""

from pathlib import Path

import pytest
from slurm.cluster import Cluster

pytestmark = pytest.mark.slurm


def test_a_job_runs_and_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    command = f"echo $SLURM_RESTART_COUNT >> {tmp_path}/starts; sleep 60"
    job = cluster.submit("--requeue", command=command)
    cluster.wait_until(lambda: (tmp_path / "starts").exists())
    cluster.call("scontrol", "requeue", job)
    cluster.wait_until(lambda: (tmp_path / "starts").read_text() == "\n1\n")
    cluster.call("scancel", job)
    cluster.wait_until(lambda: not cluster.call("squeue", "--noheader"))
