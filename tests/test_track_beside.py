"""tracker=NAME: what is shown while a run trains, and that the run is the same with it and without."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import summary
from helpers.sweeps import sweep

import mnist_exp
from mnist_exp.store.metrics import METRICS, read_columns
from mnist_exp.store.run_folder import BEST
from mnist_exp.system import extras
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.reader import Reader
from mnist_exp.track import beside, runs, track
from mnist_exp.track.runs import Snapshot
from mnist_exp.track.tensorboard import TensorBoard

Run = Callable[..., Outcome]


class Memory:
    """A tracker that fails at some of its calls; the last one that it expects ends the command."""

    hint = "look"

    def __init__(self, failing: tuple[int, ...], calls: int) -> None:
        self.failing, self.last, self.calls, self.closed = failing, calls, 0, 0
        self.ended = threading.Event()

    def __call__(self, _: str | None) -> "Memory":
        return self

    def write(self, _: Snapshot, runs: Any) -> int:
        self.calls += 1
        if self.calls >= self.last - 1:
            self.ended.set()
        if self.calls in self.failing:
            raise KeyError("a bug in the tracker")
        return len(runs)

    def close(self) -> None:
        self.closed += 1


def read_along(memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(track.TRACKERS, "tensorboard", memory)
    monkeypatch.setattr(beside, "PAUSE_OF_FAILING", 0.0)
    return beside.read_along("tensorboard", [folder / "not_begun", folder], memory.ended)


def everything_is_shown(folder: Path, to: Path) -> bool:
    """Return whether TensorBoard's files are those of an export afterwards."""
    snapshot = runs.read(folder)
    return any(to.rglob("*tfevents*")) and TensorBoard(str(to)).write(snapshot, snapshot.runs) == 0


def test_a_tracker_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Memory(failing=(1, 2), calls=4)
    assert read_along(memory, sweep(tmp_path / "s", {}, seeds=[0]), monkeypatch) == 0
    assert memory.closed == 1
    assert capsys.readouterr().out == (
        "tracker=tensorboard: to see it: look\n"
        "tracker=tensorboard: 'a bug in the tracker'; tried again until the run ends\n"
        "tracker=tensorboard: works again\n"
    )


def test_it_ends_with_the_command_even_if_the_tracker_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(failing=tuple(range(10)), calls=2)
    assert read_along(memory, sweep(tmp_path / "s", {}, seeds=[0]), monkeypatch) == 1
    assert memory.calls == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # MLflow closes its databases late
@pytest.mark.parametrize(
    ("tracker", "writer"),
    [
        ("tensorboard", "mnist_exp.track.tensorboard._update"),
        ("mlflow", "mlflow.MlflowClient.log_batch"),
        ("wandb", "wandb.Run.log"),
    ],
)
def test_a_full_disk_is_said_once_and_the_rest_is_written_when_there_is_room(
    tracker: str, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, calls, ended = resolve_name(writer), [0], threading.Event()

    def fail_twice(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] <= 2:
            raise OSError(errno.ENOSPC, "No space left on device", "their file")
        ended.set()
        return write(*arguments, **named)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr(writer, fail_twice)
    monkeypatch.setattr(beside, "PAUSE_OF_FAILING", 0.0)
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, seeds=[0])
    assert beside.read_along(tracker, [folder], ended) == 0
    said = [line for line in capfd.readouterr().out.splitlines() if " to see it: " not in line]
    assert said == [
        f"tracker={tracker}: their file: No space left on device; tried again until the run ends",
        f"tracker={tracker}: works again",
    ]
    snapshot = runs.read(folder)
    assert track.TRACKERS[tracker](None).write(snapshot, snapshot.runs) == 0


def test_nothing_is_opened_for_what_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(failing=(), calls=0)
    memory.ended.set()
    assert read_along(memory, tmp_path, monkeypatch) == 0
    assert (memory.calls, memory.closed) == (0, 0)


def test_a_reader_that_hangs_is_killed_and_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hanging:
        def __init__(self, *_: object) -> None:
            self.waited: list[float] = []
            readers.append(self)

        def tell_end(self) -> None: ...

        def has_ended(self, seconds: float) -> bool:
            self.waited.append(seconds)
            return False

        def kill(self) -> int:
            return -9

    readers: list[Hanging] = []
    monkeypatch.setattr(beside, "Reader", Hanging)
    folder = sweep(tmp_path / "s", {}, seeds=[0])
    with beside.shown_in(["mlflow"], [folder, tmp_path / "other"]):
        pass
    with pytest.raises(ZeroDivisionError), beside.shown_in(["mlflow"], [folder]):
        raise ZeroDivisionError
    assert [max(each.waited) <= limit for each, limit in zip(readers, (60, 10), strict=True)] == [True, True]
    line = f"tracker=mlflow: not all is written; the rest: python -m mnist_exp track mlflow {folder}\n"
    assert capsys.readouterr().out.count(line) == 2


