import math
from collections.abc import Sequence

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from mnist_exp import losses, models, schedules
from mnist_exp.data.augment import Compose
from mnist_exp.data.batches import Batches, Normalize, TrainingBatches
from mnist_exp.store.metrics import Row
from mnist_exp.training import loop


def training(images: Tensor, labels: Tensor, seed: int = 0) -> TrainingBatches:
    generators = (torch.Generator().manual_seed(seed) for _ in range(2))
    return TrainingBatches(images, labels, 10, Normalize(images), Compose(), *generators)


def fit(images: Tensor, labels: Tensor, lr: float, epochs: int = 2, dropout: float = 0.0) -> list[Row]:
    torch.manual_seed(0)
    model = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[32], dropout=dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    train, val = training(images, labels), Batches(images, labels, 40, Normalize(images))
    schedule = schedules.constant(optimizer, epochs, len(train))
    parts = loop.Training(model, losses.CrossEntropy(), optimizer, schedule, train, val)
    return [loop.train_and_validate(parts, epoch) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_evaluation_does_not_depend_on_the_batches(images: Tensor, labels: Tensor, batch_size: int) -> None:
    """103 images in tens leave a last batch of three, which must not weigh as much as ten."""
    model, loss, normalize = models.linear((1, 28, 28), 10, nn.ReLU), losses.CrossEntropy(), Normalize(images)
    in_parts = loop.evaluate(model, loss, Batches(images, labels, batch_size, normalize))
    at_once = loop.evaluate(model, loss, Batches(images, labels, 103, normalize))
    assert in_parts.loss == pytest.approx(at_once.loss, rel=1e-6)
    assert (in_parts.errors, in_parts.accuracy) == (at_once.errors, at_once.accuracy)


def test_evaluation_counts_what_it_says(images: Tensor, labels: Tensor) -> None:
    model, loss = models.linear((1, 28, 28), 10, nn.ReLU), losses.CrossEntropy()
    data = Batches(images, labels, 10, Normalize(images))
    result = loop.evaluate(model, loss, data)
    assert torch.equal(result.predicted, result.probabilities.argmax(dim=1))
    assert torch.equal(result.probabilities.sum(1).round(decimals=5), torch.ones(103))
    wrong = [int(row) != int(label) for row, label in zip(result.predicted, labels, strict=True)]
    assert result.errors == sum(wrong)
    assert result.accuracy == pytest.approx(1 - sum(wrong) / 103)
    assert result.loss == pytest.approx(loss(model(data.normalize(images)), labels).item())


def test_training_figures_count_every_image_once(images: Tensor, labels: Tensor) -> None:
    """At a learning rate of nothing, training sees what validation sees."""
    row = fit(images, labels, lr=1e-30, epochs=1)[0]
    assert row.train_loss == pytest.approx(row.val_loss, rel=1e-6)
    assert row.train_accuracy == pytest.approx(row.val_accuracy)


def test_evaluation_turns_dropout_off_and_training_turns_it_on(images: Tensor, labels: Tensor) -> None:
    row = fit(images, labels, lr=1e-30, epochs=1, dropout=0.5)[0]
    without_dropout = fit(images, labels, lr=1e-30, epochs=1)[0]
    assert row.train_loss != pytest.approx(row.val_loss, rel=1e-5)
    assert row.val_loss == pytest.approx(without_dropout.val_loss, rel=1e-6)


def test_a_row_per_epoch_and_the_loss_falls(images: Tensor, labels: Tensor) -> None:
    rows = fit(images, labels, lr=0.1, epochs=5)
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5]
    assert {row.lr for row in rows} == {0.1}
    assert all(row.seconds > 0 for row in rows)
    assert rows[-1].train_loss < rows[0].train_loss
    assert rows[-1].val_accuracy > rows[0].val_accuracy


def test_a_loss_that_runs_away_stops_and_says_where(images: Tensor, labels: Tensor) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) at epoch 1, step [2-9]: a smaller"):
        fit(images, labels, lr=1e30)


@pytest.mark.parametrize("spoiled", [49, 50, 51, 57])
def test_the_first_step_whose_loss_is_not_finite_is_named(spoiled: int) -> None:
    found = [torch.tensor(math.nan if step >= spoiled else 1.0) for step in range(1, 58)]
    with pytest.raises(FloatingPointError, match=f"the loss became nan at epoch 3, step {spoiled}: a smaller"):
        loop.read_finite(found, 57, epoch=3)
    assert loop.read_finite(found[: spoiled - 1], spoiled - 1, epoch=3) == [1.0] * (spoiled - 1)


def test_losses_are_read_every_50_steps(images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    whole = loop.read_finite

    def noted(found: Sequence[Tensor], last: int, epoch: int) -> list[float]:
        read.append((len(found), last))
        return whole(found, last, epoch)

    monkeypatch.setattr(loop, "READ_EVERY", 4)
    monkeypatch.setattr(loop, "read_finite", noted)
    fit(images, labels, lr=0.1, epochs=1)
    steps = read[-1][1]
    assert read == [*((4, last) for last in range(4, steps + 1, 4)), (steps, steps)]
    assert steps > 4


def test_a_validation_loss_that_is_not_finite_stops_as_well(images: Tensor, labels: Tensor) -> None:
    """One step spoils the weights; nothing but validation can notice."""
    with pytest.raises(FloatingPointError, match=r"the validation loss became (nan|inf) after epoch 1: a smaller"):
        fit(images[:10], labels[:10], lr=1e30, epochs=1)


def test_balanced_accuracy_is_scikit_learn_s() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    logits[:, [2, 4]] = -9
    labels = torch.tensor([0] * 150 + [1] * 30 + [3] * 20)  # some classes have no images
    predicted = logits.argmax(dim=1)
    theirs = balanced_accuracy_score(labels, predicted)
    assert loop.balanced_accuracy(predicted, labels) == pytest.approx(theirs, rel=1e-12)
