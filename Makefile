# make run: the default pipeline into results/default.   make test: the tests.   make docs: docs/_build/index.html.
# make breakages: break the code line by line; each time a test must fail. It takes an hour or more.
# make gpu: tests and rates on a CUDA card. No measurement begins after six minutes.
# Each makes .venv first. Another Python or configuration: make run PYTHON=python3.12 CONFIG=config/test.yaml

PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
PIP_OPTIONS ?=
BIN := .venv/bin

# Names of files and folders reach the shell as environment variables: they may hold spaces, quotes and dollar signs.
export CONFIG
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test breakages gpu lint docs constraints clean

run: .venv/installed
	$(BIN)/snakemake --cores $(CORES) --configfile "$$CONFIG"

test: .venv/installed
	$(BIN)/python -X warn_default_encoding -m pytest \
	  --dist loadfile --no-loadscope-reorder --tx "3*popen//python=$(BIN)/python -X warn_default_encoding"

breakages: .venv/installed
	$(BIN)/python tests/breakages.py

# It uses the PyTorch of $(PYTHON), where there is one.
gpu:
	@nvidia-smi --list-gpus 2> /dev/null || { echo "make gpu: nvidia-smi finds no card; run it on a machine with a CUDA card" >&2; exit 1; }
	test -d .venv-gpu || $(PYTHON) -m venv --system-site-packages .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet $(PIP_OPTIONS) --editable . pytest
	.venv-gpu/bin/python benchmarks/gpu.py

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going --fresh-env --quiet docs docs/_build

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

constraints: .venv/installed
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^+]*$$//' > constraints.txt

clean:
	rm -rf .venv
