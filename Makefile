# Shorthands for a checkout; CI runs .ci/run. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install test examples lint format docs serve reference demo ci clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: ## make a virtual environment in .venv with everything the tests and docs need
	$(PYTHON) -m venv .venv && $(BIN)/pip install -e ".[dev]"

demo: ## run the embedded model on the embedded clip
	$(BIN)/framewire demo

test: ## run the whole test suite
	$(BIN)/python -m pytest -n auto

examples: ## run every example
	$(BIN)/python -m pytest examples

lint: ## check style, types and import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: ## build the documentation site into build/site, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: ## serve the documentation on http://127.0.0.1:8000 and rebuild it on changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

reference: ## regenerate configs/reference.yaml and docs/schema from the code
	$(BIN)/python tools/make/make_reference_config.py && $(BIN)/python tools/make/make_wire_schema.py

ci: ## run everything that CI runs, in a fresh environment
	bash .ci/run

clean: ## remove what was built
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
