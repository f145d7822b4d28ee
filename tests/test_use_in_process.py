"""mnist_exp.train: a run within this process equals that of the command, and leaves the process as it was."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned, summary
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from jupyter_client.manager import start_new_kernel

import mnist_exp
from mnist_exp import build
from mnist_exp.data.batches import TrainingBatches
from mnist_exp.system import program, signals
from mnist_exp.training.run import TrainingRun
from mnist_exp.use import in_process

Run = Callable[..., Outcome]
TIMES = r"(?m)^\[[\d-]+ [\d:,]+\]|\d+\.\d s"


@pytest.fixture(autouse=True, scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the first run of a process imports sets variables and handlers."""
    mnist_exp.train(*TINY, "epochs=1", f"hydra.run.dir={tmp_path_factory.mktemp('first')}")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def state_of_the_process() -> dict[str, Any]:
    """What a run must not change in a process that is not its own."""
    program_log, torch_log = logging.getLogger("mnist_exp"), logging.getLogger("torch")
    loggers = {log: (log.level, log.propagate, [*log.handlers]) for log in (logging.root, program_log, torch_log)}
    handlers = [*logging._handlerList]  # type: ignore[attr-defined]
    singletons = GlobalHydra.instance(), VersionBase.instance(), JobRuntime.instance()
    return {
        "folder": os.getcwd(),
        "environment": {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"},
        "arguments": [*sys.argv],
        "path": [*sys.path],
        "signals": {number: signal.getsignal(number) for number in signals.STOP_SIGNALS},
        "was a signal raised": [*signals._raised],
        "loggers": loggers,
        "handlers": [handler() for handler in handlers if handler()],
        "hydra": (singletons, GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "version": VersionBase.instance().getbase(),
        "job": JobRuntime.instance().get("name"),
        "random numbers": torch.get_rng_state().tolist(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "flushed": torch.tensor([1e-323], dtype=torch.float64).item() == 0,
    }


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, with_: Callable[[], Any]) -> None:
    """Call a function at the start of an epoch."""
    plain, begun = TrainingBatches.__iter__, []

    def iterate(self: TrainingBatches) -> Any:
        begun.append(1)
        if len(begun) == at:
            with_()
        return plain(self)

    monkeypatch.setattr(TrainingBatches, "__iter__", iterate)


def log(folder: Path, without: str) -> str:
    return re.sub(without, "", (folder / "train.log").read_text())


def ctrl_c() -> None:
    raise KeyboardInterrupt


def test_two_runs_of_one_process_equal_those_of_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [*TINY, "model.dropout=0.2"], [*TINY, "optimizer=sgd", "seed=1"]
    ours = [mnist_exp.train(*overrides) for overrides in commands]
    said = capsys.readouterr()
    theirs = [run(*overrides) for overrides in commands]
    for mine, folder in zip(ours, (outcome.folders[-1] for outcome in theirs), strict=True):
        assert mine.folder.parts[-3] == "outputs"
        assert learned(mine.folder) == learned(folder)
        ours_said, theirs_said = (log(each, TIMES).replace(str(each), "it") for each in (mine.folder, folder))
        assert ours_said == theirs_said.replace("python -m mnist_exp draw", "mnist-exp draw")
        assert {path.name for path in mine.folder.iterdir()} == {path.name for path in folder.iterdir()}
        for name in ("config.yaml", "overrides.yaml"):
            assert (mine.folder / ".hydra" / name).read_bytes() == (folder / ".hydra" / name).read_bytes()
        hydras = [(each / ".hydra/hydra.yaml").read_text() for each in (mine.folder, folder)]
        assert hydras[0].replace(mine.folder.name, folder.name) == hydras[1]
    assert said.err == ""
    assert said.out == "".join(log(run.folder, r"(?m)^\[[^\n]*\]\[mnist_exp.run\]\[INFO\] ") for run in ours)


@pytest.fixture
def other_settings() -> Iterator[None]:
    """Settings of torch that no run has."""
    with build.torch_settings_kept():
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("high")
        torch.set_flush_denormal(False)
        torch.set_deterministic_debug_mode("warn")
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        yield


@pytest.mark.usefixtures("other_settings")
def test_the_process_is_as_it_was() -> None:
    before = state_of_the_process()
    mnist_exp.train(*TINY)
    assert state_of_the_process() == before
    with pytest.raises(mnist_exp.ConfigError):
        mnist_exp.train("optimizer=adan")
    with pytest.raises(mnist_exp.ConfigError):
        mnist_exp.train("device=tpu", *TINY)
    assert state_of_the_process() == before


def test_a_caller_who_uses_hydra_himself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: ${hydra:job.name}\nkey: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), job_name="mine", version_base="1.2"):
        HydraConfig.instance().set_config(hydra.compose("mine", return_hydra_config=True))
        before = state_of_the_process()
        mnist_exp.train(*TINY)
        assert state_of_the_process() == before
        cfg = hydra.compose("mine", return_hydra_config=True)
        assert (cfg.name, cfg.key, cfg.hydra.job.name) == ("mine", 1, "mine")
    HydraConfig.instance().cfg = None


