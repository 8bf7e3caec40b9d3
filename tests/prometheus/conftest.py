# SPDX-License-Identifier: Apache-2.0
"""Runs of an agent whose metrics are pushed and pulled at once, and golden files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus.server import Prometheus
from tests.support.otlp_records import Item
from tests.support.otlp_sink import OtlpSink
from tests.support.scraped import ScrapedApp

AGENT = Path(__file__).parent / "agent.py"
GOLDEN = Path(__file__).parent / "golden"
EVERYTHING = {
    "OTEL_AGENT_KERNEL_METRICS_LEVEL": "debug",
    "OTEL_AGENT_KERNEL_GEN_AI_METRICS": "true",
}
"""What switches on those metrics that are off by default."""

Compare = Callable[[str, Any], None]


@dataclass(frozen=True)
class Run:
    """What came of an agent that did everything.

    Attributes:
        page: Its page after that.
        metrics: What it pushed.
        spans: The spans of it.
        errors: What it said.
    """

    page: str
    metrics: list[Item]
    spans: list[Item]
    errors: list[str]


def agent(sink: OtlpSink, **variables: str) -> ScrapedApp:
    """An agent that pushes and can be scraped."""
    return ScrapedApp.of(
        AGENT,
        port=None,
        OTEL_METRICS_EXPORTER="otlp,prometheus",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        **variables,
    )


def _run(**variables: str) -> Run:
    with OtlpSink() as sink, agent(sink, **variables) as app:
        assert app.tell("everything") == "done", app.errors()
        page = app.scrape()
        assert app.end() == 0
        return Run(page, sink.metrics(), sink.spans(), app.errors())


@pytest.fixture(scope="session")
def cumulative() -> Run:
    """Every metric, pushed as it is by default."""
    return _run(**EVERYTHING)


@pytest.fixture(scope="session")
def delta() -> Run:
    """Every metric, pushed as deltas."""
    return _run(**EVERYTHING, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")


@pytest.fixture(scope="session")
def by_default() -> Run:
    """The metrics of an app that sets nothing."""
    return _run()


@dataclass(frozen=True)
class Scraped:
    """A running agent, and a Prometheus that scrapes it."""

    app: ScrapedApp
    prometheus: Prometheus


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    """An agent that has done nothing yet, and was scraped so."""
    with (
        OtlpSink() as sink,
        agent(sink, **EVERYTHING) as app,
        Prometheus(tmp_path, app.port) as prometheus,
    ):
        yield Scraped(app, prometheus)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files of tests/prometheus instead of comparing with them",
    )


@pytest.fixture
def equals_golden(request: pytest.FixtureRequest) -> Compare:
    """Compares with a golden file, or writes it."""

    def compare(name: str, found: Any) -> None:
        file = GOLDEN / f"{name}.json"
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(_written(found))
        assert _written(found) == file.read_text(), (
            f"{file.name} differs: if that is meant, pytest tests/prometheus --update-golden"
        )

    return compare


def _written(shapes: dict[str, Any]) -> str:
    """One line for each metric, so that a change of one is seen as one."""
    lines = (f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
