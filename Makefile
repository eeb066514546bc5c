# `make run` and `make test` need nothing but Python 3.11 or later, make and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || \
	command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COUNT ?= 5000
INSTANCE ?= instances/production/llama3-70b-fp8-8xh100.yaml

.PHONY: run test lint format fuzz bench setup clean

run: $(READY)
	$(BIN)/shardwright solve $(INSTANCE)

test: lint
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --count $(COUNT)

bench: $(READY)
	$(BIN)/python -m benchmarks.solve

setup: $(READY)

# Dependency groups need pip 25.1; older ones are upgraded inside the environment.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --help | grep -q -e --group || \
		$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
