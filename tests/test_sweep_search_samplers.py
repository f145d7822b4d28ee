"""Suggestions depend on the trials before them and on their number, not on whether the search was interrupted."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from mnist_exp.sweep.search import samplers
from mnist_exp.sweep.search.samplers import Sampler, Told
from mnist_exp.sweep.search.space import Choice, Interval, Setting, Space
from mnist_exp.system.errors import ConfigError

pytest.importorskip("optuna")
pytest.importorskip("cmaes")

QUICK = ("tpe", "random", "qmc", "cmaes")
NUMBERS: Space = (Interval("optimizer.lr", 1e-4, 1e-1, is_log=True), Interval("model.dropout", 0, 0.5))
MIXED: Space = (*NUMBERS, Interval("epochs", 2, 9, is_int=True), Choice("model.hidden_layers", ("[128]", "[256,512]")))


def reached(setting: Setting) -> float | None:
    """A response surface with its top at a rate of 0.003 and a dropout of 0.2; high rates diverge."""
    rate, dropout = float(setting["optimizer.lr"]), float(setting["model.dropout"])
    return None if rate > 0.05 else 0.98 - 0.05 * math.log10(rate / 0.003) ** 2 - 0.1 * (dropout - 0.2) ** 2


def searched(
    sampler: Sampler, space: Space, trials: int, batch: int, before: Sequence[Told] = (), alike: Sequence[str] = ()
) -> list[Told]:
    told = list(before)
    while len(told) < trials:
        count = min(batch, trials - len(told))
        found = sampler.suggest(space, told, count, trials, alike)
        assert len(found) == count
        told += [Told(setting, reached(setting)) for setting in found]
    return told


@pytest.mark.parametrize(("batch", "resumed_at"), [(1, 13), (8, 16)])
@pytest.mark.parametrize("name", [*QUICK, pytest.param("gp", marks=pytest.mark.slow)])
def test_a_resumed_search_tries_what_an_undisturbed_one_does(name: str, batch: int, resumed_at: int) -> None:
    space = NUMBERS if name == "cmaes" else MIXED
    trials = 24 if batch == 8 else 18
    whole = searched(Sampler(name, 3), space, trials, batch)
    assert searched(Sampler(name, 3), space, trials, batch, whole[:resumed_at]) == whole
    assert searched(Sampler(name, 4), space, trials, batch) != whole
    assert len({tuple(trial.setting.items()) for trial in whole}) == trials  # no setting is tried twice


@pytest.mark.parametrize("name", ["tpe", "cmaes", pytest.param("gp", marks=pytest.mark.slow)])
def test_samplers_that_learn_do_better_than_random_ones(name: str) -> None:
    def late(name: str) -> float:
        told = searched(Sampler(name, 0), NUMBERS, 40 if name != "gp" else 20, 1)[-8:]
        return sum(trial.value or 0 for trial in told) / 8

    assert late(name) > late("random") + 0.01


def test_settings_of_a_batch_share_what_they_must_to_train_as_one() -> None:
    whole = searched(Sampler(), MIXED, 32, 8, alike=["model.hidden_layers", "epochs"])
    batches = [whole[start : start + 8] for start in range(0, 32, 8)]
    structures = [
        {(each.setting["model.hidden_layers"], each.setting["epochs"]) for each in batch} for batch in batches
    ]
    assert [len(found) for found in structures] == [1, 1, 1, 1]
    assert len(set.union(*structures)) > 1


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_space_that_is_used_up_ends_the_search(name: str) -> None:
    space: Space = (Choice("activation", ("relu", "tanh", "gelu")),)
    found = Sampler(name).suggest(space, [], 10, 10, ["activation"])
    assert sorted(setting["activation"] for setting in found) == ["gelu", "relu", "tanh"]
    assert Sampler(name).suggest(space, [Told(setting, 0.5) for setting in found], 1, 10) == []


def test_a_grid_has_as_many_points_as_the_trials_allow() -> None:
    [rate, dropout], layers = NUMBERS, Choice("model.hidden_layers", ("[128]", "[256,512]"))
    assert [s["optimizer.lr"] for s in samplers.grid((rate,), 4)] == ["0.0001", "0.001", "0.01", "0.1"]
    found = samplers.grid((dropout, layers), 7)
    assert [tuple(setting.values()) for setting in found] == [
        (value, units) for value in ("0", "0.25", "0.5") for units in ("[128]", "[256,512]")
    ]
    assert len(samplers.grid((rate, dropout), 24)) == 16
    told = [Told(setting, 0.5) for setting in found[:4]]
    assert Sampler("grid").suggest((dropout, layers), told, 8, 7) == found[4:]


def test_a_failed_trial_is_told_as_the_worst() -> None:
    assert samplers.objective([Told({}, 0.9), Told({}, None), Told({}, 0.7)]) == [0.9, 0.7, 0.7]
    assert samplers.objective([Told({}, None)]) == [0.0]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("bayes", "hydra.sweeper.search=bayes: must be tpe, random, qmc, cmaes, gp or grid"),
        ({"sampler": "random", "gamma": 1}, "hydra.sweeper.search.gamma: random has no settings but seed"),
        ({"sampler": "tpe", "gama": 1}, "hydra.sweeper.search.gama: tpe has no such setting, did you mean gamma"),
        ({"sampler": "cmaes", "sigma": -1}, "hydra.sweeper.search=cmaes: "),
        ({"seed": -1}, "hydra.sweeper.search.seed=-1: must be a whole number, 0 or more"),
    ],
)
def test_samplers_that_can_not_be_are_refused(typed: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampler.read(typed)


def test_a_sampler_is_read_back() -> None:
    sampler = Sampler.read({"seed": 7, "n_startup_trials": 3})
    assert sampler == Sampler("tpe", 7, {"n_startup_trials": 3})
    assert Sampler.read(sampler.typed) == sampler


def test_cmaes_has_no_use_for_a_choice() -> None:
    with pytest.raises(ConfigError, match=r"searches intervals, and model\.hidden_layers is a choice"):
        Sampler("cmaes").check(MIXED)


def test_a_sampler_whose_package_is_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_exp.system.extras.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"optuna: not installed; type pip install 'mnist_exp\[search\]'"):
        Sampler.read("tpe")
    assert Sampler.read("random").name == "random"


def test_optuna_is_told_of_a_pruned_trial_what_it_would_have_seen_itself() -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize")
    trial = study.ask(samplers.distributions(NUMBERS))
    for epoch, value in enumerate([0.3, 0.5], start=1):
        trial.report(value, epoch)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    [seen] = study.trials
    told = Told({key: str(value) for key, value in seen.params.items()}, 0.5, pruned_after=2)
    ours = samplers.optunas_trial(NUMBERS, told, told.value)
    for fact in ("state", "value", "last_step", "params", "distributions"):
        assert getattr(ours, fact) == getattr(seen, fact), fact
    failed = samplers.optunas_trial(NUMBERS, Told(told.setting, None), None)
    assert failed.state == optuna.trial.TrialState.FAIL
    assert not told.has_result
    assert Told(told.setting, 0.5).has_result
