# SPDX-License-Identifier: Apache-2.0
# Needs Python 3.10 or newer and make; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(abspath $(VENV))/bin
# Most tests wait for processes of theirs. A file's tests share what they wait for, and stay together.
# One that ends its process is tried once more, and not, as is the default, sixteen times.
SIDE_BY_SIDE := -n 4 --dist loadfile --max-worker-restart 1
# Named after the interpreter, so that another PYTHON is noticed.
STAMP := $(VENV)/.installed-$(notdir $(PYTHON))

.PHONY: help setup demo test lint types matrix vendors upstream collector collector-test gateway-test backends-test jaeger jaeger-test prometheus-test alerts-test stack test-stack simulation soak bench bench-latency dashboards docs wheel smoke clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## run the example agent and draw what it did
	PATH="$(BIN):$$PATH" agent-kernel-otel console --grpc-port 0 --http-port 0 -- \
		opentelemetry-instrument python examples/tour.py

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

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

collector: $(STAMP) ## build the OpenTelemetry Collectors, which needs Go
	$(BIN)/python -m tests.collector.build

collector-test: collector ## test TLS and credentials against the OpenTelemetry Collector
	$(BIN)/python -m pytest tests/collector $(ARGS)

gateway-test: collector ## test agent, gateway and load balancer of collector-config with real agents
	$(BIN)/python -m pytest tests/gateway $(ARGS)

backends-test: collector jaeger ## test the gateway with Jaeger, Datadog, Grafana and Kelpie
	$(BIN)/python -m pytest tests/backends $(ARGS)

jaeger: $(STAMP) ## build Jaeger, which needs Go
	$(BIN)/python -m tests.jaeger.build

jaeger-test: jaeger ## test that records are found in Jaeger
	$(BIN)/python -m pytest tests/jaeger $(ARGS)

prometheus-test: $(STAMP) ## test what Prometheus scrapes, which needs Debian's package prometheus
	$(BIN)/python -m pytest tests/prometheus tests/dashboards/prometheus $(ARGS)

alerts-test: collector ## test the alert rules, which needs Debian's prometheus and prometheus-alertmanager
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/alerts/prometheus $(ARGS)

stack: $(STAMP) ## run Collector, Jaeger, Prometheus, Alertmanager and a demo until Ctrl-C; needs what alerts-test does
	$(BIN)/python -m tests.stack

test-stack: collector jaeger ## test that stack, the Compose file and what is for Kubernetes
	$(BIN)/python -m pip install --quiet --requirement tests/stack/requirements.txt
	$(BIN)/python -m pytest tests/stack $(ARGS)

simulation: $(STAMP) ## play four seeds of the simulation; ARGS='--seed 7' plays others
	$(BIN)/python -m tests.simulation --seeds 4 --same $(ARGS)

soak: $(STAMP) ## play seeds of the simulation for MINUTES (10); ARGS='--seed 1000' begins elsewhere
	$(BIN)/python -m tests.simulation --same --minutes $(or $(MINUTES),10) $(ARGS)

bench: $(STAMP) ## measure the overhead
	$(BIN)/python benchmarks/overhead.py $(ARGS)

bench-latency: $(STAMP) ## measure the tail of an app's latency while spans are exported
	$(BIN)/python benchmarks/latency.py $(ARGS)

dashboards: $(STAMP) ## build the Grafana dashboards, which needs Python 3.11 or newer
	$(BIN)/python -m agent_kernel_otel.dashboards.build

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
