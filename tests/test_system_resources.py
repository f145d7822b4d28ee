"""How much memory is free, and what is refused where it is not enough."""

import os
import sys
from pathlib import Path

import pytest

from mnist_exp.system import resources


def test_the_memory_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    everything = resources.free_memory("cpu")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < everything < total or (everything == resources.UNKNOWN and sys.platform != "linux")
    for name, text in (
        ("memory.max", "5000"),
        ("memory.current", "4000"),
        ("memory.stat", "anon 3\ninactive_file 500"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(resources, "OWN_GROUP", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("4:memory:/some\n0::/\n")
    assert resources.free_memory("cpu") == 1500
    (tmp_path / "memory.max").write_text("max")
    assert resources.free_memory("cpu") > 1500
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 70000\necho 30000\n")  # two GPUs, MiB
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert resources.free_memory("cuda") == 30000 * 2**20
    answer = '#!/bin/sh\ncase "$*" in *--id=GPU-7*) echo 50000;; *--id=*) exit 6;; *) echo 70000; echo 30000;; esac\n'
    (tmp_path / "nvidia-smi").write_text(answer)
    for visible, free in (("GPU-7", 50000), ("MIG-3", 30000), ("", 30000)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert resources.free_memory("cuda") == free * 2**20
    monkeypatch.setenv("PATH", "")
    assert resources.free_memory("cuda") == resources.UNKNOWN


def test_a_slurm_job_uses_the_cores_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    everything = resources.cores()
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert resources.cores() == 1
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "100000")
    assert resources.cores() == everything
