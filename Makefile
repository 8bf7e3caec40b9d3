# SPDX-License-Identifier: Apache-2.0
# Needs Python 3.10 or newer and make; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(abspath $(VENV))/bin
# Named after the interpreter, so that another PYTHON is noticed.
STAMP := $(VENV)/.installed-$(notdir $(PYTHON))

.PHONY: help setup demo test lint types matrix vendors upstream collector collector-test prometheus-test simulation soak bench bench-latency docs wheel smoke clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## run the example agent and draw what it did
	PATH="$(BIN):$$PATH" agent-kernel-otel console --grpc-port 0 --http-port 0 -- \
		opentelemetry-instrument python examples/tour.py

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy

matrix: $(STAMP) ## run the span tree on every supported release of the kernel
	$(BIN)/python -m tests.matrix.run $(ARGS)

vendors: $(STAMP) ## run an app beside other vendors' distros
	$(BIN)/python -m tests.vendors.run $(ARGS)

upstream: $(STAMP) ## run the kernel's own tests without and with the instrumentation
	$(BIN)/python -m tests.upstream.run $(ARGS)

collector: $(STAMP) ## build the OpenTelemetry Collector, which needs Go
	$(BIN)/python -m tests.collector.build

collector-test: collector ## test TLS and credentials against the OpenTelemetry Collector
	$(BIN)/python -m pytest tests/collector $(ARGS)

prometheus-test: $(STAMP) ## test what Prometheus scrapes, which needs Debian's package prometheus
	$(BIN)/python -m pytest tests/prometheus $(ARGS)

simulation: $(STAMP) ## play four seeds of the simulation; ARGS='--seed 7' plays others
	$(BIN)/python -m tests.simulation --seeds 4 --same $(ARGS)

soak: $(STAMP) ## play seeds of the simulation for MINUTES (10); ARGS='--seed 1000' begins elsewhere
	$(BIN)/python -m tests.simulation --same --minutes $(or $(MINUTES),10) $(ARGS)

bench: $(STAMP) ## measure the overhead
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-latency: $(STAMP) ## measure the tail of an app's latency while spans are exported
	$(BIN)/python benchmarks/latency.py $(ARGS)

docs: $(STAMP) ## generate the reference pages
	$(BIN)/python docs/generate.py

wheel: $(STAMP) ## build the source distribution and the wheel into dist/
	$(BIN)/python -m hatchling build --clean -d dist

smoke: wheel ## install the wheel into empty environments and try it
	$(BIN)/python -m tests.matrix.smoke dist/*.whl

clean: ## remove everything that was made
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; choose one with: make PYTHON=python3.12")'
	@test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
