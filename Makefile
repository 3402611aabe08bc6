# Needs Python >= 3.11 and make. Everything else is installed into $(VENV) on the first call and reused afterwards.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test check tables docs bench clean

help:
	@echo "make demo   set up, then re-check a claim: saccade reproduce proxy-anchor"
	@echo "make test   set up, then lint, types, import contracts, doctests and tests"
	@echo "make check  lint, types, import contracts and generated pages alone"
	@echo "make docs   the site, in site/   make bench  ours against the peers   make tables  refresh generated tables"

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Saccade needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing Saccade into $(VENV) (PyTorch is large: this takes some minutes once)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing Saccade and its development tools into $(VENV) (some minutes once)"
	$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base
	$(BIN)/saccade reproduce proxy-anchor

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal

tables: $(VENV)/.dev
	$(BIN)/python docs/generate.py

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev
	$(BIN)/saccade bench

clean:
	rm -rf $(VENV) build dist site runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
