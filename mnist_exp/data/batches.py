"""The data set, split into training, validation and test images, in batches on the device."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from mnist_exp.data.augment import Transform, to_device
from mnist_exp.data.images import DataSet, Part

T = TypeVar("T")

# Images that are augmented at once. On a CPU, 64 take twice as long per image, because of the calls, and 1,024 exceed
# the cache; of CIFAR's larger images, more than 128 do. A GPU gains from fewer calls, and has the memory.
CPU_CHUNK, GPU_CHUNK = 512, 16_384
CPU_CHUNK_VALUES = 512 * 28 * 28  # the pixels of a chunk, in all channels
EVALUATION_BATCH = 1000  # images; without gradients, memory alone limits it


class Normalize:
    """Scales each channel to mean 0 and standard deviation 1 over the images that it was fitted to.

    Attributes:
        mean: The mean of the pixels of each channel, in 0..255.
        std: Their standard deviation; 1 for a channel whose pixels are all equal.
    """

    def __init__(self, images: Tensor) -> None:
        """Fit to images, uint8 (N, C, H, W)."""
        channels = [_mean_and_std(channel) for channel in images.unbind(1)]
        self.mean, self.std = [mean for mean, _ in channels], [std for _, std in channels]
        self._mean, self._std = (_per_channel(numbers, images.device) for numbers in (self.mean, self.std))

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 images (..., C, H, W), on the device of those that it was fitted to, as float32."""
        return images.float().sub_(self._mean).div_(self._std)


def _mean_and_std(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=256).cpu()  # exact, and without a float copy
    levels, share = torch.arange(256), counts.double() / counts.sum()
    mean = float((levels * share).sum())
    return mean, float(((levels - mean) ** 2 * share).sum().sqrt()) or 1.0


def _per_channel(numbers: list[float], device: torch.device) -> Tensor | float:
    """Return what broadcasts over images: one number as it is, because a GPU divides by a tensor in other bits."""
    return torch.tensor(numbers, device=device).view(-1, 1, 1) if len(numbers) > 1 else numbers[0]


class Batches:
    """Batches of images and labels in their order, each once; the last batch may be smaller.

    An iteration yields normalized images, float32 (n, C, H, W), and labels, int64 (n,). A slice has the batches of a
    part of the images.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, normalize: Normalize) -> None:
        """Store the images.

        Args:
            images: uint8 (N, C, H, W).
            labels: int64 (N,), on the same device.
            batch_size: Images per batch.
            normalize: Applied to each batch.
        """
        self.images, self.labels, self.batch_size, self.normalize = images, labels, batch_size, normalize

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches."""
        for images, labels in zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield self.normalize(images), labels

    def __getitem__(self, part: slice) -> Self:
        """Return the batches of a part of the images."""
        return type(self)(self.images[part], self.labels[part], self.batch_size, self.normalize)


class TrainingBatches(Batches):
    """Batches in a new order at each iteration, augmented and normalized.

    The states of the two random generators are the whole state: equal states give equal bits. A slice has copies of the
    generators.
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
        """Store the images, as `Batches` does, and the sources of randomness.

        Args:
            images: uint8 (N, C, H, W).
            labels: int64 (N,), on the same device.
            batch_size: Images per batch.
            normalize: Applied after the augmentation.
            augment: The augmentation.
            order_rng: The CPU generator of the images' order.
            augment_rng: The CPU generator of the augmentation's random numbers.
        """
        super().__init__(images, labels, batch_size, normalize)
        self.augment, self.order_rng, self.augment_rng = augment, order_rng, augment_rng

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, which a second thread prepares in advance if a core is spare."""
        chunks = self.chunks()
        # A training step with two threads or more would wait for the thread that prepares batches. torch's inter-op
        # threads are as many as the cores, unless a job that shares the machine has set them to 1.
        spare_core = self.images.device.type == "cpu" and torch.get_num_threads() == 1 < torch.get_num_interop_threads()
        for images, labels in prefetch(chunks) if spare_core else chunks:
            yield from zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def __getitem__(self, part: slice) -> Self:
        """Return the batches of a part of the images, with copies of the generators."""
        generators = self.order_rng.clone_state(), self.augment_rng.clone_state()
        return type(self)(
            self.images[part], self.labels[part], self.batch_size, self.normalize, self.augment, *generators
        )

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same images and labels, several whole batches at a time."""
        size = max(1, chunk_size(self.images) // self.batch_size) * self.batch_size
        for rows in self.shuffled().split(size):
            yield self.prepare(rows, self.random_numbers(len(rows)))

    def shuffled(self) -> Tensor:
        """Return a new random order of the images, row numbers int64 (N,) on the device."""
        return to_device(torch.randperm(len(self.images), generator=self.order_rng), self.images.device)

    def random_numbers(self, count: int) -> Tensor:
        """Return random numbers for the next images, in [0, 1), float32 (count, augment.num_random) on the CPU."""
        return torch.rand(count, self.augment.num_random, generator=self.augment_rng)

    def prepare(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return augmented and normalized images, and their labels.

        Args:
            rows: The rows of the images, int64 (n,) on the device.
            numbers: The random numbers of each image, (n, augment.num_random).

        Returns:
            Images, float32 (n, C, H', W') of the augmentation's size, and labels, int64 (n,).
        """
        # CUDA computes the angles' sines faster than the CPU. Apple's GPU has no float64, which they take.
        numbers = to_device(numbers, self.images.device) if self.images.is_cuda else numbers
        images = self.augment(self.images.index_select(0, rows), numbers)
        return self.normalize(images), self.labels.index_select(0, rows)


