"""Files that are written completely or not at all, checksums that detect changes, and locks."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mnist_exp.system.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


TEMPORARY = ".*.[0-9]*.tmp"  # matches the names under which `write` begins
LINE_END = len(', "checksum": "0123456789abcdef"}')  # bytes at the end of a sealed line


def write(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write a file in one step: a reader sees the old file or the new one, never a part.

    Raises:
        OSError: The disk is full, or the folder is read-only or gone. The old file stays.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for the block, whose content takes the place of `path` in one step if the block ends well.

    The bytes go to a temporary file in the same folder, are synced to the disk, and the file is renamed.

    Raises:
        OSError: The disk is full, the folder is read-only or gone, or `path` is a device. The old file stays.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # root could replace /dev/null by a file
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the error of a full disk names no file
        raise


def link(path: Path, target: Path) -> None:
    """Make `path` a second name of the file `target` in one step; where there are no hard links, a copy of it.

    Replacing one of them later leaves the other as it is.

    Raises:
        OSError: The disk is full, or the folder is read-only or gone. The old file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # another name of `target`, if a process of this number was killed at this place
    try:
        os.link(target, temporary)
    except OSError:
        write(path, target.read_bytes())
    else:
        os.replace(temporary, path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: The file can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def seal(facts: dict[str, Any], indent: int | None = None) -> str:
    """Return `facts` as JSON, with their checksum as the last key."""
    return json.dumps(facts | {"checksum": _checksum(facts)}, indent=indent)


def unseal(text: str | bytes) -> dict[str, Any]:
    """Return the facts that `seal` turned into `text`.

    Raises:
        ValueError: The text was altered.
    """
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.pop("checksum", None) != _checksum(facts):
        raise ValueError("its checksum does not match its content")
    return facts


def seal_line(facts: dict[str, Any]) -> str:
    """Return `facts` as one line of JSON, which ends with the checksum of the text before it."""
    text = json.dumps(facts)[:-1]
    return f'{text}, "checksum": "{digest(text.encode())[:16]}"}}'


def unseal_lines(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the facts that `seal_line` turned into each line. Lines by `seal` are read as well, more slowly.

    Raises:
        ValueError: A line was altered.
    """
    try:
        found: list[dict[str, Any]] = json.loads(b"[%s]" % b",".join(lines))
        is_each_sealed = all(
            facts.pop("checksum") == _line_checksum(line) for facts, line in zip(found, lines, strict=True)
        )
    except (ValueError, LookupError, AttributeError, TypeError):
        is_each_sealed = False
    return found if is_each_sealed else list(map(_unseal_line, lines))


def _unseal_line(line: bytes) -> dict[str, Any]:
    facts = json.loads(line)
    if isinstance(facts, dict) and facts.pop("checksum", None) == _line_checksum(line):
        return facts
    return unseal(line)


def _line_checksum(line: bytes) -> str:
    """Return the checksum at the end of a line by `seal_line`, of the text before it."""
    return hashlib.sha256(line[:-LINE_END]).hexdigest()[:16]


def _checksum(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file in the block, exclusively or shared.

    A process that is forked in the block holds the lock as well, until it ends. (filelock releases its lock in a fork.)

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    with open(path, "a+b") as file:  # NFS shares a lock only on a file that is open for reading
        if fcntl:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds an exclusive lock on a file.

    Raises:
        OSError: The file can't be read.
    """
    with open(path, "rb") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def may_be_locked(path: Path) -> bool:
    """Return whether a process holds an exclusive lock on a file, or may hold one, because the file can't be read."""
    try:
        return path.is_file() and is_locked(path)
    except OSError:
        return True


@contextmanager
def locked_in_turn(path: Path, wait: Callable[[], object]) -> Iterator[None]:
    """Hold an exclusive lock on a file in the block; call `wait` first if another process holds it.

    Raises:
        OSError: The file can't be written.
    """
    from filelock import FileLock, Timeout  # here, because --help does without

    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        wait()
        held = lock.acquire()
    with held:
        yield


@contextmanager
def locked_or_error(path: Path, message: str) -> Iterator[None]:
    """Hold an exclusive lock on a file in the block.

    Raises:
        ConfigError: Another process holds the lock; the error has this message.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(path))
        except BlockingIOError:
            raise ConfigError(message) from None
        yield
