"""Files that are whole or not there at all, and that tell when they were altered."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


TEMPORARY = ".*.[0-9]*.tmp"  # matches the names under which `write` begins


def write(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    The bytes go to a temporary name in the same folder, are synced to the disk, and are renamed.
    Raises OSError (disk full, read-only folder, no folder...), which leaves the file that was there as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say what it had no room for
        raise


def sha256(path: Path) -> str:
    """The checksum of a file. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(facts: dict[str, Any], indent: int | None = None) -> str:
    """JSON of `facts` with a checksum of them as its last key."""
    return json.dumps(facts | {"checksum": _checksum(facts)}, indent=indent)


def unseal(text: str | bytes) -> dict[str, Any]:
    """The facts that `seal` made `text` of. Raises ValueError when it is not as it was written."""
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.pop("checksum", None) != _checksum(facts):
        raise ValueError("its checksum does not agree with what it says")
    return facts


def _checksum(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock on the file `path`, alone or with other sharers, until the block ends.

    A process that is forked meanwhile holds it as well, until its own end: that is why this is not filelock's, which
    lets go in a fork. Raises BlockingIOError when somebody else holds it.
    """
    with open(path, "ab") as file:
        if fcntl:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield
