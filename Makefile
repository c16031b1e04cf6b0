# Shorthands for a checkout; CI runs .ci/run.
.PHONY: install test lint ci
install:
	python3 -m venv .venv && .venv/bin/pip install -e ".[test]"
test:
	.venv/bin/python -m pytest
lint:
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
ci:
	bash .ci/run
