# make demo    a trained extractor, its error rates and plots, in minutes: on synthetic signatures, or make demo DATA=DIR on CEDAR
# make test    everything that CI runs, but for `make docs` and `make test-gaudi-env`
# make test-gaudi-env   what computes, where Gaudi's TensorFlow can live: Python 3.10, TensorFlow 2.15, Keras 3.12, in .venv-gaudi; GAUDI_TESTS=... for some of it
# make test-backends    what computes, with Keras on PyTorch and on JAX, without TensorFlow, in .venv-torch and .venv-jax; test-torch, test-jax: one of them;
#                       BACKEND_TESTS=... for some of it
# make lab     JupyterLab on the tutorials
# make bench   a benchmark: make bench NAME=verification PRESET=cedar DATA=path/to/data
# make docs    the pages as HTML, in site/
# make export  nbs/ -> signver_kit/        make clean-notebooks   strip what a run leaves in the notebooks
# make readme  nbs/index.ipynb -> README.md
# Everything else is installed into .venv, which is made with PYTHON and made up to date when the requirements change.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off --no-compile
SETUP  := settings.ini setup.py pyproject.toml

# At most four processes: each loads TensorFlow (about 1 GB).
PYTEST_ARGS ?= -n logical --maxprocesses 4 --dist worksteal
NAME   ?= verification
PRESET ?= synthetic
DATA   ?=
GAUDI_TESTS ?=
BACKEND_TESTS ?=

# one line a setting: Keras's backend, and no C++ chatter
export KERAS_BACKEND        ?= tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 3
# pip compiles nothing (--no-compile), so Python must keep what it compiles, though a container may forbid it: the tests start many processes, and each
# would compile TensorFlow anew, or at least Matplotlib and Pandas
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-gaudi-env test-torch test-jax test-backends lab bench docs export clean-notebooks readme
help:
	@sed -n 's/^# //p' Makefile

demo: $(VENV)/.kit
	@$(BIN)/signver bench verification $(if $(DATA),--data $(DATA))

test: $(VENV)/.kit-dev
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-gaudi-env:
	@.ci/other_env.sh gaudi $(GAUDI_TESTS)

test-torch test-jax: test-%:
	@PYTHON=$(PYTHON) .ci/other_env.sh $* $(BACKEND_TESTS)

test-backends: test-torch test-jax

lab: $(VENV)/.kit-dev
	@$(BIN)/jupyter lab tutorials

bench: $(VENV)/.kit
	@$(BIN)/signver bench $(NAME) --preset $(PRESET) $(if $(DATA),--data $(DATA))

docs: $(VENV)/.kit-docs
	@$(BIN)/python .ci/docs.py

export: $(VENV)/.kit-dev
	@$(BIN)/nbdev_export

clean-notebooks: $(VENV)/.kit-dev
	@for folder in nbs tutorials benchmarks; do $(BIN)/nbdev_clean --fname $$folder; done

readme: $(VENV)/.kit-dev
	@$(BIN)/python .ci/readme.py

# pyvenv.cfg is what `python -m venv` writes
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("signver_kit needs Python 3.10 to 3.13, $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.kit: $(VENV)/pyvenv.cfg $(SETUP)
	@echo "Installing signver_kit and what it needs into $(VENV) (TensorFlow is large: a few minutes, about 3 GB)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.kit-dev: $(VENV)/pyvenv.cfg $(SETUP)
	@echo "Installing signver_kit with its development tools into $(VENV) (TensorFlow is large: a few minutes, about 3 GB)"
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.kit $@

$(VENV)/.kit-docs: $(VENV)/pyvenv.cfg $(SETUP)
	@echo "Installing signver_kit and what makes its pages into $(VENV) (TensorFlow is large: a few minutes, about 3 GB)"
	@$(PIP) --editable '.[docs]'
	@touch $(VENV)/.kit $@
