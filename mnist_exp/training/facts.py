"""What a run records of its data, and of what prediction needs."""

from omegaconf import DictConfig, OmegaConf

from mnist_exp.data import batches
from mnist_exp.data.batches import Split
from mnist_exp.store import run_folder
from mnist_exp.store.run_folder import DataFacts, InferenceFacts

INFERENCE_GROUPS = ("model", "activation", "loss")  # of the config: what a trained model is built from


def data_facts(split: Split) -> DataFacts:
    """Return what a summary says about the data of a run."""
    return {
        "name": split.name,
        "sha256": split.sha256,
        "test": "cut" if "test" in split.cut else "given",
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