def chunk_size(images: Tensor) -> int:
    """Return how many of the images (N, C, H, W) are augmented at once on their device."""
    return min(CPU_CHUNK, CPU_CHUNK_VALUES // images[0].numel()) if images.device.type == "cpu" else GPU_CHUNK


class SplitImages(NamedTuple):
    """A data set in three parts on the device. `normalize` is fitted to the training images."""

    train: Part
    val: Part
    test: Part
    normalize: Normalize
    cut: tuple[str, ...]  # the parts that the source doesn't give, and that were cut from its training images


class Split(NamedTuple):
    """The batches of a run, and what they are of.

    Attributes:
        train: Training batches.
        val: Validation batches, by which the best epoch is chosen.
        test: Test batches.
        name: The name of the data set.
        classes: The names of its classes.
        sha256: The checksum of the data set as its source gives it.
        image_shape: Channels, height and width of its images, before the augmentation crops them.
        preparation: How an image of any size becomes one like these: see DataSet.
        cut: The parts that are not given by the source, but cut from its training images: val, test.
    """

    train: TrainingBatches
    val: Batches
    test: Batches
    name: str = ""
    classes: tuple[str, ...] = ()
    sha256: str = ""
    image_shape: tuple[int, ...] = ()
    preparation: str = "pad"
    cut: tuple[str, ...] = ()


def split_images(
    source: DataSet, validation: float, test: float | None, generator: torch.Generator, device: torch.device
) -> SplitImages:
    """Return the three parts of a data set. Those that its source doesn't give are cut from the training images.

    First the test images are cut, then the validation images, each class by its share.

    Args:
        source: The data set, on the CPU.
        validation: How many validation images are cut: a number, or a share of the training images below 1.
        test: The same for the test images; None if they can't be cut.
        generator: The CPU generator that draws them.
        device: Where the parts go.

    Raises:
        ValueError: There are too few training images, or a class has none left.
    """
    parts = {"train": source.train, "val": source.val, "test": source.test}
    sizes = {"test": ("test", test), "val": ("validation", validation)}
    cut = tuple(part for part in sizes if not len(parts[part].images))
    for part in cut:
        key, size = sizes[part]
        if size is None:
            raise ValueError("the source has no test images; +data.test=0.2 cuts a share of the training images")
        whole = parts["train"]
        rest, chosen = stratified_split(whole.labels, _count_of(key, size, len(whole.labels)), generator)
        parts |= {"train": _rows(whole, rest), part: _rows(whole, chosen)}
    _require_every_class(source, parts["train"])
    train, val, test_part = (Part(*(tensor.to(device) for tensor in parts[name])) for name in ("train", "val", "test"))
    return SplitImages(train, val, test_part, Normalize(train.images), cut)


def _count_of(key: str, size: float, total: int) -> int:
    """Return how many of `total` images a size means: a number of 1 or more, or a share.

    Raises:
        ValueError: It is none or all of them. The message begins with the key.
    """
    count = round(size * total) if size < 1 else int(size)
    if not 0 < count < total:
        share = f"; {size} of them is {count:,}" if size < 1 else ""
        raise ValueError(f"{key}={size}: must be 1 to {total - 1:,}, of {total:,} training images{share}")
    return count


def imbalance(labels: Tensor) -> float:
    """Return how many times the largest class is as large as the smallest one that there is."""
    counts = labels.bincount()
    counts = counts[counts > 0]
    return float(counts.max() / counts.min())


def _rows(part: Part, rows: Tensor) -> Part:
    return Part(part.images[rows], part.labels[rows])


def _require_every_class(source: DataSet, train: Part) -> None:
    """Raise ValueError if a class has training images, but none of them is left."""
    before, after = (labels.bincount(minlength=len(source.classes)) for labels in (source.train.labels, train.labels))
    if lost := ((before > 0) & (after == 0)).nonzero().flatten().tolist():
        name, count = source.classes[lost[0]], int(before[lost[0]])
        raise ValueError(
            f"class {name} has {count} training images, and none is left after validation and test are cut"
        )


def split_batches(
    parts: SplitImages, batch_size: int, augment: Transform, order_rng: torch.Generator, augment_rng: torch.Generator
) -> Split:
    """Return the parts in batches. The training batches are augmented; the others are of the same size.

    Raises:
        ValueError: There are too few training images for a batch.
    """
    images, labels = parts.train
    if not 0 < batch_size <= len(images):
        raise ValueError(f"batch_size={batch_size}: must be 1 to {len(images):,}, the number of training images")
    val, test = (
        Batches(augment.center(images), labels, EVALUATION_BATCH, parts.normalize)
        for images, labels in (parts.val, parts.test)
    )
    return Split(
        TrainingBatches(images, labels, batch_size, parts.normalize, augment, order_rng, augment_rng), val, test
    )


def stratified_split(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw some rows at random, from each class by its share.

    Args:
        labels: int64 (N,).
        count: The number of rows to draw. A class with n labels gets count * n / N, rounded up or down.
        generator: A CPU generator.

    Returns:
        The other rows and the drawn rows, both ascending, int64 (N - count,) and (count,).
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    chosen = by_class[(2 * torch.arange(count) + 1) * len(labels) // (2 * count)]  # evenly spaced over the classes
    is_chosen = torch.zeros(len(labels), dtype=torch.bool)
    is_chosen[chosen] = True
    return (~is_chosen).nonzero().flatten(), is_chosen.nonzero().flatten()


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, while a second thread computes the next one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
