# Shortcuts for people; `.ci/run` is what counts, and it needs no make.
PYTHON ?= python3

.PHONY: setup format check test test-slow docs demo wheel clean

setup:  ## install into the active environment, ready to work on
	pip install -c constraints.txt -e '.[dev]'

format:  ## put the code in order
	ruff check --fix
	ruff format

check:  ## all that .ci/run checks, in the active environment
	bash .ci/run --here

test:  ## the tests of every change
	pytest

test-slow:  ## those that take longer: wheel, whole runs
	pytest -m slow

docs:  ## write docs/cli.md again
	$(PYTHON) docs/generate.py

demo:  ## the whole pipeline, about a minute
	ttv demo --out ttv-demo

wheel:  ## dist/*.whl
	pip wheel --no-deps --wheel-dir dist .

clean:  ## what builds and tests leave behind
	rm -rf build dist .venv-ci .pytest_cache .ruff_cache .mypy_cache ttv-demo
