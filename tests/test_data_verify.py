"""Only files with the published content count, and no file that the user has put there is changed."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.data_files import (
    Contents,
    altered,
    archives_of,
    fill,
    gz,
    idx_bytes,
    labels,
    rewritten,
    sha256,
    snapshot,
    truncated,
    with_dots,
)

from mnist_exp.data import sources
from mnist_exp.data.verify import FILE_NAMES

pytestmark = pytest.mark.usefixtures("offline")

Damage = Callable[[bytes], bytes]
Rename = Callable[[Contents], Contents]

REMEDY = "put the right file there, or choose another data.root"


def first_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def html(_: bytes) -> bytes:
    return b"<html>"


def empty(_: bytes) -> bytes:
    return b""


def other_labels(_: bytes) -> bytes:
    return gz(idx_bytes(labels(12)[::-1]))


def as_debian_packs(raw: Contents) -> Contents:
    return {name: rewritten(archive) for name, archive in archives_of(raw).items()}


# Files that count.


@pytest.mark.parametrize("pack", [dict, as_debian_packs])
@pytest.mark.parametrize("rename", [dict, with_dots])
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "FashionMNIST", "."])
def test_files_are_found_in_all_folders_with_both_spellings_raw_and_packed(
    tmp_path: Path,
    raw: Contents,
    fashion: Contents,
    caplog: pytest.LogCaptureFixture,
    folder: str,
    rename: Rename,
    pack: Rename,
) -> None:
    fill(tmp_path / folder, rename(pack(raw)))
    before = snapshot(tmp_path)
    images = sources.fashion_mnist(str(tmp_path))
    assert images.sha256 == sha256("".join(f"{sha256(raw[name])}  {name}\n" for name in raw).encode())
    assert snapshot(tmp_path).items() >= before.items()
    assert folder == "FashionMNIST/raw" or snapshot(tmp_path) == before  # only torchvision's folder is written to
    assert caplog.records == []


def test_a_recompressed_archive_counts_by_its_content(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "MNIST/raw", {f"{name}.gz": gzip.compress(content, 1) for name, content in mnist.items()})
    assert len(sources.mnist(str(tmp_path)).train.images) == 12


@pytest.mark.parametrize("rename", [dict, with_dots])
@pytest.mark.parametrize("folder", ["KMNIST/raw", "KMNIST", "."])
def test_archives_of_a_set_without_raw_checksums_count_by_their_md5(
    tmp_path: Path, kmnist: Contents, folder: str, rename: Rename
) -> None:
    fill(tmp_path / folder, rename(kmnist))
    assert len(sources.kmnist(str(tmp_path)).train.images) == 12


def test_raw_files_without_a_published_checksum_count_beside_their_archives(
    tmp_path: Path, raw: Contents, kmnist: Contents
) -> None:
    fill(tmp_path, with_dots(raw) | kmnist)
    assert len(sources.kmnist(str(tmp_path)).train.images) == 12


# Files that don't.


@pytest.mark.parametrize("damage", [altered, truncated, empty])
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_damaged_raw_file_is_named_and_left(tmp_path: Path, mnist: Contents, name: str, damage: Damage) -> None:
    fill(tmp_path / "MNIST/raw", mnist | {name: damage(mnist[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"root=.*raw/{name} is altered or incomplete.*{REMEDY}"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", [altered, first_half, html])
def test_a_damaged_gz_is_named_and_left(tmp_path: Path, mnist: Contents, damage: Damage) -> None:
    archives, name = archives_of(mnist), "t10k-images-idx3-ubyte.gz"
    fill(tmp_path / "MNIST/raw", archives | {name: damage(archives[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered or incomplete.*{REMEDY}"):
        sources.mnist(str(tmp_path))
    assert snapshot(tmp_path) == before


def test_a_gz_of_other_images_is_refused(tmp_path: Path, mnist: Contents) -> None:
    fill(tmp_path / "MNIST/raw", archives_of({name: altered(content) for name, content in mnist.items()}))
    with pytest.raises(ValueError, match=r"raw/train-images-idx3-ubyte\.gz is altered"):
        sources.mnist(str(tmp_path))


@pytest.mark.parametrize("damage", [altered, truncated, other_labels])
def test_an_archive_with_another_md5_is_named_and_left(tmp_path: Path, kmnist: Contents, damage: Damage) -> None:
    name = "train-labels-idx1-ubyte.gz"
    fill(tmp_path / "KMNIST/raw", kmnist | {name: damage(kmnist[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered or incomplete.*{REMEDY}"):
        sources.kmnist(str(tmp_path))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", [altered, first_half, html])
def test_a_damaged_zip_is_named_and_left(tmp_path: Path, emnist_zip: bytes, damage: Damage) -> None:
    fill(tmp_path / "EMNIST/raw", {"gzip.zip": damage(emnist_zip)})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"raw/gzip\.zip is altered or incomplete.*put the right file there"):
        sources.emnist(str(tmp_path), "digits")
    assert snapshot(tmp_path) == before


def test_a_raw_file_that_was_altered_after_unpacking_is_named(tmp_path: Path, raw: Contents, kmnist: Contents) -> None:
    folder = tmp_path / "KMNIST/raw"
    fill(folder, kmnist)
    sources.kmnist(str(tmp_path))
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*raw, *kmnist, "SHA256SUMS"}
    name = "train-labels-idx1-ubyte"
    fill(folder, {name: altered(raw[name])})
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))


def test_a_raw_file_without_any_checksum_is_ignored_with_a_warning(
    tmp_path: Path, raw: Contents, kmnist: Contents, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "KMNIST/raw"
    fill(folder, raw)
    with pytest.raises(OSError, match=r"(?s)no source works.*no verified train-images-idx3-ubyte, train-labels-idx1"):
        sources.kmnist(str(tmp_path))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"KMNIST: {folder / name} is ignored: only its archive has a published checksum; put {name}.gz beside it"
        for name in raw
    ]


def test_a_raw_file_without_a_line_in_the_sums_must_agree_with_its_archive(
    tmp_path: Path, raw: Contents, kmnist: Contents
) -> None:
    folder, name = tmp_path / "KMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, raw | kmnist | {name: altered(raw[name])})
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))
    assert snapshot(tmp_path) == before
    (folder / name).unlink()
    assert len(sources.kmnist(str(tmp_path)).test.images) == 5


def test_deleting_the_named_file_corrects_a_wrong_line_in_the_sums(
    tmp_path: Path, raw: Contents, kmnist: Contents
) -> None:
    folder, name = tmp_path / "KMNIST/raw", "t10k-images-idx3-ubyte"
    fill(folder, kmnist)
    sources.kmnist(str(tmp_path))
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums.replace(sha256(raw[name]), "0" * 64))
    with pytest.raises(ValueError, match=f"raw/{name} is altered"):
        sources.kmnist(str(tmp_path))
    (folder / name).unlink()
    sources.kmnist(str(tmp_path))
    assert (folder / "SHA256SUMS").read_text() == sums
