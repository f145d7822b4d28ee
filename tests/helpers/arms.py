"""Arms and comparisons that no sweep made: for tests of sentences and tables."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_exp.report.results import Arm, Results
from mnist_exp.report.runs import CompletedRun, RunResult
from mnist_exp.report.stats import Comparison, Estimate, Share, Summary
from mnist_exp.store.ledger import Job
from mnist_exp.store.run_folder import empty_summary

NAN = math.nan


def arm(
    label: str,
    mean: float = 0.98,
    n: int = 5,
    misses: int = 200,
    diverged: int = 0,
    choices: dict[str, str] | None = None,
    same_as: str | None = None,
) -> Arm:
    """Return an arm of `n` completed runs on 10,000 test images; two with the same `same_as` have equal results."""
    test_loss = float(zlib.crc32((same_as or label).encode()))
    runs = tuple(
        CompletedRun(
            **vars(run(label, seed, "completed")),
            data={"name": "MNIST", "sha256": "abc"},
            best_epoch=5,
            val_loss=0.1,
            val_accuracy=mean,
            test_loss=test_loss,
            test_accuracy=1 - misses / 10_000,
            misses=misses,
            val=mean,
            test=1 - misses / 10_000,
        )
        for seed in range(n)
    )
    low, high = (NAN, NAN) if n == 1 else (mean - 0.001, mean + 0.001)
    val = Summary(n, mean, NAN if n == 1 else 0.0008, low, high, mean, mean)
    test = val._replace(mean=1 - misses / 10_000)
    failed = tuple(run(label, n + i, "failed", "diverged") for i in range(diverged))
    return Arm(label, choices or {"optimizer": label}, runs, val, test, float(misses), failed)


def run(arm_id: str, seed: int, status: str, failure: str | None = None) -> RunResult:
    """Return a run that left nothing in its folder."""
    job = Job(seed, (f"seed={seed}",), arm_id, arm_id, seed, {}, status, failure=failure)
    return RunResult(Path("sweep"), Path("sweep", str(seed)), job, empty_summary())


def comparison(
    difference: float = 0.0031,
    p: float = 0.002,
    n: int = 5,
    paired: bool = True,
    needed: int | None = 14,
    images: int | None = None,
    p_on_these: float | None = None,
    **others: Any,
) -> Comparison:
    """Return a comparison with the leader; a `p` of nan allows no claim.

    With `images`, the claim is for new images, and `p_on_these` is the p-value for new seeds alone.
    """
    facts: dict[str, Any] = {"splits": 1, "needed_images": None, "mcnemar": None} | others
    nothing = Estimate(NAN, NAN, NAN)
    if math.isnan(p):
        return Comparison(
            difference=difference,
            claim=nothing,
            on_these_images=nothing,
            superiority=Share(NAN, NAN, NAN),
            n=n,
            paired=paired,
            images=images,
            needed=None,
            **facts,
        )
    claim = Estimate(difference - 0.0009, difference + 0.0009, p)
    narrow = claim if p_on_these is None else Estimate(difference - 0.0004, difference + 0.0004, p_on_these)
    return Comparison(
        difference=difference,
        claim=claim,
        on_these_images=narrow,
        superiority=Share(0.9, 0.6, 0.98),
        n=n,
        paired=paired,
        images=images,
        needed=needed,
        **facts,
    )


def results(
    arms: Sequence[Arm], comparisons: Sequence[Comparison] = (), swept: tuple[str, ...] = ("optimizer",)
) -> Results:
    """Return the results of a sweep of these arms, ranked as they stand; `comparisons` are those with the first one."""
    runs = [run for arm in arms for run in (*arm.runs, *arm.failed)]
    with_results = [arm for arm in arms if arm.runs]
    without = [arm for arm in arms if not arm.runs]
    return Results((Path("sweep"),), [], runs, swept, with_results, list(comparisons), [], None, without)
