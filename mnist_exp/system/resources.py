"""The memory and the cores that this process may use."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mnist_exp.system.errors import ConfigError

UNKNOWN = 2**60  # as good as no limit
CGROUP, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use. Not every Slurm binds a job to those that it gave it."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, int(os.environ.get("SLURM_CPUS_ON_NODE", there)))


def require_memory(device: str, needs: Mapping[str, int], times: int = 1, *, advice: str) -> None:
    """Raise ConfigError if a kind of device has less free memory than is needed.

    Args:
        device: cpu, cuda or mps.
        needs: Bytes by purpose, of one job.
        times: How many jobs need them at once.
        advice: What needs less, for the error message.
    """
    needed, there = times * sum(needs.values()), free_memory(device)
    if needed > there:
        parts = ", ".join(f"{what} {_size(size)}" for what, size in needs.items() if size)
        for_each = f", for each of {times} jobs at once" if times > 1 else ""
        free = f"{_size(there)} are free on the {device}"
        raise ConfigError(f"needs {_size(needed)} of memory ({parts}{for_each}), and {free}; {advice}")


def free_memory(device: str) -> int:
    """Return the free bytes of a kind of device. The system says so: a process whose torch asks CUDA can't fork."""
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return _free_on_gpus([f"--id={visible}"] if visible else []) or _free_on_gpus([]) or UNKNOWN
    return min(_free_on_the_machine(), _free_in_the_container())


def _free_on_gpus(which: Sequence[str]) -> int:
    """Return the free bytes of the fullest GPU, by a flag of nvidia-smi of all; 0 if it doesn't say."""
    command = ["nvidia-smi", *which, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(map(int, said.split())) * 2**20
    return 0


def _free_on_the_machine() -> int:
    try:
        table = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux
        return UNKNOWN


def _free_in_the_container() -> int:
    """Return what Docker, Kubernetes or Slurm leave this process, by Linux's control groups (version 2)."""
    try:
        group = CGROUP / OWN_GROUP.read_text().partition("0::/")[2].splitlines()[0]
        table = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        return limit - used + int(table["inactive_file"])  # the kernel gives up its file cache on demand
    except (OSError, ValueError, KeyError, IndexError):  # no limit ("max"), or no such groups
        return UNKNOWN


def _size(count: int) -> str:
    """Return a number of bytes with its unit."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
