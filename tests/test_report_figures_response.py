from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import is_on_its_page, text_of
from helpers.sweeps import sweep
from matplotlib.figure import Figure

from mnist_exp.config import LR
from mnist_exp.report import results
from mnist_exp.report.figures import response
from mnist_exp.report.results import Results
from mnist_exp.store.run_folder import LR_SEARCH


def searched(folder: Path, rates: list[float], **arguments: Any) -> Results:
    """A sweep of two optimizers, after a search of the learning rates for each."""
    optimizers = ["adam", "sgd"]
    sweep(folder, {"optimizer": optimizers, LR: rates[:1]}, range(2))
    sweep(folder / LR_SEARCH, {"optimizer": optimizers, LR: rates}, [7, 8], **arguments)
    return results.read([folder])


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    folder = tmp_path_factory.mktemp("search") / "sweep"
    figure = response.draw(searched(folder, [0.001, 0.01, 0.1], spoiled={2: "failed"}))
    assert figure
    return figure


def test_each_arm_has_a_line_of_its_rates_and_a_large_dot_at_the_best(figure: Figure) -> None:
    lines = figure.axes[1].lines
    assert [np.asarray(line.get_xdata()).tolist() for line in lines[::2]] == [[0.001, 0.1], [0.001, 0.01, 0.1]]
    for line, dot in zip(lines[::2], lines[1::2], strict=True):
        misses, rates = np.asarray(line.get_ydata()), np.asarray(line.get_xdata())
        assert np.asarray(dot.get_xydata()).tolist() == [[rates[misses.argmin()], misses.min()]]
    assert figure.axes[1].yaxis_inverted()
    assert "Left out: rates at which a trial failed." in text_of(figure)
    assert is_on_its_page(figure)


def test_lines_hold_the_means_of_the_misses(tmp_path: Path) -> None:
    found = searched(tmp_path / "sweep", [0.001, 0.01])
    figure = response.draw(found)
    assert figure
    trials = [
        run for run in results.read([tmp_path / "sweep" / LR_SEARCH]).runs if run.job.choices["optimizer"] == "sgd"
    ]
    assert len(trials) == 4
    means = [
        100 - 100 * fmean(run.summary["best_val_accuracy"] or 0 for run in trials if run.job.choices[LR] == rate)
        for rate in (0.001, 0.01)
    ]
    assert np.asarray(figure.axes[1].lines[2].get_ydata()) == pytest.approx(means)


def test_rates_within_a_decade_have_labels(tmp_path: Path) -> None:
    figure = response.draw(searched(tmp_path / "sweep", [0.012, 0.03, 0.08]))
    assert figure
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels == ["0.015", "0.02", "0.03", "0.04", "0.05", "0.07"]


def test_there_is_no_figure_without_a_search(make_results: MakeResults) -> None:
    assert response.draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=[0])) is None
