"""Compares the jobs that a command asks for with the ledger: which ones are left to run, and under which numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_exp import config
from mnist_exp.store import run_folder
from mnist_exp.store.ledger import Job, keys_beside_identity
from mnist_exp.store.run_folder import ENDED_WELL, LAST, SUMMARY
from mnist_exp.sweep.arms import one_per_arm
from mnist_exp.sweep.compose import PlannedJob
from mnist_exp.system.errors import ConfigError

DONE = (*ENDED_WELL, "replaced")  # statuses of jobs that never run again


def unique(planned: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Return the jobs without repetitions of earlier ones: 0.001 and 1e-3 are the same rate."""
    beside = keys_beside_identity(each.job for each in planned)
    first = {each.job.id_beside(beside): each for each in reversed(planned)}
    return list(first.values())[::-1]


def left_to_run(
    planned: Sequence[PlannedJob],
    known: Mapping[int, Job],
    folder: Path,
    *,
    retry_failed: bool,
    allow_changed: bool,
) -> list[PlannedJob]:
    """Return the jobs that the ledger does not have as done, numbered.

    The ledger knows a job by its config_id and by the other keys that tell its or the command's jobs apart, not by its
    number. A new job gets a number that was never used.

    Args:
        planned: The jobs that the command asks for.
        known: The jobs of the ledger, by number.
        folder: The folder of the sweep.
        retry_failed: Whether failed jobs run again.
        allow_changed: Whether overrides may mean another config than in the ledger.

    Raises:
        ConfigError: The overrides of a job mean another config now.
    """
    beside = tuple(
        dict.fromkeys((*keys_beside_identity(known.values()), *keys_beside_identity(each.job for each in planned)))
    )
    by_id = {job.id_beside(beside): job for job in known.values()}
    by_overrides = {tuple(sorted(job.overrides)): job for job in known.values() if job.status != "replaced"}
    used = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    next_number = max([-1, *known, *used]) + 1
    left: list[PlannedJob] = []
    for each in planned:
        job = by_id.get(each.job.id_beside(beside))
        has_ended = job and (job.status in ENDED_WELL or (job.status == "failed" and not retry_failed))
        if job and has_ended and not each.goes_beyond(job):
            continue
        changed = by_overrides.get(tuple(sorted(each.job.overrides)))
        if not job and changed and not allow_changed:
            raise ConfigError(
                f"{' '.join(each.job.overrides)}: job {changed.number} had these overrides and another config: "
                f"{config.difference(changed.choices, each.job.choices)}; "
                "hydra.sweeper.allow_changed=true runs it with the new one"
            )
        if job:
            left.append(each.again(job).numbered(job.number, folder))
        else:
            left.append(each.numbered(next_number, folder))
            next_number += 1
    return sorted(left, key=lambda each: each.job.number)


def replaced(planned: Sequence[PlannedJob], known: Mapping[int, Job]) -> list[Job]:
    """Return the unfinished jobs of the ledger whose overrides now compose another config, one of `planned`."""
    now = {tuple(sorted(each.job.overrides)): each.job.config_id for each in planned}
    return [
        job
        for job in known.values()
        if job.status not in DONE and now.get(tuple(sorted(job.overrides)), job.config_id) != job.config_id
    ]


def require_same_versions(before: dict[str, str], now: dict[str, str]) -> None:
    """Raise ConfigError if a sweep was started with other versions of the code, Python or the packages."""
    if before != now:
        raise ConfigError(
            f"the sweep was started with other versions: {config.difference(before, now)}; "
            "hydra.sweeper.allow_changed=true continues, and the report says that versions are mixed"
        )


def describe(planned: Sequence[PlannedJob]) -> str:
    """Return the number of jobs and of runs of a search, and the keys that vary: "6 jobs: optimizer (2) x seed (3)"."""
    values: dict[str, set[str]] = {}
    for override in (override for each in planned for override in each.job.overrides):
        key, _, value = override.partition("=")
        values.setdefault(key, set()).add(value)
    varying = [f"{key} ({len(found)})" for key, found in values.items() if len(found) > 1]
    searches = [each.search for each in one_per_arm(planned).values()]
    text = "1 job" if len(planned) == 1 else f"{len(planned)} jobs"
    if count := sum(search.number * len(search.seeds) for search in searches):
        text += f", after {count:,} runs that search {config.LR}"
    return f"{text}: {' x '.join(varying)}" if varying else text


def prepared(planned: PlannedJob, folder: Path, before: Job | None) -> PlannedJob:
    """Return a job as it will run: from its last checkpoint if it was interrupted or pruned, else from the start.

    Args:
        planned: The job.
        folder: The folder of the sweep.
        before: The job as the ledger knows it; None if it is new.
    """
    own = folder / str(planned.job.number)
    # A pending job may have a checkpoint: it was interrupted in an earlier session, and has not run since.
    if before and before.status in ("pending", "interrupted", "pruned", "lost") and (own / LAST).is_file():
        if before.status == "pruned":  # its process may be killed before it starts: then it has not ended again
            (own / SUMMARY).unlink(missing_ok=True)
        return planned.resuming(own / LAST)
    run_folder.clear(own)
    return planned
