"""The command: what it says, and how it follows what runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import ROOT, TINY
from helpers.sweeps import sweep

from mnist_exp import cli
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS, Row, table
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files, pace
from mnist_exp.system.errors import ConfigError
from mnist_exp.track import runs, track
from mnist_exp.track.runs import Snapshot, TrackedRun

GRID = {"optimizer": ["adam", "sgd"]}
QUIET: dict[str, Any] = {
    "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    "stdout": subprocess.PIPE,
    "stderr": subprocess.STDOUT,
}


class Memory:
    """A tracker that remembers what it was given, and fails at some calls."""

    hint = "look"

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.failing, self.calls, self.is_open = failing, 0, True
        self.written: list[tuple[int, int, str]] = []  # job, rows and status

    def __call__(self, _: str | None) -> "Memory":
        return self

    def write(self, _: Snapshot, runs: Sequence[TrackedRun]) -> int:
        self.calls += 1
        if self.calls in self.failing:
            raise ConfigError("no server")
        self.written += [(run.number, len(run.rows), run.status) for run in runs]
        return len(runs)

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setitem(track.TRACKERS, "tensorboard", memory)
    monkeypatch.setattr(pace, "PAUSE", 0.01)
    monkeypatch.setattr(pace, "REST", 0)
    return memory


def wait(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_says_what_is_new_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(Path("one"), GRID)
    sweep(Path("two"), GRID, seeds=[0], spoiled={1: "pending"})
    for new, more in ((10, 1), (0, 0)):
        cli.run("mnist-exp", ["track", "tensorboard", "one", "two", "one"])
        assert capsys.readouterr().out == (
            f"one: 10 runs, {new} with something new\n"
            f"two: 1 run, {more} with something new\n"
            "tensorboard --logdir tensorboard\n"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tensorbored", "s"], "argument TRACKER: invalid choice: 'tensorbored' "),
        (["mlflow"], "the following arguments are required: FOLDER; mnist-exp track --help says more"),
        (["tensorboard", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_wrong_command_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        cli.run("mnist-exp", ["track", *words])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_it_follows_a_sweep_to_its_end(tmp_path: Path, memory: Memory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "pending"})
    with files.locked(folder / SWEEP_LOCK):
        thread = Thread(target=track.export_and_print, args=("tensorboard", [folder], None, True))
        thread.start()
        wait(lambda: memory.calls)
        (folder / "1").mkdir()
        Ledger(folder).append({"job": 1, "status": "running", "pid": 1})
        wait(lambda: (1, 0, "running") in memory.written)
        rows = [Row(epoch, *(0.5,) * 6) for epoch in (1, 2)]
        (folder / "1" / METRICS).write_text(table(rows))
        wait(lambda: (1, 2, "running") in memory.written)
        Ledger(folder).append({"job": 1, "status": "failed", "error": "nan"})
        wait(lambda: (1, 2, "failed") in memory.written)
        assert thread.is_alive()  # the report may still come
    thread.join(60)
    assert not thread.is_alive()
    assert not memory.is_open
    assert memory.written.count((0, 5, "completed")) == 1  # what does not change is written once
    assert capsys.readouterr().out.endswith(f"look\n{folder}: failed\n")


def test_a_tracker_that_fails_is_tried_again(
    tmp_path: Path, memory: Memory, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.failing = (2, 3, 4)
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "running"})
    (folder / "1").mkdir()
    with files.locked(folder / SWEEP_LOCK):
        thread = Thread(target=track.export_and_print, args=("tensorboard", [folder], None, True))
        thread.start()
        wait(lambda: memory.calls == 1)
        Ledger(folder).append({"job": 1, "status": "interrupted"})
    thread.join(60)
    assert not thread.is_alive()
    assert memory.written[-1] == (1, 0, "interrupted")
    assert capsys.readouterr().out.count("tried again until it works: no server\n") == 1


def test_it_does_not_follow_what_has_ended(tmp_path: Path, memory: Memory) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "pending"})  # nobody works on it
    track.export_and_print("tensorboard", [folder], follow=True)
    assert memory.calls == 1


def test_without_follow_a_tracker_that_fails_is_an_error(tmp_path: Path, memory: Memory) -> None:
    memory.failing = (1,)
    with pytest.raises(ConfigError, match=r"^no server$"):
        track.export_and_print("tensorboard", [sweep(tmp_path / "s", GRID, seeds=[0])])
    assert not memory.is_open


def test_ctrl_c_ends_it_in_a_line(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0], spoiled={1: "running"})
    (folder / "1").mkdir()
    words = [sys.executable, "-m", "mnist_exp", "track", "tensorboard", str(folder), "--follow"]
    with (
        files.locked(folder / SWEEP_LOCK),
        subprocess.Popen(words, **QUIET, cwd=tmp_path) as process,
    ):
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == b"interrupted\n"
    assert process.returncode == 130
    assert lines[1] == b"tensorboard --logdir tensorboard\n"


@pytest.mark.slow
def test_a_real_sweep_is_followed_as_it_runs(tmp_path: Path) -> None:
    train = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "epochs=30", "seed=0,1", "hydra.sweep.dir=s"]
    follow = [sys.executable, "-m", "mnist_exp", "track", "tensorboard", "s", "--follow"]
    with subprocess.Popen(train, **QUIET, cwd=tmp_path) as sweeping:
        wait(lambda: (tmp_path / "s" / "0" / METRICS).is_file())
        followed = subprocess.run(follow, **QUIET, cwd=tmp_path, timeout=120, text=True)
        assert sweeping.wait(60) == 0
    assert followed.returncode == 0
    assert followed.stdout.endswith("s: completed\n")
    snapshot = runs.read(tmp_path / "s")
    before = track.TRACKERS["tensorboard"](str(tmp_path / "tensorboard"))
    assert before.write(snapshot, snapshot.runs) == 0  # all is there
