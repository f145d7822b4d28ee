"""The models: images (N, C, H, W) to logits (N, classes). Sizes come from the data, activations from a factory."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

Activation = Callable[[], nn.Module]  # called once a layer, or PReLU's slope would be shared


def mlp(
    in_shape: tuple[int, int, int],
    num_classes: int,
    activation: Activation,
    hidden_layers: Sequence[int],
    dropout: float = 0.0,
) -> nn.Sequential:
    """A multilayer perceptron: a linear layer, the activation and dropout for each hidden size, and a linear layer."""
    channels, height, width = in_shape
    sizes = [channels * height * width, *hidden_layers]
    layers: list[nn.Module] = [nn.Flatten()]  # (N, C, H, W) -> (N, C*H*W)
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


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
