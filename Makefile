# `make help` tells the targets. Everything lives in $(VENV); uv is used where it is on PATH, plain pip where it is not.
PY ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
PYTEST := $(BIN)/python -m pytest
CHECKED := shared control_plane executor_manager executor client scripts deploy tests

.DEFAULT_GOAL := help
.PHONY: health stress
.PHONY: help setup demo up test fuzz chaos rough storm rolling soak crowd engines test-engines compose-smoke bench check docs clean lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the environment from the lock

demo: $(STAMP) ## Start a whole stack, run one scripted run through it, stop everything
	$(BIN)/runyard demo

up: $(STAMP) ## Start a local stack and keep it running until Ctrl-C
	$(BIN)/runyard up

test: $(STAMP) ## Run all tests but those that need engine CLIs (test-engines), kill parts of a stack (chaos) or bend its network (rough)
	$(PYTEST) -m "not engine and not chaos and not rough" -n 3 --dist worksteal

fuzz: $(STAMP) ## Ask the services for whatever their documents allow, and for what they do not, at length
	RUNYARD_FUZZ_EXAMPLES=$${RUNYARD_FUZZ_EXAMPLES:-200} $(PYTEST) tests/service -k schemathesis

chaos: $(STAMP) ## Kill and freeze the parts of running stacks, one at a time
	$(PYTEST) -m chaos -n 2 --dist worksteal

rough: $(STAMP) ## Bend the network between the parts, turn their clocks, restart everything in turn under load
	$(PYTEST) -m rough

storm: $(STAMP) ## A thousand random kills under a hundred runs at once, checked; an hour (STORM="--seeds 1 --kills 50" for less)
	$(BIN)/python -m tests.chaos.storm $(STORM)

rolling: $(STAMP) ## Restart every service of a stack in turn, under 200 runs with a client each (ROLLING="--runs 50" for less)
	$(BIN)/python -m tests.chaos.rolling $(ROLLING)

soak: $(STAMP) ## Ten thousand runs through one stack: does its memory stay what it was? 10 to 20 minutes (SOAK="--runs 3000" for less)
	$(BIN)/python -m tests.chaos.soak $(SOAK)

crowd: $(STAMP) ## A thousand runs at once, an event a second each: is one lost? (CROWD="--runs 200" for less)
	$(BIN)/python -m tests.chaos.soak.crowd $(CROWD)

engines: $(STAMP) ## Install the pinned engine CLIs
	$(BIN)/python scripts/install_engines.py

test-engines: engines ## Run the tests that drive the real engine CLIs against a model stub (ALL=1: every case of every engine; AGAIN=1: what failed, alone)
	$(PYTEST) -m engine $(if $(AGAIN),--last-failed --last-failed-no-failures none,-n 2 --dist worksteal)

health: $(STAMP) ## Ask the stack that is up whether a provider can be used (HEALTH="--provider codex --strict")
	scripts/provider-runtime-health-check.sh $(HEALTH)

stress: $(STAMP) ## Give the stack that is up many runs at once (STRESS="--provider codex --runs 5 --concurrency 2")
	scripts/e2e-portal-real-provider-stress.sh $(or $(STRESS),--provider scripted --runs 50 --concurrency 10)

compose-smoke: $(STAMP) ## Build the containers, run runs through them, kill them one at a time (needs Docker)
	$(BIN)/python scripts/compose_smoke.py

check: $(STAMP) ## Lint, import contracts, own rules, types, unit and contract tests
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/python scripts/lint_architecture.py
	$(BIN)/pyright
	$(PYTEST) -q -m "not engine" tests/unit tests/contract

bench: $(STAMP) ## Measure our code against its limits and its rivals (BENCH="append relay --quick" for less)
	$(BIN)/python -m tests.bench $(BENCH)

docs: $(STAMP) ## Print the generated parts of the documents and the OpenAPI files anew
	$(BIN)/python scripts/print_lifecycle.py --write
	$(BIN)/python scripts/print_architecture.py --write
	$(BIN)/python scripts/print_reference.py --write
	$(BIN)/python scripts/print_options.py --write
	$(BIN)/python scripts/print_openapi.py --write
	$(BIN)/python scripts/print_contracts.py --write

clean: ## Delete the environment, the engines and every cache
	rm -rf $(VENV) engines/node_modules .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache dist
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +

lock: ## Make requirements.lock anew from pyproject.toml (needs uv)
	$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --extra local --group dev --group build pyproject.toml -o requirements.lock

$(STAMP): requirements.lock pyproject.toml
ifneq ($(UV),)
	$(UV) venv -q --allow-existing --python $(PY) $(VENV)
	$(UV) pip sync -q --python $(VENV) --require-hashes requirements.lock
	$(UV) pip install -q --python $(VENV) --no-deps --no-build-isolation -e .
else
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@
