"""Read the files of a data set, raw or from their archives, and compare them with the published checksums."""

import gzip
import hashlib
import io
import logging
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FILE_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SUMS = "SHA256SUMS"  # the checksums of raw files that came out of verified archives

Members = dict[str, NDArray[np.uint8]]  # the files in an archive, by name

_log = logging.getLogger(__name__)


class FileSet(NamedTuple):
    """The files of a data set in torchvision's layout: a folder holds them, raw or in archives.

    Attributes:
        name: The name of the set's class in torchvision.datasets.
        files: The raw files, by their paths in the folder; in an IDX set training images and labels, test images and
            labels.
        archive: The archive of a raw file, where {} stands for the file's name; {} alone is a file that is published
            as it is.
        published: The published checksums of the raw files, SHA-256 or MD5. Without them, torchvision's MD5 of the
            archives verifies.
        folder: The folder below the root of all data sets, where {} stands for the set's name.
    """

    name: str
    files: tuple[str, ...] = FILE_NAMES
    archive: str = "{}.gz"
    published: Mapping[str, str] = {}
    folder: str = "{}/raw"

    def archive_of(self, file: str) -> str:
        """Return the name of the archive that holds a raw file."""
        return self.archive.format(file)

    def folder_in(self, root: Path) -> Path:
        """Return torchvision's folder of the set."""
        return root / self.folder.format(self.name)


class RawFile(NamedTuple):
    """The bytes of a raw file, uint8 (bytes,), and their SHA-256."""

    content: NDArray[np.uint8]
    sha256: str

    @classmethod
    def of(cls, content: NDArray[np.uint8]) -> Self:
        """Return the file with this content."""
        return cls(content, hashlib.sha256(content.data).hexdigest())


def require_digest(kind: str, digest: str, expected: str, source: Path | str) -> None:
    """Raise ValueError if the digest of `source` is not the expected one; `kind` names the hash function."""
    if digest != expected:
        raise ValueError(f"{source} is altered or incomplete: its {kind} is {digest}, but {expected} is expected")


def _require_published(file: RawFile, expected: str, source: Path | str) -> None:
    """Raise ValueError if a file lacks the expected checksum: a SHA-256, which has 64 digits, or an MD5 of 32."""
    if len(expected) == 64:
        require_digest("SHA-256", file.sha256, expected, source)
    else:
        require_digest("MD5", hashlib.md5(file.content.data, usedforsecurity=False).hexdigest(), expected, source)


def combined_sha256(files: Mapping[str, RawFile]) -> str:
    """Return what `sha256sum FILES | sha256sum` prints."""
    return hashlib.sha256(sums_text({name: file.sha256 for name, file in files.items()})).hexdigest()


def read_raw_files(file_set: FileSet, folder: Path) -> dict[str, RawFile]:
    """Return the raw files in `folder`, by name, as far as they exist and their checksum is known.

    Raises:
        ValueError: A file is altered or incomplete.
    """
    known = file_set.published or read_sums(folder)
    names = [name for name in file_set.files if name in known and (folder / name).is_file()]
    return {name: _read_raw(folder / name, known[name]) for name in names}


def read_files(file_set: FileSet, names: Iterable[str], folder: Path) -> tuple[dict[str, RawFile], dict[Path, str]]:
    """Read files of a set from a folder, raw or from their archives, which are unpacked in memory.

    Args:
        file_set: The set.
        names: The raw files to look for.
        folder: The folder to search.

    Returns:
        The verified files by name; and for each file on disk that is altered or incomplete, the reason.
    """
    found: dict[str, RawFile] = {}
    wrong: dict[Path, str] = {}
    known = file_set.published or read_sums(folder)
    md5, members = cache(_md5), cache(_tar_members)  # one archive may hold several files
    for name in names:
        raws, archives = candidates(file_set, folder, name)
        expected = known.get(name)
        # Without a checksum, the archive comes first: it verifies the raw file beside it.
        for path in [*raws, *archives] if expected else [*archives, *raws]:
            if path in archives and name in found:
                continue
            if path in raws and expected is None:
                archive = file_set.archive_of(name)
                _log.warning(
                    "%s: %s is ignored: only its archive has a published checksum; put %s beside it",
                    *(file_set.name, path, archive),
                )
                continue
            try:
                found[name] = (
                    _read_archive(file_set, name, path, md5, members)
                    if path in archives
                    else _read_raw(path, str(expected))
                )
                expected = found[name].sha256
            except ValueError as error:
                wrong[path] = str(error)
    return found, wrong


