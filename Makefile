# make demo and make test work on a fresh machine: they make .venv first, and need python3 (3.11+) and an index only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo

# uv does not look where pip is told to look for local wheels.
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

.PHONY: help setup demo fmt lint test nightly bench golden build clean

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	@echo "• making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check uv

$(VENV)/.demo: pyproject.toml | $(BIN)/uv
	@echo "• installing modelrel and what the demo needs"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/uv
	@echo "• installing modelrel and what its tests need"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $@

setup: $(VENV)/.dev  ## make the environment for work on modelrel

demo: $(VENV)/.demo  ## train two models, register them, release and promote both (no server, no Docker engine needed)
	@$(BIN)/python -m modelrel.demo $(DEMO)

fmt: $(VENV)/.dev  ## format the code
	$(BIN)/ruff format modelrel tests bench
	$(BIN)/ruff check --fix-only --quiet modelrel tests bench

lint: $(VENV)/.dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check modelrel tests bench
	$(BIN)/ruff check modelrel tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

# passive: threads of one process that spin while they wait take the cores from the other
test: $(VENV)/.dev  ## all tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

nightly: $(VENV)/.dev  ## tests of random models and hostile requests, many more than usual and new ones each time
	$(BIN)/python -m pytest -n 2 --hypothesis-profile nightly tests/formats/test_tree_agreement.py $(PYTEST)
	$(BIN)/python bench/fuzz.py

bench: $(VENV)/.dev  ## measure against peers, in one run (fetches the peers into bench/.venvs)
	$(BIN)/python bench/start.py
	$(BIN)/python bench/load.py
	$(BIN)/python bench/convert.py
	$(BIN)/python bench/phone.py
	$(BIN)/python bench/lambda_start.py
	. .ci/docker.sh && $(BIN)/python bench/images.py

golden: $(VENV)/.dev  ## rewrite the golden files of the templates; read the diff before you commit it
	$(BIN)/python -m pytest tests/targets --golden $(PYTEST)

build: $(VENV)/.dev  ## the wheel and the source archive, into build/
	$(BIN)/uv build --quiet --python $(BIN)/python --out-dir build

clean:  ## remove everything that was made here
	rm -rf $(VENV) $(DEMO) build .mypy_cache .ruff_cache .pytest_cache bench/.venvs bench/results
