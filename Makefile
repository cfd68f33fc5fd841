# Everything a developer or a new user runs. `make` prints this list.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run demo setup test test-full lint format types imports docs lock bench-decide bench-relay clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: requirements.lock pyproject.toml
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tidegate needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.dev ## make the environment, with all that developing needs

run: $(VENV)/.run ## two real engines, the gateway and a tour of decisions; ONCE=1 exits after the tour, VERIFY=1 runs both choices
	@exec $(BIN)/tidegate demo $(if $(ONCE),--once) $(if $(VERIFY),--verify)

test: lint types imports ## lint, types, import contract and the tests: under five minutes on two cores
	$(PYTEST) -m "not slow"

test-full: $(VENV)/.dev ## the slow suites too
	$(PYTEST) -m "slow"

lint: $(VENV)/.dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## put the style right where that needs no thought
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/.dev ## the layers
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev ## write the generated reference pages
	$(BIN)/python -m docs.reference

bench-decide: $(VENV)/.dev ## CPU of one decision, by number of candidates
	$(BIN)/python -m bench.decide

bench-relay: $(VENV)/.dev ## CPU of the gateway per request and per chunk; RIG names the folder of the measuring rig
	$(BIN)/python -m bench.relay --rig "$(RIG)"

lock: ## resolve the dependencies anew
	$(BIN)/uv pip compile pyproject.toml requirements-build.in --extra demo $(LOCK) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml requirements-build.in --extra demo --group dev $(LOCK) -o requirements-dev.lock
LOCK := --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## remove what can be made again
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
