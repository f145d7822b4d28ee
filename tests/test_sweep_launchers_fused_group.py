"""Runs that train as one fused group, in this process, on images of noise."""

import gc
import importlib.util
import itertools
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from helpers.run_folders import learned, metrics, summary
from helpers.trainings import SMALL, Composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mnist_exp import build
from mnist_exp.data.images import DataSet
from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import Row
from mnist_exp.sweep.launchers import fused_group
from mnist_exp.sweep.launchers.fused_group import RunConfig
from mnist_exp.system import files, signals
from mnist_exp.system.shared_time import SharedTime
from mnist_exp.training import checkpoint, loop
from mnist_exp.training.run import TrainingRun

MakeConfigs = Callable[..., list[RunConfig]]
VARIANTS = [("seed=0", "optimizer.lr=0.01"), ("seed=0", "optimizer.lr=0.003"), ("seed=1", "optimizer.lr=0.01")]


@pytest.fixture(scope="module")
def train_py() -> Iterator[ModuleType]:
    """The module train.py."""
    handlers = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    spec = importlib.util.spec_from_file_location("train_py", ROOT / "train.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_py"] = module
    spec.loader.exec_module(module)
    for number, handler in handlers.items():  # its first import ends the process at a signal
        signal.signal(number, handler)
    yield module
    del sys.modules["train_py"]


@pytest.fixture(autouse=True)
def in_this_process(source: DataSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train on noise, and leave this process's memory, logging and signals as they are."""
    monkeypatch.setattr(build, "source", lambda cfg: source)
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: None)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    handlers = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    with signals.raising():
        yield
    forget_signals()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    root.handlers, root.level = before, level


def forget_signals() -> None:
    """Raise signals again, as a new process does: after the first one, all are ignored."""
    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signals.install_handlers()


@pytest.fixture
def configs(composed: Composed, tmp_path: Path) -> MakeConfigs:
    """Make the configs of three runs, or of those whose folders are given, and their folders."""

    def make(*overrides: str, parent: str = "group", resume: bool = False) -> list[RunConfig]:
        found = []
        for number, own in enumerate(VARIANTS):
            folder = tmp_path / parent / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            last = folder / run_folder.LAST
            resumed = [f"resume='{last}'"] if resume else []
            cfg = composed(*SMALL, "hydra.mode=MULTIRUN", "plots=false", *overrides, *own, *resumed, folder=folder)
            found.append(RunConfig(cfg, OmegaConf.create({"hydra": HydraConfig.get()}).hydra))  # `composed` deletes it
        return found

    return make


def summaries(configs: list[RunConfig]) -> list[dict[str, Any]]:
    return [summary(Path(config.hydra.runtime.output_dir)) for config in configs]


def statuses(configs: list[RunConfig]) -> list[str]:
    return [facts["status"] for facts in summaries(configs)]


def folders(configs: list[RunConfig]) -> list[Path]:
    return [Path(config.hydra.runtime.output_dir) for config in configs]


def log_of(config: RunConfig) -> str:
    return (Path(config.hydra.runtime.output_dir) / "train.log").read_text()


def test_the_times_of_runs_add_up_to_that_of_the_group(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # each look at the clock takes a second
    monkeypatch.setattr(fused_group, "SharedTime", partial(SharedTime, lambda: float(next(ticks))))
    group = configs("epochs=2")
    fused_group.train(train_py.main, group)
    seconds, total = [facts["seconds"] for facts in summaries(group)], next(ticks)
    assert all(total / 10 < each < total / 2 for each in seconds)
    assert total / 2 < sum(seconds) <= total


@pytest.mark.usefixtures("in_double")
def test_the_runs_equal_runs_alone(train_py: ModuleType, configs: MakeConfigs) -> None:
    group, alone = configs("epochs=3"), configs("epochs=3", parent="alone")
    fused_group.train(train_py.main, group)
    for config in alone:
        with TrainingRun.open(*config) as run:
            train_py.prepare(run)
            for epoch in run.epochs:
                run.record(loop.train_and_validate(run.training, epoch))
            train_py.finish(run)
    for one, other in zip(folders(group), folders(alone), strict=True):
        for ours, theirs in zip(metrics(one), metrics(other), strict=True):
            for column in ours.keys() - {"seconds"}:
                assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-9)
        differ = {key for key, value in summary(one).items() if value != summary(other)[key]}
        assert differ <= {"seconds", "images_per_second", "files", "checksum", "best_val_loss", "test_loss"}
        assert summary(one)["test_loss"] == pytest.approx(summary(other)["test_loss"], rel=1e-9)
        assert {path.name for path in one.rglob("*")} == {path.name for path in other.rglob("*")}


