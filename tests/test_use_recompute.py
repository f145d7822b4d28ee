"""report --predict: predictions that are computed again are those that the runs would have kept."""

import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY
from helpers.run_folders import contents
from helpers.sweeps import edit_summary

from mnist_exp import build, cli
from mnist_exp.report import figures, results
from mnist_exp.store import predictions, run_folder
from mnist_exp.store.run_folder import BEST, CONFIG, LOG, PREDICTIONS, SUMMARY
from mnist_exp.system import errors, files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import loop
from mnist_exp.use.recompute import recompute_and_print

TINY_JOB = [override for override in TINY if not override.startswith("plots")]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two arms and two seeds on scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(figures, "draw", lambda results, dark=False: {})
        words = ["-m", *TINY_JOB, "data.seed=3", "activation=relu,tanh", "seed=0,1", "hydra.sweep.dir=sweep"]
        patch.setattr(sys, "argv", ["train.py", *words])
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return folder / "sweep"


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "sweep"))


def forget(job: Path) -> None:
    """Make a run as one with predictions=false, or of an older version, left it."""
    (job / PREDICTIONS).unlink()
    facts = files.unseal((job / SUMMARY).read_bytes())
    del facts["files"][PREDICTIONS]
    (job / SUMMARY).write_text(files.seal(facts, indent=2) + "\n")


def alter(job: Path) -> None:
    (job / PREDICTIONS).write_bytes(b"altered")