def candidates(file_set: FileSet, folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    """Return the files in `folder` that may be a raw file and its archive, spelled with `-idx` or with `.idx`."""
    spellings = name, name.replace("-idx", ".idx")
    raws = [folder / spelling for spelling in spellings]
    archives = dict.fromkeys(folder / file_set.archive_of(spelling) for spelling in spellings)
    return [path for path in raws if path.is_file()], [path for path in archives if path.is_file() and path not in raws]


def published_archives(set_name: str) -> dict[str, str]:
    """Return the archives that torchvision knows of a set, in its order: URL or file name, and MD5."""
    from torchvision import datasets  # takes a second, and verified raw files do without

    data_set = getattr(datasets, set_name)
    match set_name:
        case "EMNIST":
            return {data_set.url: data_set.md5}
        case "QMNIST":
            return dict([*data_set.resources["train"], *data_set.resources["test"]])
        case "CIFAR10" | "CIFAR100":
            return {data_set.url: data_set.tgz_md5}
        case "SVHN" | "USPS":
            return {url: md5 for url, _, md5 in (data_set.split_list[split] for split in ("train", "test"))}
        case _:
            return dict(data_set.resources)


def published_md5(set_name: str) -> dict[str, str]:
    """Return the MD5 of each archive of a set, by its file name."""
    return {url.rpartition("/")[2]: md5 for url, md5 in published_archives(set_name).items()}


def read_sums(folder: Path) -> dict[str, str]:
    """Return the checksums in the folder's SHA256SUMS, by file name; an empty mapping without that file."""
    path = folder / SUMS
    text = path.read_text(errors="replace") if path.is_file() else ""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}


def sums_text(sums: Mapping[str, str]) -> bytes:
    """Return the checksums by file name as `sha256sum` prints them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _read_raw(path: Path, expected: str) -> RawFile:
    file = RawFile.of(np.fromfile(path, np.uint8))
    _require_published(file, expected, path)
    return file


def _read_archive(
    file_set: FileSet, name: str, path: Path, md5: Callable[[Path], str], members: Callable[[Path], Members]
) -> RawFile:
    """Return a raw file from an archive. Its own checksum verifies it or, if none is published, the archive's."""
    if not file_set.published:
        require_digest("MD5", md5(path), published_md5(file_set.name)[file_set.archive_of(name)], path)
    file = RawFile.of(_unpack(path, name, members))
    if name in file_set.published:
        _require_published(file, file_set.published[name], path)
    return file


def _unpack(path: Path, name: str, members: Callable[[Path], Members]) -> NDArray[np.uint8]:
    content = io.BytesIO()
    try:
        if path.name.endswith(".tar.gz"):
            return members(path)[name]
        with zipfile.ZipFile(path).open(f"gzip/{name}.gz") if path.suffix == ".zip" else open(path, "rb") as packed:
            shutil.copyfileobj(gzip.GzipFile(fileobj=packed), content)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, KeyError) as error:
        raise ValueError(f"{path} is altered or incomplete: {error}") from error
    return np.frombuffer(content.getbuffer(), np.uint8)


def _tar_members(path: Path) -> Members:
    """Return the files in a compressed tar, which is read once, from its start to its end."""
    with tarfile.open(path, "r|gz") as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: np.frombuffer(file.read(), np.uint8) for name, file in files if file}


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
