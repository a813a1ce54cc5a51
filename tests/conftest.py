"""What the tests share."""
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before anything imports Keras or Matplotlib. The tests run on the processor: with CUDA_VISIBLE_DEVICES=0 in the environment they use a GPU.
for variable, value in {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}.items():
    os.environ.setdefault(variable, value)

# A busy machine is no fault of the code. In CI the same examples every time, elsewhere new ones.
settings.register_profile("kit", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI")))
settings.load_profile("kit")

ROOT = Path(__file__).resolve().parent.parent


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
