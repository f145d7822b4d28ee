"""predictions.npz: what is written is read again, and nothing else is."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Outcome
from helpers.run_folders import summary
from torch import Tensor

from mnist_exp.losses import CrossEntropy
from mnist_exp.store import predictions
from mnist_exp.store.predictions import Predictions, RunPredictions
from mnist_exp.store.run_folder import PREDICTIONS
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import facts
from mnist_exp.training.loop import Evaluation

Run = Callable[..., Outcome]
TINY_JOB = [override for override in TINY if not override.startswith("plots")]


def made(images: int, classes: int = 10, seed: int = 0) -> Predictions:
    """What a model predicts that has learned a little."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=rng)
    logits = torch.randn(images, classes, generator=rng) + 3 * torch.nn.functional.one_hot(labels, classes)
    return facts.predictions(evaluation(logits, labels), labels)


def evaluation(logits: Tensor, labels: Tensor) -> Evaluation:
    probabilities = CrossEntropy().probabilities(logits)
    return Evaluation(0.0, 0.0, 0, probabilities.argmax(dim=1), probabilities)


@pytest.fixture
def kept() -> RunPredictions:
    return RunPredictions(made(200), made(300, seed=1))


def written(folder: Path, kept: RunPredictions) -> str:
    predictions.write(folder, kept)
    return files.sha256(folder / PREDICTIONS)


