"""Divides the jobs of a sweep into batches, each of which one worker takes at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

from mnist_exp.sweep.compose import PlannedJob
from mnist_exp.sweep.launchers import grouping

MAX_JOBS = 16  # of a batch whose jobs are trained one by one: a claim costs little beside them
MAX_MODELS = 64  # of a fused group, if hydra.launcher.max_models is null: the memory of the nodes is unknown here
FEW_MODELS = 8  # of a fused group, if nobody says how many workers there will be: fewer are hardly worth it
TASKS = 8  # workers that a sweep may get, if hydra.launcher does not say it
BATCHES_PER_TASK = 4  # so that no worker waits long for the last one


def divide(
    planned: Sequence[PlannedJob], launcher: Mapping[str, Any], known: Collection[int], done: Collection[int]
) -> list[PlannedJob]:
    """Return the jobs with the numbers of their batches.

    A job keeps its batch for life, so an interrupted fused group goes on as the same group. Only if that batch is done,
    because the job failed and is tried again, it gets another one.

    Args:
        planned: The jobs that are left to run, in the order of their numbers.
        launcher: The config of a launcher that hands jobs over to workers.
        known: The numbers of all batches that the sweep ever had.
        done: The numbers of the batches whose jobs have ended.
    """
    new = [index for index, each in enumerate(planned) if each.job.batch is None or each.job.batch in done]
    batch_of = {index: each.job.batch for index, each in enumerate(planned)}
    numbers = count(max(known, default=-1) + 1)
    divided = _fused(planned, new, launcher) if launcher["fused"] else _pieces(new, _size(len(new), launcher))
    for indices in divided:
        batch_of |= dict.fromkeys(indices, next(numbers))
    return [each._replace(job=each.job._replace(batch=batch_of[index])) for index, each in enumerate(planned)]


def _fused(planned: Sequence[PlannedJob], indices: Sequence[int], launcher: Mapping[str, Any]) -> Iterator[list[int]]:
    """Yield the fused groups of some of the jobs."""
    most = launcher["max_models"] or MAX_MODELS
    share = -(-len(indices) // tasks(launcher)) if "tasks" in launcher else max(FEW_MODELS, len(indices) // TASKS)
    size = max(1, min(most, share))
    for group in grouping.group_planned(planned[index] for index in indices):
        yield from _pieces([indices[place] for place in group.jobs], size)


def _size(jobs: int, launcher: Mapping[str, Any]) -> int:
    """Return how many jobs a batch has that are not trained as one."""
    return max(1, min(MAX_JOBS, jobs // (tasks(launcher) * BATCHES_PER_TASK)))


def tasks(launcher: Mapping[str, Any]) -> int:
    """Return how many workers the sweep may get."""
    return max(1, int(launcher.get("tasks", TASKS)))  # the launcher refuses fewer, later


def _pieces(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield pieces of about equal length, none longer than `size`."""
    pieces = -(-len(indices) // size)
    ends = [number * len(indices) // pieces for number in range(pieces + 1)] if pieces else []
    yield from (list(indices[start:end]) for start, end in pairwise(ends))
