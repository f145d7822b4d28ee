"""What prunes the trials of a search: Optuna's own pruners decide the same of the same tables of values."""

from typing import Any

import numpy as np
import pytest

from mnist_exp.sweep.search.pruners import HYPERBAND, MEDIAN, NONE, WILCOXON, Batch, Pruner, Rung, brackets, lowest
from mnist_exp.system.errors import ConfigError

TABLES = range(20)
EPOCHS = 7


def table(seed: int) -> list[list[float]]:
    """The validation accuracy of 30 trials at each epoch, many of them equal; a few trials have fewer epochs."""
    chance = np.random.default_rng(seed)
    lengths = chance.choice([EPOCHS, EPOCHS, EPOCHS, 4], 30)
    return [
        np.round(np.sort(chance.random(length)) + chance.normal(0, 0.1, length), 1).clip(0, 1).tolist()
        for length in lengths
    ]


def pruned_after(curve: list[float], limits: list[float]) -> int | None:
    """The epoch after which a run of this curve stops, as TrainingRun.stopped says."""
    steps = zip(range(1, len(curve)), limits, strict=False)  # after the last epoch nothing is saved
    return next((epoch for epoch, limit in steps if max(curve[:epoch]) < limit), None)


@pytest.mark.parametrize("options", [{}, {"n_startup_trials": 1}, {"n_startup_trials": 8, "n_warmup_steps": 2}])
def test_the_median_prunes_what_optuna_prunes(options: dict[str, int]) -> None:
    optuna = pytest.importorskip("optuna")
    ends = set()
    for seed in TABLES:
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(**options))
        completed: list[list[list[float]]] = []
        for curve in table(seed):
            limits = Pruner(MEDIAN, options).limits(completed)
            trial, end = study.ask(), None
            for epoch, value in enumerate(curve):
                trial.report(value, epoch)
                if epoch + 1 < len(curve) and trial.should_prune():
                    end = epoch + 1
                    break
            assert end == (pruned_after(curve, limits) if limits else None)
            study.tell(
                trial,
                max(curve) if end is None else None,
                state=optuna.trial.TrialState.COMPLETE if end is None else optuna.trial.TrialState.PRUNED,
            )
            completed += [[curve]] if end is None else []
            ends.add(end)
    assert len(ends) > 3  # early, late and never


def test_a_trial_is_behind_if_one_of_its_runs_is() -> None:
    assert lowest([[0.1, 0.5, 0.9], [0.2, 0.4]]) == [0.1, 0.4, 0.9]
    two = Pruner(MEDIAN, {"n_startup_trials": 2})
    assert two.limits([[[0.1, 0.5], [0.3, 0.2]], [[0.3, 0.6], [0.5, 0.8]]]) == pytest.approx([0.2, 0.4])
    assert two.limits([[[0.1, 0.5]]]) is None
    assert Pruner(NONE).limits([[[0.1, 0.5]]] * 9) is None
    assert Pruner(MEDIAN, {"n_startup_trials": 0}).limits([]) is None


def test_brackets_are_those_of_the_paper() -> None:
    assert brackets(81, 3) == [
        (81, (1, 3, 9, 27, 81)),
        (34, (3, 9, 27, 81)),
        (15, (9, 27, 81)),
        (8, (27, 81)),
        (5, (81,)),
    ]  # table 1 of Li et al. 2018
    assert brackets(5, 3) == [(3, (1, 5)), (2, (5,))]
    assert brackets(4, 2) == [(4, (1, 2, 4)), (3, (2, 4)), (3, (4,))]


def test_batches_go_through_the_brackets_again_and_again() -> None:
    two, one = (Rung(1), Rung(3)), (Rung(3),)
    found = list(Pruner(HYPERBAND).batches(9, 3, 5, 4))
    assert found == [
        Batch(0, 3, two), Batch(3, 2, one), Batch(5, 3, two), Batch(8, 1, one),
    ]  # fmt: skip
    assert list(Pruner(MEDIAN).batches(9, 3, 5, 4)) == [Batch(0, 4), Batch(4, 4), Batch(8, 1)]
    assert list(Pruner(NONE).batches(0, 3, 5, 4)) == []


