"""A trained network as data: the settings of its layers in order, and their weights. network.js runs it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnist_exp.losses import CrossEntropy, OneHotMSE
from mnist_exp.models import MaxNormLinear
from mnist_exp.system.errors import ConfigError

# The layers that network.js has, and what it needs to know of each.
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Flatten: (),
    nn.Dropout: (),
    nn.Identity: (),
    nn.Linear: ("in_features", "out_features"),
    MaxNormLinear: ("in_features", "out_features", "max_norm"),
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding"),
}
ACTIVATIONS: dict[type[nn.Module], tuple[str, ...]] = {  # of single values: their results are the hidden units
    nn.ELU: ("alpha",),
    nn.GELU: ("approximate",),
    nn.LeakyReLU: ("negative_slope",),
    nn.PReLU: (),
    nn.ReLU: (),
    nn.SELU: (),
    nn.Sigmoid: (),
    nn.SiLU: (),
    nn.Tanh: (),
}
NEVER_NEGATIVE = {nn.ReLU, nn.Sigmoid}
REQUIRED: dict[type[nn.Module], dict[str, Any]] = {  # the settings that network.js takes for granted
    nn.Flatten: {"start_dim": 1, "end_dim": -1},
    nn.Conv2d: {"dilation": (1, 1), "groups": 1, "padding_mode": "zeros"},
    nn.MaxPool2d: {"dilation": 1, "ceil_mode": False, "return_indices": False},
}
LOSSES: dict[type[nn.Module], str] = {CrossEntropy: "softmax", OneHotMSE: "projection"}  # of logits to probabilities


class Layer(NamedTuple):
    """A layer of a network.

    Attributes:
        kind: Its class.
        settings: The attributes that LAYERS and ACTIVATIONS list.
        tensors: Its weights, and its biases where it has some.
    """

    kind: type[nn.Module]
    settings: dict[str, Any]
    tensors: list[Tensor]


def layers(model: nn.Module) -> list[Layer]:
    """Return the layers of a model in their order.

    Raises:
        ConfigError: The model has a layer that network.js doesn't have.
    """
    if type(model) is nn.Sequential:
        return [layer for part in model for layer in layers(part)]
    kind = type(model)
    known = LAYERS | ACTIVATIONS
    if kind not in known:
        names = ", ".join(layer.__name__ for layer in known)
        raise ConfigError(f"model: the page can't run the layer {kind.__name__}; it knows Sequential, {names}")
    for name, required in REQUIRED.get(kind, {}).items():
        if (value := getattr(model, name)) != required:
            raise ConfigError(f"model: the page can't run {kind.__name__} with {name}={value!r}, only {required!r}")
    settings = {name: getattr(model, name) for name in known[kind]}
    if isinstance(settings.get("padding"), str):
        raise ConfigError(f"model: the page can't run {model}; give the padding as a number")
    return [Layer(kind, settings, list(model.parameters()))]


def probabilities(loss: object) -> str:
    """Return how network.js turns logits into probabilities: softmax or projection.

    Raises:
        ConfigError: The loss does it in a way of its own.
    """
    kind = type(loss)
    if kind not in LOSSES:
        names = ", ".join(known.__name__ for known in LOSSES)
        raise ConfigError(f"loss: the page can't get probabilities from {kind.__name__}; it knows {names}")
    return LOSSES[kind]


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round all weights of a model, in place, to what float16 can hold."""
    for tensor in model.parameters():
        tensor.copy_(tensor.half())
