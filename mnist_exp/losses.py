"""The losses: logits (N, C) and labels (N,) to a mean over the images, and logits to probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.CrossEntropyLoss):
    """Softmax cross-entropy, in nats; `label_smoothing` moves that share of each target to all classes alike."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """The softmax, which is what the loss takes the logits for."""
        return logits.softmax(dim=1)


class OneHotMSE(nn.MSELoss):
    """Mean squared error to one-hot targets, over images and classes.

    Hui & Belkin 2021, Evaluation of neural architectures trained with square loss vs cross-entropy, arXiv 2006.07322,
    section 2 (no rescaling: the paper does without up to 42 classes).
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities nearest to the outputs, which estimate them: Duchi et al. 2008, ICML, figure 1."""
        descending = logits.sort(dim=1, descending=True).values
        excess = (descending.cumsum(dim=1) - 1) / torch.arange(1, logits.shape[1] + 1, device=logits.device)
        last = (descending > excess).sum(dim=1, keepdim=True) - 1
        return (logits - excess.gather(1, last)).clamp(min=0)
