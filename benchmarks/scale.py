"""How a sweep's own work grows with the number of its jobs. Nothing is trained.

    python -m benchmarks.scale plan [JOBS] [--settings 1]

`plan` composes and checks a grid of settings x seeds, writes its ledger, adds two events to each job (running,
completed), and reads it. It prints one line of JSON: seconds (wall) and CPU seconds of each step, the peak of the
memory, and the size of the ledger.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import mnist_exp.config  # noqa: F401  # it registers the schema
from mnist_exp.store.ledger import PROGRAM, VERSION, Ledger, introductions
from mnist_exp.sweep import plan, request
from mnist_exp.sweep.arms import one_per_arm
from mnist_exp.sweep.compose import Composer, PlannedJob
from mnist_exp.system.program import CONF

Result = TypeVar("Result")
BATCH = 1000  # events that are appended at once


class Timer:
    """Measures steps, by wall clock and in CPU seconds of this process."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[[], Result]) -> Result:
        """Call the function and note how long it takes."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self.taken[f"{name}_s"] = round(time.perf_counter() - wall, 2)
        self.taken[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
        return result


@contextmanager
def composer() -> Iterator[Composer]:
    """Yield what a sweep composes its jobs with."""
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        master = compose("config", ["hydra.sweep.dir=sweep"], return_hydra_config=True)
        yield Composer(GlobalHydra.instance().config_loader(), master)


def planned(composer: Composer, jobs: int, settings: int, folder: Path) -> list[PlannedJob]:
    """Return the jobs of a grid, as a sweep prepares them."""
    side = math.isqrt(settings)
    grid = [
        f"optimizer.lr={','.join(f'{0.001 * (1 + step):.4f}' for step in range(side))}",
        f"model.hidden_layers={','.join(f'[{32 + step}]' for step in range(settings // side))}",
        f"seed=range(0,{jobs // settings})",
    ]
    words = request.grids({}, grid, composer, jobs)
    wanted = plan.unique([composer.plan(each) for each in words])
    plan.describe(wanted)
    one_per_arm(wanted)
    return plan.left_to_run(wanted, {}, folder, retry_failed=False, allow_changed=False)


def measure_planning(jobs: int, settings: int) -> dict[str, Any]:
    """Plan a grid, write its ledger, and read it."""
    timed = Timer()
    with tempfile.TemporaryDirectory() as name, composer() as composes:
        folder, ledger = Path(name), Ledger(Path(name))
        left = timed("plan", lambda: planned(composes, jobs, settings, folder))
        session = {"program": PROGRAM, "ledger": VERSION, "new": len(left)}
        timed("introduce", lambda: ledger.append(session, *introductions(each.job for each in left)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        introduced = ledger.path.stat().st_size
        timed("rebuild", lambda: [composes.rebuild(each.job, folder) for each in left[:100]])
        numbers = [each.job.number for each in left]
        left.clear()
        end = {"status": "completed", "value": 0.0625, "data": "0" * 64}
        for first in range(0, len(numbers), BATCH):
            batch = numbers[first : first + BATCH]
            ledger.append(*({"job": number, "status": "running", "pid": 1} for number in batch))
            ledger.append(*({"job": number, **end} for number in batch))
        read = timed("read", ledger.read)[1]
        assert [job.status for job in read.values()] == ["completed"] * len(numbers)
        return {
            "jobs": len(numbers),
            "settings": settings,
            **timed.taken,
            "peak_mb_planning": round(peak / 1024),
            "ledger_mb_introduced": round(introduced / 1e6, 2),
            "ledger_mb": round(ledger.path.stat().st_size / 1e6, 2),
        }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan"])
    parser.add_argument("jobs", type=int, nargs="?", default=100_000)
    parser.add_argument("--settings", type=int, default=1, help="the jobs that differ in more than the seed")
    options = parser.parse_args()
    json.dump(measure_planning(options.jobs, options.settings), sys.stdout)
    print()


if __name__ == "__main__":
    main()
