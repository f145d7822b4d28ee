"""Work beside this thread."""

import threading

import pytest

from mnist_exp.system import background


def test_work_goes_on_beside_this_thread_and_its_thread_ends_with_it() -> None:
    before, may_end, done = threading.active_count(), threading.Event(), list[int]()

    def work() -> None:
        may_end.wait()
        done.append(1)

    wait = background.start(work)
    assert not done
    may_end.set()
    wait()
    wait()  # a second time for nothing
    assert done == [1]
    assert threading.active_count() == before


def test_what_it_raises_is_raised_once_as_somebody_waits() -> None:
    wait = background.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wait()
    wait()


def test_two_work_at_once_and_no_third() -> None:
    both, may_end, begun = threading.Barrier(3), threading.Event(), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        both.wait()
        may_end.wait()

    waits = [background.start(lambda number=number: work(number)) for number in range(2)]  # type: ignore[misc]
    both.wait()
    third = background.start(lambda: begun.append(2))
    assert sorted(begun) == [0, 1]
    may_end.set()
    for wait in (*waits, third):
        wait()
    assert sorted(begun) == [0, 1, 2]
