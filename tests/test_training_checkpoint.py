import copy
import io
import os
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.checkpoints import packed
from helpers.run_folders import plain
from torch import Tensor, nn

from mnist_exp import losses, models, schedules
from mnist_exp.data.augment import Compose, RandomRotation
from mnist_exp.data.batches import Normalize, TrainingBatches
from mnist_exp.store.run_folder import RunState
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import checkpoint
from mnist_exp.training.checkpoint import CheckpointState
from mnist_exp.training.loop import Training


def checkpoints(folder: Path, images: Tensor, labels: Tensor, width: int = 16) -> checkpoint.Checkpoints:
    model = models.mlp((1, 28, 28), 10, nn.ReLU, hidden_layers=[width])
    optimizer = torch.optim.Adam(model.parameters())
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    augment = Compose(rotation=RandomRotation(degrees=30))
    train = TrainingBatches(images, labels, 10, Normalize(images), augment, *generators)
    schedule = schedules.constant(optimizer, 3, len(train))
    training = Training(model, losses.CrossEntropy(), optimizer, schedule, train, train)
    return checkpoint.Checkpoints(folder / "checkpoints", training)


def run(epoch: int, best_epoch: int | None) -> RunState:
    """A run's state whose other values do not matter here."""
    rows = [[number, 0.5] for number in range(1, epoch + 1)]
    state = dict.fromkeys(checkpoint.KEYS) | {"epoch": epoch, "best_epoch": best_epoch, "rows": rows}
    return cast(RunState, state)


def save(kept: checkpoint.Checkpoints, state: RunState) -> None:
    kept.keep(state)
    kept.write()


def test_torch_alone_reads_a_checkpoint_and_so_does_any_unzip(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    """As the README says, the checksum disturbs no other reader."""
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(1, 1))
    for path in (kept.last, kept.best):
        loaded = torch.load(path, weights_only=True)["model"]
        assert all(torch.equal(loaded[name], weights) for name, weights in kept.training.model.state_dict().items())
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.comment.startswith(b"mnist_exp sha256 ")


def test_best_pt_is_written_at_the_best_epoch_alone(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(0, None))
    assert not kept.best.exists()
    for epoch, best in ((1, 1), (2, 1), (3, 3), (4, 3)):
        save(kept, run(epoch, best))
        assert checkpoint.load(kept.last)["epoch"] == epoch
        assert checkpoint.load(kept.best)["epoch"] == best


