# make run    serve on http://127.0.0.1:8080 (settings: aibridge.toml or environment; README.md)
#             make run TOOLS=1: with the example tools (docs/tools.md)
# make test   the whole suite
# make lint   ruff (check and format) and mypy --strict
# make chaos  workers and MCP servers are killed, the database goes away, and the ledger is still the bill; a few
#             minutes (CHAOS_REQUESTS=2000 CHAOS_KILLS=50: more; tests/chaos/__main__.py)
# make rolling  500 streams behind nginx while two gateways are restarted five times; none is cut
# make soak   half an hour of steady, mixed load; memory, threads and descriptors must not grow (SOAK_MINUTES=3)
# make fuzz   broken bytes into every machine that reads bytes; some five minutes (FUZZ_EXAMPLES=4000, of each test)
# make bench  the gateway beside nginx, LiteLLM and Portkey, into docs/performance.md; half an hour on a quiet machine
#             (BENCH_ROUNDS, BENCH_SYSTEMS, BENCH_SCENARIOS, BENCH_CHECKOUTS: bench/__main__.py)
# make bench-smoke  whether the gateway became grossly slower, against nginx; 20 seconds
# Each makes .venv first and installs the pinned packages into it; only Python 3.11+ has to be there.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test lint chaos rolling soak fuzz bench bench-smoke requirements clean

run: .venv/runtime
	exec env $(if $(TOOLS),AIBRIDGE_CONFIG=examples/tools.toml) $(BIN)/aibridge serve

test: .venv/development
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not system"
	$(BIN)/coverage report
	$(BIN)/coverage report --fail-under=100 --include='aibridge/errors.py,aibridge/records.py,aibridge/settings.py,aibridge/sockets.py,aibridge/protocols/*,aibridge/upstream/*,aibridge/interception/*'
# The slowest files begin first; each stays with one process, whose gateways its tests share.
	$(BIN)/python -m pytest -m system --numprocesses 4 --dist loadfile --no-loadscope-reorder \
		tests/system/test_tools.py tests/system/test_draining.py tests/system/test_reloading.py tests/system

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: .venv/development
	$(BIN)/python -m tests.chaos

rolling: .venv/development
	$(BIN)/python -m tests.chaos.rolling

soak: .venv/development
	$(BIN)/python -m tests.chaos.soak

fuzz: .venv/development
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile fuzz --override-ini timeout=1200 --numprocesses 2

bench: .venv/runtime .bench/venv/ready
	.bench/venv/bin/python -m bench

bench-smoke: .venv/runtime .bench/venv/ready
	.bench/venv/bin/python -m bench.smoke

# The driver has an environment of its own, so that ours is measured as it is shipped.
.bench/venv/ready: bench/requirements.txt
	test -x .bench/venv/bin/python || $(PYTHON) -m venv .bench/venv
	.bench/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

.venv/runtime: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aibridge needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

.venv/development: .venv/runtime requirements-dev.txt
	$(PIP) --require-hashes -r requirements-dev.txt
	touch $@

# Pin anew after a change of a requirements*.in file.
PIN := $(BIN)/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
requirements: .venv/development
	$(PIP) pip-tools
	$(PIN) --output-file requirements.txt requirements.in
	$(PIN) --output-file requirements-dev.txt requirements-dev.in
	$(PIN) --output-file bench/requirements.txt bench/requirements.in
	$(PIN) --output-file bench/litellm-requirements.txt bench/litellm-requirements.in
	cd bench/portkey && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

clean:
	rm -rf .venv .bench build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
