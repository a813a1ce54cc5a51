#!/usr/bin/env bash
# make test-gaudi-env: the environment of a Gaudi machine under TensorFlow (Python 3.10, TensorFlow 2.15.0, Keras 3.12.4, Habana's plug-in 1.14.0), made in
# .venv-gaudi, and the kit's tests in it, on its CPU device. On a machine without a card it also shows that asking for one ends with a clear message.
# GAUDI_PYTHON=… names the Python 3.10, GAUDI_VENV=… another folder; arguments go to pytest (make test-gaudi-env GAUDI_TESTS='tests/test_losses.py -k hard').
set -eu
cd "$(dirname "$0")/.."
venv=${GAUDI_VENV:-.venv-gaudi}

python310() {  # a Python 3.10 that runs: pyenv's python3.10 on the PATH may be a stub that does not
  for candidate in "${GAUDI_PYTHON:-python3.10}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then echo "$candidate"; return; fi
  done
  return 1
}
if ! python=$(python310); then
  echo "no Python 3.10 here (python3.10 does not run, pyenv has none), and Habana's TensorFlow exists for no other: the Gaudi environment is not tested" >&2
  [ -n "${CI:-}" ] && exit 0
  echo "install one, or name it: make test-gaudi-env GAUDI_PYTHON=/path/to/python3.10" >&2
  exit 1
fi

# ---- the environment: made anew when what it must hold has changed ----
wanted=$("$python" - <<'END'
import re
from configparser import ConfigParser
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read("settings.ini", encoding="utf-8")
lines = lambda name: [line.strip() for line in settings["DEFAULT"][f"{name}requirements"].splitlines() if line.strip()]
# the kit's requirements but TensorFlow and Keras, and what runs its tests; NumPy 2 is younger than TensorFlow 2.15
kit = [line for line in lines("") if not re.match(r"(tensorflow|keras)\b", line)]
tools = [line for line in lines("dev_") if re.match(r"(pytest|pytest-xdist|hypothesis|setuptools)\b", line)]
print("\n".join([*kit, *tools, *lines("gaudi_"), "numpy<2", "tensorflow-cpu==2.15.0"]))
END
)
if [ "$(cat "$venv/installed.txt" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing TensorFlow 2.15.0, Keras 3.12.4 and Habana's plug-in into $venv (1.8 GB, a few minutes)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  install() { "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --progress-bar off --no-compile "$@"; }
  echo "$wanted" > "$venv/wanted.txt"
  install --requirement "$venv/wanted.txt"
  # Keras last, over TensorFlow's own wish (keras<2.16), of which pip complains: harmless, the tests below import both
  install keras==3.12.4 2>&1 | { grep -v "dependency resolver\|which is incompatible" || true; } >&2
  install --no-deps --no-build-isolation --editable .
  mv "$venv/wanted.txt" "$venv/installed.txt"
  echo "installed in $SECONDS s"
fi
python=$venv/bin/python
export KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3
unset SIGNVER_DATA  # tests on real data are `make test`'s

# ---- Habana's plug-in beside Keras 3: its Python part imports only with the kit's shim; its libraries stay unloaded, they abort without a driver ----
"$python" -c '
import keras, tensorflow
from signver_kit import devices
assert (tensorflow.__version__, keras.__version__) == ("2.15.0", "3.12.4"), (tensorflow.__version__, keras.__version__)
habana = devices._habana_for_tensorflow()
from habana_frameworks.tensorflow.distribute import HPUStrategy
print("the plug-in", habana.__version__[:20], "imports beside TensorFlow", tensorflow.__version__, "and Keras", keras.__version__)'

# ---- asking for a card that is not there: a line that says so, and no abort ----
if [ ! -e /sys/class/accel/accel0 ]; then
  code=0
  said=$("$python" -c "from signver_kit.devices import start_device; start_device('hpu')" 2>&1) || code=$?
  case "$code $said" in
    "1 "*"DeviceError: hpu was asked for, but no Gaudi card is visible"*) echo "asked for hpu, it ended with exit code $code: ${said##*$'\n'}" ;;
    *) echo "asking for an absent Gaudi card must end with exit code 1 and its message, got $code: $said" >&2; exit 1 ;;
  esac
fi

# ---- the tests of everything that computes with Keras ----
tests=(tests/test_devices.py tests/test_losses.py tests/test_anchors.py tests/test_backbones.py tests/test_training.py tests/test_cleaner.py
       tests/test_extractor.py tests/test_detector.py)
without=(
  # OpenVINO speeds up inference on Intel's processors and is no part of a Gaudi environment
  --deselect tests/test_detector.py::test_openvino_finds_the_same
)
[ $# -gt 0 ] && tests=("$@")
SECONDS=0
env -u CI "$python" -m pytest --hypothesis-seed=0 -n logical --maxprocesses 4 --dist worksteal "${without[@]}" "${tests[@]}"
echo "tested in $SECONDS s"
