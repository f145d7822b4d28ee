"""Who may import whom: train.py calls the rooms, the rooms call their parts, and the parts know nobody."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

BASE = {"apart", "errors", "files", "spelling", "stops", "streams"}  # anybody's
ARROWS = {
    "apart": {"stops"},
    "errors": {"spelling", "stops", "streams"},
    "files": set(),
    "spelling": set(),
    "stops": set(),
    "streams": set(),
    "startup": {"stops"},
    "config": BASE,
    "command_line": BASE | {"config"},
    "memory": BASE,
    "record": BASE | {"loop"},
    "resume": BASE | {"build", "checkpoint", "config", "pictures", "record"},
    "pictures": {"build", "checkpoint", "loop", "plots", "record"},
    "build": BASE | {"data.batches", "data.sources", "memory"},
    "loop": {"data.batches"},
    "alone": {"loop"},
    "fused.stack": {"models"},
    "fused.together": {"data.augment", "data.batches", "fused.recorded", "fused.stack", "loop", "losses"},
    "fused.recorded": set(),
    "fused.members": BASE | {"alone", "fused.memory", "fused.together", "loop", "record"},
    "fused.plan": BASE | {"build", "config", "fused.memory", "record"},
    "fused.memory": {"build", "memory"},
    "fused.launch": {"fused.members", "fused.plan", "sweep.jobs"},
    "checkpoint": BASE | {"data.batches"},
    "plots": BASE | {"data.batches"},
    "data.batches": {"data.augment"},
    "data.augment": set(),
    "data.sources": BASE,
    "models": set(),
    "losses": set(),
    "schedules": set(),
    "sweep.ledger": BASE | {"config", "record"},
    "sweep.plan": BASE | {"command_line", "config", "record", "sweep.ledger"},
    "sweep.request": BASE | {"command_line", "config", "record", "sweep.ledger", "sweep.plan"},
    "sweep.jobs": BASE | {"build", "record", "sweep.ledger"},
    "sweep.run": BASE
    | {"build", "command_line", "record", "resume", "sweep.jobs", "sweep.ledger", "sweep.plan", "sweep.request"}
    | {"fused.plan", "sweep.report", "sweep.results", "sweep.tuning", "sweep.workers"},
    "sweep.stats": set(),
    "sweep.workers": BASE,
    "sweep.results": BASE | {"record", "sweep.ledger", "sweep.stats"},
    "sweep.tuning": {"record", "sweep.results"},
    "sweep.words": BASE | {"sweep.results", "sweep.stats", "sweep.tuning"},
    "sweep.plots": {"sweep.results", "sweep.stats", "sweep.tuning"},
    "sweep.report": BASE | {"startup", "sweep.plots", "sweep.results", "sweep.stats", "sweep.tuning", "sweep.words"},
}
KNOW_CONFIGS = {"config", "build", "errors", "record", "resume", "sweep.plan", "sweep.jobs", "sweep.run"}  # Hydra's
KNOW_CONFIGS |= {
    "pictures",
    "command_line",
    "spelling",
    "sweep.request",
    "alone",
    "fused.launch",
    "fused.memory",
    "fused.members",
    "fused.plan",
}


def modules() -> dict[str, Path]:
    package = ROOT / "mnist_exp"
    files = [path for path in package.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(package).with_suffix("").parts): path for path in files}


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_is_on_the_plan() -> None:
    assert modules().keys() == ARROWS.keys()


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_what_the_plan_allows(room: str) -> None:
    ours = {name.removeprefix("mnist_exp.") for name in imported(modules()[room]) if name.startswith("mnist_exp.")}
    rooms = {other for other in ARROWS for name in ours if name == other or name.startswith(f"{other}.")}
    assert rooms <= ARROWS[room]


@pytest.mark.parametrize("room", sorted(ARROWS.keys() - KNOW_CONFIGS))
def test_parts_never_see_a_config(room: str) -> None:
    assert not {name for name in imported(modules()[room]) if name.split(".")[0] in ("hydra", "omegaconf")}


def test_only_build_instantiates() -> None:
    instantiating = {room for room, path in modules().items() if "hydra.utils.instantiate" in imported(path)}
    assert instantiating == {"build"}
