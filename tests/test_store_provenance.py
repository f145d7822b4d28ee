"""Versions, commit and machine, and which code counts as one that can change results."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT

from mnist_exp.store import provenance


def test_versions_are_those_of_the_installed_packages() -> None:
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["mnist_exp"].startswith(f"{version('mnist_exp')}+")


def test_all_code_counts_but_what_only_reads_or_draws() -> None:
    """The list is checked here, so that a module that moves does not leave or join it unnoticed."""
    package = ROOT / "mnist_exp"
    everything = {path.relative_to(package).as_posix() for path in package.rglob("*.py")} | {"train.py"}
    for path in provenance.WITHOUT_EFFECT_ON_RESULTS:
        assert (package / path).exists(), path
    counted = provenance.code_of_results().keys()
    assert {name.partition("/")[0] for name in everything - counted} == {
        "__init__.py",
        "__main__.py",
        "cli.py",
        "figure_page.py",
        "report",
        "sweep",
        "training",
        "track",
        "use",
    }
    assert {name for name in everything - counted if name.startswith("training/")} == {
        "training/drawing.py",
        "training/figures.py",
        "training/redraw.py",
    }
    assert {"train.py", "build.py", "training/loop.py", "fused/trainer.py", "data/augment.py"} <= counted


@pytest.mark.parametrize(("name", "changes"), [("training/loop.py", True), ("report/stats.py", False)])
def test_the_digest_follows_the_code_that_counts(
    name: str, changes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ROOT / "mnist_exp").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT / "mnist_exp")
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    before = provenance.versions.__wrapped__()
    assert before == provenance.versions()  # wherever the package lies
    (tmp_path / name).write_text("changed = True\n")
    assert (provenance.versions.__wrapped__() != before) is changes


def test_the_commit_is_gits() -> None:
    found = provenance.git()
    if not (ROOT / ".git").exists():
        assert found is None
        return
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert found
    assert found["commit"] == commit.stdout.strip()


def test_the_machine_has_cores() -> None:
    assert 1 <= provenance.machine()["cores"] <= (os.cpu_count() or 1)
