"""Claims of batches, against a model: workers that race, that are killed, and that a crash left without a content."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from mnist_exp.store import claims
from mnist_exp.store.claims import Claim, Claims, State


def everyone_lives(name: str) -> bool:
    return False


def take_all(its: Claims) -> list[Claim]:
    taken = []
    while claim := its.take(everyone_lives):
        taken.append(claim)
    return taken


def test_a_worker_takes_each_batch_once_and_in_their_order(tmp_path: Path) -> None:
    its = Claims(tmp_path, "a", [3, 1, 2])
    assert take_all(its) == [Claim(1, 1), Claim(2, 1), Claim(3, 1)]
    assert take_all(Claims(tmp_path, "b", [1, 2, 3, 4])) == [Claim(4, 1)]
    assert claims.owner(tmp_path, Claim(4, 1)) == "b"
    assert (tmp_path / "claims" / "0000" / "4.1").read_text() == "b"


def test_workers_begin_in_different_folders_and_go_through_all(tmp_path: Path) -> None:
    batches = [0, 1, 1000, 1001, 2000]
    names = [f"node{number}" for number in range(20)]
    assert {take_all(Claims(tmp_path / name, name, batches))[0].batch // claims.SIZE for name in names} == {0, 1, 2}
    assert sorted(each.batch for each in take_all(Claims(tmp_path, "a", batches))) == batches


def test_workers_that_meet_in_a_folder_share_it(tmp_path: Path) -> None:
    one, other = (Claims(tmp_path, name, range(4)) for name in "ab")
    taken = [its.take(everyone_lives) for its in (one, other, one, other, other, one)]
    assert taken == [Claim(0, 1), Claim(1, 1), Claim(2, 1), Claim(3, 1), None, None]


def test_the_batch_of_a_dead_worker_is_taken_after_all_others(tmp_path: Path) -> None:
    dead = Claims(tmp_path, "dead", range(3))
    dead.take(everyone_lives)
    its = Claims(tmp_path, "b", range(3))
    assert [its.take("dead".__eq__) for _ in range(4)] == [Claim(1, 1), Claim(2, 1), Claim(0, 2), None]
    assert claims.read(tmp_path, range(9)) == {0: State(2, False), 1: State(1, False), 2: State(1, False)}
    assert Claims(tmp_path, "c", range(3)).take("dead".__eq__) is None  # its batch belongs to b


def test_a_done_batch_is_nobodys(tmp_path: Path) -> None:
    its = Claims(tmp_path, "a", range(2))
    first = its.take(everyone_lives)
    assert first
    its.finish(first)
    its.take(everyone_lives)
    assert not its.are_done()
    other = Claims(tmp_path, "b", range(2))
    assert other.take(lambda name: True) == Claim(1, 2)
    other.finish(Claim(1, 2))
    assert other.are_done()
    assert its.take(lambda name: True) is None
    assert its.are_done()  # it has looked at what the other did
    assert claims.read(tmp_path, range(2)) == {0: State(1, True), 1: State(2, True)}


def test_two_workers_may_both_finish_a_batch(tmp_path: Path) -> None:
    """One was silent for so long that it passed for dead."""
    both = [Claims(tmp_path, name, [0]) for name in "ab"]
    taken = [its.take(lambda name: True) for its in both]
    for its, claim in zip(both, taken, strict=True):
        assert claim
        its.finish(claim)
        assert its.are_done()


def test_a_claim_that_a_crash_emptied_has_no_owner(tmp_path: Path) -> None:
    take_all(Claims(tmp_path, "a", [0]))
    (tmp_path / "claims" / "0000" / "0.1").write_text("")
    assert claims.owner(tmp_path, Claim(0, 1)) == ""
    assert Claims(tmp_path, "b", [0]).take("".__eq__) == Claim(0, 2)


@pytest.mark.parametrize("name", ["0.1.tmp", ".0.1", "x.done", "0.", "0.x", "readme"])
def test_other_files_in_the_folder_are_no_claims(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "claims" / "0000"
    folder.mkdir(parents=True)
    (folder / name).write_text("")
    assert claims.read(tmp_path, [0]) == {}
    assert take_all(Claims(tmp_path, "a", [0])) == [Claim(0, 1)]


def test_a_link_whose_answer_was_lost_is_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends the request again, and the server says that the file exists."""
    link = os.link

    def link_twice(own: Path, path: Path) -> None:
        link(own, path)
        link(own, path)

    monkeypatch.setattr(os, "link", link_twice)
    assert take_all(Claims(tmp_path, "a", [0, 1])) == [Claim(0, 1), Claim(1, 1)]


def test_closing_leaves_the_claims_alone(tmp_path: Path) -> None:
    its = Claims(tmp_path, "a", [0])
    take_all(its)
    its.close()
    assert [path.name for path in (tmp_path / "claims" / "0000").iterdir()] == ["0.1"]
    assert claims.owner(tmp_path, Claim(0, 1)) == "a"


def test_nothing_is_written_where_nothing_is_taken(tmp_path: Path) -> None:
    its = Claims(tmp_path, "a", [])
    assert its.take(everyone_lives) is None
    assert its.are_done()
    assert list(tmp_path.iterdir()) == []


def _race(folder: Path, name: str, batches: int, mortal: bool) -> None:
    """Take batches as a worker does, and log each; some workers are killed in the middle of it."""
    its, chance = Claims(folder, name, range(batches)), random.Random(name)
    with open(folder / f"{name}.log", "w") as log:
        while not its.are_done():
            claim = its.take(lambda other: (folder / f"{other}.dead").exists())
            if not claim:
                time.sleep(0.01)
                continue
            print(*claim, file=log, flush=True)
            if mortal and chance.random() < 0.1:
                (folder / f"{name}.dead").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            its.finish(claim)


def test_processes_that_race_take_every_batch_once(tmp_path: Path) -> None:
    batches, fork = 200, multiprocessing.get_context("fork")
    racers = [
        fork.Process(target=_race, args=(tmp_path, f"{'mortal' if mortal else 'other'}-{number}", batches, mortal))
        for number in range(4)
        for mortal in (True, False)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    taken = Counter(line for path in tmp_path.glob("*.log") for line in path.read_text().splitlines())
    assert set(taken.values()) == {1}  # no attempt at a batch was made by two
    killed = sum(racer.exitcode == -signal.SIGKILL for racer in racers)
    assert killed > 0
    assert len(taken) == batches + killed
    states = claims.read(tmp_path, range(batches))
    assert len(states) == batches
    assert all(state.is_done for state in states.values())
    assert sum(state.attempt for state in states.values()) == batches + killed