def test_what_is_computed_again_is_what_the_run_had_kept(
    trained: Path, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file is as it was, to the byte."""
    forget(sweep / "0")
    alter(sweep / "1")
    (sweep / "3" / PREDICTIONS).unlink()
    assert recompute_and_print([sweep, sweep]) == 0
    assert capsys.readouterr() == ("predictions computed for 3 of 3 runs that lacked them\n", "")
    for number in range(4):
        before, now = contents(trained / str(number)), contents(sweep / str(number))
        assert list(before.values()) == list(now.values())
    assert recompute_and_print([sweep]) == 0
    assert capsys.readouterr() == ("every completed run has its predictions\n", "")


def test_an_older_summary_gets_the_checksum_and_nothing_else(sweep: Path) -> None:
    job = sweep / "2"
    forget(job)
    facts = files.unseal((job / SUMMARY).read_bytes())
    for key in run_folder.ADDED:
        facts.pop(key)
    (job / SUMMARY).write_text(files.seal(facts, indent=2) + "\n")
    assert recompute_and_print([sweep]) == 0
    checksum = {PREDICTIONS: files.sha256(job / PREDICTIONS)}
    assert files.unseal((job / SUMMARY).read_bytes()) == facts | {"files": facts["files"] | checksum}


@pytest.mark.parametrize("recorded", ["cuda:7", None])
def test_a_run_of_another_machine_s_device_is_computed_on_this_one_s(sweep: Path, recorded: str | None) -> None:
    forget(sweep / "0")
    edit_summary(sweep / "0", {"device": recorded})
    assert recompute_and_print([sweep]) == 0


# What can't be computed


def other_weights(job: Path) -> None:
    shutil.copy(job.parent / "3" / BEST, job / BEST)


def no_weights(job: Path) -> None:
    (job / BEST).unlink()


def other_config(job: Path) -> None:
    path = job / CONFIG
    path.write_text(path.read_text().replace("  seed: 3\n", "  seed: 4\n"))


def other_accuracy(job: Path) -> None:
    edit_summary(job, {"best_val_accuracy": 0.125})


def other_test_accuracy(job: Path) -> None:
    edit_summary(job, {"test_accuracy": 0.125})


def other_data(job: Path) -> None:
    facts: dict[str, Any] = files.unseal((job / SUMMARY).read_bytes())
    edit_summary(job, {"data": facts["data"] | {"sha256": "other"}})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_weights, "best.pt: is not the file of this run: its checksum differs from the summary's"),
        (no_weights, "no checkpoints/best.pt"),
        (other_config, "config.yaml: is not the config of this run: its config_id differs"),
        (other_accuracy, "of 200 validation images now, but summary.json has 175; nothing is written"),
        (other_test_accuracy, "of 297 test images now, but summary.json has 260; nothing is written"),
        (other_data, "the run was trained on digits with SHA-256 other"),
    ],
)
def test_a_run_that_is_not_as_it_was_is_named_and_left_as_it_is(
    sweep: Path, spoil: Callable[[Path], None], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in "01":
        forget(sweep / number)
    spoil(sweep / "0")
    before = contents(sweep / "0")
    assert recompute_and_print([sweep]) == 1
    out, err = capsys.readouterr()
    assert out == "predictions computed for 1 of 2 runs that lacked them\n"
    assert err.startswith(f"no predictions of {sweep / '0'}: ")
    assert reason in err
    assert err.count("\n") == 1
    assert contents(sweep / "0") == before
    assert predictions.read(sweep / "1", files.sha256(sweep / "1" / PREDICTIONS))


def test_rounding_may_change_an_accuracy_where_two_classes_tie(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five ties explain five other answers, and no more."""
    forget(sweep / "0")
    evaluate = loop.evaluate

    def with_ties(*arguments: Any) -> loop.Evaluation:
        found = evaluate(*arguments)
        tied = found.probabilities.clone()
        tied[:5] = 0.1
        return found._replace(probabilities=tied)

    monkeypatch.setattr(loop, "evaluate", with_ties)
    accuracy = results.read([sweep]).runs[0].summary["best_val_accuracy"]
    assert accuracy
    edit_summary(sweep / "0", {"best_val_accuracy": accuracy + 6 / 200})
    assert recompute_and_print([sweep]) == 1
    edit_summary(sweep / "0", {"best_val_accuracy": accuracy + 5 / 200})
    assert recompute_and_print([sweep]) == 0


def test_data_that_can_not_be_had_is_asked_for_once(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fail(cfg: object) -> None:
        asked.append(cfg)
        raise ConfigError("data: can't be downloaded")

    for number in range(4):
        forget(sweep / str(number))
    monkeypatch.setattr(build, "cached_source", fail)
    assert recompute_and_print([sweep]) == 4
    assert len(asked) == 1
    assert capsys.readouterr().err == (
        f"no predictions of {sweep / '0'}, {sweep / '1'}, {sweep / '2'}, 1 more: data: can't be downloaded\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked there")
def test_a_run_that_is_being_trained_is_left_alone(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(sweep / "0")
    with files.locked(sweep / "0" / LOG):
        assert recompute_and_print([sweep]) == 1
    assert "another process is working on this run" in capsys.readouterr().err


def test_the_settings_of_torch_are_left_alone(sweep: Path) -> None:
    forget(sweep / "0")
    with build.torch_settings_kept():
        torch.set_deterministic_debug_mode("warn")
        recompute_and_print([sweep])
        assert torch.get_deterministic_debug_mode() == 1


# The command


def report(*arguments: object) -> int:
    """Return the exit code of mnist-exp report."""
    try:
        with errors.in_one_line():
            cli.run("mnist-exp", ["report", *map(str, arguments)])
    except SystemExit as stop:
        return 1 if isinstance(stop.code, str) else int(stop.code or 0)
    return 0


def test_the_report_follows_and_says_what_is_missing(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in "012":
        forget(sweep / number)
    no_weights(sweep / "2")
    assert report(sweep) == 0
    assert results.read([sweep]).without_predictions == 3
    capsys.readouterr()
    assert report(sweep, "--predict") == 1
    out, err = capsys.readouterr()
    assert out.startswith("predictions computed for 2 of 3 runs that lacked them\n")
    assert out.endswith(f"{sweep / 'report.html'}\n")
    assert err.startswith(f"no predictions of {sweep / '2'}: ")
    assert results.read([sweep]).without_predictions == 1
    assert report(sweep, "--by", "log_loss") == 1
    assert not (sweep / "by_log_loss").exists()


def test_a_report_by_a_measure_computes_what_it_needs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        forget(sweep / str(number))
    assert report(sweep, "--by", "log_loss", "--predict") == 0
    assert capsys.readouterr().out.endswith(f"{sweep / 'by_log_loss' / 'report.html'}\n")
    assert os.listdir(sweep / "by_log_loss")


def test_what_is_no_sweep_is_refused_before_anything_is_computed(sweep: Path, tmp_path: Path) -> None:
    forget(sweep / "0")
    assert report(sweep, tmp_path / "absent", "--predict", "--out", tmp_path / "out") == 1
    assert not (sweep / "0" / PREDICTIONS).exists()
