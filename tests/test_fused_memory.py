"""How many models fit into memory."""

import pytest
import torch
from helpers.trainings import SMALL, Composed, training

from mnist_exp.data.images import DataSet
from mnist_exp.fused import memory
from mnist_exp.system import resources


@pytest.mark.parametrize(
    ("overrides", "copies"), [(["optimizer=adam"], 7), (["optimizer=sgd", "optimizer.momentum=0"], 3)]
)
def test_bytes_per_model(overrides: list[str], copies: int, composed: Composed, source: DataSet) -> None:
    weights, outputs = 4 * 337_674, 4 * 30 * (256 + 256 + 512 + 512 + 10)  # bytes; outputs of each layer, batches of 30
    parts = training(composed(*overrides, *SMALL[1:]), source)
    taken = memory.bytes_per_model(parts.model, parts.loss, parts.optimizer, parts.train, 1) - memory.OBJECTS
    batch = 30 * 784 * 4
    assert copies * weights + outputs <= taken <= copies * weights + 4 * (outputs + batch)


def test_max_models_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda device: {"cpu": 9_000_000, "cuda": 1}[device])
    cpu = torch.device("cpu")
    assert memory.max_models(1_000_000, cpu, num_groups=1) == 4  # in half of it
    assert memory.max_models(1_000_000, cpu, num_groups=2) == 2
    assert memory.max_models(1_000_000, torch.device("cuda:1"), num_groups=1) == 1  # one model is always tried