def test_seeds_take_the_place_of_epochs() -> None:
    seeds = [7, 8, 9, 10, 11, 12]
    two, one = list(Pruner(HYPERBAND, {"resource": "seeds"}).batches(5, 2, 5, 4))
    assert [rung.epochs for rung in two.rungs] == [None, None]
    assert [list(rung.new(seeds[:5])) for rung in two.rungs] == [[7], [8, 9, 10, 11]]
    assert [list(rung.so_far(seeds[:5])) for rung in two.rungs] == [[7], [7, 8, 9, 10, 11]]
    assert [list(rung.new(seeds[:5])) for rung in one.rungs] == [seeds[:5]]
    [batch] = Pruner(WILCOXON).batches(4, 2, 6, 4)
    assert [list(rung.new(seeds)) for rung in batch.rungs] == [[7, 8, 9, 10], [11], [12]]  # of 3, p is 0.125 or more
    [batch] = Pruner(WILCOXON, {"p_threshold": 0.3}).batches(4, 2, 3, 4)
    assert [list(rung.new(seeds)) for rung in batch.rungs] == [[7, 8], [9]]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("options", [{}, {"p_threshold": 0.2, "n_startup_steps": 5}, {"p_threshold": 0.02}])
def test_the_signed_rank_test_prunes_what_optuna_prunes(options: dict[str, Any]) -> None:
    optuna = pytest.importorskip("optuna")
    pruner, seeds, ends = Pruner(WILCOXON, options), list(range(100, 108)), set()
    for number in range(4):
        chance = np.random.default_rng(number)
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.WilcoxonPruner(**options))
        best: dict[int, float] = {}
        for level in chance.normal(0.9, 0.02, 12):
            values = np.round(level + chance.normal(0, 0.02, len(seeds)), 2).tolist()  # many are equal
            trial, end = study.ask(), None
            for count, (seed, value) in enumerate(zip(seeds, values, strict=True), 1):
                trial.report(value, seed)
                if count < len(seeds) and trial.should_prune():
                    end = count
                    break
            [batch] = pruner.batches(1, 2, len(seeds), 1)
            ours = None
            for rung in batch.rungs[:-1]:
                if not pruner.going_on([dict(zip(rung.so_far(seeds), values, strict=False))], best):
                    ours = rung.seeds.stop
                    break
            assert ours == end
            complete = optuna.trial.TrialState.COMPLETE if end is None else optuna.trial.TrialState.PRUNED
            study.tell(trial, float(np.mean(values)) if end is None else None, state=complete)
            if study.best_trials and study.best_trial.number == trial.number:
                best = dict(zip(seeds, values, strict=True))
            ends.add(end)
    assert len(ends) > 2  # early, late and never


def test_halves_go_on_and_failed_trials_never() -> None:
    trials = [{7: 0.5, 8: 0.9}, {}, {7: 0.8, 8: 0.8}, {7: 0.9, 8: 0.5}]
    assert Pruner(HYPERBAND, {"reduction_factor": 2}).going_on(trials, {}) == [2, 0]
    assert Pruner(WILCOXON).going_on(trials, {}) == [0, 2, 3]


@pytest.mark.parametrize(
    "typed", [NONE, MEDIAN, {"pruner": MEDIAN, "n_warmup_steps": 3}, {"pruner": WILCOXON, "p_threshold": 0.05}]
)
def test_a_pruner_is_read_back(typed: Any) -> None:
    assert Pruner.read(Pruner.read(typed).typed) == Pruner.read(typed)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "medain",
            "hydra.sweeper.prune=medain: no such pruner, did you mean median? Choose from none, median, hyperband,",
        ),
        (None, "hydra.sweeper.prune=None: no such pruner"),
        (
            {"pruner": MEDIAN, "warmup": 3},
            "prune.warmup: no such setting; median has n_startup_trials and",
        ),
        (
            {"pruner": NONE, "n_warmup_steps": 3},
            "no such setting; none has no settings; say which pruner",
        ),
        ({"pruner": MEDIAN, "n_warmup_steps": -1}, "n_warmup_steps=-1: must be a whole number, 0 or more"),
        ({"pruner": MEDIAN, "n_startup_trials": 0.5}, "n_startup_trials=0.5: must be a whole number, 0 or more"),
        ({"pruner": WILCOXON, "p_threshold": 0}, "prune.p_threshold=0: must be a number above 0, at most 1"),
        ({"pruner": HYPERBAND, "resource": "time"}, "prune.resource=time: must be epochs or seeds"),
    ],
)
def test_pruners_that_can_not_be_are_refused(typed: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Pruner.read(typed)
    assert message in str(error.value)
