"""A reader ends with the command beside which it runs, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

COMMAND = """
import os, sys
from mnist_exp.system.reader import Reader
reader = Reader("track.beside", ["tensorboard", "nowhere"])
print(reader.process.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_when_the_command_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", COMMAND]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        reader = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert process.stdout.read() == ""  # until the reader, which shares it, has ended
    assert not Path(f"/proc/{reader}/cmdline").exists() or b"beside" not in Path(f"/proc/{reader}/cmdline").read_bytes()
