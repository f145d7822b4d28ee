"""K models of one structure, computed as one.

Sequences of well-known layers are computed layer by layer, K layers in one operation; for any other model torch.vmap
does the like. (The idea: Wang et al., HFTA, MLSys 2021, arXiv 2102.02344.)

Images come as (S, N, C, H, W), S streams of them, and each model learns from one of the streams.
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
    """The weights of K models, (K, ...) each, and what they compute: images to logits (K, N, classes).

    From now on each model's own weights are a part of these.
    """

    def __init__(self, models: Sequence[nn.Module], streams: Sequence[int]) -> None:
        self.models, self.streams, self.training = list(models), list(streams), True
        self.layered = is_layered(models[0])
        self.skeleton = nn.Module() if self.layered else copy.deepcopy(models[0]).to("meta")
        self.weights = [_join(each) for each in zip(*(model.parameters() for model in models), strict=True)]
        self.buffers = [_join(each) for each in zip(*(model.buffers() for model in models), strict=True)]

    def __len__(self) -> int:
        return len(self.models)

    def __call__(self, images: Tensor) -> Tensor:
        logits = self._layer_by_layer(images) if self.layered else self._by_vmap(images)
        return logits.contiguous()  # what comes next looks for the largest logit of each row

    def _layer_by_layer(self, images: Tensor) -> Tensor:
        weights, x, of_streams = iter(self.weights), images, True
        for layers in zip(*self.models, strict=True):
            kind, own = type(layers[0]), [next(weights) for _ in layers[0].parameters()]
            if kind is MaxNormLinear:
                kind = nn.Linear
                limit_norms(own[0], layers[0].max_norm)
            if kind is nn.Flatten:
                x = x.flatten(2)
            elif kind is nn.Dropout and not (self.training and any(layer.p for layer in layers)):
                continue
            elif of_streams and kind is nn.Linear:
                x, of_streams = _first_linear(x, self.streams, *own), False
            elif of_streams and kind is nn.Conv2d and len(x) == 1:
                x, of_streams = _first_conv2d(layers, x[0], *own), False
            else:
                x, of_streams = self.own(x) if of_streams else x, False
                x = LAYERS[kind](layers, x, *own)
        return self.own(x) if of_streams else x

    def own(self, x: Tensor) -> Tensor:
        """What streams bring, (S, ...), for the models that learn from them, (K, ...)."""
        if len(x) == 1:
            return x.expand(len(self), *x.shape[1:])
        return x.index_select(0, _on(x.device, torch.int64, *self.streams))

    def _by_vmap(self, images: Tensor) -> Tensor:
        self.skeleton.train(self.training)
        parameters = dict(zip((name for name, _ in self.skeleton.named_parameters()), self.weights, strict=True))
        buffers = dict(zip((name for name, _ in self.skeleton.named_buffers()), self.buffers, strict=True))

        def compute(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Any:
            return functional_call(self.skeleton, (parameters, buffers), (images,))

        images, where = (images[0], None) if len(images) == 1 else (self.own(images), 0)
        logits: Tensor = vmap(compute, in_dims=(0, 0, where), randomness="different")(parameters, buffers, images)
        return logits


def structure(model: nn.Module) -> str:
    """Models with equal ones can be stacked: the same layers, of the same sizes, with the same settings.

    Only shares of dropout may differ, where the model is a sequence of well-known layers.
    """
    text = f"{model} {[(name, tuple(weights.shape), weights.dtype) for name, weights in model.state_dict().items()]}"
    return re.sub(r"Dropout\(p=[^,)]*", "Dropout(p", text) if is_layered(model) else text


def is_layered(model: nn.Module) -> bool:
    """Whether the model is a sequence of layers that are known here, each used once, and with their usual settings."""
    return (
        type(model) is nn.Sequential
        and all(type(layer) in (nn.Flatten, MaxNormLinear, *LAYERS) for layer in model)
        and all((layer.start_dim, layer.end_dim) == (1, -1) for layer in model if type(layer) is nn.Flatten)
        and all((layer.padding_mode, layer.groups) == ("zeros", 1) for layer in model if type(layer) is nn.Conv2d)
        and len(set(map(id, model))) == len(model)
        and not any(True for _ in model.buffers())
    )


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Put K tensors into one, (K, ...), and make each a view of its part."""
    joined = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, joined, strict=True):
        tensor.data = part
    return joined.requires_grad_(tensors[0].requires_grad)


def _first_linear(x: Tensor, streams: list[int], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Images of streams (S, N, in), by weights (K, out, in), to (K, N, out)."""
    models, units, _ = weight.shape
    if len(x) == 1:  # one product with the weights of all
        y = _linear((), x, weight.view(1, models * units, -1), None if bias is None else bias.view(1, -1))
        return y.transpose(1, 2).view(models, units, -1).transpose(1, 2)
    if streams == list(range(models)):
        return _linear((), x, weight, bias)
    # Models in a row that have streams in a row: a view of the images is enough.
    starts = [0, *(place for place, (one, two) in enumerate(pairwise(streams), 1) if two != one + 1), models]
    return torch.cat([
        _linear((), x[streams[a] : streams[a] + b - a], weight[a:b], None if bias is None else bias[a:b])
        for a, b in pairwise(starts)
    ])  # fmt: skip


def _linear(_: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(K, N, in) to (K, N, out). So written, the gradients are contiguous, as fused optimizers want them."""
    x = x.transpose(1, 2)
    y = torch.bmm(weight, x) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x)
    return y.transpose(1, 2)


def _first_conv2d(layers: Sequence[nn.Conv2d], x: Tensor, *weights: Tensor) -> Tensor:
    """Images of one stream (N, C, H, W), by weights (K, out, C, ...), to (K, N, out, H', W')."""
    return _convolve(layers[0], x, *weights, groups=1)


def _conv2d(layers: Sequence[nn.Conv2d], x: Tensor, *weights: Tensor) -> Tensor:
    return _convolve(layers[0], x.transpose(0, 1).flatten(1, 2), *weights, groups=len(layers))


def _convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int) -> Tensor:
    bias = None if bias is None else bias.flatten()
    y: Tensor = F.conv2d(x, weight.flatten(0, 1), bias, layer.stride, layer.padding, layer.dilation, groups)
    return y.view(len(y), *weight.shape[:2], *y.shape[2:]).transpose(0, 1)


def _each_image(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = layers[0](x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def _each_number(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    y: Tensor = layers[0](x)
    return y


def _prelu(_: Any, x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, x, weight.view(len(weight), 1, -1, *[1] * (x.dim() - 3)) * x)


def _dropout(layers: Sequence[nn.Dropout], x: Tensor) -> Tensor:
    """Each model has its own share, and its own masks."""
    share = _on(x.device, x.dtype, *(layer.p for layer in layers)).view(-1, *[1] * (x.dim() - 1))
    return x * (torch.rand_like(x) >= share) / (1 - share)


@cache
def _on(device: torch.device, dtype: torch.dtype, *numbers: float) -> Tensor:
    """The numbers as a tensor: made once, for a CUDA graph can't have new ones."""
    return torch.tensor(numbers, dtype=dtype, device=device)


# What K layers of one kind do to (K, N, ...), with their weights (K, ...).
LAYERS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _each_image,
    nn.AvgPool2d: _each_image,
    nn.PReLU: _prelu,
    nn.Dropout: _dropout,
    **dict.fromkeys(ACTIVATIONS, _each_number),
}
