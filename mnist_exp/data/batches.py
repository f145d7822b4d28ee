"""The split data set on the device; iterating yields batches of (images, labels)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from mnist_exp.data.augment import Transform, send

T = TypeVar("T")

# Images made ready in one go. On a CPU 64 take twice as long, for the calls; from 1,024 they leave the cache. A GPU has
# calls to save, and memory.
CPU_CHUNK, GPU_CHUNK = 512, 16_384
EVALUATION_BATCH = 1000  # images; without training, memory is the only limit


class Normalize:
    """uint8 images (N, 1, H, W) as floats of mean 0 and standard deviation 1 over the images it was fitted to."""

    def __init__(self, images: Tensor) -> None:
        counts = torch.bincount(images.flatten(), minlength=256).cpu()  # exact, and without a float copy
        levels, share = torch.arange(256), counts.double() / counts.sum()
        self.mean = float((levels * share).sum())
        self.std = float(((levels - self.mean) ** 2 * share).sum().sqrt())

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().sub_(self.mean).div_(self.std)


class Batches:
    """Images (N, 1, H, W) uint8 and labels (N,) int64 in their order, each once, `batch_size` at a time.

    The images of a batch are normalised floats. A slice is the same for a part of the images.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, normalize: Normalize) -> None:
        self.images, self.labels, self.batch_size, self.normalize = images, labels, batch_size, normalize

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalize(images), labels

    def __getitem__(self, part: slice) -> Self:
        return type(self)(self.images[part], self.labels[part], self.batch_size, self.normalize)


class TrainingBatches(Batches):
    """The images in a new order at each iteration, augmented, then normalised; the last batch may be smaller.

    `order` (of the images) and `chance` (of the augmentation) are CPU generators and the whole state: the same states
    give the same bits. A slice starts with copies of them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        normalize: Normalize,
        augment: Transform,
        order_rng: torch.Generator,
        augment_rng: torch.Generator,
    ) -> None:
        super().__init__(images, labels, batch_size, normalize)
        self.augment, self.order_rng, self.augment_rng = augment, order_rng, augment_rng

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        chunks = self.chunks()
        # Beside two threads of a step, a third one that makes batches would keep both waiting: README, Speed.
        # Threads "between operations" are as many as cores, until a job that shares the machine says otherwise.
        spare_core = self.images.device.type == "cpu" and torch.get_num_threads() == 1 < torch.get_num_interop_threads()
        for images, labels in one_ahead(chunks) if spare_core else chunks:
            yield from zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def __getitem__(self, part: slice) -> Self:
        generators = self.order_rng.clone_state(), self.augment_rng.clone_state()
        return type(self)(
            self.images[part], self.labels[part], self.batch_size, self.normalize, self.augment, *generators
        )

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, several whole batches at a time."""
        size = max(1, chunk_size(self.images.device) // self.batch_size) * self.batch_size
        for rows in self.shuffled().split(size):
            yield self.prepare(rows, self.random_numbers(len(rows)))

    def shuffled(self) -> Tensor:
        """A new order of the images (N,), on the device."""
        return send(torch.randperm(len(self.images), generator=self.order_rng), self.images.device)

    def random_numbers(self, count: int) -> Tensor:
        """Random numbers (count, draws) for the augmentation of the next images."""
        return torch.rand(count, self.augment.num_random, generator=self.augment_rng)

    def prepare(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The images of these rows (n,), augmented by these numbers (n, draws) and normalised, and their labels."""
        # A GPU computes the angles' sines sooner than a CPU; only not Apple's, which has no float64.
        numbers = send(numbers, self.images.device) if self.images.is_cuda else numbers
        images = self.augment(self.images.index_select(0, rows), numbers)
        return self.normalize(images), self.labels.index_select(0, rows)


def chunk_size(device: torch.device) -> int:
    """How many images are made ready in one go."""
    return CPU_CHUNK if device.type == "cpu" else GPU_CHUNK


class SplitImages(NamedTuple):
    """A data set in three parts, on the device: images (N, C, H, W) uint8 and labels (N,) of each."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    normalize: Normalize


class Split(NamedTuple):
    """What a run learns from, chooses by, and is judged on."""

    train: TrainingBatches
    val: Batches
    test: Batches
    name: str = ""  # of the data set
    classes: tuple[str, ...] = ()
    sha256: str = ""  # of the data set as published


def split_images(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    validation: int,
    generator: torch.Generator,
    device: torch.device,
) -> SplitImages:
    """Cut `validation` images from the training set, by class.

    Raises ValueError when the training set is too small for that.
    """
    images, labels = train
    if not 0 < validation < len(images):
        raise ValueError(
            f"validation={validation}: must be 1 to {len(images) - 1:,}, of {len(images):,} training images"
        )
    rest, chosen = stratified(labels, validation, generator)
    train_part = images[rest].to(device), labels[rest].to(device)
    val_part = images[chosen].to(device), labels[chosen].to(device)
    return SplitImages(train_part, val_part, (test[0].to(device), test[1].to(device)), Normalize(train_part[0]))


def split_batches(
    parts: SplitImages, batch_size: int, augment: Transform, order_rng: torch.Generator, augment_rng: torch.Generator
) -> Split:
    """The parts in batches. Raises ValueError when there are too few training images for one."""
    images, labels = parts.train
    if not 0 < batch_size <= len(images):
        raise ValueError(f"batch_size={batch_size}: must be 1 to {len(images):,}, the training images")
    val, test = (
        Batches(augment.center(images), labels, EVALUATION_BATCH, parts.normalize)
        for images, labels in (parts.val, parts.test)
    )
    return Split(
        TrainingBatches(images, labels, batch_size, parts.normalize, augment, order_rng, augment_rng), val, test
    )


def stratified(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Row numbers of all but `count` labels and of `count` labels, both ascending, each class by its share.

    A class of n among N labels gets count * n / N of them, rounded up or down, drawn at random.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    chosen = by_class[(2 * torch.arange(count) + 1) * len(labels) // (2 * count)]  # evenly spaced through the classes
    is_chosen = torch.zeros(len(labels), dtype=torch.bool)
    is_chosen[chosen] = True
    return (~is_chosen).nonzero().flatten(), is_chosen.nonzero().flatten()


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, the next one made in a second thread while this one is used."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
