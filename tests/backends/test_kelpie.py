# SPDX-License-Identifier: Apache-2.0
"""Kelpie behind the gateway: its counters repaired, its spans cleaned and joined with its clients'."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from prometheus_client.samples import Sample

from agent_kernel_otel import semconv
from tests.backends.kelpie_api import HANDLERS, KelpieApi
from tests.backends.running import Gateway, run_app, wait_until
from tests.jaeger.running import Jaeger
from tests.support.canaries import Canaries
from tests.support.kelpie_page import HISTORY, KelpieStub, page, repaired
from tests.support.ports import HOST, free_port
from tests.support.scraped import (
    samples,
    scrape,
)

CLIENT: Final = Path(__file__).with_name("kelpie_client.py")
AGENT: Final = "gen_ai.agent.id"
KEPT: Final = {AGENT, "agent_id", "actor_id", "limit", "method", "url.path"} | {
    "code.namespace",
    "code.filepath",
}
"""The attributes of Kelpie's that are left."""
JAEGERS_OWN: Final = {"otel.scope.name", "span.kind", "error", "otel.status_code"}
TURNS: Final = 2


@dataclass(frozen=True)
class Seen:
    """What there is of Kelpie and its client after it all.

    Attributes:
        pages: The page of the gateway's metrics, for each state of Kelpie.
        jaeger: A Jaeger with their spans.
        agents: The agents that the client talked to.
        secret: What nobody may see.
        warnings: What the gateway complained of.
    """

    pages: list[str]
    jaeger: Jaeger
    agents: list[str]
    secret: str
    warnings: list[str]

    def spans(self, service: str, agent: str) -> list[Any]:
        """The spans of a service that are found by an agent's id, of all traces."""
        found = self.jaeger.found(service, {AGENT: agent})
        return [
            span
            for trace in found
            for span in trace["spans"]
            if attributes(span).get(AGENT) == agent
        ]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("kelpie")
    secret = Canaries().plant("everywhere")
    otlp = free_port()
    agents = [str(uuid4()) for _ in range(TURNS)]
    with ExitStack() as stack:
        jaeger = stack.enter_context(Jaeger(folder))
        stub = stack.enter_context(KelpieStub())
        with Gateway(
            folder,
            "kelpie",
            "jaeger",
            variables={
                "JAEGER_ENDPOINT": f"{HOST}:{jaeger.port('grpc')}",
                "KELPIE_TARGETS": json.dumps([f"{HOST}:{stub.port}"]),
                "KELPIE_OTLP_ENDPOINT": f"{HOST}:{otlp}",
                "KELPIE_SCRAPE_INTERVAL": "1s",
                "KELPIE_SCRAPE_TIMEOUT": "1s",
            },
        ) as gateway:
            pages = []
            for state in HISTORY:
                stub.show(state)
                uptime = f"kelpie_server_uptime_seconds{{.*}} {state.uptime}"
                wait_until(partial(_has, gateway.page, uptime))
                pages.append(scrape(gateway.page))
            with KelpieApi(otlp, secret) as api:
                for agent in agents:
                    url = f"http://{HOST}:{api.port}"
                    run_app(gateway, "client", CLIENT, url, agent, AGENT_SECRET=secret)
            seen = Seen(pages, jaeger, agents, secret, gateway.warnings())
            wait_until(lambda: all(len(seen.spans("client", agent)) == 1 for agent in agents))
            wait_until(lambda: all(len(seen.spans("kelpie", agent)) == 4 for agent in agents))
        yield seen


def _has(port: int, pattern: str) -> bool:
    return bool(re.search(f"^{pattern}(\\.0)?$", scrape(port), re.MULTILINE))


