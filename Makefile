# `make demo` and `make test` do all the set-up on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export TF_CPP_MIN_LOG_LEVEL ?= 2

# All but the tests of the package as such and of the benchmarks.
CORE := tests --ignore tests/benchmarks --ignore tests/test_project.py \
	--ignore tests/test_docs.py
# What another backend does in its own way; TensorFlow has tested the rest.
OWN := tests/backends tests/test_methods.py tests/test_training_progress.py \
	tests/test_ascent.py tests/test_selection.py \
	tests/trainers/test_reference_step.py tests/trainers/test_step_graph.py \
	tests/trainers/test_own_loop.py tests/trainers/test_mixed_precision.py \
	tests/analysis/test_hessian_eigenvalues.py tests/analysis/test_stateless.py
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all test-jax test-torch test-keras-lowest \
	test-keras-nightly lint format docs dist clean

demo: $(INSTALLED)
	$(BIN)/python -m examples.digits

test: lint
	$(PYTEST)
	KERAS_BACKEND=jax $(PYTEST) $(OWN)

# For the night: also what takes long, more generated cases, and whether tests
# see the defects that are planted.
test-all: export HYPOTHESIS_PROFILE := night
test-all: lint
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[torch,ray]"
	$(PYTEST) -m ""
	KERAS_BACKEND=jax $(PYTEST) $(CORE) -m ""
	KERAS_BACKEND=torch $(PYTEST) $(CORE) -m ""
	$(BIN)/python -m tests.planted_defects

test-jax: lint
	KERAS_BACKEND=jax $(PYTEST) $(CORE)

test-torch: lint
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	KERAS_BACKEND=torch $(PYTEST) $(CORE)

# With another Keras, in an environment of its own.
test-keras-lowest:
	$(MAKE) .venv-keras-lowest/.installed VENV=.venv-keras-lowest
	.venv-keras-lowest/bin/python -m pip install --quiet "keras==3.13.*"
	.venv-keras-lowest/bin/python -m pytest -n 2 --dist worksteal $(CORE)

test-keras-nightly:
	$(MAKE) .venv-keras-nightly/.installed VENV=.venv-keras-nightly
	.venv-keras-nightly/bin/python -m pip uninstall --quiet --yes keras
	.venv-keras-nightly/bin/python -m pip install --quiet --pre keras-nightly
	.venv-keras-nightly/bin/python -m pytest -n 2 --dist worksteal $(CORE)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

dist: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv* build dist runs

# Of the many modules few are imported, which compiles them.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt \
		-e ".[tensorflow,analysis,examples,dev]"
	touch $(INSTALLED)
