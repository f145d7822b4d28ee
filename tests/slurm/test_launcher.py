"""What hydra/launcher=slurm submits, and what it refuses, by the words of a real Slurm."""

import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from slurm.cluster import Cluster

from hydra_plugins.mnist_exp.launcher import SlurmConf
from mnist_exp.store.ledger import PROGRAM, VERSION, Ledger
from mnist_exp.sweep.launchers import slurm
from mnist_exp.sweep.launchers.workers import HandOver
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.chdir(tmp_path)


def hand_over(folder: Path, batches: int = 10, is_last: bool = True, **keys: Any) -> HandOver:
    folder.mkdir(exist_ok=True)
    return HandOver(vars(SlurmConf(**keys)), folder, jobs=20, batches=batches, is_last=is_last)


def worker(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this script run in the place of Python: its arguments are -m mnist_exp work FOLDER ..."""
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def submitted(cluster: Cluster, work: HandOver) -> tuple[str, str]:
    """The numbers of the array and of the closing job."""
    slurm.check(work)
    session = slurm.submit(work)
    Ledger(work.folder).append({"program": PROGRAM, "ledger": VERSION, **session})
    slurm.start(work, session)
    return session["slurm"]["job"], session["slurm"]["closing"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": 0}, "hydra.launcher.tasks=0: must be 1 or more"),
        ({"time": 1}, "hydra.launcher.time=1: must be 2 or more minutes: a task needs one to start, and is warned"),
        ({"gpus_per_task": -1}, "hydra.launcher.gpus_per_task=-1: must be 0 or more"),
        ({"cpus_per_task": 0}, "hydra.launcher.cpus_per_task=0: must be 1 or more"),
        ({"n_jobs": 0}, "hydra.launcher.n_jobs=0: must be 1 or more"),
        ({"mem_gb": 0.0}, "hydra.launcher.mem_gb=0.0: must be more than 0, or null"),
        (
            {"partition": "nope"},
            "partition=nope tasks=1 time=60: Slurm refuses this: invalid partition specified: nope",
        ),
        (
            {"gpus_per_task": 3},
            "gpus_per_task=3 time=60: Slurm refuses this: Requested node configuration is not avail",
        ),
        (
            {"partition": "no_gpus", "gpus_per_task": 1},
            "hydra.launcher.gpus_per_task=1: partition no_gpus has no GPUs;",
        ),
        ({"partition": "two_nodes", "time": 61}, "hydra.launcher.time=61: partition two_nodes allows 60 minutes"),
        ({"constraint": "a100"}, "constraint=a100: Slurm refuses this: Invalid feature specification"),
        ({"mem_gb": 5000.0}, "mem_gb=5000.0 time=60: Slurm refuses this: Requested node configuration"),
        ({"tasks": 2000}, "tasks=2000 time=60: Slurm refuses this: Invalid job array specification"),
        ({"sbatch": {"nicee": 1}}, "sbatch.nicee=1: Slurm refuses this: sbatch: unrecognized option '--nicee=1'"),
        ({"sbatch": {"mem": "4G"}}, "hydra.launcher.sbatch.mem: is set by hydra.launcher.mem_gb"),
        ({"sbatch": {"array": "0-3"}}, "hydra.launcher.sbatch.array: the launcher sets this option itself"),
        ({"sbatch": {"comment": "a\nrm -r"}}, "hydra.launcher: comment='a\\nrm -r' must be in one line"),
    ],
)
def test_what_slurm_would_not_run_is_refused_in_one_line(
    keys: dict[str, Any], message: str, cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        slurm.check(hand_over(tmp_path / "sweep", batches=5000, **keys))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not [*(tmp_path / "sweep").iterdir()]
    assert not cluster.call("squeue", "--noheader")


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no sbatch; type the command on a login node"):
        slurm.check(hand_over(tmp_path))


def test_a_controller_that_does_not_answer(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = (cluster.folder / "slurm.conf").read_text()
    (tmp_path / "other.conf").write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1\nMessageTimeout=1", config))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "other.conf"))
    with pytest.raises(ConfigError, match=r"Slurm does not answer: .*Unable to contact slurm controller"):
        slurm.check(hand_over(tmp_path))


def test_a_folder_that_sbatch_takes_for_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sbatch takes no path with such characters"):
        slurm.check(hand_over(tmp_path / "a\\b"))


def test_a_folder_that_other_nodes_do_not_see(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"lies on a file system of this machine alone \(\w+\), and tasks may run on el"
    ):
        slurm.check(hand_over(tmp_path, partition="two_nodes"))


def test_a_folder_that_this_machine_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "EXPORTS", tmp_path / "exports")
    slurm.EXPORTS.write_text(f"# comment\n{tmp_path} node*(rw)\n")
    slurm.check(hand_over(tmp_path / "sweep", partition="two_nodes"))


@pytest.mark.parametrize(
    ("limit", "minutes"), [("30:00", 30), ("1:30:00", 90), ("2-00:00:00", 2880), ("infinite", float("inf"))]
)
def test_time_limits_as_slurm_prints_them(limit: str, minutes: float) -> None:
    assert slurm._minutes(limit) == minutes


@pytest.mark.parametrize("name", ["sweep", "it's 100 %j #1"])
def test_tasks_and_the_job_that_closes(
    name: str, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = tmp_path / "seen"
    report = f'echo "$PWD $CUDA_VISIBLE_DEVICES $CARD $*" >> {seen}'
    worker(tmp_path / "python", f"{report}; sleep 1", monkeypatch)
    folder = tmp_path / name
    caplog.set_level("INFO")
    keys: dict[str, Any] = {"tasks": 9, "gpus_per_task": 1, "cpus_per_task": 1, "mem_gb": 0.5, "wait": True}
    setup = ["color=spades", 'python=(env CARD="$color" "${python[@]}")']  # as a container's command would be
    work = hand_over(folder, batches=2, setup=setup, sbatch={"nice": 10, "exclusive": False}, **keys)
    monkeypatch.setattr(slurm, "POLL", 0.2)
    job, closing = submitted(cluster, work)
    assert f"Slurm job {job}: 20 jobs in 2 tasks; job {closing} then writes the report" in caplog.text
    common = f"-m mnist_exp work {folder}"
    *tasks, last = seen.read_text().splitlines()
    assert sorted(tasks) == [f"{tmp_path} {gpu} spades {common} --minutes 60" for gpu in (0, 1)]
    assert last.endswith(f"spades {common} --close")
    logs = {f"{job}_0.log", f"{job}_1.log", f"{closing}_closing.log"}
    assert {path.name for path in (folder / "slurm").iterdir()} == logs | {"tasks.sh", "closing.sh"}
    assert cluster.job(f"{job}_0")["Nice"] == "10"
    by_hand = cluster.call("sbatch", "--parsable", str(folder / "slurm" / "tasks.sh"))
    cluster.wait_until(lambda: len(seen.read_text().splitlines()) == 5)
    cluster.wait_until(lambda: cluster.state(f"{by_hand}_0") == cluster.state(f"{by_hand}_1") == "COMPLETED")


@pytest.mark.parametrize("disturbance", ["preempted", "requeued", "time limit", "killed", "controller away"])
def test_a_task_that_is_stopped_is_requeued(
    disturbance: str, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    stop = f"echo $1 >> {seen}; sleep 0.5; echo saved >> {seen}; exit $2"
    script = f"""stop() {{ {stop}; }}
        trap 'stop TERM 143' TERM; trap 'stop USR1 138' USR1
        [ "$5" = --close ] && exit
        echo $$ >> {seen}
        [ -n "$SLURM_RESTART_COUNT" ] && exit
        while true; do sleep 0.1; done"""
    worker(tmp_path / "python", script, monkeypatch)
    job, closing = submitted(cluster, hand_over(tmp_path / "sweep"))
    cluster.wait_until(seen.exists)
    pid = seen.read_text().strip()
    expected = ["TERM", "saved"]
    if disturbance == "preempted":
        cluster.submit("--partition=urgent", "--exclusive", command="sleep 1")
    elif disturbance == "requeued":
        cluster.call("scontrol", "requeue", f"{job}_0")
    elif disturbance == "time limit":
        cluster.call("scontrol", "update", f"jobid={job}_0", "timelimit=2")
        expected = ["USR1", "saved"]
    elif disturbance == "killed":
        cluster.call("kill", "-KILL", pid)
        expected = []
    else:
        cluster.kill("slurmctld")
        cluster.call("kill", "-USR1", pid)
        cluster.wait_until(lambda: "saved" in seen.read_text())
        cluster.start("slurmctld")
        expected = ["USR1", "saved"]
    cluster.wait_until(lambda: cluster.state(closing) == "COMPLETED", patience=150)
    first, *rest = seen.read_text().split()
    assert (first, rest[:-1]) == (pid, expected)
    assert rest[-1].isdigit()
    assert cluster.job(f"{job}_0")["Restarts"] == "1"


def test_tasks_that_are_cancelled_are_not_requeued(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    script = f'[ "$5" = --close ] && exit\ntrap "exit 143" TERM\necho $$ >> {seen}\nwhile true; do sleep 0.1; done'
    worker(tmp_path / "python", script, monkeypatch)
    work = hand_over(tmp_path / "sweep", tasks=2)
    job, closing = submitted(cluster, work)
    cluster.wait_until(lambda: seen.exists() and len(seen.read_text().split()) == 2)
    with pytest.raises(ConfigError, match=rf"Slurm has tasks of this sweep \(job {job}, {closing}\); .*scancel {job} "):
        slurm.check(work)
    cluster.call("scancel", job)
    cluster.wait_until(lambda: cluster.state(closing) == "COMPLETED")
    assert cluster.state(f"{job}_0") == cluster.state(f"{job}_1") == "CANCELLED"
    slurm.check(work)


def test_a_refused_closing_job_takes_the_tasks_with_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "CLOSING", "gone/closing.sh")
    monkeypatch.setattr(files, "write", lambda path, content: path.parent.is_dir() and path.write_bytes(content))
    with pytest.raises(ConfigError, match="Slurm refuses the job: Unable to open file"):
        slurm.submit(hand_over(tmp_path / "sweep"))
    cluster.wait_until(lambda: not cluster.call("squeue", "--noheader"))


def test_ctrl_c_while_waiting_leaves_the_jobs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    worker(tmp_path / "python", "sleep 60", monkeypatch)
    monkeypatch.setattr(time, "sleep", interrupt)
    caplog.set_level("INFO")
    folder = tmp_path / "sweep"
    with pytest.raises(KeyboardInterrupt):
        submitted(cluster, hand_over(folder, wait=True))
    monkeypatch.undo()
    assert "the Slurm jobs go on" in caplog.text
    assert f"status {shlex.quote(str(folder))}" in caplog.text
    assert cluster.call("squeue", "--noheader")
    cluster.call("scancel", "--user=root")
    cluster.wait_until(lambda: not cluster.call("squeue", "--noheader"))
