# make run: the default pipeline into results/default.   make test: the tests.
# Both make .venv first. Another Python or configuration: make run PYTHON=python3.12 CONFIG=config/test.yaml

PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
PIP_OPTIONS ?=
BIN := .venv/bin

.PHONY: run test lint constraints clean

run: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)

test: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints: .venv/installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^+]*$$//' > constraints.txt

clean:
	rm -rf .venv
