"""What a sweep records about the end of its jobs' processes."""

from pathlib import Path
from typing import cast

import pytest
from hydra.conf import HydraConf
from omegaconf import OmegaConf

from mnist_exp.store.ledger import PROGRAM, VERSION, Job
from mnist_exp.sweep import jobs
from mnist_exp.sweep.sweep import Sweep


@pytest.mark.parametrize(("count", "failure"), [(1, "error"), (2, None)])
def test_a_crash_is_blamed_on_a_run_that_was_alone_in_its_process(
    count: int, failure: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown which run of a fused group crashed their process."""
    known = [Job(number, (f"seed={number}",), "id", "arm", number, {}) for number in range(count)]
    sweep = Sweep(tmp_path)
    sweep.ledger.append({"program": PROGRAM, "ledger": VERSION}, *(job.introduction() for job in known))
    task = jobs.Task(lambda cfg: None, tmp_path, known)
    crash = jobs.ProcessEnd(-11, "killed by SIGSEGV", "error")
    monkeypatch.setattr(jobs, "prepare_process", lambda cfg: None)
    monkeypatch.setattr(task, "_run_processes", lambda next_work, at_once: iter([(next_work(), crash)]))
    hydras = [
        cast(
            HydraConf,
            OmegaConf.create({"runtime": {"output_dir": str(tmp_path / str(number))}, "overrides": {"task": []}}),
        )
        for number in range(count)
    ]
    task.run(OmegaConf.create(), jobs.Work(hydras, lambda: None))
    recorded = sweep.ledger.read()[1].values()
    assert {(job.status, job.error, job.failure) for job in recorded} == {("failed", crash.error, failure)}
