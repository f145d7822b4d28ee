"""The models: images (N, C, H, W) to logits (N, classes). Sizes come from the data, activations from a factory."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]  # called once a layer, or PReLU's slope would be shared


def mlp(
    in_shape: tuple[int, int, int],
    num_classes: int,
    activation: Activation,
    hidden_layers: Sequence[int],
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float | None = None,
) -> nn.Sequential:
    """A multilayer perceptron: a linear layer, the activation and dropout for each hidden size, and a linear layer.

    With `input_dropout`, pixels are dropped too; with `max_norm`, the weights that come into a hidden unit keep within
    that norm.
    """
    channels, height, width = in_shape
    sizes = [channels * height * width, *hidden_layers]
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]  # (N, C, H, W) -> (N, C*H*W)
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out) if max_norm is None else MaxNormLinear(fan_in, fan_out, max_norm)
        layers += [linear, activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


class MaxNormLinear(nn.Linear):
    """A linear layer whose units' incoming weights are shortened to `max_norm` where they are longer, before each use.

    Srivastava et al. 2014, JMLR 15, section 5.1 (and, for when it is done, torch.nn.Embedding).
    """

    def __init__(self, fan_in: int, fan_out: int, max_norm: float) -> None:
        super().__init__(fan_in, fan_out)
        self.max_norm = max_norm

    def forward(self, x: Tensor) -> Tensor:
        shorten(self.weight, self.max_norm)
        return super().forward(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, max_norm={self.max_norm:g}"


@torch.no_grad()
def shorten(weights: Tensor, max_norm: float) -> None:
    """Scale down, in place, the rows (..., units, inputs) that are longer than `max_norm`."""
    norms = torch.linalg.vector_norm(weights, dim=-1, keepdim=True)
    weights.mul_((max_norm / norms).clamp_(max=1))


def initialize(model: nn.Module, weights: Callable[[Tensor], object]) -> None:
    """Fill the weights of linear and convolutional layers by `weights`, of torch.nn.init, and biases with zeros."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weights(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def leave_as_built(model: nn.Module) -> None:
    """Keep the weights that torch.nn gives its layers: uniform within 1 / sqrt(inputs), biases too."""


def linear(in_shape: tuple[int, int, int], num_classes: int, activation: Activation) -> nn.Sequential:
    """Multinomial logistic regression: one linear layer, which has no use for the activation."""
    return mlp(in_shape, num_classes, activation, hidden_layers=[])


def lenet(
    in_shape: tuple[int, int, int], num_classes: int, activation: Activation, dropout: float = 0.0
) -> nn.Sequential:
    """LeNet-5 with the chosen activation, max pooling and a full second convolution: 61,706 parameters on MNIST.

    LeCun et al. 1998, Gradient-based learning applied to document recognition, section II.B. Dropout is before the last
    two linear layers. Raises ValueError for images smaller than 12 x 12.
    """
    channels, height, width = in_shape
    if min(height, width) < 12:
        raise ValueError(f"lenet needs images of 12 x 12 pixels or more, these are {height} x {width}")
    tall, wide = ((side // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, kernel_size=5, padding=2), activation(), nn.MaxPool2d(2),  # -> (N, 6, H/2, W/2)
        nn.Conv2d(6, 16, kernel_size=5), activation(), nn.MaxPool2d(2),  # -> (N, 16, 5, 5) for 28 x 28
        nn.Flatten(),
        nn.Linear(16 * tall * wide, 120), activation(), nn.Dropout(dropout),
        nn.Linear(120, 84), activation(), nn.Dropout(dropout),
        nn.Linear(84, num_classes),
    )  # fmt: skip
