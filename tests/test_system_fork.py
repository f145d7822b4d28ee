"""Work in a process of its own."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import Helper, parallel, run_in_subprocess

found = list[int]()


def test_what_is_done_apart_comes_back_and_leaves_no_trace() -> None:
    def work() -> tuple[int, int]:
        found.append(1)
        return os.getpid(), len(found)

    pid, count = run_in_subprocess(work)
    assert pid != os.getpid()
    assert (count, found) == (1, [])


def test_what_it_raises_is_raised_here() -> None:
    def work() -> None:
        raise ConfigError("lr=-1: must be more than 0")

    with pytest.raises(ConfigError, match="lr=-1: must be more than 0") as caught:
        run_in_subprocess(work)
    assert "in work" in caught.value.__notes__[0]


def test_what_can_not_be_told_is_told_as_an_error() -> None:
    with pytest.raises(Exception, match=r"pickle|local object"):
        run_in_subprocess(lambda: lambda: 0)


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(MemoryError, match="a helper process was killed by SIGKILL"):
        run_in_subprocess(lambda: os.kill(os.getpid(), signal.SIGKILL))


def pid_and_double(number: int) -> tuple[int, int]:
    if number < 0:
        raise ConfigError(f"{number}: must be 0 or more")
    if number == 666:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), 2 * number


def test_items_are_computed_in_their_order_by_several_processes() -> None:
    results = list(parallel(pid_and_double, range(50), workers=2))
    assert [double for _, double in results] == list(range(0, 100, 2))
    assert os.getpid() not in {pid for pid, _ in results}
    assert list(parallel(pid_and_double, [1], workers=2)) == [(os.getpid(), 2)]
    assert list(parallel(pid_and_double, [], workers=2)) == []


def test_a_subprocess_which_may_have_none_of_its_own_uses_threads() -> None:
    def work() -> set[int]:
        return {pid - os.getpid() for pid, _ in parallel(pid_and_double, range(9), workers=2)}

    assert run_in_subprocess(work) == {0}


def test_what_a_parallel_call_raises_is_raised_here_and_a_killed_process_is_told() -> None:
    with pytest.raises(ConfigError, match="-1: must be 0 or more"):
        list(parallel(pid_and_double, [1, -1, 2], workers=2))
    with pytest.raises(MemoryError, match="a helper process was killed"):
        list(parallel(pid_and_double, [1, 666, 2], workers=2))


@pytest.mark.parametrize("beside", [True, False])
def test_a_helper_works_on_what_it_is_sent_once(beside: bool, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    helper = Helper(lambda sent: seen.write_text(f"{list(sent)} {os.getpid()}"), beside)
    helper.send([1, "two"])
    helper.send(3)
    helper.finish()
    values, _, pid = seen.read_text().rpartition(" ")
    assert values == "[[1, 'two'], 3]"
    assert (int(pid) != os.getpid()) == beside
    helper.close()


def test_a_helper_that_is_closed_ends_whatever_it_was_sent() -> None:
    helper = Helper(lambda sent: time.sleep(600))
    process = helper._process
    assert process
    with pytest.raises(InterruptedError), interrupted_after(0.2):
        helper.send("x" * 1_000_000)  # more than a pipe holds: the signal tears it
    helper.close()
    assert process.exitcode == -signal.SIGKILL


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise InterruptedError in the block after some seconds."""

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_work_that_waits_for_the_end_is_not_done_if_it_is_closed(tmp_path: Path) -> None:
    helper = Helper(lambda sent: (tmp_path / "done").touch(), beside=False)
    helper.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", [True, False])
def test_what_a_helper_raises_is_raised_when_it_is_to_finish(beside: bool) -> None:
    helper = Helper(lambda sent: [1 / each for each in sent], beside)
    helper.send(0)
    for _ in range(3):
        helper.send("x" * 1_000_000)  # more than a pipe holds, and nobody reads it
    with pytest.raises(ZeroDivisionError):
        helper.finish()


def test_a_helper_that_is_killed_is_told() -> None:
    helper = Helper(lambda sent: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(MemoryError, match="a helper process was killed by SIGKILL"):
        helper.finish()
