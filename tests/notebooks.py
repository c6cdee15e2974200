"""Runs a notebook in a kernel of its own, and keeps what its cells print, give and draw.

    python tests/notebooks.py docs/examples/from_idea_to_row.ipynb

runs it in an empty folder and writes its outputs into the notebook. What goes to standard error,
such as warnings about the machine, is left out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(path: Path, folder: Path, seconds: int) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`, each cell within so many seconds."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=seconds, resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of day
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def main() -> None:
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(Path(name), Path(folder), 3600), name)


if __name__ == "__main__":
    main()