def test_what_is_written_is_read_again(tmp_path: Path, kept: RunPredictions) -> None:
    found = predictions.read(tmp_path, written(tmp_path, kept))
    assert found
    for ours, theirs in zip(kept, found, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    assert found.val.right.mean() == np.mean(kept.val.label == kept.val.predicted) > 0.5
    right = predictions.read_right(tmp_path, files.sha256(tmp_path / PREDICTIONS))
    assert right.dtype == bool
    assert np.array_equal(right, kept.val.right)
    with pytest.raises(ConfigError, match="was altered"):
        predictions.read_right(tmp_path, "0" * 64)


def test_equal_predictions_have_equal_bytes_whenever_they_are_written(
    tmp_path: Path, kept: RunPredictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(tmp_path, kept)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert written(tmp_path, kept) == first
    assert written(tmp_path, kept._replace(val=kept.test)) != first
    with zipfile.ZipFile(tmp_path / PREDICTIONS) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert len(archive.namelist()) == 8


def test_a_run_that_has_kept_none_has_none(tmp_path: Path, kept: RunPredictions) -> None:
    written(tmp_path, kept)  # by another program: the summary does not know it
    assert predictions.read(tmp_path, None) is None


def alter(folder: Path) -> None:
    content = bytearray((folder / PREDICTIONS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / PREDICTIONS).write_bytes(content)


def cut(folder: Path) -> None:
    content = (folder / PREDICTIONS).read_bytes()
    (folder / PREDICTIONS).write_bytes(content[:-10])


def swap(folder: Path) -> None:
    predictions.write(folder, RunPredictions(made(200, seed=2), made(300, seed=3)))


def delete(folder: Path) -> None:
    (folder / PREDICTIONS).unlink()


@pytest.mark.parametrize("spoil", [alter, cut, swap, delete])
def test_a_file_that_is_not_the_run_s_is_named(
    tmp_path: Path, kept: RunPredictions, spoil: Callable[[Path], None]
) -> None:
    checksum = written(tmp_path, kept)
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=rf"{tmp_path / PREDICTIONS}: (was altered|is gone)"):
        predictions.read(tmp_path, checksum)


@pytest.mark.parametrize("content", ["pickle", "text", "another key"])
def test_nothing_is_unpickled_and_other_formats_are_refused(tmp_path: Path, content: str) -> None:
    """The checksum of each is right."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path / "evil").touch, ()

    buffer = io.BytesIO()
    if content == "pickle":
        np.savez(buffer, val_label=np.array([Evil()], dtype=object))
    elif content == "text":
        buffer.write(b"no archive")
    else:
        np.savez(buffer, labels=np.zeros(3))
    (tmp_path / PREDICTIONS).write_bytes(buffer.getvalue())
    with pytest.raises(ConfigError, match="has another format"):
        predictions.read(tmp_path, files.digest(buffer.getvalue()))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_there_may_be_more_than_256_classes(tmp_path: Path, classes: int, dtype: type) -> None:
    labels = torch.tensor([0, classes - 1])
    part = facts.predictions(evaluation(10 * torch.eye(classes)[labels.flip(0)], labels), labels)
    found = predictions.read(tmp_path, written(tmp_path, RunPredictions(part, part)))
    assert found
    assert found.val.label.dtype == found.val.predicted.dtype == dtype
    assert found.val.label.tolist() == found.val.predicted.tolist()[::-1] == labels.tolist()


def test_a_probability_of_0_has_a_finite_logarithm() -> None:
    labels = torch.tensor([0, 1])
    part = facts.predictions(evaluation(torch.tensor([[0.0, 1000.0], [0.0, 1000.0]]), labels), labels)
    assert part.log_probability.tolist() == pytest.approx([-87.3, 0], abs=0.1)
    assert part.confidence.tolist() == [1, 1]


# Runs


def of_run(folder: Path) -> RunPredictions:
    """What a completed run has kept, which must be what its summary says."""
    outcome = summary(folder)
    kept = predictions.read(folder, outcome["files"][PREDICTIONS])
    assert kept
    assert float(kept.val.right.mean()) == pytest.approx(outcome["best_val_accuracy"], rel=1e-12)
    assert float(kept.test.right.mean()) == pytest.approx(outcome["test_accuracy"], rel=1e-12)
    assert int((~kept.test.right).sum()) == outcome["test_errors"]
    assert -kept.test.log_probability.astype(float).mean() == pytest.approx(outcome["test_loss"], rel=1e-3)
    sizes = outcome["data"]["images"]
    assert (len(kept.val.label), len(kept.test.label)) == (sizes["val"], sizes["test"])
    return kept


def test_a_run_keeps_what_its_summary_says(run: Run) -> None:
    assert run(*TINY, "hydra.run.dir=outputs/a/it").code == 0
    of_run(Path("outputs/a/it"))


def test_a_run_need_not_keep_any(run: Run) -> None:
    assert run(*TINY, "predictions=false", "hydra.run.dir=outputs/a/it").code == 0
    assert not Path("outputs/a/it", PREDICTIONS).exists()
    assert PREDICTIONS not in summary(Path("outputs/a/it"))["files"]


def test_a_resumed_run_keeps_what_its_new_best_epoch_predicts(run: Run) -> None:
    folder = Path("outputs/a/it")
    assert run(*TINY, f"hydra.run.dir={folder}").code == 0
    before = of_run(folder)
    assert run(f"resume={folder}", "epochs=4").code == 0
    assert summary(folder)["best_epoch"] > 2
    assert not np.array_equal(of_run(folder).val.log_probability, before.val.log_probability)
    assert run(f"resume={folder}", "epochs=5", "predictions=false").code == 0
    assert not (folder / PREDICTIONS).exists()
    assert PREDICTIONS not in summary(folder)["files"]


def test_a_completed_run_whose_predictions_were_altered_is_not_called_completed(run: Run) -> None:
    folder = Path("outputs/a/it")
    assert run(*TINY, f"hydra.run.dir={folder}").code == 0
    alter(folder)
    assert f"were altered or deleted since: {PREDICTIONS}" in run(f"resume={folder}").err


def test_a_fused_run_keeps_what_it_predicts_alone(run: Run) -> None:
    words = ["-m", *TINY_JOB, "hydra/launcher=fused", "hydra.sweep.dir=sweep", "seed=0,1"]
    assert run(*words).code == 0
    for seed in (0, 1):
        assert run(*TINY, f"seed={seed}", f"hydra.run.dir=outputs/a/{seed}").code == 0
        fused, alone = of_run(Path("sweep", str(seed))), of_run(Path("outputs/a", str(seed)))
        for ours, theirs in zip(fused, alone, strict=True):
            assert np.array_equal(ours.label, theirs.label)
            assert np.array_equal(ours.predicted, theirs.predicted)
            assert ours.log_probability == pytest.approx(theirs.log_probability.astype(float), abs=2e-3)
