"""Faults of a cluster, injected into a sweep that a real Slurm trains. The tests have each once, the torture often."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers.run_folders import learned
from slurm.cluster import Cluster
from torture import forks

from mnist_exp.store import workers
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import LOG

GRID = [*forks.TINY, "optimizer=adam,sgd", "seed=0,1", "epochs=160", "plots=false", "predictions=false"]
LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.tasks=2", "hydra.launcher.time=10"]
FUSED = ["hydra.launcher.fused=true", "hydra.launcher.max_models=2"]
EPOCH_1 = re.compile(r"epoch +1/")


class SlurmSweep:
    """A sweep that tasks of Slurm train."""

    def __init__(self, cluster: Cluster, folder: Path, *words: str, chance: random.Random | None = None) -> None:
        self.cluster, self.folder, self.words = cluster, folder, words
        self.chance = chance or random.Random(0)

    @property
    def command(self) -> list[str]:
        """What is typed for it."""
        return ["-m", *GRID, *LAUNCHER, *self.words, f"hydra.sweep.dir={self.folder}"]

    def submit(self) -> str:
        """Type the command, which returns when the tasks are submitted, and return what it says."""
        ended = forks.run(*self.command)
        assert ended.code == 0, ended
        return ended.out

    def resume(self) -> forks.Ended:
        """Submit what is left."""
        return forks.run("-m", f"resume={self.folder}")

    @property
    def array(self) -> str:
        """The number of the last job array."""
        found: str = Ledger(self.folder).read()[0][-1]["slurm"]["job"]
        return found

    def task(self) -> str:
        """One of the two tasks."""
        return f"{self.array}_{self.chance.randint(0, 1)}"

    def epochs(self) -> int:
        """The number of epochs that all runs have trained."""
        tables = (path.read_bytes() for path in self.folder.glob(f"*/{METRICS}"))
        return sum(table.count(b"\n") - 1 for table in tables)

    def wait_for_epochs(self, more: int) -> None:
        """Wait until so many further epochs are trained."""
        before = self.epochs()
        self.cluster.wait_until(lambda: self.epochs() >= before + more or not self.queued())

    def queued(self) -> str:
        """The jobs at Slurm."""
        return self.cluster.call("squeue", "--noheader")

    def wait_for_the_end(self) -> None:
        """Wait until no job is left at Slurm."""
        self.cluster.wait_until(lambda: not self.queued(), patience=200)

    def faults(self, expected: dict[int, Any]) -> list[str]:
        """What is wrong with the sweep at its end."""
        jobs = Ledger(self.folder).read()[1]
        wrong = [f"#{number} is {job.status}: {job.error}" for number, job in jobs.items() if job.status != "completed"]
        paths = [Ledger(self.folder).path, *self.folder.glob("workers/*.jsonl")]
        events = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        completed = Counter(event["job"] for event in events if event.get("status") == "completed")
        wrong += [f"#{number} completed {times} times" for number, times in completed.items() if times != 1]
        for number in jobs:
            starts = len(EPOCH_1.findall((self.folder / str(number) / LOG).read_text()))
            wrong += [f"#{number} was begun {starts} times"] if starts > 1 else []
        logs = self.folder.glob("slurm/*.log")
        wrong += [f"{log.name} has escape codes of a terminal" for log in logs if b"\x1b" in log.read_bytes()]
        if wrong:
            return wrong
        found = results(self.folder)
        wrong = [f"#{number} has other bits" for number in jobs if found[number] != expected[number]]
        return wrong if (self.folder / "report.md").exists() else [*wrong, "there is no report"]


def preempted(sweep: SlurmSweep) -> None:
    """Preemption of both tasks by a job in another partition."""
    sweep.cluster.submit("--partition=urgent", "--exclusive", command="sleep 1")


def requeued(sweep: SlurmSweep) -> None:
    """`scontrol requeue` of a task."""
    sweep.cluster.call("scontrol", "requeue", sweep.task())


def killed(sweep: SlurmSweep) -> None:
    """SIGKILL of a task's worker."""
    worker = sweep.chance.choice(workers.Liveness(sweep.folder).living())
    os.kill(worker["pid"], signal.SIGKILL)