def test_what_the_caller_logs_stays_his(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = logging.FileHandler(tmp_path / "mine.log", mode="w")
    logging.root.addHandler(file)
    logging.warning("before")
    run = mnist_exp.train(*TINY)
    logging.warning("after")
    logging.root.removeHandler(file)
    file.close()
    assert (tmp_path / "mine.log").read_text().splitlines() == ["before", "after"]
    assert caplog.messages == ["before", "after"]
    assert "after" not in (run.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer=adan"], "optimizer=adan: no such option, did you mean adam? Choose from "),
        (["epochs=0"], "epochs=0: must be 1 or more"),
        (["optimizer.speed=1"], "optimizer.speed: no such key, choose from optimizer.lr"),
        (["sgd"], "sgd: is not an override, because it has no =; type key=value"),
        (["seed=0,1"], "seed=0,1: has several values; -m makes a sweep of them"),
        (["experiment=digits", "resume=nowhere"], "resume=nowhere: no such file or folder"),
        (["data.batch_size=9999"], "data.batch_size=9999: must be 1 to 1,300"),
        (["-m", "seed=0,1"], "-m: mnist_exp.train takes overrides alone, such as optimizer=sgd; the command mnist-exp"),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: mnist_exp.train takes overrides alone"),
        (["--cfg"], "--cfg: mnist_exp.train takes overrides alone"),
    ],
)
def test_a_wrong_config_is_a_config_error_of_one_line(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(mnist_exp.ConfigError) as error:
        mnist_exp.train(*TINY, *words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__ or not error.value.__context__
    assert capfd.readouterr().err == ""


def test_a_list_of_overrides_is_refused() -> None:
    with pytest.raises(mnist_exp.ConfigError, match=r"^\['epochs=1'\]: is not a string; type train\("):
        mnist_exp.train(["epochs=1"])  # type: ignore[arg-type]


def test_a_failed_run_has_a_summary(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="the loss became"):
        mnist_exp.train(*TINY, "optimizer.lr=1e30", "hydra.run.dir=it")
    facts = summary(tmp_path / "it")
    assert (facts["status"], facts["failure"]) == ("failed", "diverged")
    assert "Traceback" in (tmp_path / "it/train.log").read_text()
    with pytest.raises(FileExistsError, match="already holds a run"):
        mnist_exp.train(*TINY, "hydra.run.dir=it")


def test_an_error_of_a_users_part_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("mine")

    monkeypatch.setattr(TrainingRun, "record", fail)
    with pytest.raises(LookupError, match="mine"):
        mnist_exp.train(*TINY)
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "how", [lambda: signal.raise_signal(signal.SIGINT), pytest.param(ctrl_c, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_is_resumed_to_the_same_bits(
    how: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, before = mnist_exp.train(*TINY, "epochs=3"), state_of_the_process()
    interrupt(monkeypatch, at=2, with_=how)
    with pytest.raises(KeyboardInterrupt) as error:
        mnist_exp.train(*TINY, "epochs=3", "hydra.run.dir=it")
    assert error.type is KeyboardInterrupt
    assert state_of_the_process() == before
    assert (summary(Path("it"))["status"], len(mnist_exp.load("it").metrics)) == ("interrupted", 1)
    assert f"interrupted; to resume: mnist-exp train resume={Path('it').absolute()}" in capsys.readouterr().out
    resumed = mnist_exp.train("resume=it")
    assert learned(resumed.folder) == learned(whole.folder)
    assert mnist_exp.train("resume=it").folder == resumed.folder  # completed by now
    assert f"{resumed.folder}: the run is completed, with " in capsys.readouterr().out
    assert state_of_the_process() == before


def test_a_signal_to_end_the_process_is_delivered_after_the_run_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    interrupt(monkeypatch, at=2, with_=lambda: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            mnist_exp.train(*TINY, "hydra.run.dir=it")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert summary(Path("it"))["status"] == "interrupted"


@pytest.mark.slow
def test_another_thread_may_train_but_not_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[mnist_exp.TrainedRun] = []
    thread = threading.Thread(target=lambda: runs.append(mnist_exp.train(*TINY)))
    thread.start()
    thread.join()
    assert learned(runs[0].folder) == learned(mnist_exp.train(*TINY).folder)
    interrupt(monkeypatch, at=1, with_=lambda: mnist_exp.train(*TINY))
    with pytest.raises(RuntimeError, match="another run trains in this process"):
        mnist_exp.train(*TINY)


def test_the_users_own_conf_comes_first(tmp_path: Path) -> None:
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    (tmp_path / "conf/optimizer/mine.yaml").write_text("_target_: torch.optim.SGD\nlr: 0.125\n")
    assert mnist_exp.train(*TINY, "optimizer=mine").config.optimizer.lr == 0.125


def test_commands_begin_as_the_one_that_started_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(program.COMMAND, "python -m mnist_exp train")
    with in_process._command_named("mnist-exp train"):
        assert program.beginning() == "python -m mnist_exp train"
    monkeypatch.delenv(program.COMMAND)
    with in_process._command_named("mnist-exp train"):
        assert program.beginning() == "mnist-exp train"
    assert program.beginning() == "python train.py"


@pytest.mark.slow
def test_a_notebook_shows_progress_and_its_stop_button_leaves_the_kernel_alive(tmp_path: Path) -> None:
    manager, kernel = start_new_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=str(tmp_path))
    said: dict[str, str] = {"stdout": "", "stderr": "", "error": ""}

    def listen(message: dict[str, Any]) -> None:
        content = message["content"]
        said[content.get("name", "error")] += content.get("text", "") + content.get("ename", "")
        if re.search(r"epoch +2/1000000", content.get("text", "")):
            manager.interrupt_kernel()

    try:
        long = [*TINY, "data.batch_size=1", "epochs=1000000", "hydra.run.dir=it"]
        kernel.execute_interactive(f"import mnist_exp\nmnist_exp.train(*{long})", output_hook=listen, timeout=120)
        assert said["error"] == "KeyboardInterrupt"
        assert re.search(r"epoch 1: +\d+%\|.*\d+/1300 \[", said["stderr"])
        assert "interrupted; to resume: mnist-exp train resume=" in said["stdout"]
        assert summary(tmp_path / "it")["status"] == "interrupted"
        kernel.execute_interactive(
            f"print(mnist_exp.train(*{TINY}).summary['status'])", output_hook=listen, timeout=120
        )
        assert said["stdout"].endswith("\ncompleted\n")
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel()


@pytest.mark.slow
def test_ctrl_c_in_a_script_that_goes_on(tmp_path: Path) -> None:
    code = f"""
import mnist_exp
try:
    mnist_exp.train(*{TINY}, "epochs=1000000", "hydra.run.dir=it")
except KeyboardInterrupt:
    print("goes on")
run = mnist_exp.train(*{TINY}, "hydra.run.dir=other")
print(run.summary["status"])
input()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "it/checkpoints/best.pt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        while not (tmp_path / "other/summary.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # Python's own handler is back
        out, err = process.communicate(timeout=60)
    assert "\ngoes on\n" in out
    assert summary(tmp_path / "it")["status"] == "interrupted"
    assert process.returncode in (130, -signal.SIGINT)
    assert err.splitlines()[-1] == "KeyboardInterrupt"
