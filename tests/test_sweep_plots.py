import csv
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers.sweeps import sweep
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_exp.report import figures, results
from mnist_exp.report.results import Results
from mnist_exp.system import files

ALWAYS = ["leaderboard.png", "curves.png"]
Make = Callable[..., Results]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make up a sweep, change its folder, and read it."""

    def read(grid: Mapping[str, Sequence[Any]], change: Callable[[Path], None] | None = None, **more: Any) -> Results:
        folder = sweep(tmp_path / str(len(list(tmp_path.iterdir()))), grid, **more)
        if change:
            change(folder)
        return results.read([folder])

    return read


def text_of(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def inside(figure: Figure) -> bool:
    """Whether all that a figure shows lies on its page."""
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0) > -1e-6 and box.x1 < page[0] + 1e-6 and box.y1 < page[1] + 1e-6


def drawn(axes: Axes, label: str) -> list[float]:
    return next(line for line in axes.lines if line.get_label() == label).get_xdata().tolist()


def bars(axes: Axes) -> list[list[list[float]]]:
    return [
        part.tolist() for it in axes.findobj(LineCollection) for part in it.get_segments() if it.get_linewidth() > 1.5
    ]


def bands(figure: Figure) -> int:
    return len(figure.findobj(PolyCollection))


def score(folder: Path, job: int, accuracy: float) -> None:
    """Change what a job reached."""
    path = folder / str(job) / "summary.json"
    path.write_text(files.seal(files.unseal(path.read_text()) | {"best_val_accuracy": accuracy}))


def rewrite(folder: Path, job: int, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the rows of a job's metrics.csv."""
    path = folder / str(job) / "metrics.csv"
    rows = change(list(csv.DictReader(path.read_text().splitlines())))
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n")