def attributes(span: Any) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def comparable(found: list[Sample]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Kelpie's own samples without what a scrape adds; edges of buckets as numbers."""
    return {
        (
            sample.name,
            frozenset(
                (key, str(float(value)) if key == "le" else value)
                for key, value in sample.labels.items()
                if key not in ("job", "instance", "otel_scope_name")
            ),
        ): sample.value
        for sample in found
        if sample.name.startswith("kelpie_") and not sample.name.endswith("_created")
    }


@pytest.mark.parametrize(
    "state", range(5), ids=["cold start", "work", "more work", "restarted", "work again"]
)
def test_every_series_of_kelpie_comes_with_its_value_and_a_repaired_name(
    seen: Seen, state: int
) -> None:
    expected = comparable(list(samples(repaired(page(HISTORY[state])))))
    assert comparable(list(samples(seen.pages[state]))) == expected
    assert any(name == "kelpie_invocations_total" for name, _ in expected) == bool(
        HISTORY[state].calls
    )


def test_counters_are_counters_and_histograms_histograms(seen: Seen) -> None:
    text = seen.pages[-1]
    assert "# TYPE kelpie_invocations_total counter" in text
    assert "# TYPE kelpie_agents_activated_total counter" in text
    assert "# TYPE kelpie_invocation_duration_seconds histogram" in text
    assert "# TYPE kelpie_agents_active_count gauge" in text
    assert "_total_total" not in text


def test_series_are_those_of_a_job_and_an_instance(seen: Seen) -> None:
    own = [s for s in samples(seen.pages[-1]) if s.name == "kelpie_server_uptime_seconds"]
    ((job, instance),) = {(s.labels["job"], s.labels["instance"]) for s in own}
    assert job == "kelpie"
    assert instance.startswith(f"{HOST}:")
    assert "service_name=" not in seen.pages[-1]


def test_an_agent_is_found_on_both_sides_by_its_id_and_at_the_same_time(seen: Seen) -> None:
    for agent in seen.agents:
        (call,) = seen.spans("client", agent)
        served = seen.spans("kelpie", agent)
        assert {span["operationName"] for span in served} == {
            *HANDLERS.values(),
            "process_invocation",
        }
        for span in served:
            assert call["startTime"] <= span["startTime"]
            assert (
                span["startTime"] + span["duration"] <= call["startTime"] + call["duration"] + 1000
            )


def test_the_client_and_kelpie_are_not_one_trace(seen: Seen) -> None:
    (call,) = seen.spans("client", seen.agents[0])
    assert call["traceID"] not in {s["traceID"] for s in seen.spans("kelpie", seen.agents[0])}


def test_the_clients_call_is_below_its_kernels_driver(seen: Seen) -> None:
    (call,) = seen.spans("client", seen.agents[0])
    by_id = {span["spanID"]: span for span in seen.jaeger.trace(call["traceID"])["spans"]}
    (parent,) = call["references"]
    assert by_id[parent["spanID"]]["operationName"] == semconv.DRIVER


def test_all_of_one_kelpies_work_is_one_trace_and_was_not_sampled(seen: Seen) -> None:
    work = [
        span
        for agent in seen.agents
        for span in seen.spans("kelpie", agent)
        if span["operationName"] == "process_invocation"
    ]
    assert len(work) == 2 * TURNS
    assert len({span["traceID"] for span in work}) == 1


def test_nothing_that_somebody_wrote_is_left_on_kelpies_spans(seen: Seen) -> None:
    spans = [span for trace in seen.jaeger.found("kelpie", {}) for span in trace["spans"]]
    assert {span["operationName"] for span in spans} >= {"request", *HANDLERS.values()}
    for span in spans:
        assert set(attributes(span)) <= KEPT | JAEGERS_OWN
        for log in span["logs"]:
            assert {field["key"]: field["value"] for field in log["fields"]} == {
                "event": "kelpie_server::tools",
                "level": "ERROR",
                "target": "kelpie_server::tools",
            }
    told = seen.jaeger.text("/api/traces", service="kelpie", start=0, limit=1000)
    assert seen.agents[0] in told
    assert seen.secret not in told


def test_a_request_is_a_server_span_with_a_path_and_no_query(seen: Seen) -> None:
    requests = [
        attributes(span)
        for trace in seen.jaeger.found("kelpie", {})
        for span in trace["spans"]
        if span["operationName"] == "request"
    ]
    assert {request["span.kind"] for request in requests} == {"server"}
    assert {request["url.path"] for request in requests} == {
        f"/v1/agents/{agent}/{route}" for agent in seen.agents for route in HANDLERS
    }


def test_no_secret_of_the_client_is_in_jaeger(seen: Seen) -> None:
    told = seen.jaeger.text("/api/traces", service="client", start=0, limit=1000)
    assert seen.agents[0] in told
    assert seen.secret not in told


def test_the_gateway_has_nothing_to_complain_of(seen: Seen) -> None:
    assert seen.warnings == []
