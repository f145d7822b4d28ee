"""Where results come from: the versions of the code and its packages, the commit, and the machine."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from mnist_exp.store.run_folder import GitFacts
from mnist_exp.system.program import IS_INSTALLED, PACKAGE, TRAIN
from mnist_exp.system.resources import cores

PACKAGES = ("mnist_exp", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "scikit-learn")
# No code under these paths changes what a run computes. Resuming compares the digest of all other code.
WITHOUT_EFFECT_ON_RESULTS = (
    "report",
    "sweep",
    "track",
    "use",
    "__init__.py",
    "cli.py",
    "__main__.py",
    "figure_page.py",
    "training/drawing.py",
    "training/figures.py",
    "training/redraw.py",
)


class Machine(TypedDict):
    """The computer that ran a command."""

    system: str
    processor: str
    cores: int


@cache  # the code in memory does not change while a sweep runs
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    Ours has a digest of the code: commits alone say too little.
    """
    found = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    digest = hashlib.sha256()
    for _, path in sorted(code_of_results().items()):
        digest.update(path.read_bytes())
    return found | {"mnist_exp": f"{found['mnist_exp']}+{digest.hexdigest()[:8]}"}


def code_of_results() -> dict[str, Path]:
    """Return the Python files that can change what a run computes, by their names within the package."""
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")} | {"train.py": TRAIN}
    return {name: path for name, path in files.items() if not _is_under(name, WITHOUT_EFFECT_ON_RESULTS)}


def _is_under(name: str, paths: tuple[str, ...]) -> bool:
    return any(f"{name}/".startswith(f"{path}/") for path in paths)


def machine() -> Machine:
    """Return the computer that this process runs on, with the number of cores that it may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {"system": platform.platform(), "processor": (names or [platform.processor()])[0], "cores": cores()}


@cache
def git() -> GitFacts | None:
    """Return the commit of this code, and whether files differ from it; None outside a clone of its repository."""
    if IS_INSTALLED:  # from a wheel, which may lie in somebody else's repository
        return None
    git = ["git", "--no-optional-locks"]  # a lock that a killed command left would be in the way of the next commit
    try:
        commit, status = (
            subprocess.run([*git, *arguments], cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
