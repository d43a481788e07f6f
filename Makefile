# Weir's commands for people and for CI. `make help` lists them.
#
# Everything is compiled with the dev profile (the root Cargo.toml says why) and with the features of
# the whole workspace, so the dependency graph is compiled once, whichever target comes first. Build
# outputs are kept outside the clone: a fresh clone of the same sources starts warm.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(CACHE)/tools/bin:$(PATH)

# Passed to the command that a target runs: make demo ARGS="--seconds 60 --json"
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Options go in ARGS: make demo ARGS="--seconds 60 --json"'

.PHONY: demo
demo: ## Run the whole loop on this machine, on the embedded broker
	@scripts/setup.sh build
	@cargo build --workspace --bin weir
	@exec "$$CARGO_TARGET_DIR/debug/weir" demo $(ARGS)

.PHONY: test
test: ## Run every test, with a real Kafka where Java is to be had (WEIR_REQUIRE=kafka,shared: fail, don't skip)
	@scripts/setup.sh test
	@scripts/test.sh

.PHONY: check
check: fmt clippy docs deny machete lint-deploy ## Formatting, lints, docs, licences, unused dependencies, deployment files

.PHONY: fmt
fmt: ## Check formatting
	@scripts/setup.sh build
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

.PHONY: clippy
clippy: ## Lint all Rust code, tests too; a warning is an error
	@scripts/setup.sh build
	cargo clippy --workspace --all-targets --quiet -- -D warnings

.PHONY: docs
docs: ## Build the API docs; a warning is an error
	@scripts/setup.sh build
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Security advisories are a git repository; where it can't be reached, that check is named, not passed.
.PHONY: deny
deny: ## Check licences, sources, duplicate versions and advisories of the dependencies
	@scripts/setup.sh check
	cargo deny --log-level error check bans licenses sources
	@if timeout 60 cargo deny --log-level off fetch db >/dev/null 2>&1 </dev/null; \
	then cargo deny --log-level error check advisories; \
	else echo "advisories not checked: their database is out of reach"; fi

.PHONY: machete
machete: ## Find dependencies that no code uses
	@scripts/setup.sh check
	cargo machete

.PHONY: lint-deploy
lint-deploy: ## Lint the container, compose, Kubernetes, Prometheus and Grafana files, and the scripts
	@deploy/lint.sh

# Each target's time; FUZZ_TARGETS="json avro" names some of fuzz/fuzz_targets.
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?=

.PHONY: fuzz
fuzz: ## Give every decoder of bytes from outside inputs that break it: make fuzz FUZZ_SECONDS=60 FUZZ_TARGETS="json avro"
	@scripts/setup.sh build
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh $(FUZZ_TARGETS)

SEEDS ?= 10

# Each seed's result is a line of this file. A series passes over the seeds that it has for the same binary and schedule;
# SEED=17 plays that one again. What a failed seed left is in failed/ beside it.
CRASH_LEDGER ?= $(CARGO_TARGET_DIR)/crash/ledger.jsonl

.PHONY: crash
crash: ## Disturb ingest in every way at seeded moments, check every row: make crash SEEDS=200, SEED=17, EVENTS=1000000
	@scripts/setup.sh test
	@cargo build --release --workspace --bin weir
	@WEIR_CRASH_PROGRAM="$$CARGO_TARGET_DIR/release/weir" WEIR_CRASH_SEEDS=$(SEEDS) WEIR_CRASH_SEED=$(SEED) WEIR_CRASH_EVENTS=$(EVENTS) WEIR_CRASH_LEDGER="$(CRASH_LEDGER)" \
		cargo test --workspace --quiet --test crash whatever_happens -- --nocapture | grep '^{'

# All of the workspace's features, so that this and `make demo` agree on what is compiled.
BENCH = cargo build --release --quiet --workspace --bin weir-bench && "$$CARGO_TARGET_DIR/release/weir-bench"

.PHONY: bench-ingest
bench-ingest: ## Measure ingest end to end beside its ceilings; the last line is JSON
	@scripts/setup.sh test
	@bench/kafka.sh ingest $(ARGS)

.PHONY: bench-freshness
bench-freshness: ## Measure from produced to visible in SQL at half of the highest rate; the last line is JSON
	@scripts/setup.sh test
	@bench/kafka.sh freshness $(ARGS)

.PHONY: bench-peers
bench-peers: ## Measure other Kafka-to-Delta programs on the same topic: EVENTS=500000 ROUNDS=3; the last line is JSON
	@scripts/setup.sh test
	@bench/peers/run.sh

.PHONY: bench-features
bench-features: ## Measure what keeping the feature tables level costs beside ingest alone; the last line is JSON
	@scripts/setup.sh test
	@bench/kafka.sh features $(ARGS)

.PHONY: bench-growth
bench-growth: ## Summarise 100 million events with a million live sessions and see whether the last cost what the first did: ARGS=10000000; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) growth $(ARGS)

.PHONY: bench-commits
bench-commits: ## Make 10,000 small commits and see whether the last cost what the first did; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) commits $(ARGS)

.PHONY: bench-decide
bench-decide: ## Measure one routing decision beside the reading of its weights; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) decide $(ARGS)

.PHONY: bench-ope
bench-ope: ## Measure an off-policy evaluation beside one pass over the rows; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) ope $(ARGS)

.PHONY: bench-fleet
bench-fleet: ## Measure sizing a fleet and the simulator beside their ceilings; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) fleet $(ARGS)

.PHONY: bench-drift
bench-drift: ## Measure how soon seeded changes are noticed beside river's detectors: ARGS=100; the last line is JSON
	@scripts/setup.sh build
	@bench/drift/run.sh $(ARGS)

.PHONY: bench-bandits
bench-bandits: ## Learn from the same bandit logs as Vowpal Wabbit and MABWiser: ARGS=seed; the last line is JSON
	@scripts/setup.sh build
	@bench/bandits/run.sh $(ARGS)

.PHONY: bench-routing
bench-routing: ## Judge a learned policy on public score matrices beside its alternatives; the last line is JSON
	@scripts/setup.sh build
	@$(BENCH) routing $(ARGS)
