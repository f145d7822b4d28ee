"""hydra/launcher=slurm: hand a sweep over to workers in the tasks of a Slurm job array.

The two batch scripts lie in the folder of the sweep, where they can be read, and submitted again by hand.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_exp.store.ledger import Ledger, Session
from mnist_exp.store.run_folder import SEARCHES
from mnist_exp.sweep import plan
from mnist_exp.sweep.launchers import slurm_script, workers
from mnist_exp.sweep.launchers.slurm_script import CLOSING, SCRIPTS, TASKS
from mnist_exp.sweep.launchers.workers import HandOver
from mnist_exp.system import errors, files, program, quoting
from mnist_exp.system.errors import ConfigError

log = logging.getLogger(__name__)

POLL = 10  # seconds between two looks at the queue
LOCAL = {"btrfs", "ext2", "ext3", "ext4", "overlay", "ramfs", "tmpfs", "xfs"}  # file systems of one machine
EXPORTS = Path("/etc/exports")  # what this machine shares by NFS
OWN_KEYS = {name: name for name in ("account", "constraint", "partition", "qos", "time")}  # options of sbatch
OWN_KEYS |= {"cpus-per-task": "cpus_per_task", "mem": "mem_gb"}
OWN_OPTIONS = {"array", "dependency", "hold", "no-requeue", "open-mode", "output", "requeue", "signal", "wrap"}


def check(hand_over: HandOver) -> None:
    """Raise ConfigError if Slurm would not run the tasks. Nothing is written or submitted."""
    conf = hand_over.launcher
    workers.check(hand_over)
    _check_values(conf)
    if not shutil.which("sbatch"):
        raise ConfigError(
            "hydra/launcher=slurm: this machine has no sbatch; type the command on a login node of the cluster, or "
            "with hydra/launcher=workers, which needs no scheduler"
        )
    require_no_tasks(hand_over.folder)
    _check_partition(conf)
    _check_folder(conf, hand_over.folder)
    for script in slurm_script.scripts(hand_over).values():
        tested = _call("sbatch", "--test-only", text=script)
        if tested.returncode:
            raise ConfigError(f"{_request(conf)}: Slurm refuses this: {_said(tested)}; {_advice(conf)}")


def submit(hand_over: HandOver) -> Session:
    """Submit the tasks, which are held until the list of jobs is written, and the job that closes the sweep.

    Returns:
        What the session's entry keeps: the numbers of the two jobs.

    Raises:
        ConfigError: Slurm refuses them, or somebody else has just submitted the sweep.
    """
    require_no_tasks(hand_over.folder)
    folder = hand_over.folder / SCRIPTS
    folder.mkdir(exist_ok=True)
    for name, script in slurm_script.scripts(hand_over).items():
        files.write(folder / name, os.fsencode(script))
    job = _submitted("--hold", str(folder / TASKS))
    try:
        closing = _submitted(f"--dependency=afterany:{job}", str(folder / CLOSING))
    except ConfigError:
        _call("scancel", job)
        raise
    return {"slurm": {"job": job, "closing": closing}}


def withdraw(session: Session) -> None:
    """Cancel what `submit` submitted: the list of jobs could not be written."""
    _call("scancel", *session["slurm"].values())


def start(hand_over: HandOver, session: Session) -> None:
    """Release the tasks, and say how to follow them; with hydra.launcher.wait=true also wait for their end.

    Args:
        hand_over: The sweep.
        session: What `submit` returned.

    Raises:
        ConfigError: Slurm does not release them.
    """
    job, closing = session["slurm"]["job"], session["slurm"]["closing"]
    released = _call("scontrol", "release", job)
    if released.returncode:
        raise ConfigError(
            f"Slurm job {job}: is held, and can't be released: {_said(released)}; type scontrol release {job}"
        )
    tasks = slurm_script.tasks(hand_over)
    then = "writes the report" if hand_over.is_last else "goes on with the next round"
    log.info(
        f"Slurm job {job}: {hand_over.jobs} jobs in {tasks} {'task' if tasks == 1 else 'tasks'}; job {closing} then "
        f"{then}\n{_how_to_follow(hand_over.folder, job)}"
    )
    if hand_over.launcher["wait"]:
        _wait(hand_over.folder, job)


def require_no_tasks(folder: Path) -> None:
    """Raise ConfigError if Slurm still has jobs of a sweep, or does not say. The job that asks does not count.

    Args:
        folder: The folder of the sweep.
    """
    if jobs := _queued(folder):
        raise ConfigError(
            f"{folder}: Slurm has tasks of this sweep (job {', '.join(jobs)}); wait for them, or cancel them first: "
            f"scancel {' '.join(jobs)}"
        )


def _queued(folder: Path) -> list[str]:
    """Return the numbers of the sweep's jobs that wait or run, without the one that asks."""
    submitted: list[str] = []
    for ledger in map(Ledger, (folder, *(folder / name for name in SEARCHES))):
        sessions = ledger.read()[0] if ledger.path.exists() else []
        submitted += [job for session in sessions[-1:] for job in session.get("slurm", {}).values()]
    if not submitted or not shutil.which("squeue"):
        return []
    queue = _call("squeue", "--noheader", f"--jobs={','.join(submitted)}", "--format=%F")  # F: of the array
    if queue.returncode and "Invalid job id" not in queue.stderr:
        raise ConfigError(f"{folder}: Slurm does not say whether its tasks have ended: {_said(queue)}")
    return sorted(set(queue.stdout.split()) - {os.environ.get("SLURM_JOB_ID", "")})