@pytest.mark.parametrize(
    ("grid", "more"),
    [
        ({}, []),
        ({"optimizer": ["adam", "sgd"]}, ["effects.png"]),
        ({"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}, ["effects.png", "heat_maps.png"]),
        (
            {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"], "dropout": [0, 0.5]},
            ["effects.png", "heat_maps.png", "parallel_coordinates.png"],
        ),
    ],
)
def test_which_pictures_are_made(make: Make, grid: dict[str, list[Any]], more: list[str]) -> None:
    names = [name for name, _ in figures.figures(make(grid, seeds=range(2)))]
    assert names == ALWAYS + more
    assert set(names) <= set(figures.CAPTIONS)


def test_the_same_bytes_for_the_same_results_and_other_ones_in_the_dark(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"], "dropout": [0, 0.5]}, seeds=[0])
    light, again, dark = figures.draw(found), figures.draw(found), figures.draw(found, dark=True)
    assert light == again
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in light.values())
    assert light.keys() == dark.keys()
    assert not [name for name in light if light[name] == dark[name]]


def test_nothing_is_drawn_where_nothing_completed(make: Make) -> None:
    assert figures.draw(make({"optimizer": ["adam", "sgd"]}, seeds=[0], spoiled={0: "failed", 1: "running"})) == {}


def test_failed_jobs_have_no_say(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"]}, seeds=range(2), spoiled={2: "failed", 3: "interrupted"})
    assert [name for name, _ in figures.figures(found)] == ALWAYS
    assert "sgd" not in text_of(figures.curves(found))
    told = text_of(figures.leaderboard(found))
    assert "adam sgd seeds 2 0 of 2; 1 diverged" in told
    assert figures.CROSS in told


GRID = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "elu"], "dropout": [0, 0.5]}
FAILED = {
    0: "failed",
    **dict.fromkeys((14, 15), "failed"),
    4: "killed",
}  # adam relu 0; sgd relu 0.5; one of adam tanh 0


def test_arms_with_failed_runs_are_in_no_mean_and_marked(make: Make) -> None:
    found = make(GRID, seeds=range(2), spoiled=FAILED)
    assert [(arm.label, arm.seeds) for arm in found.failing] == [
        ("adam relu dropout=0", "1 of 2; 1 diverged"),
        ("sgd relu dropout=0.5", "0 of 2; 2 diverged"),
    ]
    effects = figures.effects(found)
    for axes in effects.axes[1:]:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        values = [tick.removesuffix(f" {figures.CROSS}") for tick in ticks]
        assert [tick for tick in ticks if figures.CROSS in tick] == [
            f"{value} {figures.CROSS}" for value in values if value in ("adam", "sgd", "relu", "0", "0.5")
        ]
        means = [fmean(100 * a.val.mean for a in found.compared if value in a.choices.values()) for value in values]
        assert axes.lines[-1].get_ydata() == pytest.approx(means)
    heat_maps = text_of(figures.heat_maps(found))
    assert heat_maps.count(figures.CROSS) == 1 + 2 + 4  # the note; in optimizer x activation; with dropout
    assert "no mean includes them" in heat_maps
    assert "Blank" not in heat_maps
    lines = figures.parallel_coordinates(found)
    assert len(lines.axes[1].collections[0].get_paths()) == len(found.compared) == 10
    assert "Left out: 2 arms of which runs failed." in text_of(lines)
    assert f"{figures.CROSS}  relu dropout=0 (1 of 2; 1 diverged)" in text_of(
        figures.curves(make(GRID | {"optimizer": ["adam"]}, seeds=range(2), spoiled={0: "failed"}))
    )


def test_where_every_arm_has_failed_runs_nothing_is_compared(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"]}, seeds=range(2), spoiled={0: "failed", 3: "failed"})
    assert [name for name, _ in figures.figures(found)] == ALWAYS


@pytest.mark.parametrize("kind", ["lost", "two_seeds"])
def test_a_value_without_whole_arms_has_a_cross_for_a_cell(make: Make, kind: str) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}
    found = make(grid, seeds=[0], spoiled={3: "failed" if kind == "lost" else "running"})
    told = text_of(figures.heat_maps(found))
    assert (figures.CROSS in told) is (kind == "lost")
    assert ("Blank: nothing completed." in told) is (kind != "lost")


def test_no_bar_leaves_0_to_100_percent(make: Make) -> None:
    for seeds in (2, 3):
        for _, figure in figures.figures(make({"optimizer": ["adam", "nadam"]}, seeds=range(seeds), spread=0.015)):
            ends = [x for axes in figure.axes for bar in bars(axes) for point in bar for x in point]
            assert all(end <= 100 for end in ends)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (1e-4, 1e-2, "0.0001 0.001 0.01"),
        (0.009, 0.11, "0.01 0.02 0.05 0.1"),
        (0.0095, 0.032, "0.01 0.015 0.02 0.03"),
        (0.0101, 0.0119, "0.0102 0.0104 0.0106 0.0108 0.011 0.0112 0.0114 0.0116 0.0118"),
        (1e-8, 1e8, "1e-08 1e-06 0.0001 0.01 1 100 1e+04 1e+06 1e+08"),
    ],
)
def test_learning_rates_are_labelled_within_a_decade_too(low: float, high: float, told: str) -> None:
    assert " ".join(figures._rates(low, high)[1]) == told


def test_pictures_need_no_pyplot_and_leave_settings_alone(make: Make) -> None:
    from matplotlib import pyplot

    settings = dict(mpl.rcParams)
    figures.draw(make({"optimizer": ["adam", "sgd"]}, seeds=range(2)))
    assert dict(mpl.rcParams) == settings
    assert pyplot.get_fignums() == []
    assert "pyplot" not in Path(figures.__file__).read_text()


