"""K models of one structure, computed as one.

A sequence of well-known layers is computed layer by layer, each layer of all K models in one operation, as in HFTA
(Wang et al., MLSys 2021, arXiv 2102.02344). Any other model is computed by torch.vmap, as in PyTorch's tutorial on
model ensembling.

Images come in S streams, (S, N, C, H, W). Each model learns from one of the streams; several models may share one.
"""

import copy
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mnist_exp.models import MaxNormLinear, limit_norms

ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Hardtanh, nn.Hardswish, nn.Identity,
)  # fmt: skip


class Stack:
    """K models whose weights are stacked in tensors (K, ...).

    The weights of each model become views of the stacked ones, so a step on the stack trains the models themselves.

    Attributes:
        models: The models.
        streams: For each model, the index of the stream that it learns from.
        training: Whether dropout is active, and batch normalization learns.
        weights: The stacked parameters, in the order of a model's parameters().
        buffers: The stacked buffers, in the order of a model's buffers().
    """

    def __init__(self, models: Sequence[nn.Module], streams: Sequence[int]) -> None:
        """Stack models with equal `stack_key`."""
        self.models, self.streams, self.training = list(models), list(streams), True
        self.weights = [_stack(tensors) for tensors in zip(*(model.parameters() for model in models), strict=True)]
        self.buffers = [_stack(tensors) for tensors in zip(*(model.buffers() for model in models), strict=True)]
        self._is_layered = is_layered(models[0])
        self._skeleton = nn.Module() if self._is_layered else copy.deepcopy(models[0]).to("meta")

    def __len__(self) -> int:
        """Return K."""
        return len(self.models)

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the logits of all models.

        Args:
            images: Normalized images, (S, N, C, H, W), or (1, N, C, H, W) for all models.

        Returns:
            The logits, (K, N, classes), contiguous, because the loss and the accuracy reduce each row.
        """
        logits = self._layer_by_layer(images) if self._is_layered else self._by_vmap(images)
        return logits.contiguous()

    def per_model(self, x: Tensor) -> Tensor:
        """Return, for each model, what its stream brings: (S, ...) or (1, ...) to (K, ...)."""
        if len(x) == 1:
            return x.expand(len(self), *x.shape[1:])
        return x.index_select(0, _constant(x.device, torch.int64, *self.streams))

    def _layer_by_layer(self, images: Tensor) -> Tensor:
        weights, x, per_stream = iter(self.weights), images, True  # until the first layer that differs between models
        for layers in zip(*self.models, strict=True):
            layer_type, layer_weights = type(layers[0]), [next(weights) for _ in layers[0].parameters()]
            if layer_type is MaxNormLinear:
                layer_type = nn.Linear
                limit_norms(layer_weights[0], layers[0].max_norm)
            if layer_type is nn.Flatten:
                x = x.flatten(2)
            elif layer_type is nn.Dropout and not (self.training and any(layer.p for layer in layers)):
                continue
            elif per_stream and layer_type is nn.Linear:
                x, per_stream = _first_linear(x, self.streams, *layer_weights), False
            elif per_stream and layer_type is nn.Conv2d and len(x) == 1:
                x, per_stream = _first_conv2d(layers, x[0], *layer_weights), False
            else:
                x, per_stream = self.per_model(x) if per_stream else x, False
                x = LAYERS[layer_type](layers, x, *layer_weights)
        return self.per_model(x) if per_stream else x

    def _by_vmap(self, images: Tensor) -> Tensor:
        self._skeleton.train(self.training)
        parameters = dict(zip((name for name, _ in self._skeleton.named_parameters()), self.weights, strict=True))
        buffers = dict(zip((name for name, _ in self._skeleton.named_buffers()), self.buffers, strict=True))

        def compute(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Any:
            return functional_call(self._skeleton, (parameters, buffers), (images,))

        images, images_dim = (images[0], None) if len(images) == 1 else (self.per_model(images), 0)
        logits: Tensor = vmap(compute, in_dims=(0, 0, images_dim), randomness="different")(parameters, buffers, images)
        return logits


def stack_key(model: nn.Module) -> str:
    """Return a text that is equal for models that can be stacked: those with the same layers, sizes and settings.

    Only the dropout probabilities may differ, if the model is a sequence of well-known layers.
    """
    key = f"{model} {[(name, tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()]}"
    return re.sub(r"Dropout\(p=[^,)]*", "Dropout(p", key) if is_layered(model) else key


def is_layered(model: nn.Module) -> bool:
    """Return whether the model is a sequence of well-known layers, each used once, with the usual settings."""
    return (
        type(model) is nn.Sequential
        and all(type(layer) in (nn.Flatten, MaxNormLinear, *LAYERS) for layer in model)
        and all((layer.start_dim, layer.end_dim) == (1, -1) for layer in model if type(layer) is nn.Flatten)
        and all((layer.padding_mode, layer.groups) == ("zeros", 1) for layer in model if type(layer) is nn.Conv2d)
        and len(set(map(id, model))) == len(model)
        and not any(True for _ in model.buffers())
    )


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack K tensors into one, (K, ...), and make each a view of its part."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, stacked, strict=True):
        tensor.data = part
    return stacked.requires_grad_(tensors[0].requires_grad)


def _first_linear(x: Tensor, streams: list[int], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply weights (K, out, in) to the streams (S, N, in), or (1, N, in), and return (K, N, out)."""
    num_models, out_features, _ = weight.shape
    if len(x) == 1:  # one product with the weights of all models
        y = _linear((), x, weight.view(1, num_models * out_features, -1), None if bias is None else bias.view(1, -1))
        return y.transpose(1, 2).view(num_models, out_features, -1).transpose(1, 2)
    if streams == list(range(num_models)):
        return _linear((), x, weight, bias)
    # Neighbouring models with neighbouring streams need no copy of the images: a view of them is enough.
    starts = [0, *(i for i, (stream, after) in enumerate(pairwise(streams), 1) if after != stream + 1), num_models]
    return torch.cat([
        _linear((), x[streams[i] : streams[i] + j - i], weight[i:j], None if bias is None else bias[i:j])
        for i, j in pairwise(starts)
    ])  # fmt: skip


