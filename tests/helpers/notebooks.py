"""Runs a notebook of the docs.

`python tests/helpers/notebooks.py docs/notebooks/first_steps.ipynb` renews the outputs that it is shown with.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_output

ROOT = Path(__file__).parents[2]


def execute(path: Path, folder: Path) -> NotebookNode:
    """Return the notebook with its outputs. Its kernel works in the folder, with this checkout's program."""
    notebook: NotebookNode = nbformat.read(path, as_version=4)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, timeout=300, record_timing=False).execute(cwd=str(folder), env=environment)
    return notebook


def presentable(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Leave out progress bars, which are on standard error, and where the folder lies on this machine."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
            values = [output for output in cell.outputs if output.output_type != "stream"]
            cell.outputs = [*([new_output("stream", text=printed)] if printed else []), *values]
            for texts in (texts for output in cell.outputs for texts in (output, output.get("data", {}))):
                texts |= {key: text.replace(f"{folder}/", "") for key, text in texts.items() if isinstance(text, str)}
    return notebook


if __name__ == "__main__":
    notebook_path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        made = presentable(execute(notebook_path, Path(temporary)), Path(temporary))
    nbformat.write(made, notebook_path)
