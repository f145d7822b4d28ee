"""Work in a process of its own."""

import os
import signal

import pytest

from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

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
