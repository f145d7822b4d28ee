"""A user's own data, read once: the images are kept, as the runs see them, under the checksum of their content.

`<root>/cache/<SHA-256>.npz` holds images and labels. `<root>/cache/<digest of path and settings>.json` says from which
files, in which state, they were read: a name, a length and times for each. So the next start reads no image file.
"""

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mnist_exp.data.images import DataSet, Part
from mnist_exp.system import files

FOLDER = "cache"  # in data.root
FORMAT = 1  # of the files there; another decoder or another order of images makes another format
PARTS = ("train", "val", "test")

_log = logging.getLogger(__name__)

State = Mapping[str, os.stat_result | None]  # of files, by name; None: it can't be found


class Read(NamedTuple):
    """What was read from the user's files.

    Attributes:
        data: The data set, without its checksum.
        notes: What the log should say about it.
    """

    data: DataSet
    notes: Sequence[str] = ()


def load(
    path: str, root: str, settings: Mapping[str, Any], list_files: Callable[[], State], read: Callable[[State], Read]
) -> DataSet:
    """Return a data set from the cache, or read it and cache it.

    Several processes may do this at once: one reads, the others wait.

    Args:
        path: Where the user's data lies; `data.path`.
        root: The folder of all data sets, which gets the cache. Where it can't be written, nothing is cached.
        settings: What else the result of `read` depends on.
        list_files: Returns the state of all files.
        read: Reads the files in this state.

    Returns:
        The data set with the SHA-256 of its content: `checksum`.

    Raises:
        ValueError: The data can't be used, or its files changed while they were read. The message begins with path=.
        OSError: A file can't be read.
    """
    folder = Path(root).expanduser() / FOLDER
    made_from = {"path": os.path.realpath(path), "settings": settings, "pillow": version("pillow"), "format": FORMAT}
    index = folder / f"{_sha256(made_from)[:32]}.json"
    try:
        listed = list_files()
        made = _find(index, _digest(listed)) or _read_and_write(index, listed, list_files, read)
    except ValueError as error:
        reason = str(error).removeprefix(f"{Path(path).expanduser()}: ").removeprefix(f"{Path(path).name}: ")
        raise ValueError(f"path={path}: {reason}") from error
    for note in made.notes:
        _log.info("%s: %s", made.data.name, note)
    return made.data


def checksum(data: DataSet) -> str:
    """Return the SHA-256 of a data set's content: its classes, and the pixels and labels of each part in their order.

    Where the files lie, what they are called and how they were compressed doesn't matter.
    """
    digest = hashlib.sha256(json.dumps([data.classes, *(_part(data, name).images.shape for name in PARTS)]).encode())
    for name in PARTS:
        for tensor in _part(data, name):
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


def _part(data: DataSet, name: str) -> Part:
    part: Part = getattr(data, name)
    return part


def _read_and_write(index: Path, listed: State, list_files: Callable[[], State], read: Callable[[State], Read]) -> Read:
    """Read the data and cache it, unless another process has just done so."""
    state = _digest(listed)
    with _locked(index.parent) as is_writable:
        if found := _find(index, state):
            return found
        made = read(listed)
        if _digest(list_files()) != state:
            raise ValueError("files changed while they were read; start again")
        made = made._replace(data=made.data._replace(sha256=checksum(made.data)))
        if is_writable:
            _write(index, state, made)
        return made


def _find(index: Path, state: str) -> Read | None:
    """Return what was read from the files in this state; None if it is not there, or damaged."""
    try:
        facts = files.unseal(index.read_bytes())
        if facts["state"] != state:
            return None
        with open(_arrays(index, facts["sha256"]), "rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = (tuple(torch.from_numpy(arrays[f"{letter}_{name}"]) for letter in "xy") for name in PARTS)
            train, val, test = (Part(*tensors) for tensors in parts)
        name, sha256, preparation = (facts[key] for key in ("name", "sha256", "preparation"))
        data = DataSet(name, tuple(facts["classes"]), train, test, sha256, val, preparation)
        if checksum(data) != data.sha256:
            raise ValueError("its checksum does not match its content")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _log.warning("%s: damaged (%s); the data is read again", index, " ".join(str(error).split()))
        return None
    return Read(data, facts["notes"])


def _write(index: Path, state: str, made: Read) -> None:
    """Write a data set, and delete those that no index names any more."""
    data = made.data
    facts = {
        "name": data.name,
        "classes": data.classes,
        "preparation": data.preparation,
        "sha256": data.sha256,
        "state": state,
        "notes": made.notes,
    }
    arrays = {
        f"{letter}_{name}": tensor.numpy()
        for name in PARTS
        for letter, tensor in zip("xy", _part(data, name), strict=True)
    }
    try:
        with files.replacing(_arrays(index, data.sha256)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's types mix up the names with allow_pickle
        files.write(index, files.seal(facts).encode())
        _prune(index.parent)
    except OSError as error:
        _log.warning("%s is not cached: %s", data.name, error)


def _prune(folder: Path) -> None:
    named = {json.loads(index.read_bytes()).get("sha256") for index in folder.glob("*.json")}
    for path in folder.glob("*.npz"):
        if path.stem not in named:
            path.unlink()


def _arrays(index: Path, sha256: str) -> Path:
    return index.with_name(f"{sha256}.npz")


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Let one process at a time write in the folder, and remove what a killed one left. Yield whether it can write."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / ".lock"
            message = "waiting for another process, which is reading data and holds %s"
            stack.enter_context(files.locked_in_turn(path, lambda: _log.info(message, path)))
            for leftover in folder.glob(files.TEMPORARY):
                leftover.unlink()
            is_writable = True
        except OSError as error:
            _log.warning("%s can't be written, so the data is read at each start: %s", folder, error.strerror)
            is_writable = False
        yield is_writable


def _digest(state: State) -> str:
    """Return a digest of the files' names, lengths and times."""
    facts = (
        f"{name}\0{each.st_size} {each.st_mtime_ns} {each.st_ctime_ns}" if each else name
        for name, each in state.items()
    )
    return hashlib.sha256("\0\n".join(facts).encode(errors="surrogateescape")).hexdigest()


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
