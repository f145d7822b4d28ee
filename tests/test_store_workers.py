"""A worker's file, and whether others see that it lives."""

import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.store import workers
from mnist_exp.store.workers import Facts, Liveness, Worker
from mnist_exp.system import files

ELSEWHERE = "boot id of another machine"


def nothing() -> None:
    pass


@contextmanager
def one(folder: Path, n_jobs: int = 1, on_silence: Callable[[], None] = nothing) -> Iterator[Worker]:
    with workers.living(folder, n_jobs, on_silence) as worker:
        yield worker


def made_up(folder: Path, name: str, silent_for: float = 0, **facts: Any) -> Path:
    """Write the file of a worker on another machine."""
    path = workers.file_of(folder, name)
    path.parent.mkdir(exist_ok=True)
    known = {"worker": name, "host": "node7", "boot": ELSEWHERE, "pid": 1, "slurm": None, "n_jobs": 1}
    path.write_text(files.seal(known | facts) + "\n")
    now = path.stat().st_mtime
    os.utime(path, (now - silent_for, now - silent_for))
    return path


def test_what_a_worker_says_about_itself(tmp_path: Path) -> None:
    with one(tmp_path, n_jobs=3) as worker:
        facts = workers.read(tmp_path, worker.name)
        assert facts
        assert facts | worker.facts == facts
        assert (facts["host"], facts["pid"], facts["n_jobs"], facts["slurm"]) == (platform.node(), os.getpid(), 3, None)
        assert f"-{os.getpid()}-" in worker.name
        assert workers.names(tmp_path) == [worker.name]
        assert worker.path == tmp_path / "workers" / f"{worker.name}.jsonl"
        assert worker.stop_file == tmp_path / "workers" / f"{worker.name}.stop"


def test_a_worker_lives_until_its_block_ends(tmp_path: Path) -> None:
    with one(tmp_path) as worker:
        assert not Liveness(tmp_path).is_dead(worker.name)
        assert [facts["worker"] for facts in Liveness(tmp_path).living()] == [worker.name]
        worker.stop_file.touch()
    assert Liveness(tmp_path).is_dead(worker.name)
    assert Liveness(tmp_path).living() == []
    assert not worker.stop_file.exists()


def test_a_worker_that_says_so_has_ended(tmp_path: Path) -> None:
    with one(tmp_path) as worker:
        workers.end(worker)
        assert Liveness(tmp_path).is_dead(worker.name)


def test_a_worker_without_a_file_is_dead(tmp_path: Path) -> None:
    assert Liveness(tmp_path).is_dead("nobody")
    assert Liveness(tmp_path).is_dead("")
    assert Liveness(tmp_path).living() == []


def _live_forever(folder: Path, ready: Any) -> None:
    with one(folder):
        ready.set()
        signal.pause()


def test_a_killed_worker_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=_live_forever, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    [name] = workers.names(tmp_path)
    liveness = Liveness(tmp_path)
    assert not liveness.is_dead(name)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert liveness.is_dead(name)


@pytest.mark.parametrize(("silent_for", "dead"), [(0, False), (workers.SILENCE - 20, False), (200, True)])
def test_a_worker_elsewhere_is_dead_when_it_is_silent(silent_for: float, dead: bool, tmp_path: Path) -> None:
    made_up(tmp_path, "node7-1-0000", silent_for)
    assert Liveness(tmp_path).is_dead("node7-1-0000") == dead


def test_a_worker_is_judged_by_the_clock_of_the_file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this machine may be hours off."""
    made_up(tmp_path, "node7-1-0000")
    monkeypatch.setattr("time.time", lambda: 9e9)
    assert not Liveness(tmp_path).is_dead("node7-1-0000")


def test_a_silent_worker_on_this_machine_is_dead_though_it_holds_its_lock(tmp_path: Path) -> None:
    """It is suspended; when it wakes up, it ends."""
    with one(tmp_path) as worker:
        os.utime(worker.path, (1, 1))
        assert Liveness(tmp_path).is_dead(worker.name)


def test_a_task_that_slurm_restarted_is_dead(tmp_path: Path) -> None:
    for name in ("n1-52_3-0-aaaa", "n2-52_4-0-bbbb", "n3-53_3-9-cccc"):
        made_up(tmp_path, name)
    assert not Liveness(tmp_path).is_dead("n1-52_3-0-aaaa")
    made_up(tmp_path, "n9-52_3-1-dddd")
    assert [Liveness(tmp_path).is_dead(name) for name in workers.names(tmp_path)] == [True, False, False, False]


@pytest.mark.parametrize("line", ['{"worker": "node7-1-0000", "stat', "", "null", '{"job": 3, "status": "ended"}'])
def test_another_last_line_is_no_end(line: str, tmp_path: Path) -> None:
    with made_up(tmp_path, "node7-1-0000").open("a") as file:
        file.write(line)
    assert not Liveness(tmp_path).is_dead("node7-1-0000")


@pytest.mark.parametrize("content", ["", "torn", '{"worker": "x"}\n'])
def test_a_damaged_file_says_nothing_but_when_it_was_touched(content: str, tmp_path: Path) -> None:
    path = made_up(tmp_path, "node7-1-0000")
    path.write_text(content)
    assert workers.read(tmp_path, "node7-1-0000") is None
    assert not Liveness(tmp_path).is_dead("node7-1-0000")
    assert Liveness(tmp_path).living() == []
    os.utime(path, (1, 1))
    assert Liveness(tmp_path).is_dead("node7-1-0000")


def test_the_dead_stay_dead(tmp_path: Path) -> None:
    liveness, path = Liveness(tmp_path), made_up(tmp_path, "node7-1-0000", 200)
    assert liveness.is_dead("node7-1-0000")
    os.utime(path)
    assert liveness.is_dead("node7-1-0000")


def test_a_living_worker_touches_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", 0.01)
    touched, utime = threading.Event(), os.utime

    def touch(*arguments: Any) -> None:
        utime(*arguments)
        touched.set()

    monkeypatch.setattr(os, "utime", touch)
    with one(tmp_path) as worker:
        assert touched.wait(60)
        assert not Liveness(tmp_path).is_dead(worker.name)


def test_a_worker_that_was_silent_for_too_long_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT", 0.01)
    monkeypatch.setattr(workers, "SILENCE", -1)
    told = threading.Event()
    with one(tmp_path, on_silence=told.set):
        assert told.wait(60)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, {"job": "7", "task": 0, "restart": 0}),
        (
            {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"},
            {"job": "7", "task": 3, "restart": 2},
        ),
    ],
)
def test_the_task_of_slurm(environment: dict[str, str], expected: Any) -> None:
    assert workers.slurm_task(environment) == expected


def test_the_name_of_a_slurm_worker_has_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "52")
    monkeypatch.setattr(platform, "node", lambda: "node_1/x")
    with one(tmp_path) as worker:
        assert worker.name.startswith("node.1.x-52_0-0-")
        assert worker.facts["slurm"] == {"job": "52", "task": 0, "restart": 0}


def test_a_reader_without_the_right_to_write_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(tmp_path, "node7-1-0000", 200)
    monkeypatch.setattr(Path, "touch", lambda path: (_ for _ in ()).throw(PermissionError()))
    assert Liveness(tmp_path).is_dead("node7-1-0000")


def test_facts_are_what_is_declared(tmp_path: Path) -> None:
    with one(tmp_path) as worker:
        assert worker.facts.keys() == Facts.__annotations__.keys()
