"""Sweep folders are read as what they are: completed, failed, lost, changed or none at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.arms import arm, run
from helpers.sweeps import KINDS, VERSIONS, edit_ledger, edit_summary, sweep
from scipy.stats import sem, t

from mnist_exp.report.labels import label, shown_keys
from mnist_exp.report.results import Results, read, sample
from mnist_exp.report.runs import MEASURED, CompletedRun
from mnist_exp.store import predictions
from mnist_exp.store.predictions import RunPredictions
from mnist_exp.store.run_folder import PREDICTIONS
from mnist_exp.system.errors import ConfigError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 6 arms and 5 seeds, which tests only read."""
    return sweep(tmp_path_factory.mktemp("results") / "small", **KINDS["small"])


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A copy of that sweep, which a test may change."""
    return Path(shutil.copytree(small, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"model.max_norm": "1.5", "optimizer.nesterov": "true"}, "max_norm=1.5 nesterov=true"),
        ({"optimizer": "sgd", "activation": "relu", "optimizer.lr": "0.01"}, "sgd relu lr=0.01"),
        ({"experiment": "lenet_99", "data": "mnist", "model": "mlp", "loss": "mse"}, "lenet_99 mnist mlp mse"),
        ({"augmentation": "none", "init": "normal", "schedule": "step"}, "augmentation=none init=normal schedule=step"),
        ({"experiment": "null", "model": "10"}, "experiment=null model=10"),
        ({"data.seed": "1", "seed.of.mine": "2"}, "data.seed=1 mine=2"),
        ({"a.size": "1", "b.size": "2", "size": "3"}, "a.size=1 b.size=2 size=3"),
        ({"x.a.size": "1", "y.a.size": "2"}, "x.a.size=1 y.a.size=2"),
        ({"model.hidden_layers": "[300,100]", "epochs": "5", "deterministic": "false"},
         "hidden_layers=[300,100] epochs=5 deterministic=false"),
        ({"model.name": "a b", "model.title": "", "a._target_": "m.Net"}, 'name="a b" title="" a._target_=m.Net'),
        ({}, "default"),
    ],
)  # fmt: skip
def test_label_explains_itself(choices: dict[str, str], text: str) -> None:
    assert label(choices) == text


def test_arms_are_ranked_by_mean_validation_accuracy(small: Path) -> None:
    found = read([small])
    assert found.swept == found.crossed == ("optimizer", "activation")
    assert (len(found.runs), len(found.arms), len(found.comparisons)) == (30, 6, 5)
    means = [each.val.mean for each in found.arms]
    assert means == sorted(means, reverse=True)
    assert [each.choices["optimizer"] for each in found.arms] == ["adam"] * 3 + ["sgd"] * 3
    first = found.arms[0]
    assert [each.job.seed for each in first.runs] == [0, 1, 2, 3, 4]
    for each in first.runs:
        summary = json.loads((each.folder / "summary.json").read_text())
        assert (each.val_accuracy, each.val_loss) == (summary["best_val_accuracy"], summary["best_val_loss"])
        assert (each.test_accuracy, each.misses) == (summary["test_accuracy"], summary["test_errors"])
        assert each.data == {"name": "MNIST", "sha256": "abc"}
        assert len(each.curves["val_loss"]) == 5
    assert first.misses == sum(each.misses for each in first.runs) / 5
    assert found.warnings == []


def test_rate_that_a_search_chose_is_not_crossed(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"], "optimizer.lr": [0.1, 0.2]}, [0])
    assert read([folder]).crossed == ("optimizer", "optimizer.lr")
    sweep(folder / "lr_search", {"optimizer.lr": [0.1, 0.2]}, [7])
    assert read([folder]).crossed == ("optimizer",)


# Failed and missing runs


def test_arm_with_failed_runs_comes_last_and_is_not_compared(tmp_path: Path) -> None:
    """The survivors of adam are better than all others."""
    grid = {"optimizer": ["adam", "sgd", "rmsprop"]}
    found = read([sweep(tmp_path / "s", grid, spoiled={0: "failed", 3: "failed"})])
    assert [each.label for each in found.arms] == ["rmsprop", "sgd", "adam"]
    assert found.arms[2].val.mean > found.arms[0].val.mean
    assert [each.label for each in found.compared] == ["rmsprop", "sgd"]
    assert [each.label for each in found.failing] == ["adam"]
    assert len(found.comparisons) == 1
    assert (found.arms[2].seeds, found.arms[2].planned) == ("3 of 5; 2 diverged", 5)


def test_arm_with_pruned_runs_comes_last_and_is_not_compared(tmp_path: Path) -> None:
    """The runs that a search let come to their end are a selection."""
    found = read([sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, spoiled={0: "pruned"})])
    assert [(each.label, each.seeds) for each in found.arms] == [("sgd", "5"), ("adam", "4 of 5")]
    assert [each.label for each in found.compared] == ["sgd"]
    assert found.failing == []


def test_arm_without_completed_runs_has_failed(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer.lr": [0.1, 1e6]}, range(2), spoiled={2: "failed", 3: "failed"})])
    assert [each.label for each in found.arms] == ["lr=0.1"]
    assert [(each.label, each.seeds) for each in found.failing] == [("lr=1000000.0", "0 of 2; 2 diverged")]


def test_killed_run_is_missing_and_not_the_fault_of_its_arm(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", {"optimizer": ["adam", "sgd"]}, spoiled={0: "killed", 1: "interrupted"})])
    adam = found.compared[0]
    assert (adam.label, adam.seeds, adam.missing, adam.failed) == ("adam", "3 of 5", 2, ())


def test_failures_are_counted_by_kind() -> None:
    failed = tuple(run("a", seed, "failed", kind) for seed, kind in enumerate(["diverged", "out of memory", "error"]))
    assert arm("a")._replace(failed=failed, missing=1).seeds == "5 of 9; 1 diverged, 1 ran out of memory, 1 failed"


# Equal arms


def test_arms_are_equal_if_every_result_is(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", {"model.max_norm": [None, 1.5]}, range(2))
    assert not read([folder]).arms[0].equals(read([folder]).arms[1])
    for seed in range(2):
        ours = json.loads((folder / str(seed) / "summary.json").read_text())
        edit_summary(folder / str(2 + seed), {key: ours[key] for key in ours if "val_" in key or "test_" in key})
    a, b = read([folder]).arms
    assert a.equals(b)
    edit_summary(folder / "3", {"test_loss": 0.081})
    a, b = read([folder]).arms
    assert not a.equals(b)
    assert not a._replace(runs=()).equals(b._replace(runs=()))


def test_arms_of_equal_choices_are_told_apart_by_their_config(copy: Path) -> None:
    """The file of an option was edited between two commands."""

    def edit(entry: dict[str, Any]) -> None:
        if "choices" in entry:
            entry["choices"]["activation"] = "relu"

    edit_ledger(copy, edit)
    labels = {each.label for each in read([copy]).arms}
    assert len(labels) == 6
    assert all(" config=" in each for each in labels)


@pytest.mark.parametrize("part", [{"seed": 4}, {"optimizer": "sgd"}])
def test_a_runtime_key_that_tells_no_runs_apart_is_not_swept(copy: Path, part: dict[str, Any]) -> None:
    """Some commands kept no predictions, for some seeds or for some arms."""

    def edit(entry: dict[str, Any]) -> None:
        if "choices" in entry and part.items() <= entry["choices"].items():
            entry["choices"]["predictions"] = False
            entry["overrides"].append("predictions=false")

    edit_ledger(copy, edit)
    assert read([copy]).swept == ("optimizer", "activation")


# Files that are lost or changed


@pytest.mark.parametrize("content", [None, '{"status": "comp', "[]"])
def test_completed_job_without_an_intact_summary_is_left_out(copy: Path, content: str | None) -> None:
    path = copy / "3" / "summary.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    found = read([copy])
    assert f"results are lost or damaged: {path}" in found.warnings[0]
    assert completed(found) == 29


def test_summary_of_another_run_is_left_out(copy: Path) -> None:
    path = copy / "3" / "summary.json"
    path.write_bytes((copy / "4" / "summary.json").read_bytes())
    found = read([copy])
    assert found.warnings == [f"completed runs are left out because their results are lost or damaged: {path}"]
    assert completed(found) == 29


def test_changed_metrics_are_mentioned(copy: Path) -> None:
    path = copy / "7" / "metrics.csv"
    for text in (path.read_text().replace("0.9", "0.8", 1), "epoch,train_loss\n1,zero\n"):
        path.write_text(text)
        found = read([copy])
        assert found.warnings == [f"metrics.csv was changed after the run: {copy / '7'}"]
        assert completed(found) == 30


def test_a_warning_names_some_folders_and_counts_the_others(copy: Path) -> None:
    for number in range(22):
        (copy / str(number) / "metrics.csv").write_text("")
    [warning] = read([copy]).warnings
    assert warning.endswith(f"{copy / '18'}, {copy / '19'} and 2 more")


def test_torn_curves_end_before_the_tear(copy: Path) -> None:
    path = copy / "0" / "metrics.csv"
    whole = path.read_text()
    for end in range(len(whole) - len(whole.splitlines()[-1]), len(whole)):
        path.write_text(whole[:end])
        assert read([copy]).runs[0].curves["epoch"] in ([1, 2, 3, 4], [1, 2, 3, 4, 5])


def completed(found: Results) -> int:
    return sum(len(each.runs) for each in found.arms)


# Runs that should not be mixed


def test_different_versions_are_mentioned(small: Path, tmp_path: Path) -> None:
    old = sweep(tmp_path / "old", **KINDS["one_seed"], versions=VERSIONS | {"torch": "2.13.0"})
    assert "runs use different versions of torch: 2.13.0, 2.14.1" in read([old, small]).warnings


def test_different_data_and_changes_at_a_resume_are_mentioned(copy: Path) -> None:
    edit_summary(copy / "2", {"data": {"name": "MNIST", "sha256": "other"}})
    edit_summary(copy / "3", {"resumed": [{"after_epoch": 1, "changed": {"threads": [1, 2]}}]})
    edit_summary(copy / "4", {"resumed": [{"after_epoch": 1, "changed": {}}]})
    assert read([copy]).warnings == [
        "runs use different contents of MNIST",
        f"runs were resumed with other versions, threads or devices than they started with: {copy / '3'}",
    ]


def test_repeated_run_counts_once(small: Path, copy: Path) -> None:
    found = read([small, copy])
    assert found.warnings == [
        "30 completed runs repeat others (same config_id); each config and seed counts once",
    ]
    assert (len(found.runs), completed(found)) == (60, 30)
    assert all(each.sweep == small for each in found.arms[0].runs)


# What is not a sweep


def damage_ledger(folder: Path) -> Path:
    path = folder / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], '{"time": "2026-\n', *lines[3:]]))
    return folder


def remove_jobs(folder: Path) -> Path:
    path = folder / "ledger.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    return folder


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder / "absent", "absent: no such folder"),
        (lambda folder: folder.parent, "not a sweep of this program: it has no ledger.jsonl"),
        (lambda folder: folder / "0", "a single run, not a sweep"),
        (damage_ledger, "ledger.jsonl: line 4 is damaged"),
        (remove_jobs, "copy: the ledger has no jobs"),
    ],
)
def test_what_is_not_a_sweep_is_refused(copy: Path, prepare: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read([prepare(copy)])


def test_run_without_results_is_no_completed_run(tmp_path: Path) -> None:
    found = read([sweep(tmp_path / "s", **KINDS["failed"])])
    statuses = {each.job.status for each in found.runs if not isinstance(each, CompletedRun)}
    assert statuses == {"failed", "interrupted", "pending"}
    assert [each.curves for each in found.runs if each.job.status == "pending"] == [{}]


# Predictions and measures


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 2 arms and 3 seeds with predictions, which tests only read."""
    grid = {"optimizer": ["adam", "sgd"]}
    return sweep(tmp_path_factory.mktemp("predicted") / "sweep", grid, range(3), images=2000)


