from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mnist_exp import losses, models


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def test_parameter_counts() -> None:
    """The default MLP and those of papers; LeNet-5 with a full second convolution, by hand from the paper's layers."""
    mnist: dict[str, Any] = {"in_shape": (1, 28, 28), "num_classes": 10, "activation": nn.ReLU}
    assert count(models.mlp(**mnist, hidden_layers=[256, 512])) == 337_674
    papers: dict[tuple[int, ...], int] = {
        (300, 100): 266_610,  # LeCun 1998
        (500, 150): 469_160,  # LeCun 1998
        (512, 512): 669_706,  # Keras
        (500, 300): 545_810,  # Hinton 2005: by hand
        (800,): 636_010,  # Simard 2003: by hand
        (1024, 1024, 1024): 2_913_290,  # Srivastava 2014: by hand
    }
    for hidden, parameters in papers.items():
        assert count(models.mlp(**mnist, hidden_layers=hidden)) == parameters
    assert count(models.linear(**mnist)) == 784 * 10 + 10
    assert count(models.mlp(**mnist, hidden_layers=[])) == 784 * 10 + 10
    colour: dict[str, Any] = mnist | {"in_shape": (3, 32, 32)}
    assert count(models.linear(**colour)) == 3072 * 10 + 10
    assert count(models.mlp(**colour, hidden_layers=[256, 512])) == 3073 * 256 + 257 * 512 + 513 * 10 == 923_402
    # The sides: 32, pooled 16, convolved 12, pooled 6.
    assert count(models.lenet(**colour)) == (6 * 76) + 16 * (6 * 25 + 1) + 120 * 577 + 84 * 121 + 10 * 85 == 83_126
    assert count(models.lenet(**mnist)) == (6 * 26) + 16 * (6 * 25 + 1) + 120 * 401 + 84 * 121 + 10 * 85 == 61_706


@pytest.mark.parametrize("model", [models.mlp, models.lenet])
def test_each_layer_has_its_own_activation(model: Callable[..., nn.Module]) -> None:
    sizes = {"hidden_layers": [8, 8, 8, 8]} if model is models.mlp else {}
    slopes = [
        layer.weight for layer in model((1, 28, 28), 10, nn.PReLU, **sizes).modules() if isinstance(layer, nn.PReLU)
    ]
    assert len(slopes) == len(set(map(id, slopes))) == 4


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 17)])
@pytest.mark.parametrize("model", [models.mlp, models.linear, models.lenet])
def test_sizes_come_from_the_data(model: Callable[..., nn.Module], shape: tuple[int, int, int]) -> None:
    sizes = {"hidden_layers": [5]} if model is models.mlp else {}
    assert model(shape, 7, nn.ReLU, **sizes)(torch.zeros(2, *shape)).shape == (2, 7)


def test_lenet_refuses_images_that_its_convolutions_would_eat_up() -> None:
    with pytest.raises(ValueError, match="12 x 12 pixels or more, these are 8 x 8"):
        models.lenet((1, 8, 8), 10, nn.ReLU)


@pytest.mark.parametrize("activation", ["ReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "LeakyReLU", "ELU", "SELU", "PReLU"])
@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.OneHotMSE()])
@pytest.mark.parametrize("model", [models.mlp, models.linear, models.lenet])
def test_every_model_learns_with_every_activation_and_loss(
    model: Callable[..., nn.Module], activation: str, loss: nn.Module
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_layers": [32]} if model is models.mlp else {}
    net = model((1, 28, 28), 10, getattr(nn, activation), **sizes)
    images, labels = torch.randn(20, 1, 28, 28), torch.arange(20) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    before = loss(net(images), labels)
    before.backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in net.parameters())
    optimizer.step()
    assert loss(net(images), labels) < before


def test_max_norm_shortens_what_is_too_long_as_torch_does() -> None:
    layer = models.MaxNormLinear(30, 20, max_norm=0.6)
    before = layer.weight.detach().clone()
    lengths = before.norm(dim=1)
    assert 0 < (lengths > 0.6).sum() < 20
    images = torch.randn(5, 30)
    expected = torch.renorm(before, p=2, dim=0, maxnorm=0.6)
    torch.testing.assert_close(layer(images), images @ expected.T + layer.bias)
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.weight[lengths < 0.6], before[lengths < 0.6])


def test_hidden_layers_keep_within_a_norm_and_the_last_does_not() -> None:
    net = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[8, 8], max_norm=2)
    kinds = [type(layer) for layer in net if isinstance(layer, nn.Linear)]
    assert kinds == [models.MaxNormLinear, models.MaxNormLinear, nn.Linear]


def test_a_copy_without_limits_computes_the_same_with_plain_layers() -> None:
    net = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[8, 8], max_norm=0.1).eval()
    before = {name: weights.clone() for name, weights in net.state_dict().items()}
    plain = models.without_limits(net)
    assert [type(layer) for layer in plain.modules() if isinstance(layer, nn.Linear)] == [nn.Linear] * 3
    assert all(torch.equal(weights, before[name]) for name, weights in net.state_dict().items())
    images = torch.randn(5, 1, 28, 28)
    assert torch.equal(plain(images), net(images))
    assert plain.state_dict().keys() == before.keys()


def test_pixels_and_hidden_units_have_their_own_shares_of_dropout() -> None:
    net = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[8, 8], dropout=0.5, input_dropout=0.2)
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5]


def test_weights_are_as_torch_initializes_them() -> None:
    net, other = (models.lenet((1, 28, 28), 10, nn.ReLU) for _ in range(2))
    layers = [layer for layer in other if isinstance(layer, nn.Linear | nn.Conv2d)]
    torch.manual_seed(1)
    models.initialize(net, nn.init.xavier_uniform_)
    torch.manual_seed(1)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