def one_task_cancelled(sweep: SlurmSweep) -> None:
    """`scancel` of one task."""
    sweep.cluster.call("scancel", sweep.task())


def all_cancelled(sweep: SlurmSweep) -> None:
    """`scancel` of all tasks, then `resume=`."""
    sweep.cluster.call("scancel", sweep.array)
    sweep.wait_for_the_end()
    ended = sweep.resume()
    assert ended.code == 0, ended


def slurmd_killed(sweep: SlurmSweep) -> None:
    """SIGKILL of slurmd, which is started anew."""
    sweep.cluster.kill("slurmd")
    sweep.wait_for_epochs(5)
    sweep.cluster.start("slurmd")


def slurmctld_killed(sweep: SlurmSweep) -> None:
    """SIGKILL of slurmctld, which is started anew."""
    sweep.cluster.kill("slurmctld")
    before = sweep.epochs()
    with suppress(TimeoutError):  # all have ended
        sweep.cluster.wait_until(lambda: sweep.epochs() > before + 5, patience=3)
    sweep.cluster.start("slurmctld")


def time_limit(sweep: SlurmSweep) -> None:
    """The time limit of a task."""
    sweep.cluster.call("scontrol", "update", f"jobid={sweep.task()}", "timelimit=1")


def started_twice(sweep: SlurmSweep) -> None:
    """Tasks that start twice."""
    sweep.cluster.call("sbatch", str(sweep.folder / "slurm" / "tasks.sh"))


def two_people(sweep: SlurmSweep) -> None:
    """`scancel` of all tasks, then `resume=` by two people at once."""
    sweep.cluster.call("scancel", sweep.array)
    sweep.wait_for_the_end()
    started = {name: forks.start("-m", f"resume={sweep.folder}", name=name) for name in ("one", "two")}
    ended = [forks.wait(pid, name=name) for name, pid in started.items()]
    assert sorted(str(each.code) for each in ended) == ["0", "1"], ended
    assert all(each.code == 0 or each.is_one_line_error for each in ended), ended


def shell_gone(sweep: SlurmSweep) -> None:
    """The submitting shell is gone while it waits for the sweep (submits by itself)."""
    pid = forks.start(*sweep.command, "hydra.launcher.wait=true")
    sweep.cluster.wait_until(lambda: sweep.epochs() >= 5)
    os.killpg(pid, signal.SIGHUP)
    forks.wait(pid)


FAULTS: Sequence[Callable[[SlurmSweep], None]] = (
    preempted,
    requeued,
    killed,
    one_task_cancelled,
    all_cancelled,
    slurmd_killed,
    slurmctld_killed,
    time_limit,
    started_twice,
    two_people,
    shell_gone,
)


def undisturbed(folder: Path, *words: str) -> dict[int, Any]:
    """What the jobs learn in a sweep that nothing disturbs, on one machine: by the plain launcher, or a worker."""
    ended = forks.run("-m", *GRID, *words, f"hydra.sweep.dir={folder}/sweep", limit=600)
    assert ended.code == 0, ended
    if words:
        subprocess.run([sys.executable, "-m", "mnist_exp", "work", folder / "sweep"], cwd=forks.ROOT, check=True)
    return results(folder / "sweep")


def results(folder: Path) -> dict[int, Any]:
    """What each job of a sweep has learned."""
    return {number: learned(folder / str(number)) for number in Ledger(folder).read()[1]}


def survive(sweep: SlurmSweep, fault: Callable[[SlurmSweep], None], expected: dict[int, Any]) -> list[str]:
    """Inject a fault while the sweep trains, and return what is wrong with it at its end."""
    if fault is not shell_gone:
        sweep.submit()
        sweep.wait_for_epochs(sweep.chance.randint(2, 100))
    fault(sweep)
    sweep.wait_for_the_end()
    return sweep.faults(expected)
