import numpy as np
import pytest
import torch
from scipy.optimize import minimize
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
@pytest.mark.parametrize("logits", [LOGITS, 9 * LOGITS, LOGITS - 9, LOGITS + 9])
def test_probabilities_are_such_and_choose_the_same_class(loss: CrossEntropy | OneHotMSE, logits: torch.Tensor) -> None:
    probabilities = loss.probabilities(logits)
    assert probabilities.min() >= 0
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(50))
    assert torch.equal(probabilities.argmax(dim=1), logits.argmax(dim=1))


def test_outputs_that_are_probabilities_stay_as_they_are() -> None:
    probabilities = LOGITS.softmax(dim=1)
    torch.testing.assert_close(OneHotMSE().probabilities(probabilities), probabilities)


def test_no_probabilities_lie_nearer_to_the_outputs() -> None:
    nearest = minimize(
        lambda p: ((p - LOGITS[0].numpy()) ** 2).sum(), np.full(10, 0.1),
        bounds=[(0, 1)] * 10, constraints={"type": "eq", "fun": lambda p: p.sum() - 1}, tol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(OneHotMSE().probabilities(LOGITS[:1])[0], nearest.x, atol=1e-5)
