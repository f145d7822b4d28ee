"""Which jobs of a grid are left to run, and under which numbers."""

from pathlib import Path
from typing import Any, cast

import pytest

from mnist_exp.store.ledger import Job
from mnist_exp.sweep import plan
from mnist_exp.sweep.compose import NO_SEARCH, PlannedJob
from mnist_exp.system.errors import ConfigError


class Planned(PlannedJob):
    """A job whose config is not composed."""

    def numbered(self, number: int, folder: Path) -> PlannedJob:
        return self._replace(job=self.job._replace(number=number))


def job(seed: int, number: int = -1, status: str = "pending", config_id: str = "") -> Job:
    return Job(number, (f"seed={seed}",), config_id or f"id of {seed}", "arm", seed, {"seed": seed}, status)


def planned(*seeds: int) -> list[PlannedJob]:
    return [Planned(job(seed), cast(Any, None), NO_SEARCH, Path("sweep")) for seed in seeds]


def left(seeds: list[int], known: list[Job], folder: Path, **flags: bool) -> dict[int, int]:
    """Return the seeds of the jobs that are left, by number."""
    flags = {"retry_failed": False, "allow_changed": False} | flags
    jobs = plan.left_to_run(planned(*seeds), {each.number: each for each in known}, folder, **flags)
    return {each.job.number: each.job.seed for each in jobs}


@pytest.mark.parametrize(
    ("status", "runs", "runs_when_retried"),
    [
        ("completed", False, False),
        ("failed", False, True),
        ("interrupted", True, True),
        ("pending", True, True),
        ("lost", True, True),
    ],
)
def test_a_known_job_runs_again_by_its_status(status: str, runs: bool, runs_when_retried: bool, tmp_path: Path) -> None:
    known = [job(5, number=3, status=status)]
    assert left([5], known, tmp_path) == ({3: 5} if runs else {})
    assert left([5], known, tmp_path, retry_failed=True) == ({3: 5} if runs_when_retried else {})


def test_a_new_job_gets_a_number_that_was_never_used(tmp_path: Path) -> None:
    assert left([5, 6], [], tmp_path) == {0: 5, 1: 6}
    assert left([5, 6, 7], [job(6, number=3)], tmp_path) == {3: 6, 4: 5, 5: 7}
    (tmp_path / "7").mkdir()  # of a job that the ledger has forgotten
    assert left([5, 6], [job(6, number=3)], tmp_path) == {3: 6, 8: 5}


def test_the_same_overrides_with_another_config_are_refused(tmp_path: Path) -> None:
    known = [job(5, number=3, status="completed", config_id="another")]
    with pytest.raises(ConfigError, match=r"seed=5: job 3 had these overrides and .*allow_changed=true"):
        left([5], known, tmp_path)
    assert left([5], known, tmp_path, allow_changed=True) == {4: 5}
    assert plan.replaced(planned(5), {3: known[0]}) == []  # it is completed
    failed = known[0]._replace(status="failed")
    assert plan.replaced(planned(5, 6), {3: failed, 4: job(6, number=4)}) == [failed]


def test_jobs_that_repeat_others_are_planned_once() -> None:
    assert sorted(each.job.seed for each in plan.unique(planned(5, 6, 5))) == [5, 6]


class Resumable(Planned):
    """A job that remembers from what it resumes."""

    def resuming(self, checkpoint: Path) -> PlannedJob:
        return self._replace(folder=checkpoint)


def test_a_pruned_job_goes_on_and_has_no_longer_ended(tmp_path: Path) -> None:
    """A process that is killed before it starts would leave the summary of the rung as that of its end."""
    own = tmp_path / "3"
    (own / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/last.pt", "summary.json", "metrics.csv"):
        (own / name).touch()
    each = Resumable(job(0, 3), cast(Any, None), NO_SEARCH, tmp_path)
    assert plan.prepared(each, tmp_path, job(0, 3, "pruned")).folder == own / "checkpoints/last.pt"
    assert sorted(path.name for path in own.iterdir()) == ["checkpoints", "metrics.csv"]


@pytest.mark.parametrize(("after", "runs"), [(None, False), (1, False), (3, True)])
def test_a_pruned_job_runs_again_only_if_it_goes_further(after: int | None, runs: bool, tmp_path: Path) -> None:
    def at(after: int | None, status: str = "pending") -> Job:
        return job(0, 0, status)._replace(choices={"seed": 0, "stop_after": after, "stop_below": None})

    asked = [Planned(at(after), cast(Any, None), NO_SEARCH, tmp_path)]
    for status, expected in (("pruned", runs), ("completed", False)):
        found = plan.left_to_run(asked, {0: at(1, status)}, tmp_path, retry_failed=False, allow_changed=False)
        assert bool(found) == expected
