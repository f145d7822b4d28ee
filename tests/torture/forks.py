"""Runs of train.py in processes that can be killed: forked off this one, which has all imports behind it."""

import os
import random
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # an optimizer's first step would import it
from hydra.core.global_hydra import GlobalHydra

from mnist_exp.training import checkpoint, figures, loop, resume  # noqa: F401  # imported once, for all forks

ROOT = Path(__file__).parents[2]
TRAIN = str(ROOT / "train.py")
torch.set_num_threads(1)  # threads of OpenMP do not survive a fork

TINY = ["data=digits", "data.validation=200", "augmentation=rotate_crop", "model.hidden_layers=[16]"]
RECIPES = [  # each with something that another lacks: a moment, a stream, a state
    ["optimizer=adam", "model.dropout=0.3"],
    ["optimizer=sgd", "schedule=cosine", "augmentation=affine", "checkpoint_every=3"],
    ["optimizer=nadam", "schedule=onecycle", "activation=prelu"],
    ["optimizer=rmsprop", "optimizer.momentum=0.5", "schedule=step", "loss=mse"],
    ["optimizer=adagrad", "augmentation=none", "model.dropout=0.5"],
    ["optimizer=adamw", "activation=gelu", "data.batch_size=50"],
]


class Ended(NamedTuple):
    """A process that is over: its exit code (negative for a signal, None where it had to be ended), and its words."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def is_one_line_error(self) -> bool:
        """Whether it failed as it should: exit code 1, one line that says why, and no traceback."""
        lines = self.err.strip().splitlines()
        return self.code == 1 and len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in self.out


class Tally:
    """A row of the table: what was done to the program, and how it took it."""

    def __init__(self, name: str) -> None:
        self.name, self.injected, self.survived, self.lost = name, 0, 0, 0
        self.notes: list[str] = []

    def count(self, survived: bool, equal: bool = True, note: str = "") -> None:
        """One fault: whether it was survived, and whether the bits that should be equal are."""
        self.injected += 1
        self.survived += survived and equal
        self.lost += not equal
        if not (survived and equal):
            self.notes.append(note)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own, to work in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def start(*words: str, prepare: Callable[[], object] | None = None, name: str = "it") -> int:
    """Begin `python train.py words` in this folder and return its process number; `prepare` is called before it."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the child is what it stands for
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return pid
    os.setsid()
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    for stream, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["train.py", *words]
    sys.path[0] = str(ROOT)
    GlobalHydra.instance().clear()
    code: object = 0
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    try:
        if prepare:
            prepare()
        runpy.run_path(TRAIN, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(str(code or 0)))


def wait(pid: int, limit: float = 120, name: str = "it") -> Ended:
    """Wait for the end of a process; after `limit` seconds stop the process, and then kill it with all its children."""
    begin, asked = time.monotonic(), False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        taken = time.monotonic() - begin
        if taken > limit and not asked:
            os.kill(pid, signal.SIGTERM)
            asked = True
        if taken > limit + 20:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    code = None if time.monotonic() - begin > limit + 20 else os.waitstatus_to_exitcode(status)
    said = [Path(f"{name}.{stream}") for stream in ("out", "err")]
    out, err = (path.read_text(errors="replace") if path.exists() else "" for path in said)  # none if killed at once
    return Ended(code, out, err, time.monotonic() - begin)


def run(*words: str, prepare: Callable[[], object] | None = None, limit: float = 120) -> Ended:
    """Type `python train.py words` in this folder."""
    return wait(start(*words, prepare=prepare), limit)


def run_and_signal(*words: str, number: int, after: float) -> Ended:
    """The same, but with a signal to it and all its processes after so many seconds."""
    pid = start(*words)
    time.sleep(after)
    with suppress(ProcessLookupError):  # it is over, and its jobs as well
        os.killpg(pid, number)
    return wait(pid)


def limited(gigabytes: float) -> Callable[[], None]:
    """Limit this process's memory, so that a run that is too large fails alone."""

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        most = used + int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    return limit


def undisturbed(words: list[str], where: str) -> float:
    """Do a run that others are compared with, and return how long it took."""
    ended = run(*words, f"hydra.run.dir={where}")
    assert ended.code == 0, ended
    return ended.seconds


CHANCE = random.Random(0)  # of the moments and places of faults; __main__ seeds it
