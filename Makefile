# Everything runs in a virtual environment of its own, built on first use.
#   make demo                      the main job, on a local folder (STATES=s3://bucket/prefix for another storage)
#   make test                      all tests, short profiles
#   make test-long                 the slow suites in full: simulation, crash loops, mutants, a soak
#   make test-compose              all tests, also against MinIO and fake-gcs-server of docker-compose.yml
#   make contract                  the storage contract as a table, backend by test
#   make lint types docs           what CI checks besides
#   make bench                     figures beside the peers; installs those

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STATES ?= ./states
# Processes that share the tests; most of a test's time is waiting.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The tests start hundreds of processes: compile what they import once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv demo test test-long test-compose contract lint types docs format bench clean

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
	$(PYTEST) $(ARGS)

# What takes seconds in a short run takes minutes here.
test-long: $(READY)
	STATEVAULT_TEST_PROFILE=long $(BIN)/python -m pytest -m "long or not long" -o timeout=7200 -o faulthandler_timeout=7100 $(ARGS)

# MinIO and fake-gcs-server in containers, beside the servers that `make test` starts by itself.
test-compose: export AWS_ACCESS_KEY_ID = statevault
test-compose: export AWS_SECRET_ACCESS_KEY = statevault-secret
test-compose: export STATEVAULT_TEST_S3_ENDPOINT = http://127.0.0.1:9000
test-compose: export STATEVAULT_TEST_S3_BUCKET = statevault-test
test-compose: export STATEVAULT_TEST_GCS_ENDPOINT = http://127.0.0.1:4443
test-compose: $(READY)
	docker compose up --detach --wait
	docker compose run --rm minio-bucket
	$(PYTEST) $(ARGS)

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
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
