"""The losses: logits (N, C) and labels, int64 (N,), to the mean loss of the images.

Each loss also turns logits into probabilities.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.CrossEntropyLoss):
    """Softmax cross-entropy, in nats.

    `label_smoothing` spreads that fraction of each target evenly over all classes.
    """

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax of logits (N, C), which is what the loss assumes: probabilities (N, C)."""
        return logits.softmax(dim=1)


class OneHotMSE(nn.MSELoss):
    """Mean squared error to one-hot targets, over images and classes.

    Hui & Belkin 2021, Evaluation of neural architectures trained with square loss vs cross-entropy, arXiv 2006.07322,
    section 2 (without rescaling, which the paper uses for more than 42 classes).
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits (N, C) for labels, int64 (N,)."""
        return super().forward(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (N, C) nearest to logits (N, C): Duchi et al. 2008, ICML, figure 1."""
        descending = logits.sort(dim=1, descending=True).values
        excess = (descending.cumsum(dim=1) - 1) / torch.arange(1, logits.shape[1] + 1, device=logits.device)
        last = (descending > excess).sum(dim=1, keepdim=True) - 1
        return (logits - excess.gather(1, last)).clamp(min=0)