@pytest.fixture
def copied(predicted: Path, tmp_path: Path) -> Path:
    """A copy of that sweep, which a test may change."""
    return Path(shutil.copytree(predicted, tmp_path / "copy"))


def kept(run: CompletedRun) -> RunPredictions:
    found = predictions.read(run.folder, (run.summary["files"] or {})[PREDICTIONS])
    assert found
    return found


def test_a_run_has_what_it_predicted_for_each_validation_image(predicted: Path) -> None:
    found = read([predicted])
    assert (found.measure.name, found.without_predictions, found.warnings) == ("accuracy", 0, [])
    for each in (one for group in found.arms for one in group.runs):
        assert each.images is not None
        assert each.images.tolist() == kept(each).val.right.tolist()
        assert each.predicted
        assert (each.val, each.test) == (each.val_accuracy, each.test_accuracy)
        assert tuple(each.measured) == MEASURED
        assert each.measured["val_log_loss"] == pytest.approx(-kept(each).val.log_probability.astype(float).mean())


def test_a_measure_ranks_the_arms_from_the_best(predicted: Path) -> None:
    found = read([predicted], "log_loss")
    best, worst = found.arms
    assert (found.measure.name, best.label) == ("log_loss", "adam")
    assert best.val.mean < worst.val.mean
    for each in (best, worst):
        losses = [float(np.mean(-kept(one).val.log_probability.astype(float))) for one in each.runs]
        assert [one.val for one in each.runs] == pytest.approx(losses)
        assert each.val.mean == pytest.approx(sum(losses) / 3)
        assert (each.val.low, each.val.high) == pytest.approx(t.interval(0.95, 2, np.mean(losses), sem(losses)))
        assert (each.val.best, each.val.worst) == pytest.approx((min(losses), max(losses)))
        tests = [float(np.mean(-kept(one).test.log_probability.astype(float))) for one in each.runs]
        assert [one.test for one in each.runs] == pytest.approx(tests)
        seen = sample(each, found.measure)
        assert list(seen.values.values()) == pytest.approx([-loss for loss in losses])
        assert [images.mean() for images in seen.images.values()] == pytest.approx(list(seen.values.values()))
    assert found.comparisons[0].difference == pytest.approx(worst.val.mean - best.val.mean)


