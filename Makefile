# make run: install, and search the built-in corpus. make test: install, lint, check types, run the tests.

PYTHON ?= python3
BIN := .venv/bin
DEMO := $(BIN)/genre-search run --config configs/demo.yaml
GPU_DEVICE ?= cuda

.PHONY: install run test check bench chaos gpu clean

install: .venv/installed

run: .venv/installed
	$(DEMO)

# Two workers share the tests file by file; the files that use the shared Ray all go to one of them.
test: check
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# make bench DATA=manifest.csv BENCH='--weights vgg16=vgg16.pth --repeats 2'
bench: .venv/installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/compare.py --data $(DATA) $(BENCH)

# make chaos: the long tests, then searches whose drivers, workers, helpers and nodes are killed
chaos: .venv/installed-dev
	$(BIN)/python -m pytest -m long
	PYTHONPATH=tests:tests/support $(BIN)/python tests/chaos --results benchmarks/results/chaos.json

# make gpu: the tests that need a GPU, then its benchmark; with GPU_DEVICE=cpu, both on the CPU.
# Without Ray and .venv: make gpu BIN_PYTHON=python3. Another torch may warn of other things, which fails no test.
BIN_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(BIN_PYTHON)),.venv/installed-dev)
	GPU_DEVICE=$(GPU_DEVICE) PYTHONPATH=. $(BIN_PYTHON) -m pytest --noconftest -m gpu -rA -W default tests/gpu
	PYTHONPATH=. $(BIN_PYTHON) benchmarks/gpu.py --device $(GPU_DEVICE) $(GPU)

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
