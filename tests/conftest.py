"""What the tests share."""
import os
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, settings

# Set before anything imports NumPy, Keras or Matplotlib. The tests run on the processor: with CUDA_VISIBLE_DEVICES=0 in the environment they use a GPU.
# One thread a process: there are as many processes as cores, and the threads of one spin while they wait for those of another.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
for variable, value in ({"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"} | ONE_THREAD).items():
    os.environ.setdefault(variable, value)

# A busy machine is no fault of the code. In CI the same examples every time, elsewhere new ones.
settings.register_profile("kit", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI") or os.environ.get("GITHUB_ACTIONS")))
settings.load_profile("kit")

# For a process whose threads must not change what comes out: all of them.
MANY_THREADS = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish():
    """TensorFlow takes a graph as it is: here it runs a few times only, and improving it first, as is done for a long run, takes longer than it saves. See `warm` for the kernels."""
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real data sets. Without one the test is skipped, except in CI, which must have it."""
    folder = os.environ.get("SIGNVER_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"SIGNVER_DATA={folder} is not a folder" if folder else "SIGNVER_DATA is not set: it names the folder of the real data sets"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def in_this_process(monkeypatch):
    """Benchmarks run without a kernel of their own, whose start and imports cost more than a small run does: for tests of what the cells find. Nothing is shown."""
    from signver_kit import benchmark

    def execute(source, executed, parameters, progress=True):
        names = {"__name__": "__main__"}
        notebook = nbformat.read(source, as_version=4)
        nbformat.write(notebook, executed)
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{source.name}, cell {number}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update(parameters)

    monkeypatch.setattr(benchmark, "execute", execute)
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot:
        pyplot.close("all")
