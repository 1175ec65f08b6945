# Everything runs in a virtual environment of its own, built on first use.
#   make demo                      the main job, on a local folder (STATES=s3://bucket/prefix for another storage)
#   make test                      all tests, short profiles
#   make test-long                 the slow suites in full: crash loops, fuzzing
#   make lint types docs           what CI checks besides

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STATES ?= ./states
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help venv demo test test-long contract lint types docs format bench clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/statevault demo --states "$(STATES)"

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

test-long: $(READY)
	STATEVAULT_TEST_PROFILE=long $(BIN)/python -m pytest -m "long or not long" $(ARGS)

contract: $(READY)
	$(BIN)/python -m tests.storage.table

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m pytest tests/docs

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
