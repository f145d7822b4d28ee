import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnist_exp import checkpoint, files, loop, losses, models, schedules
from mnist_exp.data.augment import Compose, RandomRotation
from mnist_exp.data.batches import Batches, Normalize, TrainingBatches

CPU = torch.device("cpu")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.randn(3, 3)}, "epoch": 7}
    checkpoint.save(tmp_path / "new" / "best.pt", state)
    loaded = checkpoint.load(tmp_path / "new" / "best.pt", CPU)
    assert loaded["epoch"] == 7
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files.write(tmp_path / "last.pt", b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path / "last.pt", {"epoch": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == b"old"


def test_a_file_that_would_run_a_command_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tmp_path / "evil.pt", CPU)
    assert not (tmp_path / "ran").exists()


def test_from_last_pt_training_goes_on_with_the_same_bits(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    def parts(seed: int):
        torch.manual_seed(seed)
        model = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[16], dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        generators = (torch.Generator().manual_seed(seed) for _ in range(2))
        augment = Compose(turn=RandomRotation(30))
        train = TrainingBatches(images, labels, 10, Normalize(images), augment, *generators)
        return model, optimizer, schedules.cosine(optimizer, 3, len(train), min_lr=0.0), train

    def fit(model, optimizer, schedule, train, epochs: range) -> list[loop.Row]:
        val = Batches(images, labels, 50, train.normalize)
        return list(loop.fit(model, losses.CrossEntropy(), optimizer, schedule, train, val, epochs))

    whole = fit(*parts(seed=0), range(1, 4))
    begun = parts(seed=0)
    fit(*begun, range(1, 2))
    checkpoint.save(tmp_path / "last.pt", checkpoint.everything(*begun))

    model, optimizer, schedule, train = parts(seed=1)
    state = checkpoint.load(tmp_path / "last.pt", CPU)
    for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
        part.load_state_dict(state[name])
    train.order.set_state(state["random"]["order"])
    train.chance.set_state(state["random"]["augmentation"])
    torch.set_rng_state(state["random"]["dropout"])
    rest = fit(model, optimizer, schedule, train, range(2, 4))
    assert [row[:-1] for row in rest] == [row[:-1] for row in whole[1:]]  # all but the seconds
