# make run: install and search the built-in corpus. make test: the same, and lint, types, tests.

PYTHON ?= python3
BIN := .venv/bin
DEMO := $(BIN)/genre-search run --config configs/demo.yaml

.PHONY: run test check clean

run: .venv/installed
	$(DEMO)

test: check
	$(BIN)/python -m pytest

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo 'Installing into .venv: some minutes and 6 GB the first time, most of it torch'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
