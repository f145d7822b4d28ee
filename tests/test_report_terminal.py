"""What a terminal shows during a sweep, through a pseudo terminal."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from helpers.sweeps import sweep
from rich.console import Console

from mnist_exp.report import status, status_text, terminal
from mnist_exp.store.run_folder import SWEEP_LOCK
from mnist_exp.system import files
from mnist_exp.system.streams import ERASE

TOKEN = re.compile(r"\x1b\[(\d*)([AJm])|([\r\n])|([^\x1b\r\n]+)")


def screen(text: str) -> list[str]:
    """The lines of a terminal without end, after it was sent the text."""
    lines, row, column = [""], 0, 0
    for count, control, move, letters in TOKEN.findall(text):
        if letters:
            lines[row] = lines[row].ljust(column)[:column] + letters + lines[row][column + len(letters) :]
            column += len(letters)
        elif control == "J":
            lines[row:] = [lines[row][:column]]
        elif control == "A":
            row -= int(count)
        elif move:
            row, column = row + (move == "\n"), 0
            lines += [""] * (row + 1 - len(lines))
    return lines


def in_terminal(*words: str, folder: Path, **environment: str) -> str:
    """What a command sends to a terminal."""
    master, slave = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"} | environment
    with subprocess.Popen([sys.executable, *words], cwd=folder, env=env, stdout=slave, stderr=slave) as process:
        os.close(slave)
        sent = b""
        with suppress(OSError):  # EIO: all who write have ended
            while part := os.read(master, 65536):
                sent += part
        assert process.wait(60) == 0
    os.close(master)
    return sent.decode()


def test_a_frame_is_as_wide_as_the_terminal_and_ends_where_it_began(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, seeds=[0], spoiled={1: "running"})
    (folder / "1").mkdir()
    with files.locked(folder / SWEEP_LOCK):
        lines = status_text.now(status.read(str(folder)))
    console = Console(file=StringIO(), force_terminal=True, width=20, height=30, legacy_windows=False)
    frame = terminal._frame(lines, console)
    assert screen(f"before\r\n{frame}")[:2] == ["before", "1 of 2 runs complet…"]
    assert max(map(len, screen(frame))) == 20
    assert "  epoch 0 of 5  #1 …" in screen(frame)
    assert screen(f"{frame}{ERASE}a line") == ["a line"]


@pytest.mark.slow
def test_lines_scroll_above_what_runs_now(tmp_path: Path) -> None:
    words = [str(ROOT / "train.py"), "-m", *TINY, "epochs=60", "seed=0,1", "hydra.sweep.dir=s"]
    sent = in_terminal(*words, folder=tmp_path)
    assert re.search(r"runs completed, 1 running", sent)
    assert re.search(r"epoch \d+ of 60  #\d seed=\d", sent)
    lines = [line.rstrip() for line in screen(sent)]
    assert [line for line in lines if " running" in line] == []
    assert [bool(re.search(rf"#{number} seed={number}: val .* s$", lines[1 + number])) for number in (0, 1)] == [
        True
    ] * 2
    assert lines[-2:] == ["s/report.html", ""]


@pytest.mark.slow
def test_a_dumb_terminal_gets_the_lines_alone(tmp_path: Path) -> None:
    words = [str(ROOT / "train.py"), "-m", *TINY, "seed=0", "hydra.sweep.dir=s"]
    assert "\x1b" not in in_terminal(*words, folder=tmp_path, TERM="dumb").replace("\x1b[A", "")
