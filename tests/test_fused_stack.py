"""Stacked models compute what each of them computes alone."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from mnist_exp.fused.stack import ACTIVATIONS, Stack, is_layered, stack_key
from mnist_exp.models import MaxNormLinear


def outputs_alone(models: Sequence[nn.Module], images: Tensor, streams: Sequence[int]) -> Tensor:
    """The logits of each model on its stream, or on the one stream of all."""
    x = images.expand(max(streams) + 1, *images.shape[1:])
    return torch.stack([model(x[stream]) for model, stream in zip(models, streams, strict=True)])


@pytest.mark.parametrize("streams", [[0, 0, 0], [0, 1, 2], [0, 1, 1], [2, 0, 1]], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_models_of_any_streams(streams: list[int], bias: bool, images: Tensor) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(784, 7, bias), nn.ReLU(), nn.Linear(7, 10)) for _ in streams]
    floats = images[:99].float().view(3, 33, 1, 28, 28)[: max(streams) + 1] / 255
    assert is_layered(models[0])
    torch.testing.assert_close(Stack(models, streams)(floats), outputs_alone(models, floats, streams))


@pytest.mark.parametrize("streams", [[0, 0], [0, 1]], ids=str)
def test_convolutional_models(streams: list[int], images: Tensor) -> None:
    models = [
        nn.Sequential(
            nn.Conv2d(1, 3, 5, stride=2), nn.PReLU(3), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(36, 10),
        )
        for _ in streams
    ]  # fmt: skip
    for model in models:
        nn.init.uniform_(next(model[1].parameters()))
    floats = images[:100].float().view(2, 50, 1, 28, 28)[: max(streams) + 1] / 255
    assert is_layered(models[0])
    torch.testing.assert_close(Stack(models, streams)(floats), outputs_alone(models, floats, streams))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.__name__)
def test_activations(activation: type[nn.Module], images: Tensor) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Linear(784, 10), activation()) for _ in range(2)]
    floats = images[None, :9].float() / 255
    torch.testing.assert_close(Stack(models, [0, 0])(floats), outputs_alone(models, floats, [0, 0]))


def test_any_other_model_is_computed_by_vmap(images: Tensor) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, 10)) for _ in range(3)]
    for model in models:
        nn.init.normal_(next(model[1].parameters()))
    assert not is_layered(models[0])
    assert stack_key(models[0]) == stack_key(models[1])
    floats = images[:99].float().view(3, 33, 1, 28, 28) / 255
    for streams, part in ([0, 0, 0], floats[:1]), ([2, 0, 1], floats):
        torch.testing.assert_close(Stack(models, streams)(part), outputs_alone(models, part, streams))


def test_layers_before_the_first_weights_differ_by_model_in_validation(images: Tensor) -> None:
    """The images of a validation are the same for models of several streams."""
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 10)).eval() for _ in range(2)]
    stack, floats = Stack(models, [0, 1]), images[None].float() / 255
    stack.training = False
    torch.testing.assert_close(stack(floats), outputs_alone(models, floats, [0, 0]))


def test_each_model_has_its_own_dropout_probability() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(p)) for p in (0.0, 0.25, 0.75)]
    ones = Stack(models, [0, 0, 0])(torch.ones(1, 200, 1, 10, 10))
    assert (ones == 0).double().mean(dim=(1, 2)).tolist() == pytest.approx([0, 0.25, 0.75], abs=0.02)
    assert ones.mean(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.05)


def test_max_norm_shortens_the_weights_of_each_model(images: Tensor) -> None:
    models = [nn.Sequential(nn.Flatten(), MaxNormLinear(784, 10, 0.1)) for _ in range(2)]
    alone, floats = copy.deepcopy(models), images[None].float() / 255
    torch.testing.assert_close(Stack(models, [0, 0])(floats), outputs_alone(alone, floats, [0, 0]))
    weights, expected = (next(each[1].parameters()) for each in (models, alone))
    torch.testing.assert_close(weights, expected)
    assert weights.norm(dim=1).max().item() < 0.1001


def test_the_weights_of_each_model_are_views_of_the_stack() -> None:
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    for model in models:
        model.get_parameter("0.bias").requires_grad_(False)
    stack = Stack(models, [0, 0])
    with torch.no_grad():
        stack.weights[0][1] += 1
        stack.buffers[0][0] += 2
    assert torch.equal(models[1].get_parameter("0.weight"), stack.weights[0][1])
    assert torch.equal(models[0].get_buffer("1.running_mean"), torch.full((2,), 2.0))
    assert [tensor.requires_grad for tensor in stack.weights] == [True, False, True, True]


def test_models_of_other_structure_are_not_stacked() -> None:
    def key(*layers: nn.Module) -> str:
        return stack_key(nn.Sequential(*layers))

    assert key(nn.Linear(3, 2)) == key(nn.Linear(3, 2))
    assert key(nn.Dropout(0.1), nn.Linear(3, 2)) == key(nn.Dropout(0.2), nn.Linear(3, 2))
    assert key(nn.Dropout(0.1), nn.LayerNorm(2)) != key(nn.Dropout(0.2), nn.LayerNorm(2))  # one value for all in vmap
    assert key(nn.Linear(3, 2)) != key(nn.Linear(3, 2).double())
    assert key(MaxNormLinear(3, 2, 1.0)) != key(MaxNormLinear(3, 2, 2.0))
    assert key(nn.Conv2d(1, 2, 3)) != key(nn.Conv2d(1, 2, 3, stride=2))


def test_unusual_settings_are_left_to_vmap() -> None:
    twice = nn.Linear(2, 2)
    for layers in (
        [nn.Flatten(2)], [nn.Conv2d(2, 2, 3, groups=2)], [nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")],
        [twice, twice], [nn.BatchNorm1d(2)], [nn.Sequential(nn.Linear(2, 2))],
    ):  # fmt: skip
        assert not is_layered(nn.Sequential(*layers)), layers
    assert not is_layered(nn.Linear(2, 2))
