"""The models: images (N, C, H, W) to logits (N, classes).

The data decides on the input shape and the number of classes. `activation` is a factory that is called once per layer,
because layers would otherwise share the weights of an activation such as PReLU.
"""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def mlp(
    in_shape: tuple[int, int, int],
    num_classes: int,
    activation: Activation,
    hidden_layers: Sequence[int],
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float | None = None,
) -> nn.Sequential:
    """Return a multilayer perceptron (MLP).

    Args:
        in_shape: Channels, height and width of the images.
        num_classes: The number of logits.
        activation: Builds the activation of a hidden layer.
        hidden_layers: The number of units in each hidden layer.
        dropout: The probability of dropping a hidden unit.
        input_dropout: The probability of dropping a pixel.
        max_norm: The largest norm of a hidden unit's incoming weights; None for no limit.
    """
    channels, height, width = in_shape
    sizes = [channels * height * width, *hidden_layers]
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]  # (N, C, H, W) -> (N, C*H*W)
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out) if max_norm is None else MaxNormLinear(fan_in, fan_out, max_norm)
        layers += [linear, activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], num_classes))


class MaxNormLinear(nn.Linear):
    """A linear layer that limits the norm of each unit's incoming weights.

    Weights are scaled down before each use, as in torch.nn.Embedding. Srivastava et al. 2014, JMLR 15, section 5.1.
    """

    def __init__(self, fan_in: int, fan_out: int, max_norm: float) -> None:
        """Build the layer, with the weights of torch.nn.Linear."""
        super().__init__(fan_in, fan_out)
        self.max_norm = max_norm

    def forward(self, x: Tensor) -> Tensor:
        """Limit the norms of the weights in place, and apply the layer to x (N, fan_in)."""
        limit_norms(self.weight, self.max_norm)
        return super().forward(x)

    def limited(self) -> nn.Linear:
        """Return a plain linear layer that computes the same."""
        plain: nn.Linear = nn.utils.skip_init(nn.Linear, self.in_features, self.out_features)
        plain.load_state_dict(self.state_dict())
        limit_norms(plain.weight, self.max_norm)
        return plain

    def extra_repr(self) -> str:
        """Return the arguments, for printing."""
        return f"{super().extra_repr()}, max_norm={self.max_norm:g}"


@torch.no_grad()
def limit_norms(weights: Tensor, max_norm: float) -> None:
    """Scale down, in place, each row of weights (..., units, inputs) whose norm exceeds `max_norm`."""
    norms = torch.linalg.vector_norm(weights, dim=-1, keepdim=True)
    weights.mul_((max_norm / norms).clamp_(max=1))


def without_limits(model: nn.Module) -> nn.Module:
    """Return a copy of a trained model that computes the same, and changes no weights."""
    model = copy.deepcopy(model)
    for name, layer in [*model.named_modules()]:
        if isinstance(layer, MaxNormLinear):
            model.set_submodule(name, layer.limited())
    return model


def initialize(model: nn.Module, weights: Callable[[Tensor], object]) -> None:
    """Initialize the linear and convolutional layers of a model: weights by a function, biases with zeros.

    Args:
        model: The model, changed in place.
        weights: Fills a tensor in place, as the functions of torch.nn.init do.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weights(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def leave_as_built(model: nn.Module) -> None:
    """Keep torch.nn's own initialization: weights and biases uniform within 1 / sqrt(inputs)."""


def linear(in_shape: tuple[int, int, int], num_classes: int, activation: Activation) -> nn.Sequential:
    """Return multinomial logistic regression: one linear layer, without an activation.

    Args:
        in_shape: Channels, height and width of the images.
        num_classes: The number of logits.
        activation: Ignored.
    """
    return mlp(in_shape, num_classes, activation, hidden_layers=[])


def lenet(
    in_shape: tuple[int, int, int], num_classes: int, activation: Activation, dropout: float = 0.0
) -> nn.Sequential:
    """Return LeNet-5 with max pooling and a full second convolution: 61,706 parameters on MNIST, 83,126 on CIFAR-10.

    LeCun et al. 1998, Gradient-based learning applied to document recognition, section II.B.

    Args:
        in_shape: Channels, height and width of the images.
        num_classes: The number of logits.
        activation: Builds the activation of a layer.
        dropout: The probability of dropping an input of the last two linear layers.

    Raises:
        ValueError: Images are smaller than 12 x 12 pixels.
    """
    channels, height, width = in_shape
    if min(height, width) < 12:
        raise ValueError(f"lenet needs images of 12 x 12 pixels or more, these are {height} x {width}")
    pooled_height, pooled_width = ((side // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, kernel_size=5, padding=2), activation(), nn.MaxPool2d(2),  # -> (N, 6, H/2, W/2)
        nn.Conv2d(6, 16, kernel_size=5), activation(), nn.MaxPool2d(2),  # -> (N, 16, 5, 5) for 28 x 28
        nn.Flatten(),
        nn.Linear(16 * pooled_height * pooled_width, 120), activation(), nn.Dropout(dropout),
        nn.Linear(120, 84), activation(), nn.Dropout(dropout),
        nn.Linear(84, num_classes),
    )  # fmt: skip
