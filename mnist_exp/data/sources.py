"""The data sets, as uint8 tensors of the published images, read from disk, downloaded if necessary, and verified."""

import string
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution

import numpy as np
import torch

from mnist_exp.data import fetch, idx, verify
from mnist_exp.data.images import DataSet, Part
from mnist_exp.data.verify import FILE_NAMES, FileSet, RawFile

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
EMNIST_CLASSES = {
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "bymerge": string.digits + string.ascii_uppercase + "abdefghnqrt",  # the others look like their capitals
    "balanced": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}


def mnist(root: str) -> DataSet:
    """Return MNIST: 60,000 and 10,000 handwritten digits, 28x28 (LeCun, Cortes and Burges 1998).

    Args:
        root: The folder of the data sets. Files, raw or .gz, are found in `root`, `root`/MNIST, `root`/raw and
            `root`/MNIST/raw. The missing ones are downloaded into the last.

    Raises:
        ValueError: A file in the place of a published one is altered or incomplete.
        OSError: Files are missing and no source has them, or the folder can't be written.
    """
    return _data_set("MNIST", string.digits, fetch.load(FileSet("MNIST", published=MNIST_SHA256), root))


def fashion_mnist(root: str) -> DataSet:
    """Return Fashion-MNIST: 60,000 and 10,000 articles of clothing, 28x28 (Xiao et al. 2017).

    `root` and the errors are those of `mnist`.
    """
    classes = "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
    files = fetch.load(FileSet("FashionMNIST", published=FASHION_MNIST_SHA256), root)
    return _data_set("FashionMNIST", classes, files, preparation="pad")


def kmnist(root: str) -> DataSet:
    """Return Kuzushiji-MNIST: 60,000 and 10,000 cursive hiragana, 28x28 (Clanuwat et al. 2018).

    `root` and the errors are those of `mnist`.
    """
    classes = "o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"
    return _data_set("KMNIST", classes, fetch.load(FileSet("KMNIST"), root), preparation="pad")


def qmnist(root: str) -> DataSet:
    """Return QMNIST: 60,000 and 10,000 digits, 28x28, MNIST rebuilt from NIST's scans (Yadav and Bottou 2019).

    The test set is the first 10,000 of QMNIST's 60,000: MNIST's test images, in MNIST's order. `root` and the errors
    are those of `mnist`.
    """
    kinds = ("images-idx3-ubyte", "labels-idx2-int")
    names = tuple(f"qmnist-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    files = fetch.load(FileSet("QMNIST", names), root)
    train, test = _parts(files)
    train = Part(train.images, train.labels[:, 0].clone())  # the other 7 columns say where NIST found the digit
    test = Part(test.images[:10_000].clone(), test.labels[:10_000, 0].clone())
    return _data_set("QMNIST", string.digits, files)._replace(train=train, test=test)


def emnist(root: str, split: str) -> DataSet:
    """Return a split of EMNIST: letters and digits, 28x28 and upright, labels from 0 (Cohen et al. 2017).

    Args:
        root: As in `mnist`.
        split: byclass, bymerge, balanced, letters, digits or mnist.

    Raises:
        ValueError: There is no such split, or as in `mnist`.
        OSError: As in `mnist`.
    """
    if split not in EMNIST_CLASSES:
        raise ValueError(f"split={split}: choose one of {', '.join(EMNIST_CLASSES)}")
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = tuple(f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    files = fetch.load(FileSet("EMNIST", names, "gzip.zip"), root)
    first = int(split == "letters")  # the labels of this split's files start at 1
    train, test = (  # the files hold each image transposed
        Part(part.images.mT.contiguous(), part.labels - first) for part in _parts(files)
    )
    data = _data_set(f"EMNIST {split}", EMNIST_CLASSES[split], files, preparation="emnist")
    return data._replace(train=train, test=test)


def digits(root: str) -> DataSet:
    """Return scikit-learn's digits: 1,500 and 297 handwritten digits, 8x8 (Alpaydin and Kaynak 1998).

    The test set is the end of the file, by other writers than the start. Pixels of 0..16 are scaled to 0..255. `root`
    is ignored, because the images come with scikit-learn.
    """
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")  # as sklearn.datasets.load_digits, whose import takes a second
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1].astype(np.uint8)
    arrays = (pixels[:1500], labels[:1500], pixels[1500:], labels[1500:])
    files = {name: RawFile.of(idx.encode(array)) for name, array in zip(FILE_NAMES, arrays, strict=True)}
    return _data_set("digits", string.digits, files, preparation="frame")


def _data_set(name: str, classes: Iterable[str], files: Mapping[str, RawFile], preparation: str = "mnist") -> DataSet:
    """Return the data set in four files: training images and labels, test images and labels."""
    train, test = _parts(files)
    return DataSet(name, tuple(classes), train, test, verify.combined_sha256(files), preparation=preparation)


def _parts(files: Mapping[str, RawFile]) -> tuple[Part, Part]:
    """Return the training and the test part: images (N, H, W) -> (N, 1, H, W), labels as int64."""
    images, labels, test_images, test_labels = (torch.from_numpy(idx.decode(file.content)) for file in files.values())
    return Part(images.unsqueeze(1), labels.long()), Part(test_images.unsqueeze(1), test_labels.long())
