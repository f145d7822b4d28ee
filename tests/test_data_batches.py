import threading
from collections.abc import Generator, Iterator

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from mnist_exp.data.augment import Compose, RandomRotation
from mnist_exp.data.batches import (
    Batches,
    Normalize,
    Split,
    SplitImages,
    TrainingBatches,
    chunk_size,
    imbalance,
    prefetch,
    split_batches,
    split_images,
    stratified_split,
)
from mnist_exp.data.images import NO_IMAGES, DataSet, Part

TEN = tuple("0123456789")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def training(images: Tensor, labels: Tensor, order_seed: int = 0, augment_seed: int = 0) -> TrainingBatches:
    augment, rngs = Compose(turn=RandomRotation(30)), (generator(order_seed), generator(augment_seed))
    return TrainingBatches(images, labels, 10, Normalize(images), augment, *rngs)


def whole(batches: Batches) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def in_parts(images: Tensor, labels: Tensor, validation: int = 23, seed: int = 0, batch_size: int = 10) -> Split:
    whole = Part(images, labels)
    return split_batches(
        split_images(DataSet("", TEN, whole, whole, ""), validation, None, generator(seed), torch.device("cpu")),
        batch_size, Compose(), order_rng=generator(1), augment_rng=generator(2),
    )  # fmt: skip


