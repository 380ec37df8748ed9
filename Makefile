# Two commands do everything: `make ablate` and `make test`. Both create the environment first if it is missing.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# which versions to install: `locked` (the tested ones, with hashes), `latest` or `oldest` that pyproject.toml admits
VERSIONS ?= locked
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 --extra dev pyproject.toml

unexport PYTHONDONTWRITEBYTECODE # the tests start many processes, each of which would compile the package again

.PHONY: help setup ablate model test tests test-latest test-oldest test-slow lint types format docs bench lock clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with umie and its development tools

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "umie needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "installing umie and its dependencies (including PyTorch: several GB, a few minutes) ..."
ifeq ($(VERSIONS),locked)
	@$(PIP) install -qq --require-hashes -r requirements.lock
else ifeq ($(VERSIONS),oldest)
	@$(PIP) install -qq uv
	@$(LOCK) --resolution lowest-direct --output-file $(VENV)/oldest.txt
	@$(PIP) install -qq -r $(VENV)/oldest.txt
else
	@$(PIP) install -qq --upgrade --editable '.[dev]'
endif
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

ablate: $(STAMP)  ## run the embedded ablation grid: table, CSV and figure in runs/embedded
	@$(BIN)/umie ablate examples/embedded.yaml

model: $(STAMP)  ## train a model to begin with, in runs/model/best: of tweets with DATA=FOLDER, else of the embedded set
ifdef DATA
	@$(BIN)/umie train examples/train_tweets.yaml --data-root $(DATA) --output runs/model
else
	@$(BIN)/umie train examples/train_first.yaml --output runs/model
endif

test: lint types tests  ## lint, type check and tests, in two processes of about 3 GiB each (WORKERS=1 for one)

tests: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-latest:  ## the tests with the newest versions that pyproject.toml admits, in an environment of its own
	$(MAKE) tests VENV=.venv-latest VERSIONS=latest

test-oldest:  ## the tests with the oldest versions that pyproject.toml admits
	$(MAKE) tests VENV=.venv-oldest VERSIONS=oldest

test-slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest --hypothesis-profile=thorough $$(grep -rl "import hypothesis\|from hypothesis" tests)

lint: $(STAMP)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## check types
	$(BIN)/mypy

format: $(STAMP)  ## format, and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation site in build/docs; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

bench: $(STAMP)  ## benchmarks (not part of the tests); those of the fusions as ratios in runs/bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds
	$(BIN)/umie bench

lock: $(STAMP)  ## renew requirements.lock: the newest versions that pyproject.toml admits, with hashes
	$(LOCK) --upgrade --generate-hashes --output-file requirements.lock

clean:  ## remove the environments and all caches; results in runs/ are kept
	rm -rf $(VENV) .venv-latest .venv-oldest build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
