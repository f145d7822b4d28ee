"""A signal ends a command with one line and its exit code, whenever it comes. (At every 50 ms: tests.torture.)"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.run_folders import summary

from mnist_exp.store.ledger import Ledger
from mnist_exp.system import signals
from mnist_exp.system.fork import run_in_subprocess

LONG = ["experiment=digits", "epochs=5000", "plots=false", "model.hidden_layers=[8]"]
FORMS = {
    "alone": ["hydra.run.dir=it"],
    "sweep": ["-m", "seed=0,1", "hydra.sweep.dir=it"],
    "fused": ["-m", "seed=0,1", "hydra/launcher=fused", "hydra.sweep.dir=it"],
}


def begin(folder: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, str(ROOT / "train.py"), *LONG, *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 0.15), (signal.SIGTERM, 0.6), (signal.SIGINT, 1.4)])
def test_a_signal_at_any_moment_is_one_line(form: str, number: int, after: float, tmp_path: Path) -> None:
    process = begin(tmp_path, *FORMS[form])
    time.sleep(after)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (128 + number, "")
    assert out.count("interrupted") + out.count("to resume: ") >= 1
    assert "Traceback" not in out
    assert "FakeTensor" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "number"),
    [*((form, signal.SIGHUP) for form in FORMS), ("alone", signal.SIGUSR1), ("fused", signal.SIGUSR2)],
)
def test_the_other_signals_end_a_command_as_sigterm_does(form: str, number: signal.Signals, tmp_path: Path) -> None:
    process = begin(tmp_path, *FORMS[form])
    last = tmp_path / ("it" if form == "alone" else "it/0") / "checkpoints/last.pt"
    while not last.exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (128 + number, ""), out
    assert summary(last.parents[1])["status"] == "interrupted"
    assert "to resume: python train.py" in out
    if form != "alone":
        assert "interrupted" in {job.status for job in Ledger(tmp_path / "it").read()[1].values()}


@pytest.mark.slow
def test_nohup_keeps_a_run_alive(tmp_path: Path) -> None:
    process = begin(tmp_path, "epochs=2", "hydra.run.dir=it", before=("nohup",))
    while not (tmp_path / "it/metrics.csv").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "test loss" in out


@pytest.mark.parametrize("opened", [os.pipe, os.openpty])
@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_signal_where_nobody_reads_keeps_its_exit_code(number: int, opened: Callable[[], tuple[int, int]]) -> None:
    reader, writer = opened()
    os.close(reader)
    code = "import signal; from mnist_exp.system import errors\n"
    code += f"with errors.in_one_line(): signal.raise_signal({number:d})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with os.fdopen(writer, "wb") as nobody:
        ended = subprocess.run([sys.executable, "-c", code], env=environment, stdout=nobody, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (128 + number, b"")


def test_a_helper_process_that_dies_tells_of_what() -> None:
    with pytest.raises(ChildProcessError, match="a helper process was ended by SIGALRM"):
        run_in_subprocess(lambda: signal.raise_signal(signal.SIGALRM))
