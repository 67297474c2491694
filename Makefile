# make run: install and search the built-in corpus. make test: install, lint, check types, build the docs, run the tests.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo-$(shell date +%Y%m%d-%H%M%S)
GPU_DEVICE ?= cuda
# pip shows its downloads on a terminal and is quiet elsewhere.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $$([ -t 2 ] || echo --quiet) \
	--constraint constraints.txt --editable

.PHONY: install run test check bench chaos gpu clean

install: .venv/installed

run: .venv/installed
	$(BIN)/genre-search run --config configs/demo.yaml --name $(DEMO)
	$(BIN)/genre-search report runs/$(DEMO)
	@echo 'Open it in a browser: file://$(CURDIR)/runs/$(DEMO)/report.html'

# Two processes share the test files; the files that use the shared Ray all run in one of them.
test: check
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# make bench DATA=manifest.csv BENCH='--weights vgg16=vgg16.pth --repeats 2'
bench: .venv/installed-dev
	$(PIP_INSTALL) '.[bench]'
	$(BIN)/python benchmarks/compare.py --data $(DATA) $(BENCH)

# make chaos: the long tests, then searches whose drivers, workers, helpers and nodes are killed
chaos: .venv/installed-dev
	$(BIN)/python -m pytest -m long
	PYTHONPATH=tests:tests/support $(BIN)/python tests/chaos --results benchmarks/results/chaos.json

# make gpu: the tests that need a GPU, then the GPU benchmark; with GPU_DEVICE=cpu, both run on the CPU.
# Without Ray and .venv: make gpu BIN_PYTHON=python3. Warnings do not fail these tests, because torch versions differ.
BIN_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(BIN_PYTHON)),.venv/installed-dev)
	GPU_DEVICE=$(GPU_DEVICE) PYTHONPATH=. $(BIN_PYTHON) -m pytest --noconftest -m gpu -rA -W default tests/gpu
	PYTHONPATH=. $(BIN_PYTHON) benchmarks/gpu.py --device $(GPU_DEVICE) $(GPU)

# CPU-only builds are smaller, but the default index has none for Linux. With another index that has torch, torchvision
# and torchaudio in the pinned versions (not tested): make install PIP_EXTRA_INDEX_URL=URL. A CPU build of torch does not
# work with CUDA builds of the other two.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo 'Installing into .venv, once: 3 GB to download and 6 GB on disk, most of it torch with the CUDA libraries,'
	@echo 'which it needs even without a GPU. This takes a few minutes.'
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP_INSTALL) '.[dev]'
	touch $@

clean:
	rm -rf .venv
