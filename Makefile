# make setup | demo | test | lint | clean. Another interpreter: make setup PYTHON=python3.12. Where pip finds packages is left to pip's own configuration.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := galirep cli pretrained_adapters

# faiss-gpu where there is a GPU that its wheels serve, else faiss-cpu; they install the same module, so never both
FAISS = $(shell [ "$$(uname -sm)" = "Linux x86_64" ] && nvidia-smi > /dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: setup demo test lint clean
.DEFAULT_GOAL := setup

setup: .venv/package

# tests and demo use the package as a user gets it: built and installed, not the source folder; the folders are named so that a deleted file counts as a change
.venv/package: pyproject.toml $(shell find $(PACKAGES) -not -path '*/__pycache__*') | .venv/dependencies
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation .
	touch $@

.venv/dependencies: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("galirep needs Python 3.10 or newer: make setup PYTHON=..." if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	rm -rf build
	$(BIN)/pip install ".[$(FAISS),test,lint]"
	touch $@

demo: setup
	$(BIN)/python benchmarks/demo.py

# one thread: the networks of the tests are too small for more, which wait on each other; OMP_NUM_THREADS=2 make test takes two
test: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest

# import-linter reads the installed package, and not the source folder, which lacks galirep.cli: so it starts in tests/
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd tests && ../$(BIN)/lint-imports --no-logo --no-cache ../pyproject.toml

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find $(PACKAGES) benchmarks tests -name __pycache__ -prune -exec rm -rf {} +
