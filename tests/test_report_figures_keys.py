import pytest
from conftest import MakeResults

from mnist_exp.figure_page import text_width
from mnist_exp.report.figures import keys
from mnist_exp.report.figures.keys import Key, short_value, varying_keys
from mnist_exp.report.figures.page import CROSS
from mnist_exp.report.measures import ACCURACY


@pytest.fixture(scope="module")
def numbers_and_names(make_results: MakeResults) -> dict[str, Key]:
    grid = {"optimizer.lr": [0.1, 0.001, 0.01], "dropout": [0, 0.5, 0.1], "model": ["mlp", "10"]}
    found, left_out = varying_keys(make_results(grid, seeds=[0]))
    assert left_out == []
    return {key.name: key for key in found}


def test_numbers_are_in_order_and_at_their_places(numbers_and_names: dict[str, Key]) -> None:
    rate, dropout, model = numbers_and_names.values()
    assert rate.values == ("0.001", "0.01", "0.1")
    assert rate.places == pytest.approx((0, 0.5, 1))
    assert dropout.values == ("0", "0.1", "0.5")
    assert dropout.places == pytest.approx((0, 0.2, 1))
    assert [(key.numeric, key.log) for key in (rate, dropout, model)] == [(True, True), (True, False), (False, False)]


def test_names_are_in_the_order_of_the_command_and_evenly_spaced(numbers_and_names: dict[str, Key]) -> None:
    assert numbers_and_names["model"].values == ("mlp", "10")
    assert numbers_and_names["model"].places == (0, 1)


def test_each_value_has_its_arms(numbers_and_names: dict[str, Key]) -> None:
    for key in numbers_and_names.values():
        assert [len(arms) for arms in key.arms] == [18 // len(key.values)] * len(key.values)
        for value, arms in zip(key.values, key.arms, strict=True):
            assert {arm.choices[key.name] for arm in arms} == {value}
        assert key.failing == ([],) * len(key.values)


def test_an_effect_is_the_difference_between_the_best_and_the_worst_mean(numbers_and_names: dict[str, Key]) -> None:
    for key in numbers_and_names.values():
        assert key.effect == pytest.approx(max(key.means) - min(key.means))
        assert key.effect > 0


def test_values_with_failed_runs_are_marked_and_in_no_mean(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "sgd", "nadam"], "activation": ["relu", "tanh"]}
    results = make_results(grid, seeds=[0], spoiled={0: "failed", 2: "failed", 3: "failed"})
    optimizer, activation = varying_keys(results)[0]
    assert optimizer.ticks == [f"adam {CROSS}", f"sgd {CROSS}", "nadam"]
    assert [len(arms) for arms in optimizer.arms] == [1, 0, 2]
    assert [len(arms) for arms in optimizer.failing] == [1, 2, 0]
    assert keys.failed([activation]) != []
    assert keys.failed([optimizer._replace(failing=([], [], []))]) == []


def test_a_key_of_many_names_is_left_out(make_results: MakeResults) -> None:
    grid = {"model.name": [f"net_{i}" for i in range(21)], "optimizer": ["adam", "sgd"]}
    found, left_out = varying_keys(make_results(grid, seeds=[0]))
    assert [key.name for key in found] == ["optimizer"]
    assert left_out == ["Left out: model.name (21 values)."]


def test_missing_combinations_are_counted(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}
    results = make_results(grid, seeds=[0], spoiled={3: "killed"})
    found, _ = varying_keys(results)
    assert keys.unbalanced(results.compared, found) == ["Not balanced: 3 of 4 combinations completed."]
    assert keys.unbalanced(results.compared, found[:1]) == []


def test_notes_count_what_is_not_shown(make_results: MakeResults) -> None:
    arms = make_results({"optimizer": ["adam", "sgd"]}, seeds=[0]).compared
    assert keys.beyond(arms, (97, 99), ACCURACY) == ["Below the scale: 1 arm."]
    assert keys.beyond(arms, (90, 99), ACCURACY) == []
    assert keys.selected(7, 9, "keys") == ["Shown: the 7 of 9 keys that matter most."]
    assert keys.selected(7, 7, "keys") == []


def test_values_are_short() -> None:
    assert [short_value(value) for value in ("adam", "", "0.00012345678", "12345678")] == [
        *("adam", '""', "0.0001235", "12345678")
    ]
    assert text_width(short_value("x" * 99, 1.2)) <= 1.2


def test_numbers_are_finite_and_distinct() -> None:
    assert keys.as_numbers(["1", "1e-3"]) == [1, 0.001]
    assert [keys.as_numbers(values) for values in (["1", "x"], ["1", "1.0"], ["nan"], ["inf"])] == [[]] * 4