@pytest.mark.parametrize(
    "grid",
    [
        {"model.hidden_layers": ["[300,100]", "[512,512,512]"], "augmentation.rotation.degrees": [0, 5, 45]},
        {"a.long.key.of_many_parts.and_words": ["x" * 60, "$y_2$"], "b": ["", "ñ"], "n": range(10)},
        {f"key_{i}.of.many": ["1_000", "no number"] for i in range(4)},
    ],
)
def test_nothing_is_cut_off(make: Make, grid: dict[str, list[Any]]) -> None:
    for name, figure in figures.figures(make(grid, seeds=[0])):
        assert inside(figure), name
        assert not [text for text in figure.findobj(Text) if "$" in text.get_text() and text.get_parse_math()]


def test_no_two_texts_of_a_leaderboard_touch(make: Make) -> None:
    figure = figures.leaderboard(make({"optimizer.lr": [0.1, 0.01], "augmentation.degrees": [0, 15]}, seeds=range(3)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text() and text.axes]
    boxes = [box for box in boxes if box.width > 1]
    assert boxes
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_leaderboard_shows_the_arms_figures_in_order(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd", "nadam"]})
    figure = figures.leaderboard(found)
    _, axes = figure.axes
    assert drawn(axes, "validation, mean") == pytest.approx([100 * arm.val.mean for arm in found.arms])
    assert drawn(axes, "test, mean") == pytest.approx([100 * arm.test.mean for arm in found.arms])
    runs = [100 * run.summary["best_val_accuracy"] for arm in found.arms for run in arm.runs]
    assert drawn(axes, "validation, a run") == pytest.approx(runs)
    ends = [[[100 * arm.val.low, row], [100 * arm.val.high, row]] for row, arm in enumerate(found.arms)]
    assert np.array(bars(axes)) == pytest.approx(np.array(ends))
    assert axes.yaxis_inverted()
    assert "3 arms by mean validation accuracy" in text_of(figure)
    assert "Ranked by validation alone" in text_of(figure)


def test_one_seed_has_no_interval_and_no_band(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}, seeds=[0])
    for name, figure in figures.figures(found):
        assert not [bar for axes in figure.axes for bar in bars(axes)], name
        assert not bands(figure), name
    assert "no bands" in text_of(figures.curves(found))
    assert "No intervals" in text_of(figures.leaderboard(found))


def test_an_arm_of_one_seed_among_others_is_told(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"]}, seeds=range(2), spoiled={3: "failed"})
    figure = figures.leaderboard(found)
    assert len(bars(figure.axes[1])) == 1
    assert "No bar: one run" in text_of(figure)


def test_a_leaderboard_has_thirty_arms_at_most(make: Make) -> None:
    found = make({"optimizer.lr": range(1, 32)}, seeds=[0])
    figure = figures.leaderboard(found)
    assert len(drawn(figure.axes[1], "validation, mean")) == 30
    assert "The best 30 of 31 arms" in text_of(figure)


def test_a_lost_arm_does_not_stretch_the_leaderboard(make: Make) -> None:
    figure = figures.leaderboard(
        make({"activation": ["relu", "tanh", "elu"]}, lambda f: score(f, 2, 0.1135), seeds=[0])
    )
    axes = figure.axes[1]
    assert axes.get_xlim()[0] > 90
    assert [text.get_text().strip() for text in axes.texts] == ["◂ 11.35"]


def test_eight_curves_are_coloured_and_the_others_gray(make: Make) -> None:
    found = make({"optimizer.lr": range(1, 12)}, seeds=range(2))
    figure = figures.curves(found)
    colors = [line.get_color() for line in figure.axes[1].lines]
    assert colors == [figures.LIGHT.faint] * 3 + list(figures.LIGHT.colors)
    assert bands(figure) == 16
    assert "the 8 leading arms" in text_of(figure)
    assert "the other 3 arms" in text_of(figure)


def test_curves_are_means_over_seeds(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"]}, seeds=range(3))
    _, accuracy, loss = figures.curves(found).axes
    for axes, column, scale in ((accuracy, "val_accuracy", 100), (loss, "val_loss", 1)):
        for line, arm in zip(axes.lines, found.arms, strict=True):
            means = [scale * fmean(at) for at in zip(*(run.curves[column] for run in arm.runs), strict=True)]
            assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
            assert line.get_ydata() == pytest.approx(means)


def test_curves_end_with_the_shortest_run_and_skip_what_is_no_number(make: Make) -> None:
    def change(folder: Path) -> None:
        rewrite(folder, 0, lambda rows: rows[:3])
        rewrite(folder, 2, lambda rows: [rows[0] | {"val_loss": "nan"}, rows[1] | {"val_loss": "inf"}, *rows[2:]])
        (folder / "4" / "metrics.csv").unlink()

    found = make({"activation": ["relu", "tanh", "elu"]}, change, seeds=range(2))
    _, accuracy, loss = figures.curves(found).axes
    assert sorted(len(line.get_xdata()) for line in accuracy.lines) == [3, 5]
    assert sum(map(math.isnan, np.concatenate([line.get_ydata() for line in loss.lines]))) == 2
    assert all(map(math.isfinite, loss.get_ylim()))


def test_without_any_metrics_there_are_no_curves(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"]}, lambda f: [p.unlink() for p in f.glob("*/metrics.csv")], seeds=[0])
    assert [name for name, _ in figures.figures(found)] == ["leaderboard.png", "effects.png"]


def test_effects_are_means_of_the_arms_means(make: Make) -> None:
    found = make({"activation": ["relu", "tanh"], "optimizer": ["adam", "sgd", "nadam"]}, seeds=range(3))
    figure = figures.effects(found)
    _, optimizer, activation = figure.axes  # the greater effect first
    for axes, key, values in (
        (optimizer, "optimizer", ["adam", "sgd", "nadam"]),
        (activation, "activation", ["relu", "tanh"]),
    ):
        means = [fmean(100 * arm.val.mean for arm in found.arms if arm.choices[key] == value) for value in values]
        assert [label.get_text() for label in axes.get_xticklabels()] == values
        assert axes.lines[-1].get_ydata() == pytest.approx(means)
        assert f"{max(means) - min(means):.2f} pp" in text_of(figure)
        assert len(bars(axes)) == len(values)
        expected = [figures._interval([arm for arm in found.arms if arm.choices[key] == value]) for value in values]
        assert np.array(bars(axes))[:, :, 1] == pytest.approx(np.array(expected))
        assert all(low < mean < high for mean, (low, high) in zip(means, expected, strict=True))
    assert optimizer.get_ylim() == activation.get_ylim()


def test_numbers_stand_on_an_axis_of_numbers(make: Make) -> None:
    found = make({"optimizer.lr": [0.1, 0.001, 0.01], "dropout": [0, 0.5, 0.1], "model": ["mlp", "10"]}, seeds=[0])
    keys = {key.name: key for key in figures._keys(found)[0]}
    assert keys["optimizer.lr"].values == ("0.001", "0.01", "0.1")
    assert keys["optimizer.lr"].places == pytest.approx((0, 0.5, 1))
    assert keys["dropout"].places == pytest.approx((0, 0.2, 1))
    assert [(key.numeric, key.log) for key in keys.values()] == [(True, True), (True, False), (False, False)]
    assert keys["model"].values == ("mlp", "10")


def test_a_key_of_many_names_is_left_out_and_one_of_many_numbers_has_no_heat_map(make: Make) -> None:
    names = make({"model.name": [f"net_{i}" for i in range(21)], "optimizer": ["adam", "sgd"]}, seeds=[0])
    assert "Left out: model.name (21 values)" in text_of(figures.effects(names))
    assert figures.heat_maps(names) is None
    numbers = make({"optimizer.lr": range(1, 22), "optimizer": ["adam", "sgd"]}, seeds=[0])
    assert len(figures.effects(numbers).axes) == 3
    assert figures.heat_maps(numbers) is None


def test_heat_maps_hold_the_means_and_stay_blank_where_nothing_ran(make: Make) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "elu"]}
    found = make(grid, seeds=range(2), spoiled={8: "killed", 9: "killed"})
    figure = figures.heat_maps(found)
    axes = figure.axes[1]
    means = {tuple(arm.choices.values()): f"{100 * arm.val.mean:.2f}" for arm in found.arms}
    places = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    expected = {
        (i, j): means.get((y, x)) for i, y in enumerate(grid["optimizer"]) for j, x in enumerate(grid["activation"])
    }
    assert places == {place: mean for place, mean in expected.items() if mean}
    assert len(places) == 5
    assert axes.collections[0].get_array().mask.tolist() == [[False] * 3, [False, True, False]]
    assert "Blank: nothing completed." in text_of(figure)
    assert "5 of 6 combinations" in text_of(figure)


def test_there_is_a_heat_map_for_each_pair(make: Make) -> None:
    figure = figures.heat_maps(
        make({"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"], "dropout": [0, 0.5]}, seeds=[0])
    )
    assert len(figure.axes) == 5  # the page, three pairs, the scale
    assert len(figures.heat_maps(make({f"key_{i}": [0, 1] for i in range(6)}, seeds=[0])).axes) == 14


def test_parallel_lines_end_at_their_accuracy(make: Make) -> None:
    found = make({"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"], "dropout": [0, 0.5]}, seeds=range(2))
    lines = figures.parallel_coordinates(found).axes[1].collections[0]
    means = [100 * arm.val.mean for arm in found.arms][::-1]
    assert lines.get_array().tolist() == pytest.approx(means)
    low, high = figures._span(means)
    ends = [path.vertices[-1, 1] for path in lines.get_paths()]
    assert ends == pytest.approx([(mean - low) / (high - low) for mean in means])


