"""Optimizer groups: one shared optimizer for trainings that differ in their seeds alone."""

import copy

import pytest
import torch
from helpers.trainings import SMALL, Composed, training, variants

from mnist_exp.data.images import DataSet
from mnist_exp.fused.optimizer_group import OptimizerGroup, loss_key, settings_key
from mnist_exp.fused.stack import Stack
from mnist_exp.training import loop


def group_of(trainings: list[loop.Training]) -> OptimizerGroup:
    """A group of all trainings but the first, which another group has."""
    stack = Stack([parts.model for parts in trainings], [0] * len(trainings))
    return OptimizerGroup(trainings[1:], slice(1, len(trainings)), stack.weights)


def trained(composed: Composed, source: DataSet, *overrides: str) -> list[loop.Training]:
    """Four trainings after one epoch."""
    trainings = [training(cfg, source) for cfg in variants(composed(*SMALL, *overrides), [(s, 1) for s in range(4)])]
    for parts in trainings:
        loop.train_epoch(parts, 1)
    return trainings


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop", "nadam", "adagrad"])
def test_states_that_are_loaded_and_stored_are_the_same(optimizer: str, composed: Composed, source: DataSet) -> None:
    trainings = trained(composed, source, f"optimizer={optimizer}")
    before = [copy.deepcopy(parts.optimizer.state_dict()) for parts in trainings]
    group, shared = group_of(trainings), copy.copy(trainings[1].optimizer)
    shared.state.clear()
    group.load_states(shared)
    assert all(weights in shared.state for weights in group.weights)
    group.store_states(shared)
    for parts, expected in zip(trainings[1:], before[1:], strict=True):
        found = parts.optimizer.state_dict()
        assert found["param_groups"] == expected["param_groups"]
        assert found["state"].keys() == expected["state"].keys()
        for index, state in expected["state"].items():
            for name, value in state.items():
                torch.testing.assert_close(found["state"][index][name], value, rtol=0, atol=0)


def test_a_shared_step_and_schedule_reach_every_training(composed: Composed, source: DataSet) -> None:
    trainings = trained(composed, source, "optimizer=adam", "schedule=cosine")
    group, shared = group_of(trainings), copy.copy(trainings[1].optimizer)
    group.load_states(shared)
    for weights in group.weights:
        weights.grad = torch.ones_like(weights)
    before = [next(parts.model.parameters()).clone() for parts in trainings]
    shared.param_groups = [group.param_group]
    shared.step()
    group.schedule.step()
    group.store_states(shared)
    for index, parts in enumerate(trainings):
        weights = next(parts.model.parameters())
        assert torch.equal(weights, before[index]) == (index == 0)
        assert parts.schedule.last_epoch == 3 + (index > 0)
        assert int(parts.optimizer.state[weights]["step"]) == 3 + (index > 0)
        assert parts.optimizer.param_groups[0]["params"][0] is weights
    assert len({parts.optimizer.param_groups[0]["lr"] for parts in trainings[1:]}) == 1


@pytest.mark.parametrize(
    ("overrides", "capturable"),
    [
        (["optimizer=adam"], True),
        (["optimizer=adamw", "schedule=cosine"], True),
        (["optimizer=sgd", "schedule=step"], True),
        (["optimizer=adam", "optimizer.fused=false"], False),
        (["optimizer=rmsprop"], False),
        (["optimizer=adagrad"], False),
        (["optimizer=adam", "schedule=onecycle"], True),
    ],
    ids=str,
)
def test_what_a_cuda_graph_can_contain(
    overrides: list[str], capturable: bool, composed: Composed, source: DataSet
) -> None:
    trainings = [training(composed(*SMALL, *overrides), source) for _ in range(2)]
    group = group_of(trainings)
    assert group.is_capturable() == capturable
    group.schedule.cycle_momentum = True  # type: ignore[attr-defined]
    assert not group.is_capturable()


def test_settings_that_are_equal_but_for_the_seed(composed: Composed, source: DataSet) -> None:
    def key(*overrides: str) -> tuple[str, ...]:
        return settings_key(training(composed(*SMALL, *overrides), source))

    assert key() == key("seed=1") == key("model.dropout=0.1")
    others = ["optimizer.lr=0.5", "optimizer=sgd", "schedule=cosine", "loss=mse", "loss.label_smoothing=0.1"]
    assert len({key(), *(key(override) for override in others)}) == 1 + len(others)
    parts = training(composed(*SMALL), source)
    assert loss_key(parts) == loss_key(parts._replace(loss=copy.deepcopy(parts.loss)))
