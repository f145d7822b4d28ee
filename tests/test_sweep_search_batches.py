"""The batches of a search: functions of what its ledger says."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import set_accuracy, sweep

from mnist_exp.store import metrics
from mnist_exp.store.ledger import Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.sweep.search.journal import Journal
from mnist_exp.sweep.search.pruners import MEDIAN, Pruner
from mnist_exp.sweep.search.samplers import RANDOM, Sampler, Told
from mnist_exp.sweep.search.search import Arm, Search, Spec
from mnist_exp.sweep.search.space import Interval
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system.errors import ConfigError

SPACE = (Interval("optimizer.lr", 1e-3, 1e-1, is_log=True),)
SPEC = Spec(("optimizer.lr=tag(log,interval(1e-3,1e-1))",), Sampler(RANDOM), finalists=2, batch=4, alike=False)
SEEDS = (7, 8)
RATES = [setting["optimizer.lr"] for setting in Sampler(RANDOM).suggest(SPACE, [], 10, 10)]


def search(folder: Path, trials: int = 10) -> Search:
    def plan(overrides: Sequence[str]) -> Any:
        return overrides

    return Search([Arm("arm", (), "default", SPACE, trials, SEEDS)], SPEC, plan, folder, Journal(folder))


def jobs(rates: Sequence[str]) -> Any:
    return [[f"optimizer.lr={rate}", f"seed={seed}"] for rate in rates for seed in SEEDS]


def ran(folder: Path, rates: Sequence[str], spoiled: dict[int, str] | None = None) -> Sweep:
    """The folder of a search that has tried these rates."""
    shutil.rmtree(folder, ignore_errors=True)
    return Sweep(sweep(folder, {"optimizer.lr": rates}, SEEDS, spoiled=spoiled))


def test_each_batch_follows_from_those_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    assert search(folder).next(Sweep(folder)).jobs == jobs(RATES[:4])
    assert search(folder).next(ran(folder, RATES[:4])).jobs == jobs(RATES[4:8])
    assert search(folder).next(ran(folder, RATES[:8])).jobs == jobs(RATES[8:])
    assert search(folder).next(ran(folder, RATES)).jobs == []
    assert search(folder, trials=8).next(ran(folder, RATES[:8])).jobs == []


def test_a_batch_whose_list_was_torn_is_suggested_again(tmp_path: Path) -> None:
    assert search(tmp_path / "s").next(ran(tmp_path / "s", RATES[:6])).jobs == jobs(RATES[4:8])
    torn = ran(tmp_path / "s", RATES[:4])
    lines = torn.ledger.path.read_text().splitlines()
    kept = [line for line in lines if '"job": 7,' not in line]  # the second seed of the fourth trial
    assert len(kept) < len(lines)
    torn.ledger.path.write_text("\n".join(kept) + "\n")
    assert search(tmp_path / "s").next(torn).jobs == jobs(RATES[:4])


def test_nothing_is_suggested_before_all_trials_have_ended(tmp_path: Path) -> None:
    sweep = ran(tmp_path / "s", RATES[:4], spoiled={5: "running"})
    assert search(tmp_path / "s").next(sweep).jobs == []
    assert [job.status for job in Ledger(tmp_path / "s").read()[1].values()].count("running") == 1


def test_the_best_settings_are_chosen_and_failed_ones_never(tmp_path: Path) -> None:
    sweep = ran(tmp_path / "s", RATES[:4], spoiled={0: "failed", 2: "killed"})
    for job, accuracy in {1: 0.99, 3: 0.97, 4: 0.95, 5: 0.96, 6: 0.98, 7: 0.98}.items():
        set_accuracy(sweep.folder, job, accuracy)
    best = search(sweep.folder).chosen(sweep)["arm"]
    assert best == [Told({"optimizer.lr": RATES[3]}, 0.98), Told({"optimizer.lr": RATES[1]}, 0.97)]


def test_an_arm_without_a_completed_trial_has_no_finalist(tmp_path: Path) -> None:
    sweep = ran(tmp_path / "s", RATES[:2], spoiled=dict.fromkeys(range(4), "failed"))
    with pytest.raises(ConfigError, match="the default run: no setting of this arm has completed all its trials"):
        search(sweep.folder).chosen(sweep)


class Planned(list[str]):
    """A planned job that knows what prunes it."""

    limits: Any = None

    def pruned_by(self, limits: Any) -> "Planned":
        self.limits = limits["stop_below"]
        return self


def test_what_prunes_a_batch_follows_from_those_before_it(tmp_path: Path) -> None:
    spec = SPEC._replace(pruner=Pruner(MEDIAN, {"n_startup_trials": 3}))
    arm = Arm("arm", (), "default", SPACE, 12, SEEDS)

    def next_jobs(sweep: Sweep) -> Any:
        return Search([arm], spec, Planned, sweep.folder, Journal(sweep.folder)).next(sweep).jobs  # type: ignore[arg-type]

    def limits(sweep: Sweep) -> Any:
        [found] = {str(job.limits) for job in next_jobs(sweep)}
        return found

    def read(sweep: Sweep, jobs: Sequence[int]) -> list[list[float]]:
        return [metrics.read_columns(sweep.job_folder(job) / METRICS)["val_accuracy"] for job in jobs]

    assert limits(Sweep(tmp_path / "new")) == "None"
    assert limits(ran(tmp_path / "s", RATES[:4], {0: "failed", 2: "failed"})) == "None"  # too few with a result
    pruned = ran(tmp_path / "s", RATES[:4], {2: "pruned"})
    set_accuracy(pruned.folder, 2, 0.9)
    lowest = [
        min(of_epoch) for trial in ((0, 1), (4, 5), (6, 7)) for of_epoch in zip(*read(pruned, trial), strict=True)
    ]
    medians = [sorted(lowest[epoch::5])[1] for epoch in range(5)]
    assert limits(pruned) == str(medians)
    torn = ran(tmp_path / "s", RATES[:6])  # the second batch lacks two trials: the first one alone decides
    whole = limits(ran(tmp_path / "t", RATES[:4]))
    assert limits(torn) == whole


def test_a_spec_is_read_back_and_keeps_its_space() -> None:
    assert Spec.read(SPEC.saved) == SPEC
    older = {key: value for key, value in SPEC.saved.items() if key != "pruner"}
    assert Spec.read(older) == SPEC
    pruned = SPEC._replace(pruner=Pruner(MEDIAN, {"n_warmup_steps": 2}))
    assert Spec.read(pruned.saved) == pruned
    with pytest.raises(
        ConfigError, match=r"prune: the search in it has {pruner:none}, not {pruner:median,n_warmup_steps:2}; "
    ):
        pruned.continued(SPEC, Path("it"))
    more = SPEC._replace(finalists=3, batch=1)
    assert more.continued(SPEC, Path("it")) == SPEC._replace(finalists=3)
    with pytest.raises(ConfigError, match=r"the search in it has optimizer.*choose another hydra\.sweep\.dir"):
        SPEC._replace(words=("optimizer.lr=interval(0,1)",)).continued(SPEC, Path("it"))
