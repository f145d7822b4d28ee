"""torch's libraries are loaded beside what comes before the import, which nothing disturbs."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_exp.system import torch_import

PRELOAD = """
import os, sys, threading
from mnist_exp.system import torch_import
sys.argv = ["train.py", *sys.argv[1:]]
torch_import.preload()
"""


def python(code: str, *words: str) -> str:
    """What a new Python process prints."""
    return subprocess.run(
        [sys.executable, "-c", PRELOAD + code, *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries have other names")
def test_the_libraries_are_loaded_without_torch_which_then_uses_them() -> None:
    code = """
assert os.fork() or os._exit(0)  # waits for the thread
def loaded(): return {line.split()[-1] for line in open("/proc/self/maps") if "libtorch_cpu.so" in line}
before = loaded()
assert before and "torch" not in sys.modules, before
import torch
assert loaded() == before
print(float(torch.ones(2).sum()))
"""
    assert python(code, "epochs=1") == "2.0\n"


@pytest.mark.parametrize("flag", ["--help", "-m", "--cfg"])
def test_a_command_with_a_flag_does_without(flag: str) -> None:
    assert python("print(threading.active_count())", "epochs=1", flag) == "1\n"


def test_a_missing_library_is_left_to_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_import, "LIBRARIES", ("libmissing.so",))
    torch_import._load(tmp_path)


@pytest.mark.parametrize("is_command", [True, False])
def test_what_torch_leaves_is_not_looked_through_in_a_command(
    is_command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = list[bool]()
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: len(frozen))
    monkeypatch.setattr(torch_import, "_is_command", is_command)
    for _ in range(2):
        with torch_import.undisturbed():
            pass
    assert frozen == [True] * is_command


def test_neither_signals_nor_collections_disturb_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = list[bool]()
    monkeypatch.setattr(gc, "enable", lambda: enabled.append(True))
    heard = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with torch_import.undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not gc.isenabled()
            assert (heard, enabled) == ([], [])
        assert (heard, enabled) == ([signal.SIGTERM], [True])
        with torch_import.undisturbed():
            pass
        assert enabled == [True]  # it was off before
    finally:
        signal.signal(signal.SIGTERM, before)
        monkeypatch.undo()
        gc.enable()