def test_every_part_and_stream_comes_back(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    kept, other = checkpoints(tmp_path, images, labels), checkpoints(tmp_path, images, labels)
    for images_of_a_batch, labels_of_it in kept.training.train:
        nn.functional.cross_entropy(kept.training.model(images_of_a_batch), labels_of_it).backward()
        kept.parts["optimizer"].step()
        kept.parts["schedule"].step()
    torch.rand(7)
    save(kept, run(1, 1))
    following = torch.rand(3), list(kept.training.train)

    other.restore(checkpoint.load(other.last))
    assert torch.equal(torch.rand(3), following[0])
    for ours, theirs in zip(other.training.train, following[1], strict=True):
        assert all(map(torch.equal, ours, theirs))  # the images too: they are augmented at random
    assert other.parts["schedule"].state_dict() == kept.parts["schedule"].state_dict()
    ours, theirs = other.parts["optimizer"].state_dict(), kept.parts["optimizer"].state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert all(torch.equal(ours["state"][0][key], theirs["state"][0][key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_what_is_kept_stays_as_it_was_as_training_goes_on(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    """LBFGS has lists of tensors among its state, the schedule lists of numbers."""
    kept = checkpoints(tmp_path, images, labels)
    model, generator = kept.training.model, kept.training.train.order_rng
    optimizer = kept.parts["optimizer"] = torch.optim.LBFGS(model.parameters(), max_iter=3)
    schedule = kept.parts["schedule"] = schedules.constant(optimizer, 3, 5)

    def train() -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images / 255), labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        schedule.step()
        torch.rand(1, generator=generator)

    train()
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict(), schedule.state_dict(), generator.get_state()])
    kept.keep(run(1, 1))
    train()
    kept.write()
    state = checkpoint.load(kept.last)
    found = [state["model"], state["optimizer"], state["schedule"], state["random"]["order"]]
    assert plain(found) == plain(before)
    now = [model.state_dict(), optimizer.state_dict(), schedule.state_dict(), generator.get_state()]
    assert all(plain(one) != plain(other) for one, other in zip(found, now, strict=True))


def test_the_best_epoch_may_wait_to_be_written_with_a_later_one(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    kept = checkpoints(tmp_path, images, labels)
    for epoch, best in ((0, None), (1, 1), (2, 2), (3, 2)):
        kept.keep(run(epoch, best))
    assert not tmp_path.joinpath("checkpoints").exists()
    kept.begin_write()
    kept.keep(run(4, 2))  # waits
    assert [checkpoint.load(path)["epoch"] for path in (kept.best, kept.last)] == [2, 3]
    kept.keep(run(5, 5))
    kept.write()
    assert kept.best.samefile(kept.last)
    kept.write()  # there is nothing new
    save(kept, run(6, 5))
    assert [checkpoint.load(path)["epoch"] for path in (kept.best, kept.last)] == [5, 6]


def test_an_error_is_told_at_the_next_epoch_and_what_is_kept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Tensor, labels: Tensor
) -> None:
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        kept.keep(run(2, 2))
        kept.begin_write()
        with pytest.raises(OSError, match="No space left") as error:
            kept.keep(run(3, 2))
    assert error.value.filename == str(kept.last)
    assert checkpoint.load(kept.last)["epoch"] == 1
    kept.write()
    assert checkpoint.load(kept.best)["epoch"] == checkpoint.load(kept.last)["epoch"] == 2


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("room", [0, 10, 1_000, 30_000, 60_000])
def test_a_disk_that_is_full_at_any_byte_is_told_as_such(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch says "unexpected pos" as its file grows less than it should."""

    class Disk(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > room:
                full()
            return super().write(content)

    monkeypatch.setattr(files, "open", lambda *_: Disk(), raising=False)
    with pytest.raises(OSError, match="No space left on device") as error:
        checkpoint.write(tmp_path / "last.pt", {"model": {"weight": torch.rand(15_000)}})
    assert error.value.filename == str(tmp_path / "last.pt")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_files_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, images: Tensor, labels: Tensor
) -> None:
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(1, 1))
    before = kept.last.read_bytes()
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        save(kept, run(2, 2))
    assert sorted(path.name for path in kept.last.parent.iterdir()) == ["best.pt", "last.pt"]
    assert kept.last.read_bytes() == kept.best.read_bytes() == before


def test_another_models_checkpoint_is_refused(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    save(checkpoints(tmp_path, images, labels, width=8), run(1, 1))
    kept = checkpoints(tmp_path, images, labels)
    with pytest.raises(ConfigError, match=r"doesn't fit the parts of this run: .*\[8, 784\].*\[16, 784\]"):
        kept.restore(checkpoint.load(kept.last))


def test_a_well_made_checkpoint_of_something_else_is_refused(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(1, 1))
    state = checkpoint.load(kept.last)
    for key, value in (("optimizer", {}), ("random", {}), ("schedule", 7), ("model", None)):
        with pytest.raises(ConfigError, match="doesn't fit the parts of this run: "):
            kept.restore(cast(CheckpointState, state | {key: value}))


def test_another_runs_best_checkpoint_is_refused(tmp_path: Path, images: Tensor, labels: Tensor) -> None:
    kept = checkpoints(tmp_path, images, labels)
    save(kept, run(1, 1))
    save(kept, run(2, 1))
    state = checkpoint.load(kept.last)
    kept.restore(state)
    checkpoint.write(kept.best, {"format": 1} | dict(run(1, 1)) | {"rows": [[1, 0.25]]})
    with pytest.raises(ConfigError, match=r"best\.pt: not of epoch 1 of this run"):
        kept.restore(state)


def test_any_flipped_bit_and_any_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    content = packed(run(0, None) | {"format": checkpoint.FORMAT, "model": {"weight": torch.arange(500.0)}})
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        for damaged in (flipped, content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(
                ConfigError, match=r"last\.pt: is (not a checkpoint of this program|altered or damaged)"
            ):
                checkpoint.load(path)
    path.write_bytes(content)
    assert torch.equal(checkpoint.load(path)["model"]["weight"], torch.arange(500.0))


def test_a_file_that_would_run_a_command_is_not_read_even_with_a_right_checksum(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    checkpoint.write(tmp_path / "evil.pt", {"format": checkpoint.FORMAT, "model": Evil()})
    with pytest.raises(ConfigError, match=r"evil\.pt: holds more than numbers and text"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
