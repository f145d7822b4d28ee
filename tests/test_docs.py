"""The commands in the tutorial and the how-to guides, run page by page.

In a page, a fenced block `console` holds commands, on lines that begin with `$ `; a backslash continues one. The other
lines are output. A block with `title="PATH"` is a file that the page asks for. A comment on the line above a `console`
block changes what is done with it:

    <!-- not run: WHY -->   it needs a network, a GPU or much time
    <!-- fails: WHY -->     each of its commands must exit with an error
"""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import notebooks

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for folder in ("tutorial", "how-to") for page in (ROOT / "docs" / folder).glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<mark>not run|fails): [^\n]+ -->\n *)?"
    r'```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^(?P=indent)```$',
    re.MULTILINE | re.DOTALL,
)


def script(text: str) -> list[str]:
    """The lines of a shell script that does what a page's blocks ask for."""
    lines = []
    for block in BLOCK.finditer(text):
        body = "".join(line[len(block["indent"]) :] or "\n" for line in block["text"].splitlines(keepends=True))
        if block["title"]:
            path = shlex.quote(block["title"])
            lines.append(f'mkdir -p "$(dirname {path})" && cat > {path} <<"END OF FILE"\n{body}END OF FILE')
        elif block["language"] == "console" and block["mark"] != "not run":
            for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", body, re.MULTILINE):
                fails = f"if {command}; then exit 99; fi"
                lines += [f"echo {shlex.quote(f'$ {command}')}", fails if block["mark"] == "fails" else command]
    return lines


def shims(folder: Path) -> Path:
    """A folder for PATH in which python, train.py's and mnist-exp's commands are this checkout's."""
    python = shlex.quote(sys.executable)
    train = shlex.quote(str(ROOT / "train.py"))
    folder.mkdir()
    for name, line in {
        "python": f'if [ "$1" = train.py ]; then shift; exec {python} {train} "$@"; fi; exec {python} "$@"',
        "mnist-exp": f'exec {python} -m mnist_exp "$@"',
    }.items():
        file = folder / name
        file.write_text(f"#!/bin/bash\n{line}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return folder


WITH_COMMANDS = [page for page in PAGES if script(page.read_text(encoding="utf-8"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[f"{page.parent.name}/{page.stem}" for page in WITH_COMMANDS])
def test_commands(page: Path, tmp_path: Path) -> None:
    lines = script(page.read_text(encoding="utf-8"))
    path = f"{shims(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    (folder := tmp_path / "page").mkdir()
    outcome = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_notebooks(notebook: Path, tmp_path: Path) -> None:
    made = notebooks.presentable(notebooks.execute(notebook, tmp_path), tmp_path)
    shown = nbformat.read(notebook, as_version=4)
    kinds = [
        [[output.output_type for output in cell.get("outputs", ())] for cell in each.cells] for each in (made, shown)
    ]
    assert kinds[0] == kinds[1]
    assert sum(map(len, kinds[0])) > 0
    nbformat.validate(shown)


def test_every_block_is_read() -> None:
    """No test would run the commands of a fence that the pattern misses."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^ *```console", text, re.MULTILINE)
        assert len([block for block in BLOCK.finditer(text) if block["language"] == "console"]) == len(fences), page
    assert sum(len(script(page.read_text(encoding="utf-8"))) for page in PAGES) > 100