def test_normalize_equals_torchvision(images: Tensor, coloured: Tensor) -> None:
    for pixels in (images, coloured):
        ours, floats = Normalize(pixels), pixels / 255
        mean, std = floats.mean(dim=(0, 2, 3)), floats.std(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(ours(pixels), transforms.Normalize(mean, std)(floats))
        torch.testing.assert_close(torch.tensor(ours.mean), 255 * mean)
        torch.testing.assert_close(ours(pixels.view(1, *pixels.shape))[0], ours(pixels))


def test_a_channel_that_is_all_one_value_becomes_zero(coloured: Tensor) -> None:
    coloured[:, 1] = 7
    normalize = Normalize(coloured)
    assert (normalize.mean[1], normalize.std[1]) == (7, 1)
    assert not normalize(coloured)[:, 1].any()


def made(count: int, val: Part = NO_IMAGES, test: Part = NO_IMAGES) -> DataSet:
    """A data set of single pixels, which number its training images, in ten classes."""
    train = Part(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 10)
    return DataSet("made", TEN, train, test, "", val)


def split(source: DataSet, validation: float, test: float | None) -> SplitImages:
    return split_images(source, validation, test, generator(0), torch.device("cpu"))


def rows(part: Part) -> list[int]:
    return part.images.flatten().tolist()


def test_parts_that_the_source_lacks_are_cut_by_class() -> None:
    cut = split(made(100), 0.1, 0.2)
    assert cut.cut == ("test", "val")
    assert (len(cut.train.labels), len(cut.val.labels), len(cut.test.labels)) == (72, 8, 20)
    assert sorted(rows(cut.train) + rows(cut.val) + rows(cut.test)) == list(range(100))
    assert cut.test.labels.bincount().tolist() == [2] * 10
    assert cut.val.labels.bincount(minlength=10).max() == 1
    assert rows(split(made(100), 30, 20).test) == rows(cut.test)  # whatever the validation


def test_parts_that_the_source_has_are_kept() -> None:
    given = made(30).train
    both = split(made(100, val=given, test=given), 0.1, 0.2)
    assert both.cut == ()
    assert [rows(part) for part in both[:3]] == [list(range(100)), rows(given), rows(given)]
    only_test = split(made(100, test=given), 10, None)
    assert (only_test.cut, len(only_test.val.labels), rows(only_test.test)) == (("val",), 10, rows(given))


@pytest.mark.parametrize(
    ("count", "validation", "test", "message"),
    [
        (100, 100, 0.2, r"^validation=100: must be 1 to 79, of 80 training images$"),
        (100, 0.001, 0.2, r"^validation=0.001: must be 1 to 79, of 80 training images; 0.001 of them is 0$"),
        (100, 0.1, 100, r"^test=100: must be 1 to 99, of 100 training images"),
        (100, 0.1, None, r"^the source has no test images; \+data.test=0.2 cuts a share of the training images"),
        (20, 0.5, 0.8, r"^class \d has 2 training images, and none is left after validation"),
    ],
)
def test_what_can_not_be_cut_is_refused(count: int, validation: float, test: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(made(count), validation, test)


def test_imbalance_is_the_ratio_of_the_largest_class_to_the_smallest() -> None:
    assert imbalance(torch.tensor([0, 0, 0, 2, 2, 2, 2, 2, 2, 7])) == 6


def test_batches_keep_the_order_and_count_every_image_once(images: Tensor, labels: Tensor) -> None:
    batches = Batches(images, labels, 10, Normalize(images))
    assert len(batches) == len(list(batches)) == 11
    assert [len(batch) for _, batch in batches] == [10] * 10 + [3]
    all_images, all_labels = whole(batches)
    assert torch.equal(all_images, batches.normalize(images))
    assert torch.equal(all_labels, labels)


def test_a_slice_is_the_same_for_a_part(images: Tensor, labels: Tensor) -> None:
    for batches in (Batches(images, labels, 10, Normalize(images)), training(images, labels)):
        part = batches[5:30]
        assert type(part) is type(batches)
        assert len(part) == 3
        assert torch.equal(part.images, images[5:30])
        assert sorted(whole(part)[1].tolist()) == sorted(labels[5:30].tolist())


def test_reading_a_slice_of_the_training_set_does_not_touch_its_order(images: Tensor, labels: Tensor) -> None:
    read, unread = training(images, labels), training(images, labels)
    list(read[:50])
    assert torch.equal(whole(read)[0], whole(unread)[0])


def test_training_batches_hold_every_image_once_in_a_new_order_each_time(images: Tensor) -> None:
    batches = training(images, torch.arange(103))
    first, second = whole(batches)[1], whole(batches)[1]
    assert first.tolist() != second.tolist()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(103))


def test_training_batches_are_the_augmented_images_of_their_labels(images: Tensor) -> None:
    batches = training(images, torch.arange(103))
    u = torch.rand(103, 1, generator=generator(0))
    rows = torch.randperm(103, generator=generator(0))
    assert torch.equal(whole(batches)[0], batches.normalize(batches.augment(images[rows], u)))


@pytest.mark.parametrize("chunk", [1, 20, 30, 1000])
def test_images_do_not_depend_on_how_many_are_made_chunk_size(
    chunk: int, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = whole(training(images, labels))
    monkeypatch.setattr("mnist_exp.data.batches.CPU_CHUNK", chunk)
    batches = training(images, labels)
    assert [len(batch) for _, batch in batches[:]] == [10] * 10 + [3]
    assert all(torch.equal(one, other) for one, other in zip(plain, whole(batches), strict=True))


def test_larger_images_are_augmented_in_smaller_chunks(coloured: Tensor) -> None:
    assert chunk_size(coloured) == 512 * 28 * 28 // (3 * 32 * 32) == 130
    assert chunk_size(coloured[:, :1, :8, :8]) == 512
    huge = torch.empty(1, 3, 1, 1, dtype=torch.uint8).expand(100, 3, 80, 80)
    batches = TrainingBatches(huge, torch.zeros(100), 30, Normalize(coloured), Compose(), generator(0), generator(1))
    assert [len(images) for images, _ in batches.chunks()] == [30, 30, 30, 10]  # never less than a batch


def test_equal_generators_give_equal_bits_and_others_do_not(images: Tensor) -> None:
    numbers = torch.arange(103)
    pictures, order = whole(training(images, numbers))
    again, same_order = whole(training(images, numbers))
    assert torch.equal(pictures, again)
    assert torch.equal(order, same_order)
    assert not torch.equal(order, whole(training(images, numbers, order_seed=1))[1])


def test_augmentation_does_not_reshuffle_the_images(images: Tensor) -> None:
    one, other = (whole(training(images, torch.arange(103), augment_seed=seed)) for seed in (0, 1))
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])