def _check_values(conf: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value that no Slurm takes."""
    least = {"tasks": 1, "time": 2, "gpus_per_task": 0, "cpus_per_task": 1}
    for key, smallest in least.items():
        if conf[key] is not None and conf[key] < smallest:
            unit = " minutes: a task needs one to start, and is warned before its end" if key == "time" else ""
            raise ConfigError(f"hydra.launcher.{key}={conf[key]}: must be {smallest} or more{unit}")
    if conf["mem_gb"] is not None and conf["mem_gb"] <= 0:
        raise ConfigError(f"hydra.launcher.mem_gb={conf['mem_gb']}: must be more than 0, or null for the cluster's own")
    for name in conf["sbatch"]:
        if name in OWN_KEYS:
            raise ConfigError(f"hydra.launcher.sbatch.{name}: is set by hydra.launcher.{OWN_KEYS[name]}")
        if name in OWN_OPTIONS:
            raise ConfigError(f"hydra.launcher.sbatch.{name}: the launcher sets this option itself; leave it out")
    words = [*conf["sbatch"].items(), *((key, conf[key]) for key in ("partition", "account", "qos", "constraint"))]
    for key, value in words:
        if not f"{key}{value}".isprintable():
            raise ConfigError(f"hydra.launcher: {key}={value!r} must be in one line")


def _check_partition(conf: Mapping[str, Any]) -> None:
    """Raise ConfigError for a partition without GPUs, or with too short a time limit, in which jobs would wait."""
    where = f"partition {conf['partition']}" if conf["partition"] else "the default partition"
    rows = [line.split("|") for line in _nodes(conf, "%l|%G")]
    if rows and conf["gpus_per_task"] and not any("gpu" in gres for _, gres in rows):
        raise ConfigError(
            f"hydra.launcher.gpus_per_task={conf['gpus_per_task']}: {where} has no GPUs; choose another "
            "hydra.launcher.partition (sinfo --format='%R %G' lists them), or 0"
        )
    limit = max((_minutes(limit) for limit, _ in rows), default=float("inf"))
    if conf["time"] > limit:
        raise ConfigError(
            f"hydra.launcher.time={conf['time']}: {where} allows {limit:.0f} minutes; tasks can be shorter"
        )


def _check_folder(conf: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError for a folder that only this machine sees, where tasks may run on others."""
    if "\\" in str(folder) or not str(folder).isprintable():
        raise ConfigError(f"hydra.sweep.dir={quoting.shown(str(folder))}: sbatch takes no path with such characters")
    here = socket.gethostname().partition(".")[0]
    others = sorted({name.partition(".")[0] for name in _nodes(conf, "%n")} - {here})
    if others and (kind := _local_file_system(folder)):
        raise ConfigError(
            f"hydra.sweep.dir={folder}: lies on a file system of this machine alone ({kind}), and tasks may run on "
            f"{others[0]}; choose a folder on a shared one"
        )


def _local_file_system(folder: Path) -> str | None:
    """Return the kind of a folder's file system if other machines don't see it; None if they may."""
    folder = next(parent.resolve() for parent in (folder, *folder.parents) if parent.exists())
    mounts: dict[Path, str] = {}
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, at, kind, *_ = line.split()
        mounts[Path(at.encode("utf-8", "surrogateescape").decode("unicode_escape"))] = kind  # \040 is a space
    kind = next((mounts[parent] for parent in (folder, *folder.parents) if parent in mounts), "")
    shared = EXPORTS.read_text(errors="replace").split() if EXPORTS.exists() else []
    if any(word.startswith("/") and folder.is_relative_to(word) for word in shared):
        return None
    return kind if kind in LOCAL else None


def _nodes(conf: Mapping[str, Any], form: str) -> list[str]:
    """Return a line about each node on which tasks may run; none if there is no such partition.

    Raises ConfigError if Slurm does not answer.
    """
    partition = [f"--partition={conf['partition']}"] if conf["partition"] else []
    answer = _call("sinfo", "--noheader", "--Node", f"--format=%P|{form}", *partition)
    if answer.returncode:
        raise ConfigError(f"hydra/launcher=slurm: Slurm does not answer: {_said(answer)}")
    rows = [line.partition("|") for line in answer.stdout.splitlines()]
    return [row for name, _, row in rows if conf["partition"] or name.strip().endswith("*")]  # * is the default


def _minutes(limit: str) -> float:
    """Return the minutes of a time limit as Slurm prints it: [days-][hours:]minutes:seconds, or infinite."""
    days, _, clock = limit.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts):
        return float("inf")
    seconds: int = sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))
    return int(days or 0) * 24 * 60 + seconds / 60


