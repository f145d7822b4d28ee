"""When a run stops early; and it equals a run that was configured with that length."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
import yaml
from conftest import TINY, Outcome
from helpers.run_folders import contents, learned, metrics, state, summary
from hydra.conf import HydraConf
from omegaconf import OmegaConf

from mnist_exp.report import figures
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import Row
from mnist_exp.system import files
from mnist_exp.training.run import TrainingRun

Run = Callable[..., Outcome]
LONG = [*TINY, "epochs=30", "optimizer.lr=0.03"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda results, dark=False: {})


def made_up(
    best_by: str, patience: int, *rows: tuple[float, float], stop_below: Sequence[float] | None = None
) -> TrainingRun:
    cfg = OmegaConf.create(
        {"epochs": 9, "best_by": best_by, "patience": patience, "stop_below": stop_below, "stop_after": None}
    )
    run = TrainingRun(cfg, cast(HydraConf, OmegaConf.create({"runtime": {"output_dir": "none"}})))
    run.rows = [Row(i, 0, 0, loss, accuracy, 0, 0) for i, (loss, accuracy) in enumerate(rows, 1)]
    return run


@pytest.mark.parametrize(
    ("best_by", "patience", "rows", "stopped"),
    [
        ("val_loss", 2, [], None),
        ("val_loss", 1, [(3, 0.1)], None),
        ("val_loss", 1, [(3, 0.1), (3, 0.2)], "patience"),  # an equal figure is no better one
        ("val_loss", 2, [(3, 0.1), (3, 0.2)], None),
        ("val_loss", 2, [(2, 0.1), (3, 0.2), (1, 0.3), (4, 0.4)], None),
        ("val_loss", 2, [(2, 0.1), (3, 0.2), (1, 0.3), (4, 0.4), (1, 0.5)], "patience"),
        ("val_accuracy", 1, [(3, 0.5), (1, 0.5)], "patience"),  # though its loss makes it the best epoch
        ("val_accuracy", 2, [(1, 0.5), (3, 0.4), (4, 0.6)], None),
        ("val_loss", 1, [(3, 0.1)] * 9, None),  # the limit was reached as well
    ],
)
def test_when_a_run_has_waited_long_enough(
    best_by: str, patience: int, rows: list[tuple[float, float]], stopped: str | None
) -> None:
    run = made_up(best_by, patience, *rows)
    assert run.stopped == stopped
    assert run.is_over == (stopped is not None or len(rows) == 9)


@pytest.mark.parametrize(
    ("accuracies", "stopped"),
    [
        ([], None),
        ([0.1], None),  # equal to the limit
        ([0.09], "pruned"),
        ([0.5, 0.1], None),  # the best one so far counts
        ([0.1, 0.1], None),
        ([0.3, 0.1, 0.2], "pruned"),  # before patience, which has waited as long
        ([0.4, 0.1, 0.2], "patience"),
        ([0.1, 0.2, 0.3, 0.3], None),  # after the last limit
        ([0.1] * 9, None),  # nothing is left to save
    ],
)
def test_a_run_below_its_limit_is_pruned(accuracies: list[float], stopped: str | None) -> None:
    rows = [(1.0, accuracy) for accuracy in accuracies]
    run = made_up("val_accuracy", 2 if len(rows) == 3 else 99, *rows, stop_below=[0.1, 0.0, 0.4])
    assert run.stopped == stopped
    assert run.is_pruned == (stopped == "pruned")


def test_a_pruned_run_has_its_epochs_and_no_result(run: Run, tmp_path: Path) -> None:
    run(*LONG, "epochs=3", "hydra.run.dir=whole")
    outcome = run(*LONG, "epochs=3", "stop_below=[0,1]", "hydra.run.dir=it")
    assert outcome.code == 0, outcome.err
    facts, whole = summary(tmp_path / "it"), summary(tmp_path / "whole")
    assert (facts["status"], facts["stopped"], facts["epochs"]) == ("pruned", "pruned", 2)
    assert facts["config_id"] == whole["config_id"]
    assert (facts["test_accuracy"], facts["error"]) == (None, None)
    assert set(facts["files"]) == {*run_folder.CHECKSUMMED}
    rows = [[dict(row, seconds="") for row in metrics(tmp_path / folder)] for folder in ("it", "whole")]
    assert rows[0] == rows[1][:2]
    assert "pruned after epoch 2 of 3" in outcome.out
    assert run("resume=it").code == 0
    assert summary(tmp_path / "it")["status"] == "pruned"


@pytest.mark.parametrize(
    ("best_by", "rows", "epoch"),
    [
        ("val_loss", [(3, 0.1), (1, 0.2), (2, 0.3)], 2),
        ("val_accuracy", [(3, 0.1), (1, 0.2), (2, 0.3)], 3),
        ("val_accuracy", [(3, 0.3), (1, 0.3), (2, 0.2)], 2),  # of equal accuracies the one with the lower loss
        ("val_loss", [(1, 0.1), (1, 0.2)], 1),  # of equal ones the first
    ],
)
def test_best_by_chooses_the_best_epoch(best_by: str, rows: list[tuple[float, float]], epoch: int) -> None:
    assert made_up(best_by, 9, *rows).best.epoch == epoch


def test_a_run_that_stops_early_equals_one_that_was_so_long(run: Run, tmp_path: Path) -> None:
    outcome = run(*LONG, "patience=3", "hydra.run.dir=early")
    assert outcome.code == 0, outcome.err
    rows, facts = metrics(tmp_path / "early"), summary(tmp_path / "early")
    assert facts["epochs"] == len(rows) == facts["best_epoch"] + 3 < 30
    assert facts["stopped"] == "patience"
    assert "stopped: val_loss has not improved for 3 epochs (patience)" in outcome.out
    run(*LONG, f"epochs={len(rows)}", "hydra.run.dir=short")
    short = summary(tmp_path / "short")
    assert short["stopped"] is None
    assert [dict(row, seconds="") for row in metrics(tmp_path / "short")] == [dict(row, seconds="") for row in rows]
    figures = [key for key in run_folder.Summary.__annotations__ if key.startswith(("best", "test", "epochs"))]
    assert [short[key] for key in figures] == [facts[key] for key in figures]
    bits = [state(tmp_path / folder / "checkpoints" / "last.pt") for folder in ("early", "short")]
    assert [run_state["model"] for run_state in bits] == [bits[0]["model"]] * 2
    assert [run_state["optimizer"] for run_state in bits] == [bits[0]["optimizer"]] * 2


@pytest.mark.slow
def test_a_run_that_was_killed_stops_where_it_would_have(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*LONG, "patience=3", "hydra.run.dir=whole")
    end = summary(tmp_path / "whole")["epochs"]
    for killed_after in (1, end - 1, end):
        plain, folder = TrainingRun.record, f"killed{killed_after}"

        def epoch(self: TrainingRun, row: Row, last: int = killed_after, plain: Callable[..., None] = plain) -> None:
            plain(self, row)
            if row.epoch == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TrainingRun, "record", epoch)
            assert run(*LONG, "patience=3", f"hydra.run.dir={folder}").code == 130
        assert len(metrics(tmp_path / folder)) == killed_after
        assert run(f"resume={folder}").code == 0
        assert learned(tmp_path / folder) == learned(tmp_path / "whole")
    assert "completed" in run("resume=whole").out
    again = run("resume=whole", "patience=6")
    assert (again.code, summary(tmp_path / "whole")["epochs"] > end) == (0, True), again.err


@pytest.mark.slow
def test_jobs_of_a_fused_group_stop_each_by_itself(run: Run, tmp_path: Path, in_double: None) -> None:
    words = [*LONG, "-m", "patience=2", "optimizer.lr=0.003,0.1", "seed=0,1,2"]
    for launcher in ("basic", "fused"):
        outcome = run(*words, f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}")
        assert outcome.code == 0, outcome.err
    found = [[summary(tmp_path / launcher / str(job)) for job in range(6)] for launcher in ("basic", "fused")]
    epochs = [[(facts["epochs"], facts["stopped"], facts["best_epoch"]) for facts in jobs] for jobs in found]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) > 2
    for alone, fused in zip(*found, strict=True):
        assert fused["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-9)


def test_a_rate_that_is_spread_over_all_epochs_is_told(run: Run) -> None:
    message = "spreads the learning rate over all 30 epochs; patience may stop the run earlier"
    assert f"schedule=cosine {message}" in run(*LONG, "patience=1", "schedule=cosine").out
    assert message not in run(*LONG, "patience=1", "schedule=step").out
    assert message not in run(*TINY, "schedule=cosine").out


def test_a_run_of_a_version_without_these_keys_goes_on(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=old")
    config, path = tmp_path / "old/.hydra/config.yaml", tmp_path / "old/summary.json"
    old = yaml.safe_load(config.read_text())
    assert (old.pop("patience"), old.pop("tags")) == (None, [])
    config.write_text(yaml.safe_dump(old))
    facts = files.unseal(path.read_bytes())
    path.write_text(files.seal({key: value for key, value in facts.items() if key not in run_folder.ADDED}))
    assert run_folder.read_summary(tmp_path / "old") == facts | dict.fromkeys(run_folder.ADDED)
    assert "completed" in run("resume=old").out
    assert run("resume=old", "epochs=3").code == 0
    assert summary(tmp_path / "old")["epochs"] == 3


def test_tags_are_words_beside_a_run(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=plain")
    for words, tags in (["tags=[baseline,v2]"], ["baseline", "v2"]), (["+tags=[a]"], ["a"]), (["tags=[1]"], ["1"]):
        assert run(*TINY, *words, f"hydra.run.dir=run{tags[0]}").code == 0
        facts = summary(tmp_path / f"run{tags[0]}")
        assert (facts["tags"], facts["config_id"]) == (tags, summary(tmp_path / "plain")["config_id"])
    assert run("resume=run1", "epochs=3", "tags=[other]").code == 0
    assert summary(tmp_path / "run1")["tags"] == ["other"]


def test_new_tags_of_a_completed_run_change_nothing_else(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=it")
    config = tmp_path / "it/.hydra/config.yaml"
    before = yaml.safe_load(config.read_text())
    assert run("resume=it", "tags=[new]", "threads=2").code == 0
    assert yaml.safe_load(config.read_text()) == before | {"tags": ["new"]}


@pytest.mark.slow
def test_pictures_are_drawn_of_a_run_that_is_over(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=drawn", "plots=true")
    run(*TINY, "hydra.run.dir=late")
    before = contents(tmp_path / "late")
    outcome = run("resume=late", "plots=true")
    assert outcome.code == 0, outcome.err
    after = contents(tmp_path / "late")
    pictures = {path for path in after if path.suffix == ".png"}
    assert {path: after[path] for path in after.keys() - pictures} == before
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "drawn/plots").iterdir()}
    assert {path.name: after[path] for path in pictures} == drawn
    assert len(drawn) == len(run_folder.FIGURES)
    assert "drawn from" not in run("resume=late", "plots=true").out


def test_pictures_that_can_not_be_written_fail_the_run_before_its_training(run: Run, tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it/plots").touch()
    outcome = run(*TINY, "hydra.run.dir=it", "plots=true")
    assert outcome.code == 1
    assert outcome.err.endswith("plots: File exists")
    assert "epoch 1/" not in outcome.out
    assert summary(tmp_path / "it")["status"] == "failed"
    (tmp_path / "it/plots").unlink()
    assert run(*TINY, "hydra.run.dir=it", "plots=true").code == 0
    assert {path.stem for path in (tmp_path / "it/plots").iterdir()} == set(run_folder.FIGURES)


def test_pictures_of_other_data_are_refused(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=late")
    path = tmp_path / "late/summary.json"
    facts = json.loads(path.read_text())
    facts.pop("checksum")
    path.write_text(files.seal(facts | {"data": {"name": "digits", "sha256": "0" * 64}}))
    outcome = run("resume=late", "plots=true")
    assert "data: the run was trained on digits with SHA-256 000" in outcome.err
    assert not (tmp_path / "late/plots").exists()


@pytest.mark.parametrize("tags", ["[[a]]", "[{a:1}]", "[a,[b]]"])
def test_tags_that_are_no_words_are_refused_before_training(run: Run, tmp_path: Path, tags: str) -> None:
    outcome = run(*TINY, f"tags={tags}", "hydra.run.dir=nested")
    assert outcome.code == 1
    assert "must be a list of words, such as [baseline,v2]" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert metrics(tmp_path / "nested") == []


def test_a_completed_run_takes_other_tags(run: Run, tmp_path: Path) -> None:
    run(*TINY, "hydra.run.dir=done", "tags=[first]")
    before = contents(tmp_path / "done")
    assert "completed" in run("resume=done", "tags=[second]").out
    assert summary(tmp_path / "done")["tags"] == ["second"]
    assert yaml.safe_load((tmp_path / "done/.hydra/config.yaml").read_text())["tags"] == ["second"]
    after = contents(tmp_path / "done")
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert (after.keys(), changed) == (before.keys(), {"summary.json", "config.yaml"})
    assert "completed" in run("resume=done").out
    assert contents(tmp_path / "done") == after
    assert "must be a list of words" in run("resume=done", "tags=[[a]]").err
    assert contents(tmp_path / "done") == after


def test_a_run_that_has_waited_long_enough_says_so_on_resume(run: Run) -> None:
    run(*LONG, "patience=3", "hydra.run.dir=whole")
    assert "stopped: val_loss has not improved for 2 epochs (patience)" in run("resume=whole", "patience=2").out


def test_more_patience_is_kept_where_only_the_checkpoint_says_it(run: Run, tmp_path: Path) -> None:
    run(*LONG, "patience=3", "hydra.run.dir=whole")
    config = tmp_path / "whole/.hydra/config.yaml"
    old = config.read_bytes()
    assert run("resume=whole", "patience=6").code == 0
    end = summary(tmp_path / "whole")["epochs"]
    (tmp_path / "whole/summary.json").unlink()
    config.write_bytes(old)  # as if the run had been killed between its checkpoint and its config
    outcome = run("resume=whole")
    assert "patience=6 from the checkpoint is used; config.yaml has 3" in outcome.out
    facts = summary(tmp_path / "whole")
    assert (outcome.code, facts["epochs"], facts["stopped"]) == (0, end, "patience")


def test_what_is_said_to_train_a_run_longer_does(run: Run, tmp_path: Path) -> None:
    run(*LONG, "patience=3", "hydra.run.dir=early")
    end = summary(tmp_path / "early")["epochs"]
    said = run("resume=early").out
    assert "patience=N trains it longer" in said
    assert "epochs=N" not in said  # it would stop where it is
    assert run("resume=early", "patience=4").code == 0
    assert summary(tmp_path / "early")["epochs"] > end
