# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
SHELL := /bin/bash
BIN := .venv/bin
WITH_DOCKER := scripts/with-docker
PYTEST_ARGS ?=
AUDIT_ARGS ?=
GUEST_ARGS ?=
STRESS_ARGS ?=
CHAOS_ARGS ?=
HOSTS_ARGS ?=

.PHONY: help setup console pictures demo dev test matrix check lint types imports test-images unit cover image lock bench stress soak chaos hosts compare verify guest audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing; quiet when nothing is
	@scripts/bootstrap

console: ## Build the pages for people, at /console; `setup` does it too
	@scripts/console

pictures: setup image ## Take the pictures of the console in docs/operations/console
	$(WITH_DOCKER) $(BIN)/python -m tests.support.pictures

demo: setup ## Run the main job once, on real parts, and show it
	@$(WITH_DOCKER) $(BIN)/runner demo

dev: setup image ## Keep everything running until Ctrl-C
	@$(WITH_DOCKER) $(BIN)/runner dev

image: setup ## Build the sandbox image; cached
	@$(WITH_DOCKER) $(BIN)/runner images build

check: setup ## Lint, format, types, import rules; all at once
	@$(MAKE) --no-print-directory --jobs --output-sync lint types imports

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports --no-cache

unit: setup ## The tests that need no services
	scripts/run-tests tests/unit tests/architecture $(PYTEST_ARGS)

test: setup ## Everything: checks, then all tests, on real Docker, Redis and PostgreSQL
	WITH_DOCKER_RUNTIME="runsc crun" $(WITH_DOCKER) \
	  $(MAKE) --no-print-directory --jobs --output-sync lint types imports test-images
	WITH_DOCKER_RUNTIME="runsc crun" $(WITH_DOCKER) scripts/run-tests $(PYTEST_ARGS)

# Made beside the checks: mypy keeps one processor busy, and dpkg seldom more than the other.
test-images:
	$(BIN)/runner images build python data code base code-interpreter-v1 librechat

matrix: setup ## What `test` samples or leaves out: all cases, SDKs, suites of frameworks, three hosts
	WITH_DOCKER_RUNTIME="runsc crun" $(WITH_DOCKER) bash -c \
	  '$(BIN)/runner images build python base code-interpreter-v1 && $(BIN)/pytest -m matrix $(PYTEST_ARGS)'

cover: setup ## All tests with coverage measured
	WITH_DOCKER_RUNTIME="runsc crun" $(WITH_DOCKER) bash -c '$(BIN)/runner images build python data code base code-interpreter-v1 librechat && \
	  $(BIN)/pytest --cov --cov-report=term $(PYTEST_ARGS)'

bench: setup image ## Speed and cost, all of it, in one run; writes docs/performance.md
	WITH_DOCKER_RUNTIME=runsc $(WITH_DOCKER) $(BIN)/python -m benchmarks.performance

stress: setup image ## Attacks and faults beside a quiet tenant: STRESS_ARGS='--minutes 60'
	$(WITH_DOCKER) $(BIN)/python -m benchmarks.stress $(STRESS_ARGS)

soak: setup image ## A hundred living sandboxes while their worker is killed: SOAK_ARGS='--processes 10000'
	$(WITH_DOCKER) $(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

chaos: setup image ## Each fault of the catalogue ten times, under load: CHAOS_ARGS='--faults 2,13'
	$(WITH_DOCKER) $(BIN)/python -m benchmarks.chaos $(CHAOS_ARGS)

hosts: setup image ## Three hosts that fail, are drained, added and upgraded: HOSTS_ARGS='--events power,slow'
	$(WITH_DOCKER) $(BIN)/python -m benchmarks.hosts $(HOSTS_ARGS)

compare: setup image ## The same attacks in four containers; writes docs/security/comparison.md
	WITH_DOCKER_RUNTIME=runsc $(WITH_DOCKER) $(BIN)/python benchmarks/comparison.py

verify: setup image ## Try every attack of the catalogue on this host
	@$(WITH_DOCKER) $(BIN)/runner verify

guest: setup ## The product on Debian 13, in a virtual machine; half an hour with KVM, else hours
	$(BIN)/python scripts/guest.py $(GUEST_ARGS)

audit: setup ## Known vulnerabilities, code, secrets, licences; writes build/sbom.cdx.json
	@[ requirements-audit.lock -ot .audit-venv/.made ] || { \
	  $(BIN)/uv venv --quiet --clear .audit-venv && \
	  $(BIN)/uv pip sync --quiet --python .audit-venv --require-hashes requirements-audit.lock && \
	  touch .audit-venv/.made; }
	@$(BIN)/python scripts/audit.py $(AUDIT_ARGS)

lock: ## Write the lock files anew from pyproject.toml and the SDK's
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --no-emit-package agent-runner-sdk \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --no-emit-package agent-runner-sdk \
	  pyproject.toml --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --group audit -o requirements-audit.lock
	for each in tests/support/frameworks/locks/*.in; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header --no-emit-package agent-runner-sdk \
	    "$$each" -o "$${each%.in}.lock" || exit; \
	done

clean: ## Remove what builds and tests left in this folder
	rm -rf .venv .audit-venv .peers-venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build *.egg-info console/dist console/node_modules
