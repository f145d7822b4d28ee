"""Writes the reference's generated pages: config keys, and one page of the Python API for each package.

The config keys come from what the program itself reads: conf/, the schema and the limits of values. MkDocs runs this as
a hook. `python docs/gen_reference.py` prints the page of config keys.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hydra_plugins.mnist_exp.launcher import FusedConf, SlurmConf, WorkersConf  # noqa: E402  # of this checkout
from hydra_plugins.mnist_exp.sweeper import ResumableConf  # noqa: E402
from mnist_exp.config import EXCLUDED_FROM_ID, GROUPS, Config, spell  # noqa: E402
from mnist_exp.limits import LIMITS  # noqa: E402

PAGE = "reference/config.md"
API = {  # a page of the API: what it says first
    "core": "From a config to the parts of a run.",
    "data": "Data sets, batches and augmentation.",
    "training": "One run: the loop, checkpoints, resume.",
    "store": "The files of a run and of a sweep.",
    "report": "Reads sweeps, and reports on them.",
    "sweep": "Runs sweeps.",
    "fused": "Trains many models as one.",
    "track": "Shows runs in TensorBoard, MLflow and W&B.",
    "use": "Trained models in use, and runs in the process of a script or notebook.",
    "system": "The operating system: signals, files, subprocesses, errors.",
}
HEADER = ("Key", "Type", "Allowed", "Default", "Meaning")
TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    list: "list",
    dict: "mapping",
    NoneType: "null",
    Any: "text, list or mapping",
}
ANY = "null, or a value"
INTRODUCTION = (
    "Every key can be set on the command line as `KEY=VALUE`. A group's option is chosen as `GROUP=OPTION`; its keys "
    "are then set as `GROUP.KEY=VALUE`. This page is generated from `conf/`, the schema and the limits in "
    "`mnist_exp/config.py`."
)
PLUGINS: dict[str, tuple[str, type, str]] = {  # by the title of the section
    "hydra.sweeper": ("hydra.sweeper", ResumableConf, "What a sweep does. These keys work with `-m`."),
    "hydra/launcher=fused": ("hydra.launcher", FusedConf, "Train jobs that are alike as one, on this machine."),
    "hydra/launcher=workers": ("hydra.launcher", WorkersConf, "Hand the jobs over to workers, on any machine."),
    "hydra/launcher=slurm": ("hydra.launcher", SlurmConf, "Start workers by Slurm. It has the keys of `workers` too."),
}


def page() -> str:
    """Return the whole page as Markdown."""
    defaults = {group: option for entry in _load("config.yaml")["defaults"] for group, option in _pairs(entry)}
    parts = [
        "# Config keys",
        INTRODUCTION,
        "A key or value that is not allowed is refused in one line before anything runs.",
        "## The run",
        "\n".join(_table(_rows_of_the_run())),
        "These keys say where and how fast a run goes, not what it is. They are not part of its `config_id`: "
        + ", ".join(f"`{key}`" for key in EXCLUDED_FROM_ID)
        + ".",
    ]
    for group in GROUPS:
        parts += [f"## {group}", f"The default is `{defaults[group]}`."]
        for file in sorted((ROOT / "conf" / group).glob("*.yaml")):
            parts += _option(group, file)
    parts += ["## experiment", "An experiment sets several keys at once. The default is none.", *_experiments()]
    for title, (section, schema, sentence) in PLUGINS.items():
        parts += [f"## {title}", sentence, "\n".join(_table(_plugin_rows(section, schema)))]
    return "\n\n".join(parts) + "\n"


def api_page(name: str) -> str:
    """Return the page on one package, or on the modules outside all packages, with a section for each module."""
    package = ROOT / "mnist_exp" / ("" if name == "core" else name)
    files = sorted(package.glob("*.py") if name == "core" else package.rglob("*.py"))
    modules = [file.relative_to(ROOT).with_suffix("") for file in files if not file.stem.startswith("__")]
    title = "Config, build and parts" if name == "core" else f"mnist_exp.{name}"
    return "\n\n".join([f"# {title}", API[name], *(f"::: {'.'.join(module.parts)}" for module in modules)]) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site. MkDocs calls this."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    for name in API:
        files.append(File.generated(config, f"reference/api/{name}.md", content=api_page(name)))
    return files


def _rows_of_the_run() -> Iterator[tuple[str, ...]]:
    hints, comments = get_type_hints(Config), _comments(ROOT / "conf" / "config.yaml")
    for key, value in _load("config.yaml").items():
        if key in hints and key not in GROUPS:
            yield _row(key, _name(hints[key]), value, comments.get(key, ""))


def _option(group: str, file: Path) -> list[str]:
    """The section of one option: what it builds, and a table of its keys."""
    comments, values = _comments(file), _load(f"{group}/{file.stem}.yaml")
    about = _lead(file)
    parts = [f"### {group}={file.stem}", *([" ".join(about)] if about else [])]
    if "defaults" in values:
        return [*parts, "Combines " + " and ".join(f"`{name}`" for name in values["defaults"]) + ", with their keys."]
    keys = {
        key: value for key, value in _leaves(values) if not key.endswith("_target_") and not key.endswith("_partial_")
    }
    parts.append(f"Builds `{values['_target_']}`." + ("" if keys else " It has no keys."))
    rows = [
        _row(f"{group}.{key}", ANY if value is None else TYPES[type(value)], value, comments.get(key, ""))
        for key, value in keys.items()
    ]
    return [*parts, *(["\n".join(_table(rows))] if rows else [])]


def _experiments() -> list[str]:
    """A list of the experiments, each with the comment at its file's top."""
    parts = []
    for file in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        lines = [line for line in _lead(file) if not line.startswith("@package")]
        command = next(line for line in lines if line.startswith("python train.py"))
        text = " ".join(line for line in lines if line != command)
        parts += [f"### experiment={file.stem}", text, f"```\n{command}\n```"]
    return parts