def test_a_run_is_the_same_with_a_tracker(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=outputs/day/alone")
    outcome = run(*TINY, "tracker=tensorboard", "hydra.run.dir=outputs/day/shown")
    assert outcome.code == 0
    alone, shown = tmp_path / "outputs/day/alone", tmp_path / "outputs/day/shown"
    curves = [read_columns(folder / METRICS) for folder in (alone, shown)]
    assert [{**columns, "seconds": None} for columns in curves[:1]] == [{**curves[1], "seconds": None}]
    weights = [torch.load(folder / BEST, weights_only=True)["model"] for folder in (alone, shown)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert summary(alone)["config_id"] == summary(shown)["config_id"]
    assert everything_is_shown(shown, tmp_path / "tensorboard")
    [tracked] = runs.read(alone).runs
    assert not list((tmp_path / "tensorboard").glob(f"*{tracked.id[:8]}"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB without room: only its file `rest` can be deleted."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs root, to mount a small file system")
    with suppress(OSError), open(place / "rest", "wb", buffering=0) as rest:
        while True:
            rest.write(bytes(4096))
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])
def test_a_run_goes_on_beside_a_full_disk_and_the_rest_is_written_later(
    run: Run, tmp_path: Path, full_disk: Path, tracker: str
) -> None:
    run(*TINY, "epochs=40", "plots=true", "hydra.run.dir=alone")
    (tmp_path / "tensorboard").symlink_to(full_disk)
    places = {"MLFLOW_TRACKING_URI": f"sqlite:///{full_disk}/mlflow.db", "WANDB_DIR": str(full_disk)}
    python: dict[str, Any] = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    python["env"] = os.environ | places | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    words = [str(ROOT / "train.py"), *TINY, "epochs=40", "plots=true", f"tracker={tracker}", "hydra.run.dir=shown"]
    shown = subprocess.run([sys.executable, *words], **python)
    said = [line for line in shown.stdout.splitlines() if line.startswith("tracker=") and " to see it: " not in line]
    said = [line for line in said if "writes what is left" not in line]  # which may take some seconds
    assert (shown.returncode, shown.stderr, len(said)) == (0, "", 2)
    assert "full" in said[0] or "No space left on device" in said[0]
    assert said[1].startswith(f"tracker={tracker}: not all is written; the rest: python -m mnist_exp track {tracker} ")
    weights = [torch.load(tmp_path / name / BEST, weights_only=True)["model"] for name in ("alone", "shown")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    (full_disk / "rest").unlink()
    command = [sys.executable, *said[1].partition(" the rest: python ")[2].split()]
    for new in (1, 0):
        assert f"1 run, {new} with something new\n" in subprocess.run(command, **python).stdout


@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_one_reader_shows_a_whole_sweep(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    started: list[Sequence[str]] = []
    start = Reader.__init__

    def count(self: Reader, module: str, arguments: Sequence[str]) -> None:
        started.append(arguments)
        start(self, module, arguments)

    monkeypatch.setattr(Reader, "__init__", count)
    words = ["-m", *TINY, "seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=multirun/s"]
    assert run(*words, "tracker=[tensorboard,tensorboard]").code == 0
    assert len(started) == 1
    assert len(runs.read(tmp_path / "multirun/s").runs) == 2
    assert everything_is_shown(tmp_path / "multirun/s", tmp_path / "tensorboard")


def test_a_sweep_that_resumes_keeps_its_tracker(run: Run, tmp_path: Path) -> None:
    words = ["-m", *TINY, "seed=0,1", "hydra.sweep.dir=multirun/s"]
    assert run(*words, "tracker=tensorboard", "hydra.sweeper.stop_on_failure=true", "optimizer.lr=1e30").code == 1
    [before] = runs.read(tmp_path / "multirun/s").runs
    assert before.status == "failed"
    run("-m", "resume=multirun/s")
    assert everything_is_shown(tmp_path / "multirun/s", tmp_path / "tensorboard")


def test_workers_leave_it_to_a_command(run: Run) -> None:
    out = run("-m", *TINY, "seed=0", "hydra/launcher=workers", "hydra.sweep.dir=multirun/s", "tracker=mlflow").out
    assert out.endswith(
        "tracker=mlflow: workers train the jobs; to show them meanwhile: "
        "python -m mnist_exp track mlflow multirun/s --follow\n"
    )


def test_what_is_handed_over_counts_as_running(run: Run, tmp_path: Path) -> None:
    run("-m", *TINY, "seed=0", "hydra/launcher=workers", "hydra.sweep.dir=multirun/s")
    assert runs.read(tmp_path / "multirun/s").status == "running"


NAMES = "must be null, tensorboard, mlflow, wandb, or a list of several, such as [tensorboard,mlflow]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracker=foo"], f"tracker=foo: {NAMES}"),
        (["tracker=[mlflow,foo]"], f'tracker=["mlflow","foo"]: {NAMES}'),
        (["tracker=[[mlflow]]"], f'tracker=[["mlflow"]]: {NAMES}'),
        (["tracker=3"], f"tracker=3: {NAMES}"),
        (["tracker=wandb"], "wandb: not installed; type pip install 'mnist_exp[wandb]'"),
        (["-m", "seed=0,1", "tracker=foo"], f"tracker=foo: {NAMES}"),
        (["-m", "seed=0,1", "tracker=wandb"], "wandb: not installed; type pip install 'mnist_exp[wandb]'"),
        (
            ["-m", "tracker=mlflow,wandb"],
            "tracker=mlflow,wandb: all jobs of a sweep have the same trackers; a list names several: [mlflow,wandb]",
        ),
    ],
)
def test_a_tracker_that_can_not_be_used_is_said_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "wandb" else name)
    outcome = run(*TINY, *words)
    assert (outcome.code, outcome.err) == (1, f"error: {message}")
    assert not any(tmp_path.iterdir())


def test_a_script_shows_its_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained = mnist_exp.train(*TINY, "tracker=tensorboard")
    assert everything_is_shown(trained.folder, tmp_path / "tensorboard")
    with pytest.raises(ConfigError, match=r"^tracker=foo: must be null"):
        mnist_exp.train(*TINY, "tracker=foo")


@pytest.mark.slow
def test_ctrl_c_ends_both_and_the_tracker_knows(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "train.py"), *TINY, "epochs=10000", "tracker=tensorboard", "hydra.run.dir=r"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout
        for line in process.stdout:
            if "epoch     2/" in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    [tracked] = runs.read(tmp_path / "r").runs
    assert tracked.status == "interrupted"
    assert everything_is_shown(tmp_path / "r", tmp_path / "tensorboard")