def test_a_measure_that_is_no_mean_over_images_is_compared_over_seeds_alone(predicted: Path) -> None:
    found = read([predicted], "calibration_error")
    assert found.arms[0].val.mean < found.arms[1].val.mean
    assert [sample(each, found.measure).images for each in found.arms] == [{}, {}]


def test_a_class_is_named_as_the_runs_name_it(copied: Path) -> None:
    for number in range(6):
        edit_summary(copied / str(number), {"inference": {"classes": [f"class {each}" for each in "abcdefghij"]}})
    named, numbered = read([copied], "accuracy:class c"), read([copied], "accuracy:2")
    assert named.measure.title == numbered.measure.title == "accuracy on class class c"
    assert [arm.val for arm in named.arms] == [arm.val for arm in numbered.arms]
    with pytest.raises(ConfigError, match="--by accuracy:cat: no such class"):
        read([copied], "accuracy:cat")
    edit_summary(copied / "0", {"inference": {"classes": [*"klmnopqrst"]}})
    with pytest.raises(ConfigError, match="did not record the names"):
        read([copied], "accuracy:k")


def test_a_class_without_images_has_no_accuracy(predicted: Path) -> None:
    with pytest.raises(ConfigError, match=r"--by accuracy:10: .*sweep/0 has no validation image of this class"):
        read([predicted], "accuracy:10")


