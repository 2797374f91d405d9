# CI runs these targets too; see .ci/run.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
RUN_STAMP := $(VENV)/.run-stamp
FROZEN := protos/frozen.binpb
NODE_TESTS := tests/e2e/node
NODE_STAMP := $(NODE_TESTS)/node_modules/.stamp
CONFORMANCE := .conformance
CLIENTS := tests/clients
CLIENT_ENVIRONMENTS := .venv-clients
AUDIT := .venv-audit
PYTHON_CLIENTS := $(patsubst $(CLIENTS)/python/%.lock,$(CLIENT_ENVIRONMENTS)/%/.stamp,$(wildcard $(CLIENTS)/python/*.lock))
NODE_CLIENTS := $(CLIENTS)/node/node_modules/.stamp
GO_CLIENTS := $(CLIENTS)/go/bin/.stamp
JAVA_CLIENTS := $(CLIENTS)/java/target/.stamp
RUST_CLIENTS := $(CLIENTS)/rust/target/.stamp
RUST_EXAMPLES := examples/rust/target/.stamp
ALL_CLIENTS := $(PYTHON_CLIENTS) $(NODE_CLIENTS) $(GO_CLIENTS) $(JAVA_CLIENTS) $(RUST_CLIENTS)
LANGCHAIN4J := 1.8.0 1.19.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ------------------------------------------------------------------ environment

CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'

$(STAMP): requirements-dev.lock pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --only-binary :all: --require-hashes --requirement requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q protos process service restbridge chat
	@touch $@ $(RUN_STAMP)

# The tests of a language whose tools are missing are skipped, or fail in CI.
$(NODE_STAMP) $(NODE_CLIENTS): %/node_modules/.stamp: %/package-lock.json
	@if command -v npm >/dev/null; then \
	  npm ci --prefix $* --silent --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "npm is not installed: the tests with libraries for Node will be skipped"; fi

$(GO_CLIENTS): $(CLIENTS)/go/go.sum $(wildcard $(CLIENTS)/go/*/*.go)
	@if command -v go >/dev/null; then \
	  go build -C $(CLIENTS)/go -o bin/ ./openai ./go_openai && touch $@; \
	else echo "Go is not installed: the tests with libraries for Go will be skipped"; fi

$(JAVA_CLIENTS): $(CLIENTS)/java/pom.xml $(wildcard $(CLIENTS)/java/*.java)
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	  for version in $(LANGCHAIN4J); do \
	    mvn --quiet --batch-mode --strict-checksums --file $(CLIENTS)/java \
	      -Dlangchain4j.version=$$version dependency:copy-dependencies || exit 1; \
	  done; \
	  javac -d $(@D)/classes -cp '$(@D)/$(lastword $(LANGCHAIN4J))/*' $(CLIENTS)/java/*.java && touch $@; \
	else echo "Maven or a JDK is not installed: the tests with libraries for Java will be skipped"; fi

# crates.lock is a Cargo.lock without the address of the registry, which cargo itself adds. The example runs buf.
$(RUST_CLIENTS) $(RUST_EXAMPLES): %/target/.stamp: %/crates.lock %/Cargo.toml | $(STAMP)
	@if cargo --version >/dev/null 2>&1; then \
	  PATH=$(CURDIR)/$(BIN):$$PATH && cd $* && rm -f Cargo.lock && cargo generate-lockfile --quiet && \
	  registry=$$(grep -m1 '^source' Cargo.lock) && \
	  awk -v registry="$$registry" '/^checksum/ { print registry } { print }' crates.lock >Cargo.lock && \
	  cargo build --quiet --locked && touch target/.stamp; \
	else echo "cargo is not installed: the tests with libraries for Rust will be skipped"; fi
$(RUST_CLIENTS): $(wildcard $(CLIENTS)/rust/src/*.rs)

# Each environment has what its lock file says; libraries whose requirements contradict have one each.
$(CLIENT_ENVIRONMENTS)/%/.stamp: $(CLIENTS)/python/%.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python --only-binary :all: --require-hashes --requirement $<
	@touch $@

# `make up` needs only what runs. The environment of `make setup` contains it.
$(RUN_STAMP): requirements.lock
	@$(CHECK_PYTHON)
	@echo "make up: installing $$(grep -c == $<) packages of $< into $(VENV), once"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check --only-binary :all: --require-hashes --requirement $<
	@$(BIN)/python -c 'import os, sys, sysconfig; \
	  open(sysconfig.get_path("purelib") + "/chatcompletion-sources.pth", "w").write( \
	  "\n".join([os.getcwd(), os.getcwd() + "/protos", ""]))'
	@touch $@

.PHONY: setup
setup: $(RUN_STAMP) ## Create the environment in .venv

# -------------------------------------------------------------------------- run

.PHONY: up
up: $(RUN_STAMP) ## Start everything in the foreground: REST on 8080, gRPC on 50051, a simulated upstream
	@exec $(BIN)/python -m restbridge --standalone

# ------------------------------------------------------------------------- test

# Most tests run side by side, file by file. Those that are marked `alone` follow, one after the other;
# a directory without any, for which pytest ends with 5, has passed.
PYTEST := $(BIN)/python -m pytest -q
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
define run_tests
	@status=0; \
	$(PYTEST) -m "not alone" $(SIDE_BY_SIDE) $(1) || status=1; \
	$(PYTEST) -m alone $(1) || [ $$? -eq 5 ] || status=1; \
	exit $$status
endef

# In CI, no test may be skipped for a missing tool: one uses the grpcurl of `make conformance`.
CI_TOOLS := $(if $(CI),$(CONFORMANCE)/.stamp)

.PHONY: test
test: $(STAMP) $(CI_TOOLS) $(NODE_STAMP) $(ALL_CLIENTS) $(RUST_EXAMPLES) ## Run every test
	$(call run_tests,tests)

.PHONY: test-unit test-contract test-e2e test-faults test-clients
test-unit test-contract: $(STAMP)
test-e2e test-faults: $(STAMP) $(NODE_STAMP)
test-faults: $(CI_TOOLS)
test-e2e: $(RUST_EXAMPLES)
test-clients: $(STAMP) $(ALL_CLIENTS)
test-unit: ## Run the tests of pure parts, without sockets
test-contract: ## Run the tests of the contract: golden documents, properties, imports, tables
test-e2e: ## Run the tests of both deployables with real clients
test-faults: ## Run the failure catalogue and print it: RUNS=10 repeats it, SAMPLE=6 takes 6 of its faults
	$(BIN)/python -m tests.faults $(if $(RUNS),--runs $(RUNS)) $(if $(SAMPLE),--sample $(SAMPLE))
test-clients: ## Run the tests of other client libraries
.PHONY: test-restarts
test-restarts: $(STAMP) ## Restart two replicas behind Envoy 20 times under load: 25 minutes
	RESTARTS=20 $(PYTEST) -s -o faulthandler_timeout=2700 tests/faults/test_rolling_restart.py
test-unit test-contract test-e2e test-clients:
	$(call run_tests,tests/$(@:test-%=%))

# ON=sqlite runs it on this engine only; the engines are memory, sqlite and postgresql.
.PHONY: machine
machine: $(STAMP) ## Run the state machine of accounts on each engine: STEPS=200000
	$(BIN)/python -m tests.contract.accounts_machine $(if $(STEPS),--steps $(STEPS)) $(if $(ON),--on $(ON))

# Makes each mutation in a copy of the tree. SAMPLE=12 makes 12 of them; the commit selects them.
.PHONY: mutants
mutants: $(STAMP) ## Check that the tests fail for each mutation of the product
	$(BIN)/python -m tests.mutants $(if $(SAMPLE),--sample $(SAMPLE))

# Outside suites: programs of Go, packages of Python and a corpus of requests, all pinned by hash.
$(CONFORMANCE)/.stamp: $(wildcard tests/conformance/*/go.sum tests/conformance/*.lock) $(STAMP)
	for tools in tools ghz; do \
	  GOBIN=$(CURDIR)/$(CONFORMANCE) go install -C tests/conformance/$$tools -mod=readonly tool || exit 1; done
	$(BIN)/pip install --quiet --only-binary :all: --no-binary sniffpy --require-hashes \
	  --requirement tests/conformance/requirements.lock
	$(BIN)/pip download --quiet --no-deps --no-binary gunicorn --require-hashes --dest $(CONFORMANCE) \
	  --requirement tests/conformance/corpus.lock
	@touch $@

.PHONY: conformance
conformance: $(STAMP) $(CONFORMANCE)/.stamp ## Run outside suites against both deployables
	$(BIN)/python -m tests.conformance $(SUITES)

# Environment of the audit alone: its programs are no part of any deployment.
$(AUDIT)/.stamp: tools/audit/requirements.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(AUDIT)
	$(BIN)/uv pip install --quiet --python $(AUDIT)/bin/python --only-binary :all: --require-hashes \
	  --requirement tools/audit/requirements.lock
	@touch $@

.PHONY: audit
audit: $(STAMP) $(AUDIT)/.stamp ## Report known vulnerabilities of the locked packages, and write dist/sbom.json
	$(BIN)/python -m tools.audit $(AUDIT)/bin

.PHONY: check
check: $(STAMP) breaking ## Check style, types, protos and import boundaries
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python -m pytest -q tests/contract/test_imports.py

# The contract must be compatible with the frozen contract and with every committed version of it.
# After an addition to the contract, a test fails until `make freeze`.
.PHONY: breaking
breaking: $(STAMP)
	$(BIN)/buf breaking --against $(FROZEN)
	@for commit in $$(git log --format=%H -- $(FROZEN)); do \
	  echo "buf breaking --against $(FROZEN) of $$commit"; \
	  git show "$$commit:$(FROZEN)" | $(BIN)/buf breaking --against -#format=binpb || exit 1; done

# BENCH="--quick --only unary,chunks --against ../before" passes options: see docs/performance.md.
.PHONY: bench bench-parts bench-peers instructions
bench: $(STAMP) ## Measure cost, latency and memory of every topology
	$(BIN)/python -m tests.load.bench $(BENCH)

bench-parts: $(STAMP) ## Measure the codec, the upstream client and the store alone, and the parts of a lone request
	$(BIN)/python -m tests.load.bench_openai_json
	$(BIN)/python -m tests.load.bench_upstream
	$(BIN)/python -m tests.load.bench_accounts
	$(BIN)/python -m tests.load.bench_latency

bench-peers: $(STAMP) $(CLIENT_ENVIRONMENTS)/litellm/.stamp ## Measure LiteLLM in the same rounds
	$(BIN)/python -m tests.load.bench --peers $(BENCH)

instructions: $(STAMP) ## Count the instructions of a call, and compare with the record
	$(BIN)/python -m tests.load.instructions

# ---------------------------------------------------------------------- deploy

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel -d dist

# ----------------------------------------------------------------------- change

.PHONY: format
format: $(STAMP) ## Format the sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write

.PHONY: freeze
freeze: breaking ## Freeze the contract: later changes must be compatible with it
	$(BIN)/buf build --exclude-source-info --output $(FROZEN)

.PHONY: stubs
stubs: $(STAMP) ## Generate the stubs from the .proto files
	$(BIN)/python protos/generate.py

.PHONY: openapi
openapi: $(STAMP) ## Generate the OpenAPI document from the .proto files and the error table
	$(BIN)/python -m tools.openapi

.PHONY: pages
pages: $(STAMP) ## Generate the pages that show the files in examples/
	$(BIN)/python -m tools.example_pages

.PHONY: lock
lock: $(STAMP) ## Resolve the dependencies again and write the lock files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --extra service --extra restbridge --extra postgres --extra chat --extra docs --extra otel pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --all-extras --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --constraint requirements-dev.lock tests/conformance/requirements.in \
	  --output-file tests/conformance/requirements.lock
	for name in $(CLIENTS)/python/*.in; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-header $$name --output-file $${name%.in}.lock || exit 1; done
	cd examples/python && ../../$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --constraint ../../requirements-dev.lock requirements.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header tools/audit/requirements.in --output-file tools/audit/requirements.lock
	sed -n '/^requires = /s/.*"\(.*\)".*/\1/p' pyproject.toml | $(BIN)/uv pip compile --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header --constraint requirements-dev.lock - \
	  --output-file deploy/requirements-build.lock
