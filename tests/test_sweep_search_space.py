"""What a command leaves open: intervals and choices, in Hydra's own words."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hydra import initialize
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra

from mnist_exp.sweep.search import space
from mnist_exp.sweep.search.space import Choice, Interval
from mnist_exp.system.errors import ConfigError

LR = "optimizer.lr"


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with initialize(None, version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def test_commas_and_ranges_compare_and_intervals_and_choices_tune(loader: ConfigLoader) -> None:
    compared = ["optimizer=adam,sgd", "seed=range(0,3)", "activation=glob(*)", "epochs=3"]
    tuned = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.hidden_layers=choice([128],[256,512],[])"]
    assert space.divide([*compared, *tuned], loader) == (compared, tuned)
    assert space.parse(tuned, loader) == (
        Interval(LR, 1e-4, 1e-1, is_log=True),
        Choice("model.hidden_layers", ("[128]", "[256,512]", "[]")),
    )


def test_whole_numbers_are_searched_where_the_key_or_the_command_says_so(loader: ConfigLoader) -> None:
    words = ["epochs=interval(2,9)", "model.dropout=interval(0,1)", "+model.extra=int(interval(1,4))"]
    found = space.of_arm(space.parse(words, loader), {"epochs": 5, "model.dropout": 0.0})
    assert [each.is_int for each in found if isinstance(each, Interval)] == [True, False, True]
    assert found[0].grid(8) == [str(n) for n in range(2, 10)]


def test_a_key_is_searched_only_where_it_exists() -> None:
    whole = (Interval(LR, 1, 2), Interval("optimizer.momentum", 0, 0.9), Choice("activation", ("relu", "tanh")))
    assert space.of_arm(whole, {LR: 0.1, "activation": "relu"}) == (whole[0], whole[2])


@pytest.mark.parametrize(
    "interval",
    [Interval("x", 1e-4, 1e-1, is_log=True), Interval("x", -3, 7), Interval("x", 1, 512, is_log=True, is_int=True)],
)
def test_values_fill_the_interval_and_lie_where_they_say(interval: Interval) -> None:
    shares = np.linspace(0, 1, 101)
    values = [float(interval.at(share)) for share in shares]
    assert (min(values), max(values)) == (interval.low, interval.high)
    assert values == sorted(values)
    if not interval.is_int:
        np.testing.assert_allclose([interval.share(interval.at(share)) for share in shares], shares, atol=1e-3)


def test_the_whole_numbers_of_an_interval_are_equally_likely() -> None:
    values = [Interval("x", 2, 5, is_int=True).at((step + 0.5) / 400) for step in range(400)]
    assert {value: values.count(value) for value in values} == dict.fromkeys("2345", 100)


def test_rounding_does_not_leave_the_interval() -> None:
    interval = Interval("x", 0.12344, 0.56786)
    assert [interval.at(share) for share in (0, 1)] == ["0.12344", "0.56786"]
    assert interval.at(0.5) == "0.3457"


@pytest.mark.parametrize(("limits", "count"), [([1e-4, 1e-2], 7), ([3e-3, 0.3], 2), ([1, 100], 1)])
def test_rates_are_evenly_spaced_by_their_ratio(limits: list[float], count: int) -> None:
    expected = np.geomspace(limits[0], limits[1], count) if count > 1 else [10.0]
    found = [float(text) for text in Interval(LR, limits[0], limits[1], is_log=True, digits=3).grid(count)]
    np.testing.assert_allclose(found, expected, rtol=5e-3)  # three digits


def test_probes_hold_every_end_and_every_listed_value() -> None:
    found = space.probes((Interval(LR, 0.1, 0.2), Choice("activation", ("relu", "tanh", "gelu"))))
    assert [space.words(setting) for setting in found] == [
        ["optimizer.lr=0.1", "activation=relu"],
        ["optimizer.lr=0.2", "activation=tanh"],
        ["optimizer.lr=0.2", "activation=gelu"],
    ]
    assert space.probes(()) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.lr=tag(log,interval(0,1))", r"a logarithmic interval begins above 0, as in tag\(log,interval"),
        ("optimizer.lr=interval(1,0)", "needs two numbers, the lower one first"),
        ("optimizer.lr=interval(0,0)", "needs two numbers, the lower one first"),
        ("optimizer.lr=interval(0,inf)", "needs two numbers, the lower one first"),
        ("optimizer.lr=interval(0,nan)", "needs two numbers, the lower one first"),
        ("optimizer.lr=tag(sqrt,interval(0,1))", "sqrt is no tag of a search; log is one"),
        ("optimizer.lr=tag(log,choice(1,2))", "a choice has no tags; interval has one, log"),
        ("activation=choice(relu,relu)", "needs two values or more to choose from"),
        ("seed=interval(0,9)", "seed decides by what runs are judged, so a search can't choose it"),
        ("data.validation=interval(0.1,0.2)", "decides by what runs are judged"),
        ("threads=choice(1,2)", "threads changes no result, so a search can't choose it"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(word: str, message: str, loader: ConfigLoader) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        space.parse([word], loader)
    assert str(error.value).startswith(word)
    assert "\n" not in str(error.value)


def test_a_share_of_one_is_the_last_choice() -> None:
    assert [Choice("x", ("a", "b")).at(share) for share in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]
    assert not math.isnan(Interval("x", 0, 1).share("0.5"))
