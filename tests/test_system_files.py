"""Files are written whole or not at all; checksums notice changes; locks outlive a fork."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as error:
        files.write(path, b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.write(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    path, before = tmp_path / "file", tmp_path / "before"
    files.write(path, b"old")
    before.hardlink_to(path)
    files.write(path, b"new")
    assert (before.read_bytes(), path.read_bytes()) == (b"old", b"new")  # replaced, not written over


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name_keeps_the_content_as_the_first_is_replaced(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT has it

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    files.write(second, b"oldest")
    files.write(first, b"old")
    tmp_path.joinpath(f".second.{os.getpid()}.tmp").write_bytes(b"of a process that was killed")
    files.link(second, first)
    assert second.samefile(first) == has_links
    files.write(first, b"new")
    assert (first.read_bytes(), second.read_bytes()) == (b"new", b"old")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_sha256_is_that_of_coreutils(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 999)
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert files.sha256(path) == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a": 1}', '{"a": 1, "checksum": "0"}'])
def test_what_has_no_checksum_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"checksum|Expecting value"):
        files.unseal(text)


def test_facts_come_back_and_a_change_is_noticed() -> None:
    text = files.seal({"a": [1, None, "é"], "b": {"c": 0.1}})
    assert files.unseal(text) == {"a": [1, None, "é"], "b": {"c": 0.1}}
    with pytest.raises(ValueError, match="checksum"):
        files.unseal(text.replace("0.1", "0.2"))


LOCK = """
import sys
from pathlib import Path
from mnist_exp.system import files
with files.locked_or_error(Path(sys.argv[1]), "it is taken"):
    print("got it")
"""


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    def try_to_lock() -> str:
        command = [sys.executable, "-c", LOCK, str(tmp_path / "lock")]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        return done.stdout + done.stderr

    with files.locked(tmp_path / "lock"):
        assert "ConfigError: it is taken" in try_to_lock()
    assert try_to_lock() == "got it\n"
    with files.locked(tmp_path / "lock", shared=True), files.locked(tmp_path / "lock", shared=True):
        assert "ConfigError: it is taken" in try_to_lock()


def test_an_error_in_the_block_is_not_taken_for_the_locks(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), files.locked_or_error(tmp_path / "lock", "it is taken"):
        raise BlockingIOError
    with (
        pytest.raises(ConfigError, match="it is taken"),
        files.locked(tmp_path / "lock"),
        files.locked_or_error(tmp_path / "lock", "it is taken"),
    ):
        pass
