"""Files that are whole or not there at all."""

import os
from pathlib import Path


def write(path: Path, content: bytes | memoryview) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    The bytes go to a temporary name in the same folder (made if need be), are synced to the disk, and are renamed.
    Raises OSError (disk full, read-only folder...), which leaves the file that was there as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
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
