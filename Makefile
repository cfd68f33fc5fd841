# Everything a developer or a new user runs. `make` prints this list.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := build/compiled
SOURCES := $(shell find src -type f ! -name '*.pyc')
# A file's tests share what it sets up, so they stay in one process.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z_-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

help: ## print this list
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: requirements.lock pyproject.toml
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tidegate needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.dev ## make the environment, with all that developing needs

run: $(VENV)/.run ## two real engines, the gateway and a tour of decisions; ONCE=1 exits after the tour, VERIFY=1 runs both choices
	@exec $(BIN)/tidegate demo $(if $(ONCE),--once) $(if $(VERIFY),--verify)

test: lint types imports ## lint, types, import contract and the tests: five minutes on two cores
	$(PYTEST) -m "not slow and not lengthy"

test-full: $(COMPILED)/.built ## the slow suites too, and the fast ones once more on the compiled package
	$(PYTEST) -m "slow or lengthy"
	PYTHONPATH="$(CURDIR)/$(COMPILED)" $(BIN)/python -c "from tidegate.core import router; from tidegate.http import lanes; assert router.__file__.endswith('.so') and lanes.COMPILED"
	PYTHONPATH="$(CURDIR)/$(COMPILED)" $(PYTEST) -m "not slow and not engine" --ignore=tests/docs --ignore=tests/live

test-vllm: $(VENV)/.dev ## a handover between two real vLLM; TIDEGATE_VLLM names a Python that has it (tests/lab/vllm.py)
	$(PYTEST) tests/live/test_fetching.py

soak: $(COMPILED)/.built ## 20,000 random worlds with faults, each looked at after every event: more than an hour on two cores
	PYTHONPATH=$(COMPILED):. $(BIN)/python -m tests.soak

compiled: $(COMPILED)/.built ## the package with the path of a request compiled, in build/compiled; the wheel is in build/wheel

# $(1): where to; $(2): what more the C compiler is told. From a copy: mypyc leaves what it makes beside the sources. By
# hatchling itself: pip has it compile all of it twice. What is compiled lies at the same place each time, since that is
# how the compiler finds what it counted.
define compile
@rm -rf build/source build/wheel build/objects $(1) && mkdir -p build/source build/objects $(1)
@cp -r src build_hooks pyproject.toml README.md LICENSE build/source/
@cd build/source && HATCH_BUILD_HOOKS_ENABLE=1 HATCH_MYPYC_BUILD_DIR="$(CURDIR)/build/objects" TIDEGATE_CFLAGS="$(2)" \
	"$(CURDIR)/$(BIN)/python" -m hatchling build -t wheel -d ../wheel >/dev/null
