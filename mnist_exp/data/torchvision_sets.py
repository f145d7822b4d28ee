"""CIFAR-10, CIFAR-100, SVHN and USPS, where torchvision.datasets keeps them, verified by the MD5 that it lists.

CIFAR's files are pickles. Each is verified before it is read, by an unpickler that builds arrays and nothing else.
"""

import bz2
import io
import string
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from mnist_exp.data import fetch, verify
from mnist_exp.data.array_pickle import ArrayUnpickler
from mnist_exp.data.images import DataSet, Part
from mnist_exp.data.verify import FileSet, RawFile

# The MD5 that torchvision lists, which is not imported to read verified files: it takes a second.
CIFAR10_MD5 = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR100_MD5 = {
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
}
SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
USPS_MD5 = {
    "usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197",
    "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118",
}


def cifar10(root: str) -> DataSet:
    """Return CIFAR-10: 50,000 and 10,000 colour photographs in 10 classes, 32x32 (Krizhevsky 2009).

    Args:
        root: The folder of the data sets. Files are found in `root`, where torchvision puts them, and in
            `root`/CIFAR10. Missing ones are downloaded to `root`, and unpacked there as torchvision does.

    Raises:
        ValueError: A file in the place of a published one is altered or incomplete.
        OSError: Files are missing and no source has them, or the folder can't be written.
    """
    files = FileSet("CIFAR10", tuple(CIFAR10_MD5), "cifar-10-python.tar.gz", CIFAR10_MD5, folder="")
    return _cifar(files, root, b"labels", b"label_names")


def cifar100(root: str) -> DataSet:
    """Return CIFAR-100: 50,000 and 10,000 colour photographs in 100 classes, 32x32 (Krizhevsky 2009).

    `root` and the errors are those of `cifar10`.
    """
    files = FileSet("CIFAR100", tuple(CIFAR100_MD5), "cifar-100-python.tar.gz", CIFAR100_MD5, folder="")
    return _cifar(files, root, b"fine_labels", b"fine_label_names")


def svhn(root: str) -> DataSet:
    """Return SVHN: 73,257 and 26,032 digits of house numbers, colour photographs, 32x32 (Netzer et al. 2011).

    The 531,131 images of its extra part are left out. `root` and the errors are those of `cifar10`.
    """
    files = fetch.load(FileSet("SVHN", tuple(SVHN_MD5), "{}", SVHN_MD5, folder=""), root)
    with ThreadPoolExecutor() as threads:  # unpacking releases Python's lock
        train, test = threads.map(_matlab_part, files.values())
    return DataSet("SVHN", tuple(string.digits), train, test, verify.combined_sha256(files), preparation="crop")


def usps(root: str) -> DataSet:
    """Return USPS: 7,291 and 2,007 handwritten digits of postcodes, greyscale, 16x16 (Hull 1994).

    `root` and the errors are those of `cifar10`.
    """
    files = fetch.load(FileSet("USPS", tuple(USPS_MD5), "{}", USPS_MD5, folder=""), root)
    train, test = map(_libsvm_part, files.values())
    return DataSet("USPS", tuple(string.digits), train, test, verify.combined_sha256(files), preparation="frame")


def _cifar(file_set: FileSet, root: str, labels: bytes, names: bytes) -> DataSet:
    """Return the data set in the pickles: batches of training images, the test images, and the names of the classes."""
    files = fetch.load(file_set, root)
    *train, test, meta = (_unpickled(file) for file in files.values())
    classes = tuple(name.decode() for name in meta[names])
    train_part, test_part = _cifar_part(train, labels), _cifar_part([test], labels)
    sha256 = verify.combined_sha256(files)
    return DataSet(file_set.name, classes, train_part, test_part, sha256, preparation="crop")


def _unpickled(file: RawFile) -> dict[bytes, Any]:
    """Return the mapping in a pickle of Python 2."""
    content: dict[bytes, Any] = ArrayUnpickler(io.BytesIO(file.content.data), encoding="bytes").load()
    return content


def _cifar_part(batches: list[dict[bytes, Any]], labels: bytes) -> Part:
    """Return the images and labels of batches, whose images are rows of red, green and blue: uint8 (N, 3072)."""
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return Part(torch.from_numpy(images), torch.tensor([label for batch in batches for label in batch[labels]]))


def _matlab_part(file: RawFile) -> Part:
    """Return the images, which MATLAB has as (H, W, C, N) and column by column, and the labels, where 10 is a zero."""
    from scipy.io import loadmat  # slow, and the other sets do without

    content = loadmat(io.BytesIO(file.content.data))
    images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
    return Part(images, torch.from_numpy(content["y"]).flatten().long() % 10)


def _libsvm_part(file: RawFile) -> Part:
    """Return the images and labels in lines `label 1:pixel ... 256:pixel`: labels from 1, pixels in -1..1."""
    text = bz2.decompress(file.content.data).replace(b":", b" ")
    numbers = np.loadtxt(io.BytesIO(text), dtype=np.float32, ndmin=2)
    pixels = ((numbers[:, 2::2] + 1) / 2 * 255).astype(np.uint8)  # rounded down, as torchvision does
    return Part(torch.from_numpy(pixels).view(-1, 1, 16, 16), torch.from_numpy(numbers[:, 0]).long() - 1)
