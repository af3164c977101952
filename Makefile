# Two commands to know: `make demo` (the whole story on your machine) and `make test`. Both set `.venv` up first; the second time that takes no time.

SHELL := /bin/bash
# The first Python 3.11 or newer on the PATH; name another with `make PYTHON=/path/to/python3 ...`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v "$$p"; break; }; done)
BIN := .venv/bin
# More extras beside what a command needs, such as `make test EXTRAS=torch`. torch is never installed unasked: it is gigabytes and nothing in
# `make demo` or `make test` needs it. When asked for it is installed first, so that its pin holds and everything else fits around it.
EXTRAS ?=
comma := ,
WITH := $(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: demo demo-learn test check bench docs peers constraints clean setup-demo setup-dev python

demo: setup-demo
	@$(BIN)/watchkeeper demo $(ARGS)

demo-learn: python
	@"$(PYTHON)" .ci/venv.py ours 'examples,torch$(WITH)'
	@$(BIN)/watchkeeper demo --learn $(ARGS)

test: setup-dev
	@$(BIN)/python -m pytest $(ARGS)

check: setup-dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest tests/test_docs.py

bench: setup-dev
	@$(BIN)/python -m benchmarks $(ARGS)

docs: setup-dev
	@$(BIN)/python -m docs.generate

# Servers nobody here wrote, each in an environment of its own outside the repository; the tests that speak to them skip at a desk without it.
peers: python
	@for wants in .ci/peers/*.txt; do "$(PYTHON)" .ci/venv.py peer "$$(basename "$$wants" .txt)" || exit; done

# The pins anew, from the newest of everything: read the difference, run the tests, commit it.
constraints: python
	@"$(PYTHON)" .ci/venv.py pins

clean:
	rm -rf .venv .venv.lock .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo: python
	@"$(PYTHON)" .ci/venv.py ours 'examples$(WITH)'

setup-dev: python
	@"$(PYTHON)" .ci/venv.py ours 'dev$(WITH)'

python:
	@test -n "$(PYTHON)" || { echo "set-up: no Python 3.11 or newer was found on the PATH; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "set-up: $(PYTHON) is not a Python 3.11 or newer" >&2; exit 2; }