@$(BIN)/python -m zipfile -e build/wheel/*.whl $(1)
endef

# What makes hot code longer is not worth it where code does not fit a core's caches (decision record 0003).
SHORT := -fno-tracer -fno-inline-functions -fno-ipa-cp-clone -fno-unroll-loops -fno-peel-loops -fno-unswitch-loops \
	-fno-tree-vectorize -fno-gcse-after-reload

# Twice: once to count which way each branch goes, and then by that.
$(COMPILED)/.built: pyproject.toml $(SOURCES) $(wildcard build_hooks/*) bench/training.py $(VENV)/.dev
	@echo "compiling the path of a request, and once more by what it does most: eight minutes, or twice as many ..."
	@rm -rf build/profile
	$(call compile,build/traced,-fprofile-generate='$(CURDIR)/build/profile')
	@PYTHONPATH="$(CURDIR)/build/traced" $(BIN)/python -m bench.training
	@test -n "$$(find build/profile -name '*.gcda' -print -quit)" || { echo "nothing was counted"; exit 1; }
	$(call compile,$(COMPILED),-fprofile-use='$(CURDIR)/build/profile' -fprofile-correction -w $(SHORT))
	@touch $@

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

bench-decide: $(COMPILED)/.built ## CPU of one decision, by number of candidates
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.decide

bench-preview: $(COMPILED)/.built ## whether previews keep what they say, in a hundred pairs of simulated weeks: a quarter of an hour
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.preview

bench-preview_holdout: $(COMPILED)/.built ## the same with seeds that nothing was tuned on
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.preview --holdout

bench-preview_speed: $(COMPILED)/.built ## how long a preview of 100,000 requests takes
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.preview --speed

bench-audit: $(COMPILED)/.built ## how wide the bracket of an audit is on the standard traces: half an hour; TIDEGATE_DATA names the folder of traces
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.audit

bench-replay: $(COMPILED)/.built ## whether every decision of 100,000 simulated requests with restarts comes out again, and how many a second
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.replay

bench-simulate: $(COMPILED)/.built ## requests a simulated world decides and serves per second; TIDEGATE_DATA names the folder of traces
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.simulate

bench-instructions: $(COMPILED)/.built ## instructions of decisions, learning and a simulated request, which other work does not move; needs valgrind; TIDEGATE_DATA for the last
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.instructions

bench-relay: $(COMPILED)/.built ## what the gateway and other relays cost and add, and a plot of it: three quarters of an hour on two idle cores; PEERS="nginx haproxy" or none, LOADS="W1 W4", ROUNDS, ENDPOINTS, TLS=1, QUICK=1 to see that all works
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.relay --peers "$(PEERS)" --loads "$(LOADS)" $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ENDPOINTS),--endpoints $(ENDPOINTS)) $(if $(TLS),--tls) $(if $(QUICK),--quick)

bench-beside: $(COMPILED)/.built ## what some relays take that run at once, by quotients, which neighbours leave alone: five minutes; RELAYS="tidegate vllm-router", the first is the measure, LOADS, ROUNDS, TLS=1
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.beside $(if $(RELAYS),--relays "$(RELAYS)") $(if $(LOADS),--loads "$(LOADS)") $(if $(TLS),--tls) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-turns: $(COMPILED)/.built ## how long the gateway's loop is held, alone and under load: two minutes on two idle cores; LOADS, ROUNDS
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.turns $(if $(LOADS),--loads "$(LOADS)") $(if $(ROUNDS),--rounds $(ROUNDS))

bench-growth: $(COMPILED)/.built ## how the gateway's cost grows with streams, bodies and endpoints: a quarter of an hour on two idle cores
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.growth $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick)

bench-soak: $(COMPILED)/.built ## half an hour of load and faults before a gateway, and what of it stays in memory: on two idle cores
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.soak

bench-canary: $(VENV)/.dev ## how far two readings of a canary are apart: of the same weights, and of others
	$(BIN)/python -m bench.canary

bench-llama_parity: $(VENV)/.dev ## a real llama.cpp beside a simulated one that was calibrated with it, under load
	$(BIN)/python -m bench.llama_parity

bench-engines: $(VENV)/.dev ## how far simulated engines are from measured ones; TIDEGATE_DATA names the folder of public traces
	$(BIN)/python -m bench.fit_engines

bench-prior_error: $(VENV)/.dev ## how far what is believed of an engine at first is from what was measured; TIDEGATE_DATA as above
	$(BIN)/python -m bench.prior_error

bench-length: $(VENV)/.dev ## how far predicted output lengths are from those of public traces; TIDEGATE_DATA as above
	$(BIN)/python -m bench.length

bench-link_change: $(VENV)/.dev ## after how many requests TTFT is predicted again when a link has changed
	$(BIN)/python -m bench.link_change

bench-link_rate: $(VENV)/.dev ## how well the client measures the rate of an emulated link
	$(BIN)/python -m bench.link_rate

bench-prefix: $(VENV)/.dev ## how well cached tokens are predicted, and what that is worth; TIDEGATE_DATA as above
	$(BIN)/python -m bench.prefix

bench-predict: $(VENV)/.dev ## how good predictions are in simulated worlds; TIDEGATE_DATA as above
	$(BIN)/python -m bench.predict

bench-predict_exact: $(VENV)/.dev ## the same where prompts' tokens are estimated without an error
	$(BIN)/python -m bench.predict --exact-tokens

bench-predict_holdout: $(VENV)/.dev ## the same with the seed and the rows that nothing was tuned on
	$(BIN)/python -m bench.predict --holdout

bench-learn: $(COMPILED)/.built ## CPU of predicting and of learning, and the size of what is learned
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.learn

bench-predict_live: $(VENV)/.dev ## how far predictions are from what a real llama.cpp then does, under load that changes: six minutes on two idle cores
	$(BIN)/python -m bench.predict_live

bench-policy: $(COMPILED)/.built ## what decisions are worth against simple rules with all knobs in hindsight, and a bound: an hour on two cores; TIDEGATE_DATA as above
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.policy

bench-policy_holdout: $(COMPILED)/.built ## the same with the seed and the rows that nothing was tuned on
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.policy --holdout

bench-policy_terms: $(VENV)/.dev ## what each part of the decision is worth, and what is in its way: half an hour, or some REGIMES; TIDEGATE_DATA as above
	$(BIN)/python -m bench.policy_terms --regimes "$(REGIMES)"

bench-policy_changes: $(COMPILED)/.built ## how soon decisions are what they would be, once prices, load or a link have changed; TIDEGATE_DATA as above
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.policy_changes

bench-pacing: $(VENV)/.dev ## what pacing a budget is worth, against the cap alone and the best price in hindsight: a quarter of an hour
	$(BIN)/python -m bench.pacing

bench-handover: $(VENV)/.dev ## two real llama.cpp that hand prompts over: what is computed again, and how well it is predicted: a quarter of an hour
	$(BIN)/python -m bench.handover

bench-throttled_pair: $(VENV)/.dev ## are choices right between a throttled llama.cpp, a priced one and both, over links of 20 to 1000 Mbit/s: more than half an hour on two idle cores; needs root
	$(BIN)/python -m bench.throttled_pair

bench-throttled_pair_warmed: $(VENV)/.dev ## the same where both engines have been in use: 24 answers of each and four requests over each link more, another quarter of an hour
	$(BIN)/python -m bench.throttled_pair --warmed

bench-hedging: $(VENV)/.dev ## what second attempts cut off the tail of an API's latency, and cost; TIDEGATE_DATA as above
	$(BIN)/python -m bench.hedging

bench-hedging_holdout: $(VENV)/.dev ## the same with seeds that nothing was tuned on
	$(BIN)/python -m bench.hedging --holdout

bench-engine_faults: $(VENV)/.dev ## what clients see when a real engine dies, or stops, under twenty streams: three minutes
	$(BIN)/python -m bench.engine_faults

bench-resuming: $(VENV)/.dev ## is a stream that breaks off completed without a word lost or said twice: a thousand cuts of real engines, a quarter of an hour
	$(BIN)/python -m bench.resuming

bench-moving_link: $(VENV)/.dev ## do requests go to the better side when a link changes, how soon, and do they stay: four minutes
	$(BIN)/python -m bench.moving_link

bench-overload: $(COMPILED)/.built ## three times as much as an engine can do, from clients who try again
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.overload

bench-overload_holdout: $(COMPILED)/.built ## the same with seeds that nothing was tuned on
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.overload --holdout

bench-dashboard: $(COMPILED)/.built ## how quickly the dashboard answers of a million requests, what it takes to index and to follow them, and how soon a browser shows them: a quarter of an hour
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.dashboard

bench-courier: $(VENV)/.dev ## how quick couriers are beside iperf3, and a thousand spoilt blobs before a real engine: five minutes; needs iperf3 and root
	$(BIN)/python -m bench.courier

bench-prefill: $(VENV)/.dev ## what prefill at a remote site is worth: a paper's throughputs, and rules where requests queue or the link changes: ten minutes; TIDEGATE_DATA as above
	$(BIN)/python -m bench.prefill

bench-prefill_holdout: $(VENV)/.dev ## the same with seeds that nothing was tuned on
	$(BIN)/python -m bench.prefill --holdout

bench-telemetry: $(COMPILED)/.built ## CPU that metrics and journal take of a request
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench.telemetry

bench-load: $(VENV)/.dev ## how well waiting is predicted beside others in the same engine, told honestly, not at all, late or falsely
	$(BIN)/python -m bench.load

lock: $(VENV)/.run ## resolve the dependencies anew, by uv, which nothing else needs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml requirements-build.in --extra demo $(LOCK) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml requirements-build.in --extra demo --group dev $(LOCK) -o requirements-dev.lock
LOCK := --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## remove what can be made again
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
