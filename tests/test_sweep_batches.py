"""The batches into which a sweep is divided for its workers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_exp.store.ledger import Job
from mnist_exp.sweep import batches
from mnist_exp.sweep.compose import NO_SEARCH, PlannedJob
from mnist_exp.sweep.launchers import grouping
from mnist_exp.sweep.launchers.grouping import Group
from mnist_exp.sweep.template import PackedConfig

PLAIN = {"fused": False, "max_models": None, "tasks": 1}
FUSED = PLAIN | {"fused": True}


def jobs(*batch_of: int | None) -> list[PlannedJob]:
    """One planned job per number, with the batch that it has so far."""
    return [
        PlannedJob(
            Job(number, (f"seed={number}",), "id", "arm", number, {}, batch=batch),
            PackedConfig(),
            NO_SEARCH,
            Path(),
        )
        for number, batch in enumerate(batch_of)
    ]


def divide(
    planned: Sequence[PlannedJob], launcher: dict[str, Any], known: Sequence[int] = (), done: Sequence[int] = ()
) -> list[int | None]:
    return [each.job.batch for each in batches.divide(planned, launcher, known, done)]


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd and even jobs can be trained as one each."""

    def group_planned(planned: Iterable[PlannedJob]) -> list[Group]:
        numbers = [each.job.number for each in planned]
        parts = [[place for place, number in enumerate(numbers) if number % 2 == rest] for rest in (0, 1)]
        return [Group(part, "") for part in parts]

    monkeypatch.setattr(grouping, "group_planned", group_planned)


@pytest.mark.parametrize(
    ("count", "tasks", "sizes"),
    [(3, 1, {1}), (8, 1, {2}), (100, 1, {14, 15}), (1000, 1, {15, 16}), (1000, 100, {2}), (1, 8, {1})],
)
def test_every_task_gets_several_batches_of_few_jobs(count: int, tasks: int, sizes: set[int]) -> None:
    found = divide(jobs(*[None] * count), PLAIN | {"tasks": tasks})
    assert found == sorted(found, key=str) or found == sorted(found, key=lambda batch: batch or 0)
    assert {found.count(batch) for batch in found} == sizes
    assert set(found) == set(range(len(set(found))))


def test_the_number_of_workers_may_be_unknown() -> None:
    launcher = {key: value for key, value in PLAIN.items() if key != "tasks"}
    found = divide(jobs(*[None] * 64), launcher)
    assert len(set(found)) == batches.TASKS * batches.BATCHES_PER_TASK


@pytest.mark.usefixtures("grouped")
def test_a_batch_is_a_fused_group() -> None:
    assert divide(jobs(*[None] * 6), FUSED) == [0, 1, 0, 1, 0, 1]


@pytest.mark.usefixtures("grouped")
@pytest.mark.parametrize(
    ("launcher", "expected"),
    [({"max_models": 2}, [0, 2, 1, 3, 1, 3]), ({"tasks": 3}, [0, 2, 1, 3, 1, 3]), ({"tasks": 99}, [0, 3, 1, 4, 2, 5])],
)
def test_a_fused_group_is_divided_into_equal_parts(launcher: dict[str, Any], expected: list[int]) -> None:
    assert divide(jobs(*[None] * 6), FUSED | launcher) == expected


@pytest.mark.usefixtures("grouped")
def test_a_fused_group_has_a_largest_size() -> None:
    found = divide(jobs(*[None] * 300), FUSED)
    assert max(found.count(batch) for batch in found) <= batches.MAX_MODELS


@pytest.mark.usefixtures("grouped")
@pytest.mark.parametrize("launcher", [PLAIN, FUSED])
def test_an_unfinished_job_keeps_its_batch(launcher: dict[str, Any]) -> None:
    assert divide(jobs(7, 7, None, 3), launcher, known=[3, 7, 8]) == [7, 7, 9, 3]


def test_a_job_that_is_tried_again_leaves_a_batch_that_is_done() -> None:
    assert divide(jobs(7, 8, 8), PLAIN, known=[7, 8], done=[8]) == [7, 9, 10]


@pytest.mark.parametrize("launcher", [PLAIN, FUSED])
def test_no_jobs_make_no_batches(launcher: dict[str, Any]) -> None:
    assert divide([], launcher) == []


@pytest.mark.usefixtures("grouped")
def test_small_groups_stay_whole_if_the_number_of_workers_is_unknown() -> None:
    launcher = {key: value for key, value in FUSED.items() if key != "tasks"}
    assert len(set(divide(jobs(*[None] * 16), launcher))) == 2
    assert len(set(divide(jobs(*[None] * 320), launcher))) == 8
