#!/usr/bin/env bash
# An environment that .venv is not, made in .venv-NAME, and in it, on its CPU, the kit's tests of everything that computes with Keras. NAME is one of
#   gaudi   a Gaudi machine under TensorFlow: Python 3.10, TensorFlow 2.15.0, Keras 3.12.4, Habana's plug-in 1.14.0  (make test-gaudi-env)
#   torch   Keras on PyTorch, without TensorFlow                                                                     (make test-torch)
#   jax     Keras on JAX, without TensorFlow                                                                         (make test-jax)
# Further arguments go to pytest. GAUDI_PYTHON, TORCH_PYTHON, JAX_PYTHON name the Python; GAUDI_VENV, TORCH_VENV, JAX_VENV another folder.
set -eu
cd "$(dirname "$0")/.."
name=${1:-}
[ $# -gt 0 ] && shift
case $name in
  gaudi) backend=tensorflow needs="3.10" own_python=${GAUDI_PYTHON:-python3.10} venv=${GAUDI_VENV:-.venv-gaudi} size="1.8 GB" ;;
  torch) backend=torch needs="3.10 3.11 3.12 3.13" own_python=${TORCH_PYTHON:-${PYTHON:-python3}} venv=${TORCH_VENV:-.venv-torch} size="1.6 GB" ;;
  jax) backend=jax needs="3.11 3.12 3.13" own_python=${JAX_PYTHON:-${PYTHON:-python3}} venv=${JAX_VENV:-.venv-jax} size="1.3 GB" ;;
  *) echo "usage: .ci/other_env.sh gaudi|torch|jax [pytest's arguments], got '$name'" >&2; exit 2 ;;
esac

find_python() {  # one of the right version that runs: pyenv's python3.10 on the PATH may be a stub that does not
  for candidate in "$own_python" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case " $needs " in *" $version "*) echo "$candidate"; return ;; esac
  done
  return 1
}
if ! python=$(find_python); then
  if [ "$name" = gaudi ]; then
    echo "no Python 3.10 here (python3.10 does not run, pyenv has none), and Habana's TensorFlow exists for no other: the Gaudi environment is not tested" >&2
    [ -n "${CI:-}" ] && exit 0
    echo "install one, or name it: make test-gaudi-env GAUDI_PYTHON=/path/to/python3.10" >&2
  else
    echo "Keras on $name needs one of Python $needs here, $own_python is none: make test-$name PYTHON=python3.12" >&2
  fi
  exit 1
fi

# ---- the environment: made anew when what it must hold has changed ----
wanted=$("$python" - "$name" <<'END'
import re, sys
from configparser import ConfigParser
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read("settings.ini", encoding="utf-8")
lines = lambda name: [line.strip() for line in settings["DEFAULT"][f"{name}requirements"].splitlines() if line.strip()]
name = sys.argv[1]
# the kit's requirements but TensorFlow, and what runs its tests
kit = [line for line in lines("") if not re.match(r"(tensorflow|keras)\b" if name == "gaudi" else r"tensorflow\b", line)]
tools = [line for line in lines("dev_") if re.match(r"(pytest|pytest-xdist|hypothesis|setuptools)\b", line)]
# the versions that the tests are known to pass with: TensorFlow 2.15 is older than NumPy 2; a bare `torch` would be the newest, with CUDA's libraries (see CONTRIBUTING.md)
own = {"gaudi": ["numpy<2", "tensorflow-cpu==2.15.0"], "torch": ["torch==2.13.0"], "jax": []}
print("\n".join([*kit, *tools, *lines(f"{name}_"), *own[name]]))
END
)
if [ "$(cat "$venv/installed.txt" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing what Keras needs on $name into $venv ($size, a few minutes)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  install() { "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --progress-bar off --no-compile "$@"; }
  echo "$wanted" > "$venv/wanted.txt"
  install --requirement "$venv/wanted.txt"
  if [ "$name" = gaudi ]; then
    # Keras last, over TensorFlow's own wish (keras<2.16), of which pip complains: harmless, the tests below import both
    install keras==3.12.4 2>&1 | { grep -v "dependency resolver\|which is incompatible" || true; } >&2
  fi
  install --no-deps --no-build-isolation --editable .
  mv "$venv/wanted.txt" "$venv/installed.txt"
  echo "installed in $SECONDS s"
fi
python=$venv/bin/python
export KERAS_BACKEND=$backend TF_CPP_MIN_LOG_LEVEL=3
unset SIGNVER_DATA  # tests on real data are `make test`'s

tests=(tests/test_devices.py tests/test_losses.py tests/test_anchors.py tests/test_backbones.py tests/test_training.py tests/test_cleaner.py
       tests/test_extractor.py tests/test_detector.py tests/test_backends.py)
without=(
  # OpenVINO speeds up inference on Intel's processors and is no part of these environments
  --deselect tests/test_detector.py::test_openvino_finds_the_same
)

if [ "$name" = gaudi ]; then
  # ---- Habana's plug-in beside Keras 3: its Python part imports only with the kit's shim; its libraries stay unloaded, they abort without a driver ----
  "$python" -c '
import keras, tensorflow
from signver_kit import devices
assert (tensorflow.__version__, keras.__version__) == ("2.15.0", "3.12.4"), (tensorflow.__version__, keras.__version__)
habana = devices._habana_for_tensorflow()
from habana_frameworks.tensorflow.distribute import HPUStrategy
print("the plug-in", habana.__version__[:20], "imports beside TensorFlow", tensorflow.__version__, "and Keras", keras.__version__)'
else
  # ---- nothing of the kit needs TensorFlow here ----
  "$python" -c '
import importlib, importlib.util, pkgutil
import keras, signver_kit
assert importlib.util.find_spec("tensorflow") is None, "TensorFlow is installed here: this environment is to show that the kit works without"
modules = [module.name for module in pkgutil.iter_modules(signver_kit.__path__) if not module.name.startswith("_")]
for module in modules:
    importlib.import_module("signver_kit." + module)
print(len(modules), "modules import without TensorFlow; Keras", keras.__version__, "on", keras.backend.backend())'
  tests+=(tests/test_distribution.py tests/test_throughput.py)
fi

# ---- asking for a card that is not there: a line that says so, and no abort ----
if [ ! -e /sys/class/accel/accel0 ]; then
  code=0
  said=$("$python" -c "from signver_kit.devices import start_device; start_device('hpu')" 2>&1) || code=$?
  case "$code $said" in
    "1 "*"DeviceError: hpu was asked for, but no Gaudi card is visible"*) echo "asked for hpu, it ended with exit code $code: ${said##*$'\n'}" ;;
    *) echo "asking for an absent Gaudi card must end with exit code 1 and its message, got $code: $said" >&2; exit 1 ;;
  esac
fi

[ $# -gt 0 ] && tests=("$@")
SECONDS=0
env -u CI "$python" -m pytest --hypothesis-seed=0 -n logical --maxprocesses 4 --dist worksteal "${without[@]}" "${tests[@]}"
echo "tested in $SECONDS s"
