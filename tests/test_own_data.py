"""Whole runs on a user's own data: the same figures as the same images elsewhere, and what summary and report say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Outcome
from helpers.own_data import Parts, digits, folders, keras, noise, parquet, table
from helpers.run_folders import metrics, summary

from mnist_exp import build
from mnist_exp.report import figures

Run = Callable[..., Outcome]
BARE = [*TINY[2:], "data.root=root", "data.validation=0.2", "data.batch_size=8"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_sources", {})  # of sweeps in this process, whose data lay in a folder of this name too
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def in_folders(parts: Parts) -> list[str]:
    for name, part in parts.items():
        folders(Path("set", name), *part)
    return ["data=folder", "data.path=set"]


def in_tables(parts: Parts) -> list[str]:
    for name, part in parts.items():
        table(Path(f"{name}.csv"), *part)
    return ["data=csv", "data.path=train.csv", "data.test_path=test.csv"]


def in_an_archive(parts: Parts) -> list[str]:
    return ["data=npz", f"data.path={keras(Path('digits.npz'), parts)}"]


def in_parquet(parts: Parts) -> list[str]:
    for name, part in parts.items():
        parquet(Path("hub", f"{name}-00000-of-00001.parquet"), *part, names="0123456789")
    return ["data=parquet", "data.path=hub"]


@pytest.mark.slow
def test_a_data_set_gives_the_same_run_in_every_format(run: Run, tmp_path: Path) -> None:
    """The 1,797 real digits of scikit-learn; the folder's images are sorted by their numbers, not by their classes."""
    assert run(*TINY, "hydra.run.dir=known").code == 0
    known, parts = summary(tmp_path / "known"), digits()
    results = [key for key in known if key.startswith(("best", "test"))]
    for write in (in_folders, in_tables, in_an_archive, in_parquet):
        words = [*write(parts), *TINY[1:], "data.batch_size=32", "data.root=root", f"hydra.run.dir={write.__name__}"]
        outcome = run(*words)
        assert outcome.code == 0, outcome.err
        own = summary(tmp_path / write.__name__)
        assert [own[key] for key in results] == [known[key] for key in results]
        assert [row | {"seconds": ""} for row in metrics(tmp_path / write.__name__)] == [
            row | {"seconds": ""} for row in metrics(tmp_path / "known")
        ]
        assert own["inference"]["classes"] == known["inference"]["classes"]
    shas = {summary(tmp_path / write.__name__)["data"]["sha256"] for write in (in_tables, in_an_archive, in_parquet)}
    assert len(shas) == 1


@pytest.mark.slow
def test_a_test_set_that_is_cut_and_classes_of_different_sizes_are_told(run: Run, tmp_path: Path) -> None:
    images, labels = noise(60)
    folders(tmp_path / "photos", images, np.where(np.arange(60) < 45, 0, labels + 1))
    outcome = run("-m", "data=folder", "data.path=photos", *BARE, "data.size=6,8", "hydra.sweep.dir=sweep")
    assert outcome.code == 0, outcome.err
    facts = summary(tmp_path / "sweep" / "0")
    assert facts["data"] == {
        "name": "photos", "sha256": facts["data"]["sha256"], "test": "cut", "imbalance": pytest.approx(29 / 4, abs=2),
        "images": {"train": 38, "val": 10, "test": 12},
    }  # fmt: skip
    log = (tmp_path / "sweep" / "0" / "train.log").read_text()
    assert "photos: 38 train, 10 val, 12 test images" in log
    assert "the source has no test images: they are cut from its training images, by data.test and data.seed" in log
    assert "of 0: balanced accuracy is reported beside accuracy" in log
    assert f"balanced accuracy {facts['test_balanced_accuracy']:.2%}, with the weights" in log
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert "different contents" not in report  # of one folder, in two sizes
    assert "The source of photos has no test images: they are cut from its training images" in report
    assert "| test, balanced (%) |" in report
    assert "test, balanced (%)" in (tmp_path / "sweep" / "report.html").read_text()
    assert "test_balanced_accuracy" in (tmp_path / "sweep" / "results.csv").read_text()
    assert "balanced" not in outcome.out.partition("rank")[2].partition("\n")[0]  # of the terminal, which is narrow


@pytest.mark.slow
def test_changed_data_is_refused_when_a_run_or_a_sweep_goes_on(run: Run, tmp_path: Path) -> None:
    folders(tmp_path / "photos", *noise(60))
    words = ["data=folder", "data.path=photos", *BARE, "epochs=1"]
    assert run(*words, "hydra.run.dir=one").code == 0
    assert run("-m", *words, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    path = tmp_path / "photos" / "0" / "0.png"
    path.write_bytes((tmp_path / "photos" / "1" / "1.png").read_bytes())
    for refused in (["resume=one", "epochs=2"], ["-m", *words, "seed=0,1,2", "hydra.sweep.dir=sweep"]):
        build._sources.clear()  # each command is a process of its own
        outcome = run(*refused)
        assert outcome.code == 1
        assert "SHA-256" in outcome.err
    sha = json.loads((tmp_path / "one" / "summary.json").read_text())["data"]["sha256"]
    folders(tmp_path / "photos", *noise(60))
    build._sources.clear()
    assert run("resume=one", "epochs=2").code == 0
    assert summary(tmp_path / "one")["data"]["sha256"] == sha


def test_a_missing_path_is_asked_for(run: Run) -> None:
    outcome = run("data=folder")
    assert (outcome.code, outcome.err) == (
        1,
        "error: data.path=???: must be the path of your data, as in data.path=./photos",
    )
    assert run("data=folder", "data.path=no where").err.startswith("error: data.path=no where: no such folder")