def test_a_run_that_fails_stops_no_other(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its parts are built, as an epoch is recorded, and as it is tested."""
    prepare, record, finish = train_py.prepare, TrainingRun.record, train_py.finish

    def failing(step: Callable[..., None], number: str) -> Callable[..., None]:
        def call(run: TrainingRun, *arguments: Any) -> None:
            if run.folder.name == number:
                raise OSError(28, "No space left on device", "checkpoint")
            step(run, *arguments)

        return call

    for number in "012":
        with monkeypatch.context() as patched:
            patched.setattr(train_py, "prepare", failing(prepare, number if number == "0" else ""))
            patched.setattr(TrainingRun, "record", failing(record, number if number == "1" else ""))
            patched.setattr(train_py, "finish", failing(finish, number if number == "2" else ""))
            group = configs(parent=number)
            fused_group.train(train_py.main, group)
        expected = ["completed"] * 3
        expected[int(number)] = "failed"
        assert statuses(group) == expected
        failed = group[int(number)]
        assert summaries(group)[int(number)]["error"] == "checkpoint: No space left on device"
        assert "Traceback" in log_of(failed)
        assert all(is_unlocked(folder) for folder in folders(group))


@pytest.mark.usefixtures("in_double")
def test_a_disk_that_is_full_for_one_run_stops_no_other_and_no_thread_is_left(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is forked later would copy a thread's locks without the thread."""
    write, before, group = checkpoint.write, threading.active_count(), configs("epochs=3", "checkpoint_every=2")

    def full(path: Path, state: Any) -> None:
        if path.parents[1].name == "1" and state["epoch"] == 2:
            raise OSError(28, "No space left on device", str(path))
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", full)
    fused_group.train(train_py.main, group)
    assert statuses(group) == ["completed", "failed", "completed"]
    assert summaries(group)[1]["error"].endswith("last.pt: No space left on device")
    assert threading.active_count() == before


def is_unlocked(folder: Path) -> bool:
    with files.locked(folder / "train.log"):
        return True


def test_a_run_that_another_process_has_is_left_alone(train_py: ModuleType, configs: MakeConfigs) -> None:
    group = configs()
    with files.locked(folders(group)[1] / "train.log"):
        fused_group.train(train_py.main, group)
    assert statuses([group[0], group[2]]) == ["completed"] * 2
    assert not (folders(group)[1] / "summary.json").exists()


def test_a_run_that_diverges_stops_no_other(train_py: ModuleType, configs: MakeConfigs) -> None:
    group = configs("epochs=3")
    group[1].cfg.optimizer.lr = 1e30
    fused_group.train(train_py.main, group)
    assert statuses(group) == ["completed", "failed", "completed"]
    assert summaries(group)[1]["failure"] == "diverged"
    assert "FloatingPointError: the loss became nan at epoch 1, step 2" in log_of(group[1])


def test_an_error_of_the_group_fails_all_its_runs(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(FusedTrainer, "train_epoch", fail)
    group = configs()
    fused_group.train(train_py.main, group)
    assert statuses(group) == ["failed"] * 3
    for facts, config in zip(summaries(group), group, strict=True):
        assert facts["error"].startswith("out of memory: too large")
        assert facts["failure"] is None  # it is unknown which run caused it
        assert log_of(config).count("Traceback") == 1


def interrupt_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool], number: int = signal.SIGTERM
) -> None:
    """Raise a signal before the call of a function."""
    function = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        if when(*arguments):
            signal.raise_signal(number)
        return function(*arguments)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("every", [1, 3])
