"""Checkpoints: written whole or not at all, and verified before they are read. Reading one runs no code from it."""

import hashlib
import io
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from mnist_exp.store.run_folder import RunState
from mnist_exp.system import background, files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training.loop import Training

FORMAT = 1  # of a checkpoint's content
MARK = b"mnist_exp sha256 "  # the comment at the end of the ZIP file: this, and the digest of everything before it
HEX = 64  # digits of a SHA-256
KEYS = {"identity", "epoch", "best_epoch", "rows", "seconds", "data", "resumed"}  # what a resume reads of RunState


class CheckpointState(RunState):
    """The content of a checkpoint."""

    format: int
    model: dict[str, Any]  # state dicts of the parts
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    random: dict[str, torch.Tensor]  # the states of the random generators


class Checkpoints:
    """The checkpoints of a run: last.pt, its state after the last epoch, and best.pt, its state after the best one.

    Training continues from either with the same bits.
    """

    def __init__(self, folder: Path, training: Training) -> None:
        self.last, self.best, self.training = folder / "last.pt", folder / "best.pt", training
        self.parts: dict[str, Any] = {
            "model": training.model,
            "loss": training.loss,
            "optimizer": training.optimizer,
            "schedule": training.schedule,
        }
        self._kept: list[CheckpointState] = []  # what is still to be written: of the best epoch, and of the last one
        self._wait = background.nothing  # for what is being written

    def keep(self, run: RunState) -> None:
        """Copy the state after an epoch, to be written later.

        Raises:
            OSError: What was begun before can't be written. The old files stay.
        """
        self._wait()
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = cast(CheckpointState, _copied({"format": FORMAT} | dict(run) | parts | {"random": self._random()}))
        self._kept = [*(best for best in self._kept if best["epoch"] == run["best_epoch"]), state]

    def begin_write(self) -> None:
        """Write what was kept while training goes on."""
        self._wait = background.start(self._write_kept)

    def write(self) -> None:
        """Write what was kept: last.pt, and best.pt if it is of a better epoch.

        Raises:
            OSError: The files can't be written. The old ones stay, and what was kept is kept.
        """
        with suppress(Exception):  # what failed beside the training is tried again
            self._wait()
        self._write_kept()

    def _write_kept(self) -> None:
        while self._kept:
            state = self._kept[0]
            self.last.parent.mkdir(exist_ok=True)  # without its parents: a deleted run folder stays deleted
            write(self.last, state)  # first, because best.pt can be rebuilt from it
            if state["epoch"] == state["best_epoch"]:
                files.link(self.best, self.last)
            del self._kept[0]

    def restore(self, state: CheckpointState) -> None:
        """Load a checkpoint's state into the parts.

        Raises:
            ConfigError: The state doesn't fit the parts, or best.pt is not of this run's best epoch.
        """
        self._require_best(state)
        states = cast(dict[str, Any], state)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(states[name])
            self._set_random(state["random"])
        except Exception as error:  # another program, or another version, wrote it with a valid checksum
            raise ConfigError(
                f"{self.last.parent}: doesn't fit the parts of this run: {_in_one_line(error)}"
            ) from error

    def load_best(self) -> None:
        """Load the weights of the best epoch into the model.

        Raises:
            OSError: The checkpoints can't be written or read.
        """
        self.write()
        self.training.model.load_state_dict(load(self.best)["model"])

    def _require_best(self, state: CheckpointState) -> None:
        if state["best_epoch"] in (None, state["epoch"]):
            return  # best.pt will be written again
        best = load(self.best)
        if best["rows"] != state["rows"][: state["best_epoch"]] or best["data"] != state["data"]:
            raise ConfigError(f"{self.best}: not of epoch {state['best_epoch']} of this run; restore the original file")

    def _set_random(self, states: dict[str, torch.Tensor]) -> None:
        train = self.training.train
        train.order_rng.set_state(states["order"])
        train.augment_rng.set_state(states["augmentation"])
        torch.set_rng_state(states["dropout"])
        device = train.labels.device
        if device.type in states:
            torch.get_device_module(device).set_rng_state(states[device.type], *_which(device))

    def _random(self) -> dict[str, torch.Tensor]:
        """Return the state of every random generator."""
        train = self.training.train
        states = {
            "order": train.order_rng.get_state(),
            "augmentation": train.augment_rng.get_state(),
            "dropout": torch.get_rng_state(),
        }
        device = train.labels.device
        if device.type != "cpu":
            states[device.type] = torch.get_device_module(device).get_rng_state(*_which(device))
        return states


def _which(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []  # there is one MPS device at most, and its functions take none


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint file in one step: that of torch.save, with its checksum in the ZIP file's comment.

    Raises:
        OSError: The file can't be written. The old one stays.
    """
    with files.replacing(path) as file:
        sealed = _SealedFile(file)
        try:
            torch.save(state, cast(BinaryIO, sealed))
        except RuntimeError as error:  # of a full disk: torch then finds that too little was written
            raise error.__context__ or error from None
        sealed.seal()


class _SealedFile:
    """A ZIP file whose comment is the checksum of everything before it, computed as the file is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256, self._held = file, hashlib.sha256(), b""

    def write(self, content: memoryview) -> int:
        """Write all but the last two bytes so far: those at the end of a ZIP file are the size of its comment."""
        self._write(self._held)
        self._write(content[:-2])
        self._held = bytes(content[-2:])
        return len(content)

    def flush(self) -> None:
        """Leave it to `seal`: torch.save flushes before the comment."""

    def seal(self) -> None:
        """Write the comment."""
        self._write(struct.pack("<H", len(MARK) + HEX))
        self._file.write(MARK + self._sha256.hexdigest().encode())

    def _write(self, content: bytes | memoryview) -> None:
        self._sha256.update(content)
        self._file.write(content)


def _copied(value: Any) -> Any:
    """Return a copy whose tensors are on the CPU, each with memory of its own: a fused run's are parts of larger ones.

    They are copied in this thread. CUDA allows no call of another one as it captures a graph.
    """
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else value


def load(path: Path) -> CheckpointState:
    """Read a checkpoint to the CPU. Its checksum is verified first, and only numbers and text are unpickled.

    Raises:
        OSError: The file can't be read.
        ConfigError: The file is not a checkpoint, or was altered.
    """
    content = path.read_bytes()
    body, mark, digest = content[: -len(MARK) - HEX], content[-len(MARK) - HEX : -HEX], content[-HEX:]
    if mark != MARK:
        raise ConfigError(f"{path}: is not a checkpoint of this program, or was cut short")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ConfigError(f"{path}: is altered or damaged: its checksum is wrong")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the checksum is right, so somebody made the file so
        raise ConfigError(
            f"{path}: holds more than numbers and text, so it is not read: {_in_one_line(error)}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= KEYS:
        raise ConfigError(f"{path}: has another format; this version reads format {FORMAT}")
    return cast(CheckpointState, state)


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:500]
