# SPDX-License-Identifier: Apache-2.0
"""Agents at work through an agent's Collector and a gateway, for all tests of what came of it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.distro.zero_code import environment, run
from tests.gateway.load import Told, agents, wait_for
from tests.gateway.promises import Traces, reasons, traces_of
from tests.gateway.tiers import Agent, Gateway, written
from tests.support.otlp_records import Item

APPS = {"agents-1": "agent_kernel", "agents-2": "gen_ai"}
"""By service, how they name the spans of calls."""
TURNS = 1450
LONG_CALLS = 40
TRACES = 5000
LONGEST_CALL = "8s"
SHARE = 0.1
AUDIT = "audit"
_MAKE_AUDIT_FILE = Path(__file__).with_name("audited.py")


@dataclass(frozen=True)
class Run:
    """What went in, and what came out.

    Attributes:
        told: What the apps say of themselves.
        received: All live traces that came to the gateway.
        kept: Those that it handed on.
        logs: The log records that it handed on.
        decisions: The file of decisions.
        page: What Prometheus would scrape of it, when all was quiet.
        audit_records: How many were replayed.
        replayed: What it handed on of them.
    """

    told: list[Told]
    received: Traces
    kept: Traces
    logs: list[Item]
    decisions: list[Item]
    page: list[Sample]
    audit_records: int
    replayed: list[Item]

    @property
    def seen(self) -> Counter[str]:
        """What all apps met."""
        return sum((told.seen for told in self.told), Counter())


@pytest.fixture(scope="session")
def busy_day(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five thousand traces of agents, with calls of several seconds, and an audit trail."""
    folder = tmp_path_factory.mktemp("busy-day")
    settings = {"LONGEST_CALL": LONGEST_CALL, "WAIT_AFTER_ROOT": "1s", "STAGES_INTERVAL": "1s"}
    with (
        Gateway(folder / "gateway", settings) as gateway,
        Agent(folder, gateway.port("grpc")) as agent,
    ):
        port = agent.port("grpc")
        apps = [
            agents(folder, port, TURNS, LONG_CALLS, name, OTEL_AGENT_KERNEL_SPAN_NAMING=naming)
            for name, naming in APPS.items()
        ]
        records = _replay(folder, gateway.port("grpc"))
        told = [app.end() for app in apps]
        ended = records + sum(each.books["traces"]["ended"] for each in told)

        def all_that_is_promised_came() -> bool:
            received = gateway.received()
            if len(received) < ended:
                return False
            promised = {id_ for id_, trace in traces_of(received).items() if reasons(trace)}
            return promised <= set(traces_of(gateway.kept()))

        # Decided on as time goes by, not because the gateway stops. What does not come the tests tell.
        with suppress(TimeoutError):
            wait_for(all_that_is_promised_came)
            stages = sum(1 for span in gateway.received() if _is_stage(span))
            wait_for(lambda: _stage_calls(_page(gateway)) >= stages)
        page = _page(gateway)
    received, kept = gateway.received(), gateway.kept()
    return Run(
        told,
        traces_of(span for span in received if span.resource["service.name"] != AUDIT),
        traces_of(span for span in kept if span.resource["service.name"] != AUDIT),
        gateway.kept("logs"),
        written(gateway.decisions_file, "logs"),
        page,
        records,
        [span for span in kept if span.resource["service.name"] == AUDIT],
    )


def _replay(folder: Path, port: int) -> int:
    """Export an audit file to the gateway, and return how many records it has."""
    path = folder / "audit.jsonl"
    run(str(_MAKE_AUDIT_FILE), str(path), env=environment(), instrumented=False)
    run(
        *("-m", "agent_kernel_otel.cli", "export", str(path), "--service-name", AUDIT),
        env=environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            XDG_STATE_HOME=str(folder / "state"),
        ),
        instrumented=False,
    )
    return len(path.read_text().splitlines())


def _page(gateway: Gateway) -> list[Sample]:
    with urlopen(f"http://127.0.0.1:{gateway.prometheus}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def _stage_calls(page: list[Sample]) -> float:
    return sum(each.value for each in page if each.name == "traces_span_metrics_calls_total")


def _is_stage(span: Item) -> bool:
    return span.name.rpartition(".")[2] in {"evaluate", "execute", "apply"}