def test_a_signal_interrupts_all_runs_and_all_resume(
    every: int, train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = configs("epochs=3", parent="undisturbed")
    fused_group.train(train_py.main, undisturbed)
    group = configs("epochs=3", f"checkpoint_every={every}")
    with monkeypatch.context() as patched:
        interrupt_at(patched, FusedTrainer, "train_epoch", lambda trainer, epoch: epoch == 2)
        with pytest.raises(KeyboardInterrupt):
            fused_group.train(train_py.main, group)
    assert statuses(group) == ["interrupted"] * 3
    assert [facts["epochs"] for facts in summaries(group)] == [1] * 3
    assert all(log_of(config).endswith("interrupted\n") for config in group)
    forget_signals()
    fused_group.train(train_py.main, configs("epochs=3", resume=True))
    for one, other in zip(folders(group), folders(undisturbed), strict=True):
        assert learned(one) == learned(other)


def test_a_signal_waits_until_all_runs_have_recorded_the_epoch(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = configs("epochs=3")
    interrupt_at(monkeypatch, TrainingRun, "record", lambda run, row: run.folder.name == "1" and row.epoch == 2)
    with pytest.raises(KeyboardInterrupt):
        fused_group.train(train_py.main, group)
    assert [facts["epochs"] for facts in summaries(group)] == [2] * 3
    assert statuses(group) == ["interrupted"] * 3


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_a_signal_leaves_completed_runs_completed(
    step: str, train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = configs()
    with monkeypatch.context() as patched:
        interrupt_at(patched, train_py, step, lambda run: run.folder.name == "1")
        with pytest.raises(KeyboardInterrupt):
            fused_group.train(train_py.main, group)
    if step == "prepare":  # nothing is there that a summary could say
        assert statuses(group[:2]) == ["interrupted"] * 2
        return
    assert statuses(group) == ["completed", "interrupted", "interrupted"]
    assert [facts["epochs"] for facts in summaries(group)] == [2] * 3

    # These are over: they are tested without another epoch.
    monkeypatch.setattr(fused_group, "FusedTrainer", None)
    forget_signals()
    fused_group.train(train_py.main, configs(resume=True)[1:])
    assert statuses(group) == ["completed"] * 3
    assert all(facts["test_errors"] is not None for facts in summaries(group))


@pytest.mark.parametrize("where", ["prepare", "train_epoch"])
def test_a_signal_that_other_code_turns_into_an_error_is_still_a_signal(
    where: str, train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def swallow(*arguments: Any) -> None:
        calls.append(arguments)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("in the middle of something") from error

    monkeypatch.setattr(train_py if where == "prepare" else FusedTrainer, where, swallow)
    group = configs()
    with pytest.raises(KeyboardInterrupt):
        fused_group.train(train_py.main, group)
    assert len(calls) == 1
    assert statuses(group[:1] if where == "prepare" else group) == ["interrupted"] * (1 if where == "prepare" else 3)


@pytest.mark.usefixtures("in_double")
def test_runs_that_are_behind_catch_up(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = configs("epochs=3", parent="undisturbed")
    fused_group.train(train_py.main, undisturbed)
    group = configs("epochs=3")
    for config, epochs in zip(group, (1, 2, 2), strict=True):
        with monkeypatch.context() as patched:
            interrupt_at(patched, fused_group, "train_and_validate", lambda _, epoch, last=epochs: epoch > last)
            with pytest.raises(KeyboardInterrupt):
                fused_group.train(train_py.main, [config])
        forget_signals()
    trained: list[tuple[int, int]] = []
    stack = fused_group._stack

    def noted(trainings: Any) -> Any:
        train_epoch = stack(trainings)

        def train(epoch: int) -> Any:
            trained.append((len(trainings), epoch))
            return train_epoch(epoch)

        return train

    monkeypatch.setattr(fused_group, "_stack", noted)
    fused_group.train(train_py.main, configs("epochs=3", resume=True))
    assert trained == [(1, 2), (3, 3)]
    for one, other in zip(folders(group), folders(undisturbed), strict=True):
        for ours, theirs in zip(metrics(one), metrics(other), strict=True):
            assert float(ours["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-9)


def test_finished_runs_free_their_memory(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a group whose runs end one by one would keep one stack of weights per run."""
    group = configs("epochs=6")
    trainers: list[weakref.ref[FusedTrainer]] = []
    alive: list[int] = []
    initialize = FusedTrainer.__init__

    def noted(self: FusedTrainer, trainings: Any) -> None:
        gc.collect()
        alive.append(sum(trainer() is not None for trainer in trainers))
        trainers.append(weakref.ref(self))
        initialize(self, trainings)

    monkeypatch.setattr(FusedTrainer, "__init__", noted)
    prepare = train_py.prepare

    def prepare_some(run: TrainingRun) -> None:
        prepare(run)
        run.cfg.epochs = int(run.folder.name) + 1  # they end one by one

    monkeypatch.setattr(train_py, "prepare", prepare_some)
    fused_group.train(train_py.main, group)
    assert [facts["epochs"] for facts in summaries(group)] == [1, 2, 3]
    assert alive == [0, 0]


def test_each_run_has_its_own_log(
    train_py: ModuleType,
    configs: MakeConfigs,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepare = train_py.prepare

    def warn(run: TrainingRun) -> None:
        logging.getLogger("a.library").warning("about %s", run.folder.name)
        prepare(run)

    monkeypatch.setattr(train_py, "prepare", warn)
    group = configs()
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    fused_group.train(train_py.main, group)
    assert not before or len(os.listdir("/proc/self/fd")) == before
    for number, config in enumerate(group):
        lines = log_of(config).splitlines()
        epochs = [line for line in lines if "epoch " in line and "train loss" in line]
        assert len(epochs) == 2
        assert all(
            line.startswith("[20") and "][mnist_exp.run][INFO] epoch" in line for line in epochs
        )  # Hydra's format
        assert lines[-1].endswith(str(folders(group)[number]))
        assert sum("[a.library][WARNING] about" in line for line in lines) == (3 if number == 0 else 0)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_alone_in_the_end_trains_alone(
    train_py: ModuleType, configs: MakeConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = []
    train_and_validate = loop.train_and_validate

    def noted(*arguments: Any) -> Row:
        rows.append(train_and_validate(*arguments))
        return rows[-1]

    monkeypatch.setattr(fused_group, "train_and_validate", noted)
    group = configs("epochs=3")
    for config in group[:2]:
        config.cfg.optimizer.lr = 1e30
    fused_group.train(train_py.main, group)
    assert statuses(group) == ["failed", "failed", "completed"]
    assert [row.epoch for row in rows] == [2, 3]
