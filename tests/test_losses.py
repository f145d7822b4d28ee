import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from mnist_exp.losses import CrossEntropy, OneHotMSE

LOGITS = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 10


def test_cross_entropy_equals_scikit_learn() -> None:
    loss = CrossEntropy()
    assert loss(LOGITS, LABELS).item() == pytest.approx(log_loss(LABELS, loss.probabilities(LOGITS.double())), rel=1e-6)


def test_label_smoothing_moves_a_share_of_the_target_to_all_classes() -> None:
    targets = np.eye(10)[LABELS] * 0.8 + 0.2 / 10  # Szegedy et al. 2016, arXiv 1512.00567, section 7
    by_hand = -(targets * LOGITS.double().log_softmax(dim=1).numpy()).sum(axis=1).mean()
    assert CrossEntropy(label_smoothing=0.2)(LOGITS, LABELS).item() == pytest.approx(by_hand, rel=1e-6)


def test_mse_equals_scikit_learn() -> None:
    assert OneHotMSE()(LOGITS, LABELS).item() == pytest.approx(mean_squared_error(np.eye(10)[LABELS], LOGITS), rel=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropy(), OneHotMSE()])
def test_probabilities_lie_between_0_and_1_and_choose_the_same_class(loss) -> None:
    probabilities = loss.probabilities(LOGITS / 5)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert torch.equal(probabilities.argmax(dim=1), LOGITS.argmax(dim=1))
