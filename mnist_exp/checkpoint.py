"""What a run has learned, on disk: written whole or not at all, checked before it is read, running nobody's code."""

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp import files
from mnist_exp.data.batches import TrainingBatches
from mnist_exp.errors import ConfigError

FORMAT = 1  # of what a checkpoint holds
MARK = b"mnist_exp sha256 "  # the comment that the ZIP file ends with: this, and the digest of all before it
HEX = 64  # digits of a SHA-256
KEYS = {"identity", "epoch", "best_epoch", "rows", "seconds", "data", "resumed"}  # what a resume reads of Run.state


class Checkpoints:
    """The checkpoints of a run: last.pt, its state at the last epoch's end, and best.pt, that of its best epoch.

    From either one training goes on with the same bits.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        loss: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        train: TrainingBatches,
    ) -> None:
        self.last, self.best, self.train, self.model = folder / "last.pt", folder / "best.pt", train, model
        self.parts: dict[str, Any] = {"model": model, "loss": loss, "optimizer": optimizer, "schedule": schedule}

    def save(self, run: dict[str, Any]) -> None:
        """Write last.pt, with what `run` (record.Run.state) says, and best.pt where that has its best epoch last.

        Raises OSError; the old files then stay.
        """
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        content = pack({"format": FORMAT} | run | parts | {"random": self._random()})
        self.last.parent.mkdir(exist_ok=True)  # not its parents: a run folder that is deleted stays deleted
        files.write(self.last, content)  # first: from it, best.pt can be had again
        if run["epoch"] == run["best_epoch"]:
            files.write(self.best, content)

    def restore(self, state: dict[str, Any]) -> None:
        """Put what `load` has read into the parts.

        Raises ConfigError when it does not fit them, or when best.pt is not of this run's best epoch.
        """
        self._require_best(state)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self._set_random(state["random"])
        except Exception as error:  # it was written with care by somebody else, or by another version
            raise ConfigError(f"{self.last.parent}: of other parts than this run's: {_in_a_line(error)}") from error

    def _require_best(self, state: dict[str, Any]) -> None:
        if state["best_epoch"] in (None, state["epoch"]):
            return  # then it is written anew
        best = load(self.best)
        if best["rows"] != state["rows"][: state["best_epoch"]] or best["data"] != state["data"]:
            raise ConfigError(f"{self.best}: not of epoch {state['best_epoch']} of this run; put it back as it was")

    def _set_random(self, streams: dict[str, torch.Tensor]) -> None:
        self.train.order.set_state(streams["order"])
        self.train.chance.set_state(streams["augmentation"])
        torch.set_rng_state(streams["dropout"])
        device = self.train.labels.device
        if device.type in streams:
            torch.get_device_module(device).set_rng_state(streams[device.type], *_which(device))

    def load_best(self) -> None:
        """Give the model the weights of its best epoch."""
        self.model.load_state_dict(load(self.best)["model"])

    def _random(self) -> dict[str, torch.Tensor]:
        """Where every stream of random numbers has come to."""
        streams = {
            "order": self.train.order.get_state(),
            "augmentation": self.train.chance.get_state(),
            "dropout": torch.get_rng_state(),
        }
        device = self.train.labels.device
        if device.type != "cpu":
            streams[device.type] = torch.get_device_module(device).get_rng_state(*_which(device))
        return streams


def _which(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []  # there is one MPS device at most, and its functions take none


def pack(state: dict[str, Any]) -> memoryview:
    """The file of a checkpoint: as torch.save makes it, with its checksum in the ZIP file's comment."""
    buffer = io.BytesIO()
    torch.save(_by_itself(state), buffer)
    buffer.seek(-2, io.SEEK_END)  # the last two bytes of a ZIP file are the size of its comment
    buffer.write(struct.pack("<H", len(MARK) + HEX))
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(MARK + digest.encode())
    return buffer.getbuffer()


def _by_itself(value: Any) -> Any:
    """The same, with copies of tensors that are parts of larger ones: torch.save would write the whole of those."""
    if isinstance(value, dict):
        return {key: _by_itself(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()
    return value


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, its tensors on the CPU: once its checksum is found right, and then numbers and text alone.

    Raises OSError, and ConfigError for a file that is no checkpoint, or was altered.
    """
    content = path.read_bytes()
    body, mark, digest = content[: -len(MARK) - HEX], content[-len(MARK) - HEX : -HEX], content[-HEX:]
    if mark != MARK:
        raise ConfigError(f"{path}: no checkpoint of this program, or cut short")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ConfigError(f"{path}: altered or damaged, for its checksum does not agree")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # its checksum is right, so somebody made it so
        raise ConfigError(
            f"{path}: holds more than numbers and text, so it is not read: {_in_a_line(error)}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= KEYS:
        raise ConfigError(f"{path}: of another format; this version reads {FORMAT}")
    return state


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:500]
