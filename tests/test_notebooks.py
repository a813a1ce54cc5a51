"""Every notebook runs from top to bottom in a fresh kernel, without an error and without a word on stderr."""
import os
import shutil
import sys
from contextlib import nullcontext

import nbformat
import pytest
from nbclient import NotebookClient

import warm
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb")) + sorted((ROOT / "tutorials").glob("*.ipynb"))

COLD = {"16_throughput"}  # asks whether Keras is loaded


@pytest.fixture
def execute(tmp_path):
    """A function that runs a notebook in a copy of its folder and returns it with the new outputs."""
    def execute(path):
        folder = tmp_path / path.parent.name
        folder.mkdir()
        # index.ipynb reads the records, one folder up
        shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", dirs_exist_ok=True)
        # As the stored outputs were made: oneDNN may round differently from run to run. A private IPython folder: no start-up files of the user.
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "IPYTHONDIR": str(tmp_path / "ipython")}
        environment.pop("MPLBACKEND", None)
        notebook = nbformat.read(path, as_version=4)
        with nullcontext() if path.stem in COLD else warm.kernels():
            NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute(env=environment)
        return notebook
    return execute


def stderr(notebook):
    return [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, execute):
    before, after = nbformat.read(path, as_version=4), execute(path)
    assert stderr(after) == []
    if path.stem == "index":
        def tables(notebook):
            return [output.data["text/markdown"] for cell in notebook.cells for output in cell.get("outputs", []) if "text/markdown" in output.get("data", {})]
        assert tables(after) == tables(before), "the records have changed: run nbs/index.ipynb, then `make readme`"


def test_the_kernel_is_this_python(tmp_path):
    """Guards the other tests: a kernel of another environment would test another package."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.prefix)")])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0].text.strip() == sys.prefix
