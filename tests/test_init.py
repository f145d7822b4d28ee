"""`import mnist_exp`: cheap, typed, and the way to everything public."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pandas
import pytest
from conftest import ROOT, TINY
from helpers.run_folders import metrics, summary

import mnist_exp


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("", {"torch", "hydra", "omegaconf", "numpy", "pandas", "logging", "importlib.metadata"}),
        ("mnist_exp.ConfigError; mnist_exp.__version__; dir(mnist_exp)", {"torch", "hydra", "numpy", "pandas"}),
        ("mnist_exp.results", {"torch", "scipy", "matplotlib", "pandas"}),  # it computes measures of predictions
    ],
)
def test_nothing_is_imported_before_it_is_used(code: str, unwanted: set[str]) -> None:
    code = f"import sys, mnist_exp\n{code}\nfound = {unwanted} & set(sys.modules)\nsys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_names_are_there_for_people_and_for_type_checkers() -> None:
    tree = ast.parse(Path(str(mnist_exp.__file__)).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(mnist_exp.__all__) - {"__version__"} < imported
    assert set(mnist_exp.__all__) <= set(dir(mnist_exp))
    for name in mnist_exp.__all__:
        assert getattr(mnist_exp, name).__doc__
    assert mnist_exp.__version__ == metadata.version("mnist_exp")
    with pytest.raises(AttributeError, match="module 'mnist_exp' has no attribute 'lode'"):
        mnist_exp.lode  # type: ignore[attr-defined]  # noqa: B018


def test_a_trained_run_tells_what_its_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mnist_exp.train(*TINY, "hydra.run.dir=it")
    run = mnist_exp.load("it")
    assert repr(run) == "TrainedRun('it')"
    assert (run.classes, run.config.epochs, run.config.optimizer.lr) == ([*"0123456789"], 2, 0.001)
    assert sum(parameter.numel() for parameter in run.model.parameters()) == summary(tmp_path / "it")["parameters"]
    assert {**run.summary, "checksum": 0} == summary(tmp_path / "it") | {"checksum": 0}
    table = run.metrics
    pandas.testing.assert_frame_equal(table, pandas.read_csv("it/metrics.csv"))
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [{key: str(value) for key, value in row.items()} for row in run.metrics] == metrics(tmp_path / "it")
