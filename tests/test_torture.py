"""A little of `python -m tests.torture`, which in full takes half an hour."""

import subprocess
import sys

import pytest
from conftest import ROOT

SECTIONS = ["kills", "disks", "damage.flips", "damage.swaps", "endurance.leaks"]


@pytest.mark.slow
def test_a_little_torture_is_survived() -> None:
    command = [sys.executable, "-m", "tests.torture", "--rounds", "5", "--only", *SECTIONS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
