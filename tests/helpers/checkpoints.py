"""Checkpoints that are made up."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mnist_exp.training import checkpoint


def packed(state: Mapping[str, Any]) -> bytes:
    """Return the content of the checkpoint file of this state."""
    with TemporaryDirectory() as folder:
        checkpoint.write(Path(folder, "made_up.pt"), state)
        return Path(folder, "made_up.pt").read_bytes()
