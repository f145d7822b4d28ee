"""A Slurm of one node: munged, slurmctld and slurmd of its own, with all their files in one folder.

Debian's packages slurm-wlm and munge have the programs. They run as root, and without systemd. A program of the
environment talks to this Slurm because of the variable SLURM_CONF.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

REQUIRED = "REQUIRE_SLURM"  # an environment variable: without Slurm the tests fail, instead of being skipped
CPUS, GPUS = 2, 2  # of the node, whatever the machine has
GRACE = 20  # seconds between the warning before a preemption and its end
PATIENCE = 120  # seconds until a test gives up waiting
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
MailProg=/bin/true
RebootProgram=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SlurmdTimeout=20
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN
NodeName=elsewhere NodeAddr=127.0.0.1 Port={free_port} CPUs={cpus} RealMemory=4000 State=DOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=two_nodes Nodes={host},elsewhere MaxTime=60 State=UP
PartitionName=no_gpus Nodes=elsewhere MaxTime=60 State=UP
"""


class Cluster:
    """The Slurm of one node, and what tests do to it."""

    def __init__(self, folder: Path) -> None:
        """Write the config files."""
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        for number in range(GPUS):  # character devices that no driver serves
            os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(195, 250 + number))
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = dict(zip(("ctld_port", "slurmd_port", "free_port"), _free_ports(3), strict=True))
        facts = {"host": self.host, "folder": folder, "cpus": CPUS, "gpus": GPUS, "grace": GRACE}
        (folder / "slurm.conf").write_text(CONFIG.format(**facts, **ports))
        (folder / "gres.conf").write_text(f"NodeName={self.host} Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # 22.05 knows no `disabled`; nothing uses it

    def start(self, *names: str) -> None:
        """Start munged, slurmctld or slurmd, and wait until the node takes jobs."""
        # munged wants a folder that every user may enter: --force leaves it at a warning
        munge = [f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        commands = {
            "munged": ["munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge],
            "slurmctld": ["slurmctld", "-D"],
            "slurmd": ["slurmd", "-D", "-N", self.host],
        }
        for name in names:
            with open(self.folder / f"{name}.out", "ab") as out:
                self.daemons[name] = subprocess.Popen(
                    commands[name], env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
                )
        self.wait_until(self._takes_jobs)

    def kill(self, name: str) -> None:
        """Kill a daemon, as a crash does.

        slurmctld saves its state seconds after a change, and forgets what is newer. So a change is made first, and not
        the end of a task waited for, of which a new controller would hear minutes later.
        """
        if name == "slurmctld":
            now, saved = time.time(), self.folder / "state" / "job_state"
            job, *_ = self.call("squeue", "--noheader", "--format=%A").split()
            self.call("scontrol", "update", f"jobid={job}", "comment=saved")
            self.wait_until(lambda: saved.exists() and saved.stat().st_mtime > now)
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def stop(self) -> None:
        """Cancel all jobs, and end the daemons and whatever else began under them."""
        with suppress(subprocess.SubprocessError):
            self.call("scancel", f"--user={os.getuid()}")
            self.wait_until(lambda: not self.call("squeue", "--noheader"))
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait(timeout=PATIENCE)
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.wait_until(lambda: not self.processes())

    def processes(self) -> list[int]:
        """The processes that began under this Slurm: they inherited its variable."""
        variable = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if variable in (process / "environ").read_bytes().split(b"\0") and int(process.name) != os.getpid():
                    found.append(int(process.name))
        return found

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(
            command, env=self.environment, check=True, text=True, capture_output=True, timeout=PATIENCE
        ).stdout.strip()

    def submit(self, *options: str, command: str = "sleep 5") -> str:
        """Submit a job, and return its number."""
        return self.call("sbatch", "--parsable", f"--output={self.folder}/%j.log", *options, f"--wrap={command}")

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows about a job or a task of an array, such as 5_0."""
        shown = self.call("scontrol", "show", "job", number, "--oneliner")
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def state(self, number: str) -> str:
        """Its state, such as RUNNING."""
        return self.job(number)["JobState"]

    def wait_until(self, is_so: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + patience
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"in vain for {patience:g} s:\n{self._said()}")
            time.sleep(0.1)

    def _takes_jobs(self) -> bool:
        if {"slurmctld", "slurmd"} - self.daemons.keys():
            return True
        with suppress(subprocess.SubprocessError):
            states = self.call("sinfo", "--noheader", "--partition=main", "--format=%T")
            return states in ("idle", "mixed", "allocated")
        return False

    def _said(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("slurm*.log"))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]


def missing() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)}: not installed; apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "slurmd can't start jobs unless it runs as root"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm that runs as long as the tests."""
    if reason := missing():
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)
    slurm = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start("munged", "slurmctld", "slurmd")
        yield slurm
    finally:
        slurm.stop()