def _plugin_rows(section: str, schema: type) -> Iterator[tuple[str, ...]]:
    """The fields of a plugin's schema, with the comments in its source."""
    source = inspect.getsource(schema)
    lines, hints, values = source.splitlines(), get_type_hints(schema), OmegaConf.structured(schema)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id != "_target_":
            name, comment = node.target.id, lines[(node.end_lineno or 0) - 1].partition("  # ")[2]
            yield _row(f"{section}.{name}", _name(hints[name]), values[name], comment)


def _row(key: str, kind: str, value: Any, comment: str) -> tuple[str, ...]:
    limit = LIMITS.get(key)
    return f"`{key}`", kind, limit.text if limit else "", f"`{spell(value)}`", comment


def _table(rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _name(hint: Any) -> str:
    """Return the name of a type, such as "whole number or null"."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return " or ".join(TYPES[get_origin(kind) or kind] for kind in kinds)


def _load(name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / name), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _pairs(entry: Any) -> Iterator[tuple[str, Any]]:
    return iter(entry.items()) if isinstance(entry, dict) else iter([(str(entry), None)])


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lead(file: Path) -> list[str]:
    """The comment at a file's top, line by line."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines


def _comments(file: Path) -> dict[str, str]:
    """The comment behind each key of a YAML file, by the key's dotted name."""
    text = file.read_text()
    lines = text.splitlines()

    def visit(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value:
            if isinstance(value, yaml.MappingNode):
                yield from visit(value, f"{prefix}{key.value}.")
            elif value.end_mark.line == key.start_mark.line:
                yield (
                    f"{prefix}{key.value}",
                    lines[value.end_mark.line][value.end_mark.column :].partition("#")[2].strip(),
                )

    root = yaml.compose(text)
    return dict(visit(root, "")) if isinstance(root, yaml.MappingNode) else {}


if __name__ == "__main__":
    print(page(), end="")
