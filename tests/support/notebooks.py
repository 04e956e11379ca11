"""Runs the notebooks of `examples/`, and keeps what their cells show.

    python -m tests.support.notebooks        # runs them, and writes what they show into their files

Cells whose results differ from run to run (times, dates, paths) do not belong in them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

import ccroute

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
REFRESH = "python -m tests.support.notebooks"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path) -> NotebookNode:
    """The notebook as it is after its cells ran, in a kernel of their own and an empty folder. Raises
    `CellExecutionError` for one that fails. A warning is an error."""
    notebook = nbformat.read(path, as_version=4)
    source = str(Path(ccroute.__file__).parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        # A kernel sends what a cell prints in pieces of any size: put them together.
        client = NotebookClient(
            notebook, timeout=60, coalesce_streams=True, resources={"metadata": {"path": folder}}
        )
        client.execute(env={**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "default"})
    return clean(notebook)


def clean(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs from run to run."""
    notebook.metadata = nbformat.from_dict(_METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    return notebook


def main() -> None:
    for path in NOTEBOOKS:
        nbformat.write(run(path), path)
        print(path)


if __name__ == "__main__":
    main()