@pytest.mark.parametrize(
    ("points", "ends"),
    [
        ([98.0], (98, 98)),
        ([97.0, 98.0], (97, 98)),
        ([11.0, 97.9, 98.0], (97.9, 98)),  # lost
        ([96.0, 97.9, 98.0], (96, 98)),  # far, not lost
        ([math.nan, 97.0, 98.0], (97, 98)),
        ([], (0, 0)),
    ],
)
def test_an_axis_spans_all_but_what_is_lost(points: list[float], ends: tuple[float, float]) -> None:
    low, high = figures._span(points)
    assert low < ends[0] <= ends[1] < high
    assert high - low == pytest.approx(1.1 * (ends[1] - ends[0]) or 0.2)


def test_bars_widen_an_axis_but_not_without_end() -> None:
    low, high = figures._span([97.0, 98.0], [96.5, 300.0])
    assert 96 < low < 96.5
    assert 98 < high <= 100.5


@pytest.mark.parametrize(
    ("low", "high"), [(97.81, 98.23), (11, 99), (99.91, 100.3), (0.071, 0.113), (99.9991, 99.9999)]
)
def test_ticks_tell_the_truth(low: float, high: float) -> None:
    ticks, labels = figures._ticks(low, high, 6)
    assert len(ticks) == len(set(labels)) >= 2
    assert [float(label) for label in labels] == pytest.approx(ticks, abs=1e-9)
    assert all(low <= tick <= min(high, 100) for tick in ticks)


def test_a_lost_arm_does_not_hide_what_its_key_does(make: Make) -> None:
    grid = {"optimizer": ["adam", "nadam"], "activation": ["relu", "tanh", "elu"]}
    figure = figures.effects(make(grid, lambda f: score(f, 2, 0.1135), seeds=[0]))
    for axes in figure.axes[1:]:
        low, high = axes.get_ylim()
        assert all(low < mean < high for mean in axes.lines[-1].get_ydata())
    assert "Below the scale: 1 arm." in text_of(figure)
