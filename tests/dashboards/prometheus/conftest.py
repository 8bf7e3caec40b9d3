# SPDX-License-Identifier: Apache-2.0
"""A Prometheus that has scraped a busy app, and one that has scraped Kelpie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent_kernel_otel import semconv
from tests.dashboards.prometheus.asking import Asked
from tests.prometheus.conftest import EVERYTHING
from tests.prometheus.server import Prometheus
from tests.support.kelpie_page import HISTORY, KelpieStub
from tests.support.otlp_sink import OtlpSink
from tests.support.ports import HOST, free_port
from tests.support.scraped import ScrapedApp

ROOT = Path(__file__).parents[3]
AGENT = Path(__file__).parent / "agent.py"
LOST = f"sum(rate({semconv.TELEMETRY_DROPPED.prometheus_name}[1m])) > 0"


@pytest.fixture(scope="session")
def weaver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """After everything that an agent can do, with a backend for logs that is not there."""
    with ExitStack() as stack:
        with OtlpSink() as sink:
            with _agent(sink) as app:
                prometheus = stack.enter_context(
                    Prometheus(tmp_path_factory.mktemp("weaver"), app.port)
                )
                for deed in ("everything", "work", "work"):
                    assert app.tell(deed) == "done", app.errors()
                    prometheus.wait_for_scrapes(3)
                prometheus.wait_for(lambda: prometheus.value(LOST))
                finished = time.time()
            spans = sink.spans()
        yield Asked(prometheus, finished, spans)


def _agent(sink: OtlpSink) -> ScrapedApp:
    return ScrapedApp.of(
        AGENT,
        port=None,
        PYTHONPATH=str(ROOT),
        OTEL_METRICS_EXPORTER="otlp,prometheus",
        OTEL_METRIC_EXPORT_INTERVAL="1000",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://{HOST}:{free_port()}",
        OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="1",
        **EVERYTHING,
    )


@pytest.fixture(scope="session")
def kelpie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """After a cold start, work, and a restart; the names as the Collector repairs them."""
    with (
        KelpieStub(repaired=True) as stub,
        Prometheus(tmp_path_factory.mktemp("kelpie"), stub.port) as prometheus,
    ):
        for state in HISTORY:
            stub.show(state)
            prometheus.wait_for_scrapes(3)
        yield Asked(prometheus, time.time())
