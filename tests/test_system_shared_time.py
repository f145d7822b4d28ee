"""What is done for several things at once counts for each in equal parts."""

from mnist_exp.system.shared_time import Clock, SharedTime


def test_clocks_share_the_time_in_which_they_go() -> None:
    now = 100.0
    time = SharedTime(lambda: now)
    clocks = [Clock(time) for _ in range(3)]
    now += 5  # no clock goes
    time.go(clocks[0])
    now += 2
    time.go(*clocks)
    now += 6
    assert [clock() for clock in clocks] == [4, 2, 2]
    time.go(clocks[1], clocks[2])
    now += 1
    assert [clock() for clock in clocks] == [4, 2.5, 2.5]
    assert sum(clock() for clock in clocks) == now - 105
