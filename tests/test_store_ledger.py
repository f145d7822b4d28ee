"""The ledger: what it records, and how it is read after a crash."""

import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

SESSION = {"program": PROGRAM, "ledger": VERSION, "command": "python train.py -m"}
FIRST = Job(0, ("seed=0",), "a" * 12, "b" * 12, 0, {"optimizer": "adam", "seed": 0})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    ledger.append(SESSION, FIRST.introduction())
    return ledger


def test_a_job_is_what_its_last_line_says(ledger: Ledger) -> None:
    assert ledger.read()[1] == {0: FIRST}
    ledger.append({"job": 0, "status": "running", "pid": 7})
    ledger.append({"job": 0, "status": "failed", "error": "no"})
    sessions, jobs = ledger.read()
    assert sessions[0].items() >= SESSION.items()
    assert jobs[0] == FIRST._replace(status="failed", pid=7, error="no", started=jobs[0].started, ended=jobs[0].ended)
    assert jobs[0].started
    assert jobs[0].ended
    assert jobs[0].started <= jobs[0].ended

    ledger.append(FIRST.introduction())
    assert ledger.read()[1] == {0: FIRST}  # another attempt knows nothing of the last one


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_is_passed_over_and_cut_off(ledger: Ledger, kept: int) -> None:
    before = ledger.path.read_bytes()
    ledger.append({"job": 0, "status": "completed", "value": 0.1})
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[: len(before) + kept] if kept > 0 else whole[:kept])
    assert ledger.read()[1][0].status == "pending"

    ledger.append({"job": 0, "status": "completed", "value": 0.2})
    assert ledger.path.read_bytes().startswith(before + b'{"time"')
    assert ledger.path.read_bytes().count(b"\n") == 3
    assert ledger.read()[1][0].value == 0.2


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "\0\0", '{"time": "", "job": 0, "status": "completed"}',  # without a checksum
        files.seal({"job": 0}), files.seal({"time": "", "job": 5, "status": "failed"}),
    ],
)  # fmt: skip
def test_damage_in_the_middle_is_told_by_its_line(ledger: Ledger, line: str) -> None:
    with open(ledger.path, "a") as file:
        file.write(f"{line}\n")
    ledger.append({"job": 0, "status": "completed", "value": 0.1})
    with pytest.raises(ConfigError, match=r"ledger.jsonl: line 3 is damaged"):
        ledger.read()


def test_any_flipped_bit_is_noticed(ledger: Ledger) -> None:
    ledger.append({"job": 0, "status": "completed", "value": 0.125, "error": "nö"}, {"job": 0, "status": "running"})
    content = ledger.path.read_bytes()
    end = content.rfind(b"\n", 0, -1)
    for place in range(end):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        ledger.path.write_bytes(flipped)
        with pytest.raises(ConfigError, match=r"line \d is damaged|is not the ledger|has format"):
            ledger.read()


@pytest.mark.parametrize("line", [{"program": "another"}, SESSION | {"ledger": VERSION - 1}])
def test_other_ledgers_are_refused(tmp_path: Path, line: dict[str, Any]) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(line)
    with pytest.raises(ConfigError, match=r"is not the ledger|has format 1"):
        ledger.read()


def _append(folder: Path) -> None:
    for _ in range(50):
        Ledger(folder).append({"job": 0, "status": "running", "pid": 1})


def test_an_entry_is_on_the_disk_when_append_returns(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    ledger.append({"job": 0, "status": "running", "pid": 1})
    assert sizes == [ledger.path.stat().st_size]


def test_an_entry_waits_until_other_processes_have_written_theirs(ledger: Ledger) -> None:
    writer = threading.Thread(target=ledger.append, args=({"job": 0, "status": "running", "pid": 1},))
    with FileLock(ledger.path.with_name(f".{ledger.path.name}.lock")):
        writer.start()
        writer.join(timeout=0.3)
        assert ledger.read()[1][0].status == "pending"
    writer.join()
    assert ledger.read()[1][0].status == "running"


def test_processes_that_write_at_once_tear_no_line(ledger: Ledger, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_append, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = ledger.path.read_text().splitlines()
    assert len(lines) == 2 + 150
    assert all(json.loads(line) for line in lines)
