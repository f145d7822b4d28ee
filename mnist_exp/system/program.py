"""The program's own files, and the command that starts it."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
IS_INSTALLED = (PACKAGE / "train.py").exists()  # a wheel carries train.py and conf/ in the package; a clone, beside it
TRAIN = (PACKAGE if IS_INSTALLED else PACKAGE.parent) / "train.py"
CONF = TRAIN.with_name("conf")

CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")  # where configs are found

# Environment variables, which worker processes inherit.
COMMAND = "MNIST_EXP_COMMAND"  # what `starts_with` set
ALLOW_MORE = "MNIST_EXP_ALLOW"  # prefixes that a _target_ may have beside the program's own


def starts_with(command: str) -> None:
    """Set the beginning of every command that this program suggests, such as "mnist-exp train"."""
    os.environ[COMMAND] = command


def beginning(script: str = "train.py") -> str:
    """Return what a command of this program begins with: "python train.py" unless `starts_with` set another."""
    return os.environ.get(COMMAND) or f"python {script}"


def tool(name: str) -> str:
    """Return what a command of mnist-exp begins with, such as "mnist-exp draw", as the user's own command began."""
    started = os.environ.get(COMMAND)
    return f"{started.removesuffix(' train')} {name}" if started else f"python -m mnist_exp {name}"
