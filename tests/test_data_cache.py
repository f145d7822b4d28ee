"""What is read once, and when it is read again."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_data import noise

from mnist_exp.data import cache
from mnist_exp.data.cache import Read, State
from mnist_exp.data.images import NO_IMAGES, DataSet, Part
from mnist_exp.system import files


class Source:
    """A source of one file, which counts how often it is read."""

    def __init__(self, folder: Path) -> None:
        self.file, self.root, self.reads = folder / "images", folder / "root", 0
        self.file.write_bytes(noise(20)[0].tobytes())
        self.on_read: Callable[[], object] = lambda: None

    def load(self, **settings: int) -> DataSet:
        return cache.load(str(self.file), str(self.root), settings, self.state, self.read)

    def state(self) -> State:
        return {"images": self.file.stat()}

    def read(self, state: State) -> Read:
        self.reads += 1
        self.on_read()
        images = torch.from_numpy(np.fromfile(self.file, np.uint8).reshape(-1, 1, 6, 6).copy())
        part = Part(images, torch.arange(len(images)) % 2)
        return Read(DataSet("set", ("a", "b"), part, NO_IMAGES, ""), ["a note"])

    @property
    def kept(self) -> list[Path]:
        return sorted((self.root / "cache").glob("*.npz"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def equal(one: DataSet, other: DataSet) -> bool:
    pairs = zip((*one.train, *one.val, *one.test), (*other.train, *other.val, *other.test), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    return same and one._replace(train=NO_IMAGES, val=NO_IMAGES, test=NO_IMAGES) == other._replace(
        train=NO_IMAGES, val=NO_IMAGES, test=NO_IMAGES
    )


def test_the_second_start_reads_nothing_and_gets_the_same(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        first, second = source.load(), source.load()
    assert (source.reads, equal(first, second)) == (1, True)
    assert [path.stem for path in source.kept] == [first.sha256] == [cache.checksum(first)]
    assert caplog.messages == ["set: a note"] * 2


def test_a_change_is_noticed_even_if_length_and_time_stay(source: Source) -> None:
    first, before = source.load(), source.file.stat()
    content = source.file.read_bytes()
    source.file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(source.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = source.load()
    assert (source.reads, second.sha256 != first.sha256) == (2, True)
    assert [path.stem for path in source.kept] == [second.sha256]  # nothing names the first any more
    source.file.write_bytes(content)
    assert equal(source.load(), first)


def test_equal_content_has_one_checksum_and_one_file_wherever_it_lies(source: Source, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Source(tmp_path / "other")
    other.root = source.root
    os.utime(other.file, (1, 1))
    assert equal(source.load(), other.load())
    assert (source.reads, other.reads, len(source.kept)) == (1, 1, 1)
    source.file.touch()
    source.load()
    assert (source.reads, len(source.kept)) == (2, 1)


def test_the_checksum_is_of_classes_pixels_labels_and_parts(source: Source) -> None:
    data = source.load()
    images, labels = data.train
    others = [
        data._replace(classes=("b", "a")),
        data._replace(train=Part(images.flip(0), labels)),
        data._replace(train=Part(images, 1 - labels)),
        data._replace(train=Part(images[:-1], labels[:-1]), test=Part(images[-1:], labels[-1:])),
        data._replace(train=Part(images[:-1], labels[:-1]), val=Part(images[-1:], labels[-1:])),
        data._replace(train=Part(images.view(-1, 1, 4, 9), labels)),
    ]
    assert len({cache.checksum(each) for each in (data, *others)}) == 7
    assert cache.checksum(data._replace(name="other", sha256="x")) == data.sha256


def test_other_settings_are_other_data(source: Source) -> None:
    for size in (1, 2, 1, 2):
        source.load(size=size)
    assert source.reads == 2


def damages() -> Iterator[Callable[[Path], object]]:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)

    yield from (cut, flip, lambda path: path.write_bytes(b""), Path.unlink)


@pytest.mark.parametrize("damage", list(damages()))
@pytest.mark.parametrize("kind", ["*.npz", "*.json"])
def test_a_damaged_cache_is_made_again(damage: Callable[[Path], object], kind: str, source: Source) -> None:
    first = source.load()
    for path in (source.root / "cache").glob(kind):
        damage(path)
    assert equal(source.load(), first)
    assert equal(source.load(), first)
    assert source.reads == 2


def test_files_that_change_while_they_are_read_are_an_error(source: Source) -> None:
    source.on_read = lambda: source.file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"path=.*images: files changed while they were read; start again"):
        source.load()
    assert not source.kept


def test_a_folder_that_can_not_be_written_means_no_cache(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    source.root.write_text("a file")
    first = source.load()
    assert equal(source.load(), first)
    assert source.reads == 2
    assert "can't be written, so the data is read at each start" in caplog.messages[0]


def test_a_full_disk_means_no_cache(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert len(source.load().train.images) == 20
    assert "set is not cached: " in caplog.text
    assert not list((source.root / "cache").glob("[!.]*"))


def test_of_several_that_start_at_once_one_reads(source: Source) -> None:
    began, found = threading.Event(), list[DataSet]()
    source.on_read = lambda: began.wait(10)
    threads = [threading.Thread(target=lambda: found.append(source.load())) for _ in range(3)]
    for thread in threads:
        thread.start()
    began.set()
    for thread in threads:
        thread.join()
    assert (len(found), source.reads) == (3, 1)
    assert all(equal(each, found[0]) for each in found)


def test_what_a_killed_process_left_is_removed(source: Source) -> None:
    (source.root / "cache").mkdir(parents=True)
    left = source.root / "cache" / ".abc.npz.123.tmp"
    left.write_text("")
    source.load()
    assert not left.exists()
    assert not list((source.root / "cache").glob(files.TEMPORARY))