def _linear(_: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(K, N, in) to (K, N, out). Transposed, so that the gradients are contiguous, as fused optimizers need them."""
    x = x.transpose(1, 2)
    y = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x)
    return y.transpose(1, 2)


def _first_conv2d(layers: Sequence[nn.Conv2d], x: Tensor, *weights: Tensor) -> Tensor:
    """Apply weights (K, out, C, ...) to the images of one stream (N, C, H, W), and return (K, N, out, H', W')."""
    return _convolve(layers[0], x, *weights, groups=1)


def _conv2d(layers: Sequence[nn.Conv2d], x: Tensor, *weights: Tensor) -> Tensor:
    return _convolve(layers[0], x.transpose(0, 1).flatten(1, 2), *weights, groups=len(layers))


def _convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int) -> Tensor:
    bias = None if bias is None else bias.flatten()
    y: Tensor = F.conv2d(x, weight.flatten(0, 1), bias, layer.stride, layer.padding, layer.dilation, groups)
    return y.view(len(y), *weight.shape[:2], *y.shape[2:]).transpose(0, 1)


def _per_image(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = layers[0](x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def _elementwise(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = layers[0](x)
    return y


def _prelu(_: Any, x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, x, weight.view(len(weight), 1, -1, *[1] * (x.dim() - 3)) * x)


def _dropout(layers: Sequence[nn.Dropout], x: Tensor) -> Tensor:
    """Apply each model's own dropout probability, with masks of its own."""
    p = _constant(x.device, x.dtype, *(layer.p for layer in layers)).view(-1, *[1] * (x.dim() - 1))
    return x * (torch.rand_like(x) >= p) / (1 - p)


@cache
def _constant(device: torch.device, dtype: torch.dtype, *numbers: float) -> Tensor:
    """Return the numbers as a tensor, the same one each time: a CUDA graph can't copy new ones to the device."""
    return torch.tensor(numbers, dtype=dtype, device=device)


# What K layers of one type do to (K, N, ...), with their weights (K, ...).
LAYERS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _per_image,
    nn.AvgPool2d: _per_image,
    nn.PReLU: _prelu,
    nn.Dropout: _dropout,
    **dict.fromkeys(ACTIVATIONS, _elementwise),
}
