"""A trained run predicts without its data set, and refuses what is not its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Outcome
from helpers import digits_run
from helpers.run_folders import summary
from omegaconf import OmegaConf
from PIL import Image

from mnist_exp import build
from mnist_exp.data import fetch, sources
from mnist_exp.data.batches import Split
from mnist_exp.store import run_folder
from mnist_exp.store.run_folder import BEST, CONFIG, LAST
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import checkpoint
from mnist_exp.use import trained_run
from mnist_exp.use.trained_run import Prediction, TrainedRun

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run.train(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def loaded(trained: Path) -> TrainedRun:
    return trained_run.load(trained)


def split_of(run: TrainedRun) -> Split:
    return build.split(run.config, build.source(run.config), torch.device("cpu"))


def age(folder: Path, *names: Path) -> None:
    """Make files as an older version wrote them: without the facts that prediction needs."""
    for name in names:
        state: Any = dict(checkpoint.load(folder / name))
        del state["inference"]
        checkpoint.write(folder / name, state)
    facts: Any = run_folder.read_summary(folder)
    del facts["inference"]
    facts["files"] |= {str(name): files.sha256(folder / name) for name in names}
    run_folder.write_summary(folder, facts)


def test_the_summary_and_the_checkpoints_hold_what_prediction_needs(trained: Path, loaded: TrainedRun) -> None:
    facts = summary(trained)["inference"]
    assert facts == checkpoint.load(trained / BEST)["inference"] == checkpoint.load(trained / LAST)["inference"]
    assert (facts["classes"], facts["image_shape"], facts["crop"]) == (list("0123456789"), [1, 8, 8], [8, 8])
    assert facts["preparation"] == "frame"
    assert list(facts["config"]) == ["model", "activation", "loss"]
    pixels = split_of(loaded).train.images.numpy().astype(np.float64)
    assert facts["mean"] == pytest.approx([pixels.mean()], rel=1e-12)
    assert facts["std"] == pytest.approx([pixels.std()], rel=1e-6)  # in float32


def test_the_test_images_give_the_test_errors_of_the_summary(trained: Path, loaded: TrainedRun) -> None:
    test = split_of(loaded).test
    probabilities = loaded.probabilities(test.images)
    assert int((probabilities.argmax(1) != test.labels).sum()) == summary(trained)["test_errors"]
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))
    predictions = loaded.predict(test.images)
    assert [each.class_name for each in predictions] == [loaded.classes[i] for i in probabilities.argmax(1)]
    assert list(predictions[0].probabilities.values()) == pytest.approx(probabilities[0].tolist())


def test_a_prediction_is_shown_without_its_pixels(loaded: TrainedRun) -> None:
    prediction = loaded.predict(np.zeros((8, 8), np.uint8))
    shown = f"Prediction(class_name={prediction.class_name!r}, probability={prediction.probability!r}, runner_up="
    assert repr(prediction).startswith(shown)
    assert repr(prediction).endswith("}, figures=1)")


def test_a_model_of_cropped_images_takes_whole_ones(run: Run, tmp_path: Path) -> None:
    outcome = run(*TINY, "augmentation=rotate_crop", "augmentation.crop.size=6", "augmentation.crop.padding=0")
    assert outcome.code == 0, outcome.err
    loaded = trained_run.load(outcome.folders[0])
    assert (loaded.facts["image_shape"], loaded.facts["crop"]) == ([1, 8, 8], [6, 6])
    images, labels = build.source(loaded.config).test
    wrong = int((loaded.probabilities(images).argmax(1) != labels).sum())
    assert wrong == summary(outcome.folders[0])["test_errors"]
    normalized = (images[:, :, 1:7, 1:7].float() - loaded.facts["mean"][0]) / loaded.facts["std"][0]
    expected = loaded.model(normalized).softmax(1)
    torch.testing.assert_close(loaded.probabilities(images), expected)


@pytest.mark.slow
def test_every_run_of_a_fused_group_holds_them_too(run: Run) -> None:
    outcome = run("-m", *TINY, "seed=0,1", "optimizer.lr=0.001,0.01", "hydra/launcher=fused")
    assert outcome.code == 0, outcome.err
    for folder in outcome.folders:
        loaded, test = trained_run.load(folder), sources.digits("").test
        wrong = int((loaded.probabilities(test.images).argmax(1) != test.labels).sum())
        assert wrong == summary(folder)["test_errors"]
        assert loaded.facts == summary(folder)["inference"]
    assert len(outcome.folders) == 4


def test_an_old_run_gets_them_from_its_data(folder: Path, loaded: TrainedRun) -> None:
    age(folder, BEST, LAST)
    assert trained_run.load(folder).facts == loaded.facts


def test_an_old_run_without_its_data_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(folder, BEST, LAST)
    monkeypatch.setattr(fetch, "load", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    cfg = trained_run.load(folder).config
    cfg.data._target_ = "mnist_exp.data.sources.mnist"
    OmegaConf.save(cfg, folder / CONFIG)
    why = "did not record the mean of its images; it is computed from the data, but: data: no network$"
    with pytest.raises(ConfigError, match=why):
        trained_run.load(folder)


def test_an_old_run_whose_data_have_changed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(folder, BEST, LAST)
    data = sources.digits("")
    monkeypatch.setattr(build, "source", lambda cfg: data._replace(sha256="other"))
    with pytest.raises(ConfigError, match="but: data: the run was trained on digits with SHA-256"):
        trained_run.load(folder)


def test_an_old_run_that_is_resumed_holds_them(folder: Path, run: Run, loaded: TrainedRun) -> None:
    age(folder, BEST, LAST)
    outcome = run(f"resume={folder}", "epochs=13")
    assert outcome.code == 0, outcome.err
    assert summary(folder)["inference"] == loaded.facts == checkpoint.load(folder / LAST)["inference"]


def test_best_of_an_old_run_that_was_resumed_without_a_better_epoch_takes_them_from_the_summary(
    folder: Path, loaded: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(folder, BEST)
    facts: Any = run_folder.read_summary(folder)
    run_folder.write_summary(folder, facts | {"inference": loaded.facts})
    monkeypatch.setattr(build, "source", None)
    assert trained_run.load(folder).facts == loaded.facts


def test_latest_is_the_run_that_was_trained_last(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^latest: no run under .*outputs$"):
        trained_run.load("latest")
    for name, seconds in {"a/old": 1_000, "b/new": 3_000, "c/old": 2_000}.items():
        digits_run.touch(Path(shutil.copytree(trained, Path("outputs", name))) / BEST, seconds)
    assert trained_run.load("latest").folder == tmp_path / "outputs" / "b" / "new"


def test_folders_that_hold_no_model_are_refused(tmp_path: Path, trained: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(ConfigError) as error:
            trained_run.load(folder)
        return str(error.value)

    assert refused(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder"
    assert "not the folder of a run that has trained an epoch" in refused(tmp_path)
    (tmp_path / "ledger.jsonl").touch()
    assert refused(tmp_path) == f"{tmp_path}: no run of this sweep has weights"
    for job in ("10", "9", "3", "8"):
        shutil.copytree(trained, tmp_path / job)
    assert refused(tmp_path) == f"{tmp_path}: this is a sweep; name one of its runs, such as {tmp_path / '3'}"
    assert refused(tmp_path / "ledger.jsonl") == f"{tmp_path / 'ledger.jsonl'}: is a file, not a run folder"


def test_a_damaged_checkpoint_is_refused(folder: Path) -> None:
    content = bytearray((folder / BEST).read_bytes())
    content[1000] ^= 1
    (folder / BEST).write_bytes(content)
    with pytest.raises(ConfigError, match=r"best\.pt: is altered or damaged"):
        trained_run.load(folder)


def test_the_checkpoint_of_another_run_is_refused(folder: Path, run: Run) -> None:
    other = run(*TINY).folders[0]
    shutil.copy(other / BEST, folder / BEST)
    with pytest.raises(ConfigError, match=r"best\.pt: is not the file of this run"):
        trained_run.load(folder)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    state: Any = dict(checkpoint.load(folder / BEST))
    state["model"].popitem()
    checkpoint.write(folder / BEST, state)
    (folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"best\.pt: doesn't fit its model: .*Missing key"):
        trained_run.load(folder)


def test_an_image_may_be_a_path_an_image_or_an_array(loaded: TrainedRun, tmp_path: Path) -> None:
    images = sources.digits("").test.images[:3]
    array = images[0, 0].numpy()
    Image.fromarray(array).save(tmp_path / "digit.png")
    expected = loaded.predict(images)
    color = np.stack([array] * 3, -1)
    for one in (tmp_path / "digit.png", str(tmp_path / "digit.png"), Image.fromarray(array), array, color, images[0]):
        require_same([loaded.predict(one)], expected[:1])
    gray, last = images[:, 0].numpy(), images.movedim(1, -1)
    for many in (list(images), gray, last, last.expand(-1, -1, -1, 3), [Image.fromarray(each) for each in gray]):
        require_same(loaded.predict(many), expected)
    assert loaded.predict([]) == []


def require_same(predictions: list[Prediction], expected: list[Prediction]) -> None:
    """Sums of other batches are rounded otherwise."""
    for ours, theirs in zip(predictions, expected, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, rel=1e-5)
        assert (ours.class_name, ours.runner_up) == (theirs.class_name, theirs.runner_up)
        assert (ours.image == theirs.image).all()


def test_a_prediction_names_the_first_two_classes(loaded: TrainedRun) -> None:
    prediction = loaded.predict(sources.digits("").test.images[0])
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    assert [prediction[:2], prediction[2:4]] == ranked[:2]
    assert json.loads(json.dumps(prediction.probabilities)) == prediction.probabilities


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8), np.float32), "the images are of type float32; pixels are uint8, from 0 to 255"),
        (np.zeros(8, np.uint8), r"the images have the shape \(8,\); it is \(H, W\)"),
        (np.zeros((2, 5, 8, 8), np.uint8), r"the images have the shape \(2, 5, 8, 8\)"),
        (np.zeros((0, 8), np.uint8), r"the images have the shape \(0, 8\)"),
        (None, "the images are of type object"),
    ],
)
def test_other_images_are_refused(images: Any, message: str, loaded: TrainedRun) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        loaded.predict(images)


def test_files_that_are_no_images_are_refused(loaded: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ConfigError, match=r"text\.png: no image of a known format$"):
        loaded.predict([tmp_path / "text.png"])
    with pytest.raises(ConfigError, match=r"^nowhere\.png: No such file or directory$"):
        loaded.predict("nowhere.png")
    with pytest.raises(ConfigError, match=r"^prepare=tall: no such way, choose from mnist, emnist, frame, pad, crop"):
        loaded.predict("nowhere.png", prepare="tall")
