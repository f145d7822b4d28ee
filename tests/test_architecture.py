"""Which part of the program may import which. The picture in CONTRIBUTING.md shows the same."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

MAY_IMPORT = {  # the parts of mnist_exp/, train.py and hydra_plugins/
    "system": set(),
    "figure_page": set(),
    "models": set(),
    "losses": set(),
    "schedules": set(),
    "limits": {"system"},
    "config": {"limits", "system"},
    "command_line": {"config", "system"},
    "data": {"system"},
    "build": {"data", "store", "system"},
    "store": {"config", "system"},
    "training": {"build", "config", "data", "figure_page", "store", "system"},
    "fused": {"data", "losses", "models", "store", "system", "training"},
    "report": {"config", "figure_page", "store", "system"},
    "sweep": {
        *("build", "command_line", "config", "fused", "limits", "report", "store", "system", "track", "training"),
    },
    "use": {
        *("build", "command_line", "config", "data", "losses", "models", "report", "store", "system", "training"),
    },
    "track": {"config", "report", "store", "system"},
    "cli": {"report", "store", "system", "track", "use"},
    "__init__": {"system", "use"},
    "train.py": {"build", "command_line", "system", "training"},
    "hydra_plugins": {"command_line", "config", "store", "sweep", "system", "track"},
}
KNOW_CONFIGS = {"config", "command_line", "build", "training", "sweep", "use", "train.py", "hydra_plugins"}  # Hydra's
KNOW_HYDRAS_ERRORS = {"system.errors", "system.quoting"}
WITHOUT_TORCH = {
    "system",
    "figure_page",
    "limits",
    "config",
    "command_line",
    "store",
    "report",
    "track",
    "cli",
    "__init__",
    "hydra_plugins",
}


@cache
def modules() -> dict[str, Path]:
    """Every Python file of the program, by its dotted name without `mnist_exp.`"""
    package = ROOT / "mnist_exp"
    files = {path.relative_to(package).with_suffix(""): path for path in package.rglob("*.py")}
    named = {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}
    plugins = {f"hydra_plugins.{path.stem}": path for path in (ROOT / "hydra_plugins").rglob("*.py")}
    return named | plugins | {"train.py": ROOT / "train.py"}


def part_of(module: str) -> str:
    """The part of the program that a module belongs to."""
    if module == "train.py":
        return module
    return "cli" if module == "__main__" else module.partition(".")[0]


@cache
def imported(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imported_modules(path: Path) -> set[str]:
    """The modules of this program among them."""
    found = set()
    for name in imported(path):
        own = name.removeprefix("mnist_exp.") if name.startswith("mnist_exp.") else name
        known = [
            module for module in modules() if f"{own}.".startswith(f"{module}.") and module not in ("__init__", "")
        ]
        if name.startswith(("mnist_exp.", "hydra_plugins.")) and known:
            found.add(max(known, key=len))
    return found


def test_every_module_belongs_to_a_part() -> None:
    assert {part_of(module) for module in modules()} == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_what_its_part_may(module: str) -> None:
    part = part_of(module)
    others = {part_of(other) for other in imported_modules(modules()[module])} - {part}
    assert others <= MAY_IMPORT.get(part, set())


def test_no_two_modules_import_each_other() -> None:
    graph = {module: imported_modules(path) - {module} for module, path in modules().items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", sorted(modules()))
def test_the_other_parts_never_see_a_config(module: str) -> None:
    if part_of(module) not in KNOW_CONFIGS and module not in KNOW_HYDRAS_ERRORS:
        assert not {name for name in imported(modules()[module]) if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("module", sorted(modules()))
def test_what_reads_needs_no_torch(module: str) -> None:
    if part_of(module) in WITHOUT_TORCH:
        assert "torch" not in {name.split(".")[0] for name in imported(modules()[module])}


def test_only_build_instantiates() -> None:
    assert {name for name, path in modules().items() if "hydra.utils.instantiate" in imported(path)} == {"build"}


def test_contributing_shows_who_imports_whom() -> None:
    pattern = r"(?s)<!-- import map -->\n(.*?)<!-- end of import map -->"
    picture = re.search(pattern, (ROOT / "CONTRIBUTING.md").read_text())
    assert picture
    assert picture[1] == import_map()


def import_map() -> str:
    """The picture, without the arrows that follow from others, and without `system`, which every part may use."""
    below: dict[str, set[str]] = {}
    for part in TopologicalSorter(MAY_IMPORT).static_order():
        below[part] = MAY_IMPORT[part].union(*(below[other] for other in MAY_IMPORT[part]))
    arrows = [
        f"    {part.removesuffix('.py')} --> {other}"
        for part, others in MAY_IMPORT.items()
        for other in sorted(others - {"system"})
        if not any(other in below[between] for between in others)
    ]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```", ""])
