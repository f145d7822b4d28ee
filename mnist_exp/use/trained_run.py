"""A run that is done: its model, ready to predict."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from mnist_exp import build
from mnist_exp.data.batches import EVALUATION_BATCH
from mnist_exp.store import keeping, metrics, run_folder
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import BEST, CONFIG, LEDGER, InferenceFacts, Summary
from mnist_exp.system import errors
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import checkpoint, resume
from mnist_exp.training.facts import inference_facts
from mnist_exp.training.loop import Loss
from mnist_exp.use.prepare import Preparation, Prepared, opened
from mnist_exp.use.results import as_table


class Classifier(nn.Module):
    """A trained model that takes the images of the data set as they are, and gives probabilities.

    Attributes:
        model: The trained model, which takes normalized images.
        loss: Turns the model's logits into probabilities.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, loss: Loss, facts: InferenceFacts) -> None:
        """Store the parts.

        Args:
            model: The trained model.
            loss: The loss that it was trained with.
            facts: The mean and the standard deviation of the pixels, and the size that the model takes.
        """
        super().__init__()
        self.model, self.loss = model, loss
        _, *size = facts["image_shape"]
        (top, left), (bottom, right) = zip(*map(_margins, size, facts["crop"]), strict=True)
        self.padding = [-left, -right, -top, -bottom]  # as F.pad takes it: less than 0 crops
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(facts[name]).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each class, float32 (N, classes), for images, uint8 (N, C, H, W)."""
        images = F.pad(images, self.padding) if any(self.padding) else images
        return self.loss.probabilities(self.model((images.float() - self.mean) / self.std))


class Prediction(NamedTuple):
    """What a model predicts for an image.

    Attributes:
        class_name: The class with the highest probability; None if the picture is empty.
        probability: Its probability; None if the picture is empty.
        runner_up: The class that comes second.
        runner_up_probability: Its probability.
        probabilities: The probability of each class, in the order of the classes.
        image: What the model was shown, uint8 (C, H, W).
        figures: How many figures the picture has, of which the largest is shown; 1 where none is looked for.
    """

    class_name: str | None
    probability: float | None
    runner_up: str | None
    runner_up_probability: float | None
    probabilities: dict[str, float]
    image: NDArray[np.uint8]
    figures: int

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items() if name != "image")
        return f"{type(self).__name__}({shown})"


class TrainedRun:
    """A run with the weights of its best epoch.

    Attributes:
        folder: The run folder.
        facts: What prediction needs beside the weights.
        classifier: Normalization, model and probabilities in one module, on the CPU, in evaluation mode.
    """

    def __init__(self, folder: Path, facts: InferenceFacts, classifier: Classifier) -> None:
        self.folder, self.facts, self.classifier = folder, facts, classifier

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def model(self) -> nn.Module:
        """The model, which takes normalized images, float32 (N, C, H, W), and gives logits (N, classes)."""
        return self.classifier.model

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the model's outputs."""
        return self.facts["classes"]

    @cached_property
    def config(self) -> DictConfig:
        """The config of the run."""
        return resume.read_config(self.folder / CONFIG)

    def preparation(self, way: str | None = None) -> Preparation:
        """Return what makes images like those that the model was trained on.

        Args:
            way: How: mnist, emnist, frame, pad, crop or stretch; by default as the data set's images were.
        """
        return Preparation(way or self.facts["preparation"], self.facts["image_shape"])

    def predict(self, images: Any, prepare: str | None = None) -> Any:
        """Return what the model predicts for images of any size.

        Args:
            images: The path of an image file, a PIL image, or an array or tensor, uint8 (H, W) or (H, W, C), for one
                image. A list of these, or uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), for many.
            prepare: As in `preparation`.

        Returns:
            A `Prediction` for one image, and a list of them for many.

        Raises:
            ConfigError: A file holds no image or can't be read, the images are of another type or shape, or there is no
                such way to prepare them.
        """
        preparation, shape = self.preparation(prepare), self.facts["image_shape"]
        if isinstance(images, Sequence) and not isinstance(images, str):
            several = [image for each in images for image in opened(each, shape)[0]]
            return self.predict_prepared([preparation(image) for image in several])
        found, is_one = opened(images, shape)
        predictions = self.predict_prepared([preparation(image) for image in found])
        return predictions[0] if is_one else predictions

    def predict_prepared(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Return what the model predicts for images that `preparation` has made."""
        if not prepared:
            return []
        pixels = np.stack([each.pixels for each in prepared])
        rows = self.probabilities(torch.from_numpy(pixels)).tolist()
        return [self._prediction(*both) for both in zip(prepared, rows, strict=True)]

    def _prediction(self, prepared: Prepared, row: list[float]) -> Prediction:
        by_class = dict(zip(self.classes, row, strict=True))
        (first, p), (second, q) = sorted(by_class.items(), key=lambda item: -item[1])[:2]
        if prepared.figures == 0:
            return Prediction(None, None, None, None, by_class, *prepared)
        return Prediction(first, p, second, q, by_class, *prepared)

    @cached_property
    def summary(self) -> Summary:
        """The content of summary.json; empty while the run is trained, and if it was killed."""
        return run_folder.read_summary(self.folder) or run_folder.empty_summary()

    @property
    def metrics(self) -> Any:
        """The epochs as in metrics.csv: a pandas.DataFrame where pandas is installed, else a list of dicts."""
        return as_table([row._asdict() for row in metrics.read(self.folder / METRICS)])

    def test_images(self) -> Tensor:
        """Return the test images of the run, uint8 (N, C, H, W), as its data set has them.

        Raises:
            ConfigError: The data is not there, or is not what the run was trained on.
            OSError: The run's config can't be read.
        """
        source = build.source(self.config)
        run_folder.require_same_data(checkpoint.load(self.folder / BEST)["data"], source.sha256)
        return build.test_images(self.config, source)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class.

        Args:
            images: uint8 (N, C, H, W), of the data set's shape `facts["image_shape"]`.

        Returns:
            float32 (N, classes).
        """
        return torch.cat([self.classifier(part) for part in images.split(EVALUATION_BATCH)])


def load(folder: str | PathLike[str]) -> TrainedRun:
    """Load the weights of the best epoch of a run that is done, or that was interrupted after an epoch.

    Args:
        folder: The run folder; or `latest`, the run under outputs/ that has trained last.

    Raises:
        ConfigError: The folder holds no such run, or a file of it is damaged.
    """
    folder = run_folder.latest(BEST) if str(folder) == run_folder.LATEST else Path(folder)
    if not (folder / BEST).is_file():
        raise ConfigError(f"{folder}: {_why_without_weights(folder)}")
    state, summary = checkpoint.load(folder / BEST), run_folder.read_summary(folder)
    if summary and summary["status"] == "completed" and not run_folder.is_unaltered(folder, summary, str(BEST)):
        raise ConfigError(f"{folder / BEST}: is not the file of this run: its checksum differs from the summary's")
    recorded = state.get("inference") or (summary and summary["inference"])
    facts = recorded or _facts_from_data(folder, state["data"])
    model, loss = build.from_inference_facts(facts)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:  # the checksum is right, so another version of this program wrote it
        raise ConfigError(f"{folder / BEST}: doesn't fit its model: {' '.join(str(error).split())[:500]}") from error
    return TrainedRun(folder, facts, Classifier(model, loss, facts).eval())


def _why_without_weights(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    if folder.is_file():
        return "is a file, not a run folder"
    if (folder / LEDGER).is_file():
        runs = sorted((path.parents[1] for path in folder.glob(f"*/{BEST}")), key=lambda run: (len(run.name), run.name))
        return (
            f"this is a sweep; name one of its runs, such as {runs[0]}" if runs else "no run of this sweep has weights"
        )
    if keeping.was_dropped(folder, BEST):
        return f"{BEST} {keeping.why_gone(folder, BEST)}; the command of the run trains it again"
    return f"no {BEST}: not the folder of a run that has trained an epoch, or its weights were deleted"


def _facts_from_data(folder: Path, data: run_folder.DataFacts | None) -> InferenceFacts:
    """Return what a run of an older version did not record, from its config and its data.

    Raises:
        ConfigError: The data is not there, or is not what the run was trained on.
    """
    cfg = resume.read_config(folder / CONFIG)
    try:
        split = build.split(cfg, build.source(cfg), torch.device("cpu"))
        run_folder.require_same_data(data, split.sha256)
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f"{folder}: an older version trained this run, and did not record the mean of its images; "
            f"it is computed from the data, but: {errors.explain(error)}"
        ) from error
    return inference_facts(cfg, split)


def _margins(size: int, kept: int) -> tuple[int, int]:
    """Return how many pixels a center crop takes from either end of a side; less than 0 where it adds some."""
    first = (size - kept) // 2
    return first, size - kept - first
