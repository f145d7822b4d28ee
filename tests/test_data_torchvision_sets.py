"""torchvision's sets are what torchvision reads from the same files, and only the published files count."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_files import (
    Contents,
    altered,
    fill,
    md5,
    mirror,
    python2_pickle,
    sha256,
    snapshot,
    tar_of,
)
from torch import Tensor
from torchvision import datasets

from mnist_exp.data import fetch, torchvision_sets, verify
from mnist_exp.data.images import DataSet, Part
from mnist_exp.system import files

pytestmark = pytest.mark.usefixtures("offline")

SETS = ["CIFAR10", "CIFAR100", "SVHN", "USPS"]
ARCHIVES = {"CIFAR10": "cifar-10-python.tar.gz", "CIFAR100": "cifar-100-python.tar.gz"}
Load = Callable[[str], DataSet]


@pytest.fixture
def contents(name: str, request: pytest.FixtureRequest) -> Contents:
    """The files of the set that count as the published ones."""
    found: Contents = request.getfixturevalue(name.lower())
    return found


@pytest.fixture
def load(name: str) -> Load:
    """The function that returns the set."""
    function: Load = getattr(torchvision_sets, name.lower())
    return function


def as_published(name: str, contents: Contents) -> Contents:
    """The files that can be downloaded."""
    return {ARCHIVES[name]: tar_of(contents)} if name in ARCHIVES else contents


def theirs(name: str, root: Path, train: bool) -> tuple[Any, Tensor, Any]:
    """Images, labels and classes as torchvision reads them."""
    part = {"split": "train" if train else "test"} if name == "SVHN" else {"train": train}
    data = getattr(datasets, name)(root, **part)
    labels = data.labels if name == "SVHN" else data.targets
    pixels = data.data.transpose(0, 3, 1, 2) if name in ARCHIVES else data.data  # (N, H, W, C)
    return pixels.reshape(len(labels), -1, *pixels.shape[-2:]), torch.as_tensor(labels), getattr(data, "classes", None)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_what_torchvision_reads(name: str, load: Load, contents: Contents, tmp_path: Path) -> None:
    fill(tmp_path, as_published(name, contents))
    ours = load(str(tmp_path))  # unpacks CIFAR's archive, as torchvision would
    parts: list[tuple[Part, bool]] = [(ours.train, True), (ours.test, False)]
    for part, train in parts:
        images, labels, classes = theirs(name, tmp_path, train)
        assert part.images.dtype == torch.uint8
        assert part.images.is_contiguous()
        assert np.array_equal(part.images, images)
        assert part.labels.dtype == torch.int64
        assert torch.equal(part.labels, labels)
        assert classes is None or list(ours.classes) == classes
    assert ours.name == name
    assert len(ours.classes) == (100 if name == "CIFAR100" else 10)
    assert ours.train.images.shape[1:] == ((1, 16, 16) if name == "USPS" else (3, 32, 32))
    lines = "".join(f"{sha256(content)}  {file}\n" for file, content in contents.items())
    assert ours.sha256 == sha256(lines.encode())


@pytest.mark.parametrize("name", SETS)
def test_the_checksums_are_those_that_torchvision_lists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    data_set, ours = getattr(datasets, name), getattr(torchvision_sets, f"{name}_MD5")
    if name in ARCHIVES:
        meta = data_set.meta["filename"], data_set.meta["md5"]
        listed = {
            f"{data_set.base_folder}/{file}": digest
            for file, digest in (*data_set.train_list, *data_set.test_list, meta)
        }
        assert verify.published_md5(name) == {data_set.filename: data_set.tgz_md5}
    else:
        listed = {file: digest for _, file, digest in (data_set.split_list[part] for part in ("train", "test"))}
        assert verify.published_md5(name) == listed
    assert list(ours.items()) == list(listed.items())


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_source_with_tls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert fetch.mirrors(name)
    assert all(site.startswith("https://") and site.endswith("/") for site in fetch.mirrors(name))


@pytest.mark.parametrize("name", SETS)
def test_the_first_run_downloads_and_the_second_reads(
    name: str, load: Load, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, root = as_published(name, contents), tmp_path / "data"
    fill(tmp_path / "www", published)
    with mirror(tmp_path / "www") as (address, requested):
        monkeypatch.setattr(fetch, "mirrors", lambda _: [address])
        first = load(str(root))
    assert set(requested) == {f"/{file}" for file in published}
    written = {root / file: content for file, content in (contents | published).items()}
    assert snapshot(root) == written
    monkeypatch.setattr(verify, "published_archives", lambda _: pytest.fail("it imports torchvision"))
    assert load(str(root)).sha256 == first.sha256
    assert snapshot(root) == written


@pytest.mark.parametrize("name", SETS)
def test_without_a_source_the_error_says_which_file_goes_where(
    name: str, load: Load, contents: Contents, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=f"{name} is incomplete, and no source works") as error:
        load(str(tmp_path))
    assert f"Put {', '.join(as_published(name, contents))} into {tmp_path}, or choose data=digits" in str(error.value)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("folder", [".", "{}"])
def test_a_folder_that_can_not_be_written_is_only_read(
    name: str, load: Load, contents: Contents, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / folder.format(name), as_published(name, contents))
    before = snapshot(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(load(str(tmp_path)).test.images) in (5, 6)
    assert snapshot(tmp_path) == before
    assert folder == "." or not (tmp_path / ".lock").exists()


def altered_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return altered(content[:middle]) + content[middle:]


def first_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("damage", [altered_in_the_middle, first_half])
def test_a_damaged_file_is_named_and_left(
    name: str, load: Load, contents: Contents, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    for number, whole in enumerate([as_published(name, contents), contents]):
        for file, content in whole.items():
            root = tmp_path / f"{number} {Path(file).name}"
            fill(root / Path(file).parent, {})
            fill(root, whole | {file: damage(content)})
            before = snapshot(root)
            with pytest.raises(ValueError, match=rf"root=.*{file} is altered or incomplete.*put the right file there"):
                load(str(root))
            assert snapshot(root) == before


@pytest.mark.parametrize("name", ["CIFAR10"])
def test_an_archive_that_lacks_a_file_is_named(name: str, load: Load, contents: Contents, tmp_path: Path) -> None:
    contents.pop("cifar-10-batches-py/data_batch_3")
    fill(tmp_path, as_published(name, contents))
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is altered or incomplete: .*data_batch_3"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["CIFAR10"])
@pytest.mark.parametrize("after", [0, 1, 6])
def test_a_run_that_is_killed_while_it_unpacks_leaves_whole_files(
    name: str, load: Load, contents: Contents, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, as_published(name, contents))
    write = files.write
    written: list[Path] = []

    def dying(path: Path, content: bytes) -> None:
        if len(written) == after:
            fill(path.parent, {f".{path.name}.77.tmp": b"half"})
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(files, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        load(str(tmp_path))
    monkeypatch.setattr(files, "write", write)
    assert len(load(str(tmp_path)).train.images) == 20
    unpacked = {tmp_path / file: content for file, content in (contents | as_published(name, contents)).items()}
    assert snapshot(tmp_path) == unpacked


class Command:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["CIFAR10"])
@pytest.mark.parametrize("published", [False, True])
def test_a_pickle_with_a_command_runs_nothing(
    name: str, load: Load, contents: Contents, published: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is another; and even if it were the published one."""
    file = "cifar-10-batches-py/data_batch_2"
    evil = python2_pickle(Command(f"touch {tmp_path / 'ran'}"))
    fill(tmp_path / "cifar-10-batches-py", {})
    fill(tmp_path, contents | {file: evil})
    if published:
        monkeypatch.setitem(torchvision_sets.CIFAR10_MD5, file, md5(evil))
    with pytest.raises(Exception, match=r"the pickle names \w+\.system" if published else f"{file} is altered"):
        load(str(tmp_path))
    assert not (tmp_path / "ran").exists()
