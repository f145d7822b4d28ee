"""What a data set is: images and labels in parts, before a run splits and batches them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """Some images of a data set, and their labels.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), which index the data set's classes.
    """

    images: Tensor
    labels: Tensor


NO_IMAGES = Part(torch.empty(0, 0, 0, 0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))


class DataSet(NamedTuple):
    """A data set as its source gives it.

    Attributes:
        name: The name of the set.
        classes: The names of the classes.
        train: The training images.
        test: The test images; NO_IMAGES if the source has none, so that a run cuts them from `train`.
        sha256: Identifies the content. For the raw IDX files it is what `sha256sum <training images, training labels,
            test images, test labels> | sha256sum` prints.
        val: The validation images; NO_IMAGES if the source has none, so that a run cuts them from `train`.
        preparation: How an image of any size becomes one like these. pad, crop or stretch: it is scaled to their size,
            and what doesn't fit is padded, cropped or stretched. mnist, emnist or frame: its figure is found, scaled
            and placed, light on dark, as in MNIST, as in EMNIST, or so that it fills the frame.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    sha256: str
    val: Part = NO_IMAGES
    preparation: str = "pad"
