"""The values that keys may have. A message says the text of a limit, and so does the reference page of config keys."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mnist_exp.system import extras


@dataclass(frozen=True)
class Limit:
    """The allowed values of a key, as code and as text."""

    holds: Callable[[Any], bool]
    text: str

    def allows(self, value: Any) -> bool:
        """Return whether the value is allowed; one of another type is not."""
        try:
            return self.holds(value)
        except TypeError:
            return False


def listed(value: Any) -> list[Any]:
    """Return what a value names that may be null, one text, or a list of several."""
    return list(dict.fromkeys([value] if isinstance(value, str) else value or ()))


COUNT = Limit(lambda value: value >= 1, "1 or more")
THREADS = Limit(lambda value: 1 <= value <= 1024, "1 to 1,024")
SEED = Limit(lambda value: 0 <= value < 2**63, "0 to 2^63 - 1")
POSITIVE = Limit(lambda value: value > 0, "more than 0")
NOT_NEGATIVE = Limit(lambda value: value >= 0, "0 or more")
SHARE = Limit(lambda value: 0 <= value <= 1, "0 to 1")
BELOW_ONE = Limit(lambda value: 0 <= value < 1, "0 or more and less than 1")
HALF_TURN = Limit(lambda value: 0 <= value <= 180, "0 to 180 degrees")
PART = Limit(
    lambda value: 0 < value < 1 or (value >= 1 and value == int(value)), "1 or more images, or a share between 0 and 1"
)
INTERPOLATION = Limit(lambda value: value in ("nearest", "bilinear"), "nearest or bilinear")

# The constructor of a part checks the keys that are not listed here, such as those of a user's own option.
LIMITS = {
    "epochs": COUNT,
    "patience": Limit(lambda value: value >= 1, "1 or more epochs, or null for no limit"),
    "stop_below": Limit(
        lambda value: all(0 <= accuracy <= 1 for accuracy in value),
        "a list of accuracies from 0 to 1, one per epoch, or null for no limit",
    ),
    "stop_after": Limit(lambda value: value >= 1, "1 or more epochs, or null for no limit"),
    "best_by": Limit(lambda value: value in ("val_loss", "val_accuracy"), "val_loss or val_accuracy"),
    "seed": SEED,
    "checkpoint_every": COUNT,
    "tags": Limit(lambda value: all(isinstance(word, str) for word in value), "a list of words, such as [baseline,v2]"),
    "tracker": Limit(
        lambda value: extras.TRACKERS.keys() >= set(listed(value)),
        f"null, {', '.join(extras.TRACKERS)}, or a list of several, such as [tensorboard,mlflow]",
    ),
    "threads": THREADS,
    "matmul_precision": Limit(lambda value: value in ("highest", "high", "medium"), "highest, high or medium"),
    "data.path": Limit(
        lambda value: isinstance(value, str) and value != "", "the path of your data, as in data.path=./photos"
    ),
    "data.size": Limit(lambda value: isinstance(value, int) and value >= 1, "1 or more pixels, or null"),
    "data.fit": Limit(lambda value: value in ("pad", "crop", "stretch"), "pad, crop or stretch"),
    "data.color": Limit(lambda value: value in ("auto", "gray", "rgb"), "auto, gray or rgb"),
    "data.shape": Limit(
        lambda value: len(value) in (2, 3) and all(isinstance(side, int) and side >= 1 for side in value),
        "[height,width] or [channels,height,width], or null for a square",
    ),
    "data.validation": PART,
    "data.test": PART,
    "data.batch_size": COUNT,
    "data.seed": SEED,
    "augmentation.rotation.degrees": HALF_TURN,
    "augmentation.rotation.interpolation": INTERPOLATION,
    "augmentation.crop.size": Limit(lambda value: isinstance(value, int) and value >= 1, "1 or more pixels, or null"),
    "augmentation.crop.padding": NOT_NEGATIVE,
    "augmentation.affine.degrees": HALF_TURN,
    "augmentation.affine.shift": SHARE,
    "augmentation.affine.scale": Limit(
        lambda value: len(value) == 2 and 0 < value[0] <= value[1], "[low, high] with 0 < low <= high"
    ),
    "augmentation.affine.shear": Limit(lambda value: 0 <= value < 90, "0 or more and less than 90 degrees"),
    "augmentation.affine.interpolation": INTERPOLATION,
    "augmentation.elastic.sigma": POSITIVE,
    "augmentation.elastic.alpha": NOT_NEGATIVE,
    "augmentation.elastic.points": COUNT,
    "augmentation.elastic.interpolation": INTERPOLATION,
    "model.hidden_layers": Limit(lambda value: all(units >= 1 for units in value), "layers of 1 or more units"),
    "model.dropout": BELOW_ONE,
    "model.input_dropout": BELOW_ONE,
    "model.max_norm": Limit(lambda value: value > 0, "more than 0, or null for no limit"),
    "optimizer.lr": POSITIVE,
    "optimizer.lr_range": Limit(
        lambda value: len(value) == 2 and 0 < value[0] < value[1], "[low, high] with 0 < low < high"
    ),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.betas": Limit(
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value), "two numbers of 0 or more, less than 1"
    ),
    "optimizer.alpha": SHARE,
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "optimizer.momentum_decay": NOT_NEGATIVE,
    "schedule.min_lr": NOT_NEGATIVE,
    "schedule.step_size": COUNT,
    "schedule.gamma": POSITIVE,
    "schedule.pct_start": SHARE,
    "schedule.div_factor": POSITIVE,
    "loss.label_smoothing": SHARE,
}
