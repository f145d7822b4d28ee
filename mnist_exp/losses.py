"""The losses: logits (N, C) and labels (N,) to a mean over the images, and logits to probabilities."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.CrossEntropyLoss):
    """Softmax cross-entropy, in nats; `label_smoothing` moves that share of each target to all classes alike."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)


class OneHotMSE(nn.MSELoss):
    """Mean squared error to one-hot targets, over images and classes.

    Hui & Belkin 2021, Evaluation of neural architectures trained with square loss vs cross-entropy, arXiv 2006.07322,
    section 2 (no rescaling: the paper does without up to 42 classes).
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The outputs themselves, which estimate the probabilities, clipped to [0, 1]."""
        return logits.clamp(0, 1)
