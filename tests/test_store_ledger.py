"""The ledger: what it records, and how it is read after a crash."""

import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_exp.store.ledger import PROGRAM, VERSION, Job, Ledger, introductions
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

SESSION = {"program": PROGRAM, "ledger": VERSION, "command": "python train.py -m"}
STORED = Path(__file__).parent / "ledgers"
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


@pytest.mark.parametrize("line", [{"program": "another"}, SESSION | {"ledger": 1}])
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


WORKERS = ("host-1-aaaa", "host-2-bbbb")
History = list[tuple[str | None, list[str]]]  # who made each attempt at a job, and what happened in it


@given(
    histories=st.lists(
        st.lists(st.tuples(st.sampled_from((None, *WORKERS)), st.lists(st.sampled_from(("running", "failed"))))),
        min_size=1,
        max_size=3,
    ),
    order=st.randoms(use_true_random=False),
    torn=st.sets(st.sampled_from((None, *WORKERS))),
)
@settings(max_examples=50, deadline=None)
def test_the_order_of_lines_between_files_and_jobs_changes_nothing(
    histories: list[History], order: Any, torn: set[str | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    left = [_lines(number, history) for number, history in enumerate(histories)]
    lines: dict[str | None, list[dict[str, Any]]] = {None: [SESSION]}
    while left := [of_job for of_job in left if of_job]:
        worker, entry = order.choice(left).pop(0)
        lines.setdefault(worker, [{"worker": worker}]).append(entry)
    for worker, entries in lines.items():
        ledger = Ledger(folder, worker)
        ledger.append(*entries)
        if worker in torn:
            with open(ledger.own, "ab") as file:
                file.write(files.seal_line({"job": 0, "status": "completed", "attempt": 99}).encode()[:-1])
    found = Ledger(folder).read()[1]
    assert {number: job._replace(started=None, ended=None) for number, job in found.items()} == {
        number: _expected(number, history) for number, history in enumerate(histories)
    }


def _lines(number: int, history: History) -> list[tuple[str | None, dict[str, Any]]]:
    """The lines about a job, each with the worker that writes it, in the order in which they are written."""
    job = FIRST._replace(number=number)
    lines: list[tuple[str | None, dict[str, Any]]] = [(None, job.introduction())]
    for attempt, (worker, statuses) in enumerate(history, start=1):
        if worker is None:  # a session that resumes, on one machine
            lines.append((None, job._replace(attempt=attempt).introduction()))
        stamp = {"attempt": attempt} if worker else {}
        events = [{"job": number, "status": status, "pid": attempt} | stamp for status in statuses]
        lines += [(worker, event) for event in events]
    return lines


def _expected(number: int, history: History) -> Job:
    """The job as one process would record it that lives through all of its history."""
    introduced = job = FIRST._replace(number=number)
    for attempt, (worker, statuses) in enumerate(history, start=1):
        if worker is None:
            introduced = job = FIRST._replace(number=number, attempt=attempt)
        for status in statuses:
            if status == "running" and attempt > job.attempt:
                job = introduced
            job = job._replace(status=status, pid=attempt, attempt=attempt, worker=worker or job.worker)
    return job


def test_a_worker_writes_into_a_file_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    before = ledger.path.read_bytes()
    Ledger(tmp_path, "host-1-aaaa").append({"worker": "host-1-aaaa"}, {"job": 0, "status": "running", "host": "host"})
    assert ledger.path.read_bytes() == before
    assert len((tmp_path / "workers" / "host-1-aaaa.jsonl").read_text().splitlines()) == 2
    job = ledger.read()[1][0]
    assert (job.status, job.worker, job.host) == ("running", "host-1-aaaa", "host")


def test_damage_in_the_file_of_a_worker_is_told_by_its_file(ledger: Ledger, tmp_path: Path) -> None:
    of_worker = Ledger(tmp_path, "host-1-aaaa")
    of_worker.append({"worker": "host-1-aaaa"}, {"job": 0, "status": "running", "attempt": 1})
    of_worker.own.write_bytes(of_worker.own.read_bytes().replace(b"running", b"Running"))
    with pytest.raises(ConfigError, match=r"workers/host-1-aaaa\.jsonl: line 2 is damaged"):
        ledger.read()
    of_worker.own.write_text(files.seal_line({"time": "", "job": 9, "status": "running"}) + "\n")
    with pytest.raises(ConfigError, match=r"workers/host-1-aaaa\.jsonl: line 1 is damaged.*job 9 is not introduced"):
        ledger.read()


def test_jobs_share_the_choices_of_the_first_one_like_them(tmp_path: Path) -> None:
    choices: list[dict[str, Any]] = [
        {"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 2]}, {"a": 1.0, "b": [1, 2]}, {"a": True, "b": [1.0, 2]},
        {"a": 1}, {"b": [1, 2], "a": 1}, {"a": None},
    ]  # fmt: skip
    jobs = [FIRST._replace(number=number, choices=each) for number, each in enumerate(choices)]
    entries = list(introductions(jobs))
    assert [entry.get("like") for entry in entries] == [None, 0, 0, 0, None, None, 4]
    assert [entry["choices"] for entry in entries if "like" in entry] == [
        {}, {"a": 1.0}, {"a": True, "b": [1.0, 2]}, {"a": None},
    ]  # fmt: skip
    ledger = Ledger(tmp_path)
    ledger.append(SESSION, *entries)
    found = ledger.read()[1]
    assert [str(job.choices) for job in found.values()] == [str(each) for each in choices]  # their types and order too
    with open(ledger.path, "a") as file:
        file.write(files.seal_line({"time": "", **entries[1], "like": 8}) + "\n")
    with pytest.raises(ConfigError, match=r"line 9 is damaged"):
        ledger.read()


def test_a_ledger_of_version_2_is_read_and_continued(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.path.write_bytes((STORED / "version_2.jsonl").read_bytes())
    ledger.append({"job": 1, "status": "interrupted"})
    [session], jobs = ledger.read()
    assert session["new"] == len(jobs) == 2
    assert [job.status for job in jobs.values()] == ["completed", "interrupted"]
    assert jobs[1].choices["model.hidden_layers"] == [16]
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"epochs": 1,', b'"epochs": 2,'))
    with pytest.raises(ConfigError, match=r"line 2 is damaged"):
        ledger.read()
