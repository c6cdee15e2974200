# Two commands: `make demo` shows what the zoo does, `make test` checks all of it.
# Each sets up what it needs in .venv with pip; PYTHON chooses the interpreter (3.11 or newer).
# `make test-slow` runs every slow test, `make test-slow SHARE=2/3` a third of those that rotate.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHARE ?= 1/1
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-slow docs clean

demo: $(VENV)/.installed
	$(BIN)/zoo demo

test: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --durations 10 -m "not slow"

test-slow: $(VENV)/.installed-for-tests
	$(BIN)/pytest -n auto --dist loadgroup --durations 10 -m slow --share $(SHARE)

docs: $(VENV)/.installed-for-tests
	$(BIN)/sphinx-build -W --keep-going -n -b html docs docs/_build/html

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-for-tests: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable ".[test]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
