"""A run on scikit-learn's digits, trained once for all tests that use it."""

import os
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT


def train(folder: Path, *overrides: str) -> Path:
    """Train in this process, and return the run folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["data=digits", "augmentation=none", "model.hidden_layers=[48]", "epochs=12", "plots=false", *overrides]
        patch.setattr(sys, "argv", ["train.py", *words, "hydra.run.dir=outputs/a/run"])
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return folder / "outputs" / "a" / "run"


def touch(path: Path, seconds: int) -> None:
    """Set when a file was written last, in seconds since 1970."""
    os.utime(path, (seconds, seconds))
