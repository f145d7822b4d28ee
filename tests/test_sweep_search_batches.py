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
from mnist_exp.sweep.search.pruners import HYPERBAND, MEDIAN, WILCOXON, Pruner
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


FIVE = range(5)
REACHED = [[0.95, 0.96, 0.97, 0.95, 0.96], [0.90, 0.91, 0.92, 0.91, 0.90], [0.96, 0.97, 0.98, 0.96, 0.97]]


def raced(folder: Path, counts: Sequence[int], spoiled: dict[int, str] | None = None) -> Sweep:
    """The folder of a search in which each trial has had so many of five seeds."""
    shutil.rmtree(folder, ignore_errors=True)
    whole = Sweep(sweep(folder, {"optimizer.lr": RATES[: len(counts)]}, FIVE, spoiled=spoiled))
    for trial, values in enumerate(REACHED[: len(counts)]):
        for seed, value in enumerate(values):
            set_accuracy(folder, 5 * trial + seed, value)
    gone = [f'"job": {5 * trial + seed},' for trial, count in enumerate(counts) for seed in range(count, 5)]
    lines = whole.ledger.path.read_text().splitlines()
    whole.ledger.path.write_text("\n".join(line for line in lines if not any(job in line for job in gone)) + "\n")
    return whole


def test_a_trial_that_a_signed_rank_test_finds_worse_gets_no_more_seeds(tmp_path: Path) -> None:
    arm, folder = Arm("arm", (), "default", SPACE, 3, tuple(FIVE)), tmp_path / "s"
    spec = SPEC._replace(pruner=Pruner(WILCOXON), batch=1)

    def race(counts: Sequence[int], spoiled: dict[int, str] | None = None, batch: int = 1) -> tuple[Any, str]:
        sweep = raced(folder, counts, spoiled)
        search = Search([arm], spec._replace(batch=batch), Planned, folder, Journal(folder))  # type: ignore[arg-type]
        found = search.next(sweep)
        return found.jobs, found.text

    def seeds_of(trial: int, seeds: Sequence[int]) -> Any:
        return [[f"optimizer.lr={RATES[trial]}", f"seed={seed}"] for seed in seeds]

    assert race([4])[0] == seeds_of(0, [4])  # there is no best one yet
    assert race([5])[0] == seeds_of(1, range(4))
    assert race([5, 3])[0] == seeds_of(1, range(4))  # a crash tore its list
    jobs, text = race([5, 4])
    assert jobs == seeds_of(2, range(4))  # the second one is worse: p = 0.0625
    assert "2 of 3 trials, 1 pruned; best so far: 95.80 %" in text
    assert race([5, 4, 4])[0] == seeds_of(2, [4])
    jobs, text = race([5, 4, 5])
    assert jobs == []
    assert "3 of 3 trials, 1 pruned; best so far: 96.80 %" in text
    assert race([4, 4, 4], batch=3)[0] == [job for trial in range(3) for job in seeds_of(trial, [4])]
    assert race([4, 4, 4], {6: "failed"}, batch=3)[0] == [*seeds_of(0, [4]), *seeds_of(2, [4])]
    sweep = raced(folder, [5, 4, 5])
    search = Search([arm], spec, Planned, folder, Journal(folder))  # type: ignore[arg-type]
    assert [told.setting["optimizer.lr"] for told in search.chosen(sweep)["arm"]] == [RATES[2], RATES[0]]


def test_the_best_of_a_bracket_get_more_seeds(tmp_path: Path) -> None:
    arm, folder = Arm("arm", (), "default", SPACE, 3, (0, 1, 2)), tmp_path / "s"
    spec = SPEC._replace(pruner=Pruner(HYPERBAND, {"resource": "seeds"}))

    def next_jobs(counts: Sequence[int]) -> Any:
        sweep = raced(folder, counts)
        return Search([arm], spec, Planned, folder, Journal(folder)).next(sweep).jobs  # type: ignore[arg-type]

    assert next_jobs([1, 1, 1]) == [[f"optimizer.lr={RATES[2]}", f"seed={seed}"] for seed in (1, 2)]
    assert next_jobs([1, 1, 3]) == []


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