def _submitted(*arguments: str) -> str:
    """Submit a job, and return its number. Raises ConfigError if Slurm refuses it."""
    submitted = _call("sbatch", "--parsable", *arguments)
    if submitted.returncode:
        raise ConfigError(f"hydra/launcher=slurm: Slurm refuses the job: {_said(submitted)}")
    return submitted.stdout.strip().partition(";")[0]  # the name of the cluster may follow


def _call(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Call a command of Slurm. A job that submits another does not hand its own size down to it."""
    environment = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or key[:6] != "SLURM_"}
    return subprocess.run(
        command, input=text or "", env=environment, capture_output=True, encoding="utf-8", errors="surrogateescape"
    )


def _said(ended: subprocess.CompletedProcess[str]) -> str:
    """Return what a command of Slurm complained about, in one line."""
    lines = [line.rpartition("error: ")[2].removeprefix("allocation failure: ") for line in ended.stderr.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip()) or f"exit code {ended.returncode}"


def _request(conf: Mapping[str, Any]) -> str:
    """Return what the user asks Slurm for, as it is typed."""
    keys = ("partition", "tasks", "gpus_per_task", "cpus_per_task", "mem_gb", "time", "account", "qos", "constraint")
    typed = [f"{key}={conf[key]}" for key in keys if conf[key]]
    return "hydra.launcher: " + " ".join([*typed, *(f"sbatch.{key}={value}" for key, value in conf["sbatch"].items())])


def _advice(conf: Mapping[str, Any]) -> str:
    """Return what the user can do, with the partitions that there are."""
    names = " ".join(_call("sinfo", "--noheader", "--format=%R").stdout.split())
    return f"the partitions are {names}, and sinfo says what they have" if names else "sinfo says what there is"


def _how_to_follow(folder: Path, job: str) -> str:
    status = f"{program.tool('status')} {quoting.for_shell(str(folder))}"
    return f"  how far they are: {status}\n  to cancel them:   scancel {job}"


def _wait(folder: Path, job: str) -> None:
    """Wait until no job of the sweep is queued, and show its progress. Ends the process with 1 if jobs are left."""
    said = ""
    try:
        while True:
            queued, text = _still_queued(folder), _progress(folder)
            if text != said:
                log.info(text)
            said = text
            if not queued:
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        log.info(f"the Slurm jobs go on\n{_how_to_follow(folder, job)}")
        raise
    if any(status not in plan.DONE for status in _statuses(folder)):
        sys.exit(1)


def _still_queued(folder: Path) -> Sequence[str]:
    """Return the jobs of the sweep that wait or run; while Slurm's controller is away, what there was may go on."""
    try:
        return _queued(folder)
    except ConfigError as error:
        log.warning(errors.explain(error))
        return ["?"]


def _progress(folder: Path) -> str:
    """Return how many jobs of the sweep have which status."""
    count = Counter(_statuses(folder))
    return f"{folder.name}: " + ", ".join(f"{number} {status}" for status, number in count.most_common())


def _statuses(folder: Path) -> list[str]:
    """Return the statuses of the jobs of a sweep, or of the search that comes before it."""
    ledgers = [Ledger(each) for each in (folder, *(folder / name for name in SEARCHES))]
    return [job.status for ledger in ledgers if ledger.path.exists() for job in ledger.read()[1].values()]
