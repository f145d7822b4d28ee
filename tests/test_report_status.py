"""What is read of a sweep for its status, and when the rest will be done."""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from helpers.sweeps import edit_ledger, sweep

from mnist_exp.report import status, status_text
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.run_folder import COMPLETED, FAILED, INTERRUPTED, PENDING, RUNNING, SWEEP_LOCK
from mnist_exp.system import files

GRID = {"optimizer": ["adam", "sgd"]}
SPOILED = {2: "failed", 3: "interrupted", 6: "running", 7: "pending", 8: "pending", 9: "pending"}


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_whose_command_is_gone_is_interrupted(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, spoiled=SPOILED)
    (folder / SWEEP_LOCK).touch()
    before = _contents(folder)
    found = status.read(str(folder))
    assert dict(found.stage.counts) == {COMPLETED: 4, FAILED: 1, INTERRUPTED: 2, PENDING: 3}
    assert (found.stage.left, found.stage.is_worked_on, found.is_over, found.stage.outlook) == (5, False, False, None)
    with files.locked(folder / SWEEP_LOCK):
        found = status.read(str(folder))
    assert dict(found.stage.counts) == {COMPLETED: 4, FAILED: 1, INTERRUPTED: 1, RUNNING: 1, PENDING: 3}
    assert found.stage.is_worked_on
    assert _contents(folder) == before


def test_a_sweep_is_over_when_every_run_has_ended_and_its_command_too(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, spoiled={0: "failed"})
    assert status.read(str(folder)).is_over
    with files.locked(folder / SWEEP_LOCK):
        assert not status.read(str(folder)).is_over


def test_a_replaced_job_does_not_count(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0])
    with open(folder / "ledger.jsonl", "a") as file:
        file.write(files.seal({"time": "2026-11-23T11:00:00.000+00:00", "job": 0, "status": "replaced"}) + "\n")
    assert [run.number for run in status.read(str(folder)).stage.runs] == [1]


def test_a_search_comes_before_its_sweep(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s" / "lr_search", GRID, seeds=[0])
    edit_ledger(folder, lambda entry: entry.update(then=[["seed=1"], ["seed=2"]]) if "command" in entry else None)
    found = status.read(str(tmp_path / "s"))
    assert (found.sweep, found.after_search, len(found.stage.runs), found.is_over) == (None, 2, 2, False)


def test_a_sequential_sweep_has_a_most(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID)
    assert status.read(str(folder)).stage.most_runs is None
    rule = {"max_seeds": 40, "smallest": 0.1}
    edit_ledger(folder, lambda entry: entry.update(until=rule) if "command" in entry else None)
    assert status.read(str(folder)).stage.most_runs == 80


def test_arms_of_which_no_run_has_ended_are_counted(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", GRID, seeds=[0, 1], spoiled={1: "pending", 2: "running", 3: "pending"})
    assert status.read(str(folder)).stage.new_arms == 1  # sgd; adam has ended a run


def test_what_all_runs_share_is_no_part_of_their_names(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"epochs": [5], "optimizer": ["adam", "sgd"]}, seeds=[3])
    assert status.read(str(folder)).stage.shared_overrides == {"epochs=5"}
    assert status.read(str(sweep(tmp_path / "one", {"epochs": [5]}, seeds=[3]))).stage.shared_overrides == set()


def test_the_outlook_of_equal_runs_is_exact() -> None:
    spans = [(number * 10.0, number * 10.0 + 10) for number in range(5)]
    found = status.outlook(spans, left=3, now=50)
    assert found
    assert found == pytest.approx((5, 0.1, 30, 30, 30))


def test_nothing_is_known_before_a_run_has_ended() -> None:
    assert status.outlook([], left=3, now=50) is None


def test_two_moments_are_too_few_for_an_interval() -> None:
    found = status.outlook([(0, 10), (10, 20)], left=3, now=20)
    assert found
    assert found.seconds == pytest.approx(30)
    assert (found.low, found.high) == (None, None)


def test_a_fused_group_is_one_observation() -> None:
    group = [(0.0, 40.0)] * 8
    found = status.outlook(group, left=16, now=40)
    assert found
    assert found[:3] == pytest.approx((8, 0.2, 80))
    assert found.low is None


def test_the_rate_counts_from_the_last_pause() -> None:
    slow = [(0.0, 1000.0), (1000.0, 2000.0)]
    fast = [(9000 + number * 10.0, 9010 + number * 10.0) for number in range(4)]
    found = status.outlook([*slow, *fast], left=1, now=9040)
    assert found
    assert (found.runs, found.seconds) == pytest.approx((4, 10))


def test_the_rate_is_that_of_the_last_runs() -> None:
    slow = [(number * 100.0, number * 100.0 + 100) for number in range(50)]
    fast = [(5000 + number * 10.0, 5010 + number * 10.0) for number in range(status.MOMENTS)]
    found = status.outlook([*slow, *fast], left=1, now=5000 + 10 * status.MOMENTS)
    assert found
    assert (found.runs, found.seconds) == pytest.approx((status.MOMENTS, 10))


def test_a_run_that_is_overdue_lowers_the_rate() -> None:
    spans = [(number * 10.0, number * 10.0 + 10) for number in range(5)]
    found = status.outlook(spans, left=1, now=650)
    assert found
    assert found.seconds == pytest.approx(650 / 6)


@pytest.mark.parametrize("ended", [5, 30])
def test_the_interval_holds_the_truth_in_about_95_of_100_sweeps(ended: int) -> None:
    """Runs one after the other, of times that differ by a third; 40 of them are left."""
    chance, held = random.Random(0), []
    for _ in range(400):
        times = [chance.gauss(9, 3) for _ in range(ended + 40)]
        ends = _ends(times[:ended])
        found = status.outlook(zip([0.0, *ends], ends, strict=False), left=40, now=ends[-1])
        assert found
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= sum(times[ended:]) <= found.high)
    assert 0.92 < fmean(held) < 0.98


def _ends(times: Sequence[float]) -> list[float]:
    return [sum(times[: number + 1]) for number in range(len(times))]


def test_the_runs_of_a_search_that_are_to_come_count(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s" / "search", GRID, seeds=[7, 8])
    listed = len(Ledger(folder).read()[1])
    facts = {"then": [["a=1", "seed=0"], ["a=1", "seed=1"]], "trials": [[listed, [7, 8]]] * 2}
    edit_ledger(folder, lambda entry: entry.update(facts) if "command" in entry else None)
    found = status.read(str(tmp_path / "s"))
    assert (found.stage.to_come, found.stage.left) == (listed, listed)


@pytest.mark.parametrize(
    ("pruner", "most"),
    [({"pruner": "wilcoxon"}, 60), ({"pruner": "hyperband", "resource": "seeds"}, 60), ({"pruner": "hyperband"}, None)],
)
def test_a_search_that_may_give_a_trial_fewer_seeds_has_a_most(
    pruner: dict[str, str], most: int | None, tmp_path: Path
) -> None:
    folder = sweep(tmp_path / "s" / "search", GRID, seeds=[7, 8])
    facts = {"then": [["seed=0"]], "trials": [[30, [7, 8]]], "search": {"pruner": pruner}}
    edit_ledger(folder, lambda entry: entry.update(facts) if "command" in entry else None)
    found = status.read(str(tmp_path / "s"))
    assert (found.stage.most_runs, found.stage.to_come) == (most, 0 if most else 56)
    said = "Results decide how many seeds follow: at most 60 runs."
    assert (said in [line.text for line in status_text.lines(found)]) == bool(most)