def test_runs_without_predictions_are_counted_and_can_not_be_measured(copied: Path) -> None:
    for number in (1, 4):
        edit_summary(copied / str(number), {"files": None})
    found = read([copied])
    assert (found.without_predictions, found.warnings[:-1]) == (2, [])
    assert [run.images is None for run in found.runs if isinstance(run, CompletedRun)] == [
        *(False, True, False, False, True, False)
    ]
    with pytest.raises(ConfigError) as error:
        read([copied], "log_loss")
    assert str(error.value) == (
        f"--by log_loss: 2 of 6 completed runs have no intact predictions.npz, such as {copied / '1'}; "
        f"python -m mnist_exp report {copied} --predict computes them from the checkpoints"
    )


def test_predictions_that_are_not_the_run_s_are_left_out(copied: Path) -> None:
    files = [copied / str(number) / PREDICTIONS for number in range(6)]
    files[0].unlink()
    files[2].write_bytes(files[1].read_bytes())
    files[3].write_bytes(files[3].read_bytes()[:-1])
    found = read([copied])
    altered = ", ".join(str(copied / number) for number in "023")
    [warning] = found.warnings
    assert warning == (
        f"the predictions of {altered} were changed or deleted after the run, so comparisons with their arms are for "
        f"these images, not for new ones; python -m mnist_exp report {copied} --predict computes them from the "
        "checkpoints"
    )
    runs = [run for run in found.runs if isinstance(run, CompletedRun)]
    assert [run.images is None for run in runs] == [run.measured == {} for run in runs]
    assert [run.images is None for run in runs] == [True, False, True, True, False, False]
    assert found.without_predictions == 0
    with pytest.raises(ConfigError, match="3 of 6 completed runs have no intact"):
        read([copied], "balanced_accuracy")


def test_splits_are_told_apart_where_there_are_several(copied: Path) -> None:
    runs = read([copied]).runs
    split = [replace(run, job=run.job._replace(choices={"data.seed": run.job.number % 2})) for run in runs]
    assert shown_keys(runs, ("optimizer",)) == ("optimizer",)
    assert shown_keys(split, ("optimizer",)) == ("optimizer", "data.seed")
    assert shown_keys(split, ("data.seed",)) == ("data.seed",)