def test_stratified_is_a_partition_with_each_class_by_its_share() -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([1000, 333, 90, 7]))
    for count in (1, 10, 143, 1429):
        rest, chosen = stratified_split(labels, count, generator(0))
        assert sorted([*rest.tolist(), *chosen.tolist()]) == list(range(1430))
        assert len(chosen) == count
        shares = labels.bincount() * count / 1430
        assert ((labels[chosen].bincount(minlength=4) - shares).abs() < 1).all()


def test_stratified_is_random_within_a_class_and_stable() -> None:
    labels = torch.arange(1000) % 10
    first, again, other = (stratified_split(labels, 100, generator(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert 0 < len(set(first.tolist()) & set(other.tolist())) < 30  # 10 expected by chance
    times = torch.stack(
        [torch.bincount(stratified_split(labels, 100, generator(s))[1], minlength=1000) for s in range(400)]
    )
    assert times.sum(dim=0).double().var().item() == pytest.approx(
        400 * 0.1 * 0.9, rel=0.2
    )  # each image equally likely


def test_split_is_disjoint_and_normalised_by_its_training_part(images: Tensor, labels: Tensor) -> None:
    parts = in_parts(images, labels)
    assert (len(parts.train.images), len(parts.val.images), len(parts.test.images)) == (80, 23, 103)
    together = torch.cat([parts.train.images, parts.val.images]).flatten(1)
    assert sorted(together.tolist()) == sorted(images.flatten(1).tolist())
    learned = torch.cat([batch for batch, _ in parts.train])
    assert learned.mean().item() == pytest.approx(0, abs=1e-5)
    assert learned.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert parts.val.normalize is parts.test.normalize is parts.train.normalize


def test_the_split_moves_with_its_own_seed_alone(images: Tensor, labels: Tensor) -> None:
    assert torch.equal(in_parts(images, labels).val.images, in_parts(images, labels, batch_size=7).val.images)
    assert not torch.equal(in_parts(images, labels).val.images, in_parts(images, labels, seed=1).val.images)


@pytest.mark.parametrize("validation", [-1, 0, 103, 60000])
def test_an_impossible_validation_is_refused(images: Tensor, labels: Tensor, validation: int) -> None:
    with pytest.raises(ValueError, match=f"validation={validation}: must be 1 to 102"):
        in_parts(images, labels, validation=validation)


@pytest.mark.parametrize("batch_size", [-1, 0, 81])
def test_an_impossible_batch_size_is_refused(images: Tensor, labels: Tensor, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: must be 1 to 80"):
        in_parts(images, labels, batch_size=batch_size)


def test_prefetch_keeps_the_order_and_works_in_another_thread() -> None:
    threads: set[int] = set()

    def count() -> Iterator[int]:
        for number in range(5):
            threads.add(threading.get_ident())
            yield number

    assert list(prefetch(count())) == [0, 1, 2, 3, 4]
    assert threads
    assert threading.get_ident() not in threads


def test_prefetch_raises_what_the_thread_raised_and_leaves_no_thread() -> None:
    def break_down() -> Iterator[int]:
        yield 1
        raise RuntimeError("in the thread")

    before = threading.active_count()
    items = prefetch(break_down())
    with pytest.raises(RuntimeError, match="in the thread"):
        list(items)
    stopped_early = prefetch(iter(range(100)))
    next(stopped_early)
    assert isinstance(stopped_early, Generator)
    stopped_early.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("threads", "between", "used"), [(1, 2, True), (1, 1, False), (2, 2, False)])
def test_a_second_thread_is_used_where_a_core_is_spare(
    threads: int, between: int, used: bool, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "get_num_interop_threads", lambda: between)
    makers: set[int] = set()
    batches = training(images, labels)
    chunks = batches.chunks

    def watched() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in chunks():
            makers.add(threading.get_ident())
            yield chunk

    monkeypatch.setattr(batches, "chunks", watched)
    assert len(whole(batches)[1]) == 103
    assert (threading.get_ident() not in makers) == used
