"""What a run records of its data, of what it predicted, and of what prediction needs."""

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mnist_exp.data import batches
from mnist_exp.data.batches import Split
from mnist_exp.store import run_folder
from mnist_exp.store.predictions import Predictions
from mnist_exp.store.run_folder import DataFacts, InferenceFacts
from mnist_exp.training.loop import Evaluation

INFERENCE_GROUPS = ("model", "activation", "loss")  # of the config: what a trained model is built from


def data_facts(split: Split) -> DataFacts:
    """Return what a summary says about the data of a run."""
    return {
        "name": split.name,
        "sha256": split.sha256,
        "test": "cut" if "test" in split.cut else "given",
        "images": {part: len(getattr(split, part).images) for part in ("train", "val", "test")},
        "imbalance": round(batches.imbalance(split.train.labels), 3),
    }


def data_notes(split: Split) -> list[str]:
    """Return what a reader of a run's results should know about its data."""
    notes = []
    if "test" in split.cut:
        notes.append("the source has no test images: they are cut from its training images, by data.test and data.seed")
    if run_folder.is_imbalanced(data_facts(split)):
        counts = split.train.labels.bincount(minlength=len(split.classes))
        most, least = (f"{int(counts[each]):,} of {split.classes[each]}" for each in (counts.argmax(), counts.argmin()))
        notes.append(
            f"the classes differ in size, from {least} to {most}: balanced accuracy is reported beside accuracy"
        )
    return notes


def inference_facts(cfg: DictConfig, split: Split) -> InferenceFacts:
    """Return what prediction needs to know of a run, beside the weights."""
    normalize = split.val.normalize
    return {
        "classes": list(split.classes),
        "image_shape": list(split.image_shape),
        "crop": list(split.val.images.shape[2:]),
        "mean": normalize.mean,
        "std": normalize.std,
        "preparation": split.preparation,
        "config": {group: OmegaConf.to_container(cfg[group], resolve=True) for group in INFERENCE_GROUPS},
    }


def predictions(result: Evaluation, labels: Tensor) -> Predictions:
    """Return what a run keeps of the predictions for a part of the data.

    Args:
        result: The evaluation of the part.
        labels: The classes of its images, int64 (N,).
    """
    probabilities, true = result.probabilities.double().cpu(), labels.cpu()
    dtype = np.uint8 if probabilities.shape[1] <= 256 else np.uint16
    lowest = float(np.finfo(np.float32).tiny)  # a probability of 0 has no logarithm
    return Predictions(
        true.numpy().astype(dtype),
        result.predicted.cpu().numpy().astype(dtype),
        probabilities.gather(1, true[:, None])[:, 0].clamp(lowest, 1).log().numpy().astype(np.float16),
        probabilities.gather(1, result.predicted.cpu()[:, None])[:, 0].numpy().astype(np.float16),
    )
