"""What a command prints to a pipe without a reader, to a closed stream, and where letters can't be shown."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers.run_folders import summary

from mnist_exp.store.ledger import Ledger

TRAIN, REPORT = [str(ROOT / "train.py")], ["-m", "mnist_exp", "report"]
QUICK = ["experiment=digits", "epochs=1", "plots=false", "model.hidden_layers=[8]"]


def command(*words: str, folder: Path, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment | streams.pop("env", {}), **streams)


def to_nobody(*words: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose standard output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        return command(*words, folder=folder, stdout=pipe, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_a_sweep_goes_on_where_nobody_reads(tmp_path: Path, launcher: str) -> None:
    words = ["-m", *QUICK, "seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=s"]
    ended = to_nobody(*TRAIN, *words, folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert [job.status for job in Ledger(tmp_path / "s").read()[1].values()] == ["completed"] * 2
    assert (tmp_path / "s/report.md").exists()
    assert "test loss" in (tmp_path / "s/1/train.log").read_text()
    ended = to_nobody(*REPORT, "s", folder=tmp_path)
    assert (ended.returncode in (0, 141), ended.stderr) == (True, b"")  # 141: as a shell shows SIGPIPE


@pytest.mark.slow
def test_a_run_goes_on_where_nobody_reads(tmp_path: Path) -> None:
    ended = to_nobody(*TRAIN, *QUICK, "hydra.run.dir=r", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert summary(tmp_path / "r")["status"] == "completed"
    assert "test loss" in (tmp_path / "r/train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "--cfg job", "--info defaults", "-m seed=0,1 hydra.sweeper.dry_run=true"])
def test_what_is_only_shown_may_be_read_in_part(tmp_path: Path, words: str) -> None:
    ended = to_nobody(*TRAIN, *words.split(), folder=tmp_path)
    assert (ended.returncode in (0, 141), ended.stderr) == (True, b"")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("sweep", ["", "-m"])
def test_closed_streams(tmp_path: Path, closed: str, sweep: str) -> None:
    where = "hydra.sweep.dir=s" if sweep else "hydra.run.dir=s/0"
    line = f"'{sys.executable}' '{TRAIN[0]}' {' '.join(QUICK[:2])} plots=false {sweep} {where} {closed}"
    ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert summary(tmp_path / "s/0")["status"] == "completed"
    assert (tmp_path / "s/0/metrics.csv").read_text().startswith("epoch,")


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("name", ["José", "caf\udce9"])
def test_a_terminal_that_shows_ascii_alone(tmp_path: Path, name: str, sweep: bool) -> None:
    place = tmp_path / name
    place.mkdir()
    words = ["-m", *QUICK, "seed=0,1"] if sweep else QUICK
    ended = command(*TRAIN, *words, folder=place, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.isascii()
    last = ended.stdout.decode().splitlines()[-1]
    assert last.startswith("multirun/") if sweep else "outputs/" in last
    if sweep:
        assert b"| 1/2 [" in ended.stdout
        [folder] = place.glob("multirun/*/*")
        assert {"report.html", "report.md", "results.csv"} <= {path.name for path in folder.iterdir()}
        again = command(*REPORT, str(folder), folder=place, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
        assert (again.returncode, again.stderr) == (0, b"")
