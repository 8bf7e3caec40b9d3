# SPDX-License-Identifier: Apache-2.0
"""Spans reach a real receiver in another process, or it is said why they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.util._importlib_metadata import entry_points

from agent_kernel_otel import semconv
from agent_kernel_otel.export import sending
from agent_kernel_otel.export.sink import (
    Delivered,
    UnusableDestinationError,
)
from tests.export.scripted_collector import ScriptedCollector
from tests.export.sinks import (
    GRPC,
    HTTP,
    RESOURCE,
    SECRET,
    Opened,
    both,
    delivered,
    failure,
    spans,
)
from tests.support.faulty_collector import FaultyCollector, Protocol
from tests.support.ports import free_port


@both
def test_all_spans_arrive_once_and_in_order(protocol: Protocol, opened: Opened) -> None:
    with FaultyCollector("healthy", protocol) as collector:
        sink = opened(collector.endpoint, protocol)
        futures = [sink.send(spans(50, start)) for start in range(0, 500, 50)]
        assert [delivered(future) for future in futures] == [Delivered(0, None)] * 10
        received = collector.spans()
        assert [span.attributes[semconv.ACTION_ID] for span in received] == [
            f"action-{number}" for number in range(1, 501)
        ]
        assert received[0].resource == dict(RESOURCE.attributes)
        assert received[0].scope == semconv.SCOPE_WEAVER
    assert opened.told.empty()


@both
def test_nothing_is_asked_of_the_receiver_for_no_spans(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, protocol=protocol) as collector:
        sink = opened(collector.endpoint, protocol)
        assert delivered(sink.send([])) == Delivered()
        assert collector.sizes() == []


@both
def test_the_environment_decides_as_it_does_for_the_sdk(
    protocol: Protocol, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedCollector(tmp_path, protocol=protocol) as collector:
        path = "/own/path" if protocol == HTTP else ""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint + path)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tenant=a%20b")
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        if protocol == GRPC:  # the server over HTTP reads no gzip
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
        sink = opened(None)
        delivered(sink.send(spans(3)))
        (headers,) = collector.headers()
        assert headers["tenant"] == "a b"
        assert headers.get(":path", "") == path
        assert len(collector.spans()) == 3


def test_an_exporter_that_is_named_with_its_protocol_is_taken(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp_proto_http")
    assert opened(None).destination == "http://localhost:4318/v1/traces (http/protobuf)"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/traces"),
        ("/", "/v1/traces"),
        ("/otlp", "/otlp/v1/traces"),
        ("/a/traces", "/a/traces"),
    ],
)
def test_an_address_over_http_is_one_as_the_general_variable_has_it(
    given: str, path: str, opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, protocol=HTTP) as collector:
        delivered(opened(collector.endpoint + given, HTTP).send(spans(1)))
        assert collector.headers()[0][":path"] == path


@pytest.mark.parametrize(
    ("protocol", "status", "why"),
    [
        (GRPC, "UNAUTHENTICATED", "does not accept the credentials (UNAUTHENTICATED)"),
        (GRPC, "PERMISSION_DENIED", "does not allow this (PERMISSION_DENIED)"),
        (GRPC, "FAILED_PRECONDITION", "answers with an error (FAILED_PRECONDITION)"),
        (GRPC, "UNIMPLEMENTED", "has no OTLP service there (UNIMPLEMENTED)"),
        (HTTP, 401, "does not accept the credentials (HTTP 401 Unauthorized)"),
        (HTTP, 404, "is the wrong path (HTTP 404 Not Found)"),
        (HTTP, 422, "answers with an error (HTTP 422"),
    ],
)
def test_what_is_refused_for_good_is_asked_once(
    protocol: Protocol, status: str | int, why: str, opened: Opened, tmp_path: Path
) -> None:
    answer = {"status": status, "said": "not for carol"}
    with ScriptedCollector(tmp_path, answer, protocol=protocol) as collector:
        sink = opened(collector.endpoint, protocol)
        error = failure(sink.send(spans(2)))
        # Who refuses credentials may name them.
        assert ("carol" in str(error)) != (status in {"UNAUTHENTICATED", "PERMISSION_DENIED", 401})
        assert error.permanent
        assert str(error).startswith(f"{sink.destination} refuses spans: ")
        assert why in str(error)
        assert failure(sink.send(spans(1))) is error
        assert collector.sizes() == [2]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 307, "headers": {"Location": "/elsewhere"}},
        {"status": 200, "said": "<html>hello</html>", "headers": {"Content-Type": "text/html"}},
    ],
)
def test_an_answer_that_is_none_of_otlp_is_no_success(
    answer: dict[str, Any], opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, answer, protocol=HTTP) as collector:
        assert failure(opened(collector.endpoint, HTTP).send(spans(1))).permanent


@both
def test_what_the_receiver_says_is_told_without_secrets(
    protocol: Protocol, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-tenant={SECRET}")
    said = f"the tenant {SECRET} has no\nplace for Bearer abcdef123456"
    answer: dict[str, Any] = {"said": said}
    answer["status"] = 400 if protocol == HTTP else "INVALID_ARGUMENT"
    if protocol == HTTP:
        answer |= {"as_status": True, "headers": {"Content-Type": "application/x-protobuf"}}
    with ScriptedCollector(tmp_path, answer, protocol=protocol) as collector:
        error = failure(opened(collector.endpoint, protocol).send(spans(1)))
        assert collector.headers()[0]["x-tenant"] == SECRET
    assert "the tenant [REDACTED] has no place for Bearer [REDACTED]" in str(error)


@both
def test_the_destination_is_named_without_its_credentials(
    protocol: Protocol, opened: Opened
) -> None:
    port = free_port()
    sink = opened(f"http://user:{SECRET}@127.0.0.1:{port}/?key={SECRET}", protocol, patience=0.1)
    error = failure(sink.send(spans(1)))
    assert SECRET not in sink.destination
    assert SECRET not in str(error)
    assert f"127.0.0.1:{port}" in sink.destination


def test_a_receiver_that_repeats_the_address_gives_no_secret_of_it_away(
    opened: Opened, tmp_path: Path
) -> None:
    answer = {"status": 400, "said": f"no place for {SECRET}"}
    with ScriptedCollector(tmp_path, answer, protocol=HTTP) as collector:
        error = failure(opened(f"{collector.endpoint}?{SECRET}", HTTP).send(spans(1)))
        assert collector.headers()[0][":path"] == f"/v1/traces?{SECRET}"
    assert "no place for [REDACTED]" in str(error)


@both
def test_spans_that_are_rejected_are_counted_with_the_reason(
    protocol: Protocol, opened: Opened
) -> None:
    with FaultyCollector("partial_success", protocol, count=2) as collector:
        sink = opened(collector.endpoint, protocol)
        assert delivered(sink.send(spans(5))) == Delivered(2, "some were rejected")


def test_no_more_spans_are_rejected_than_were_sent(opened: Opened, tmp_path: Path) -> None:
    with ScriptedCollector(tmp_path, {"rejected": 5_000}) as collector:
        assert delivered(opened(collector.endpoint, GRPC).send(spans(5))).rejected == 5


@both
def test_a_request_that_is_too_large_goes_in_parts(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, protocol=protocol, largest=1000) as collector:
        sink = opened(collector.endpoint, protocol)
        futures = [sink.send(spans(25)), sink.send(spans(25, 25))]
        assert [delivered(future) for future in futures] == [Delivered(0, None)] * 2
        actions = [span.attributes[semconv.ACTION_ID] for span in collector.spans()]
        assert actions == [f"action-{number}" for number in range(1, 51)]


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        (GRPC, {"status": "RESOURCE_EXHAUSTED", "said": "grpc: received message larger than max"}),
        (GRPC, {"status": "OUT_OF_RANGE", "said": "Error, decoded message length too large"}),
        (HTTP, {"status": 400, "said": "http: request body too large"}),
    ],
)
def test_other_ways_to_say_too_large_are_understood(
    protocol: Protocol, answer: dict[str, Any], opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, answer, protocol=protocol) as collector:
        sink = opened(collector.endpoint, protocol)
        delivered(sink.send(spans(5)))
        delivered(sink.send(spans(5, 5)))
        # What was too large is known from then on.
        assert collector.sizes() == [5, 2, 3, 2, 2, 1]
        assert len(collector.spans()) == 10


def numbers_of(collector: ScriptedCollector) -> list[int]:
    return [int(span.attributes[semconv.ACTION_ID][7:]) for span in collector.spans()]


@both
@pytest.mark.parametrize("bad", [[1], [17], [25], [1, 2, 3, 4], [9, 10, 20]])
def test_spans_that_are_invalid_are_rejected_and_hold_nothing_up(
    protocol: Protocol, bad: list[int], opened: Opened, tmp_path: Path
) -> None:
    invalid = [f"action-{number}" for number in bad]
    with ScriptedCollector(tmp_path, protocol=protocol, invalid=invalid) as collector:
        sink = opened(collector.endpoint, protocol)
        futures = [sink.send(spans(25)), sink.send(spans(25, 25))]
        assert [delivered(future) for future in futures] == [
            Delivered(len(bad), "not for carol"),
            Delivered(0, None),
        ]
        assert numbers_of(collector) == [n for n in range(1, 51) if n not in bad]
        assert collector.sizes()[-1] == 25


def test_an_invalid_span_alone_is_rejected_where_others_were_taken(
    opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, invalid=["action-2"]) as collector:
        sink = opened(collector.endpoint, GRPC)
        futures = [sink.send(spans(1, start)) for start in range(3)]
        assert [delivered(future).rejected for future in futures] == [0, 1, 0]


@both
def test_a_receiver_to_which_everything_is_invalid_refuses(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    invalid = [f"action-{number}" for number in range(1, 5)]
    with ScriptedCollector(tmp_path, protocol=protocol, invalid=invalid) as collector:
        sink = opened(collector.endpoint, protocol)
        error = failure(sink.send(spans(4)))
        assert collector.sizes() == [4, 2, 1, 1, 2, 1, 1]
        assert failure(sink.send(spans(1))) is error
    assert error.permanent
    assert str(error).startswith(f"{sink.destination} refuses spans: ")
    assert "not for carol" in str(error)


def test_many_spans_in_a_row_that_are_invalid_are_a_refusal_too(
    opened: Opened, tmp_path: Path
) -> None:
    # As of a receiver that has begun to refuse everything: what it refused is not given up.
    invalid = [f"action-{number}" for number in range(100, 1000)]
    with ScriptedCollector(tmp_path, invalid=invalid) as collector:
        sink = opened(collector.endpoint, GRPC)
        delivered(sink.send(spans(99)))
        assert failure(sink.send(spans(900, 99))).permanent
        assert len(collector.sizes()) < 300


@both
def test_one_span_that_is_too_large_is_an_error(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, protocol=protocol, largest=20) as collector:
        error = failure(opened(collector.endpoint, protocol).send(spans(4)))
        assert error.permanent
        assert "takes no request of even one span" in str(error)
        assert collector.spans() == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "set it to grpc, or to http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "cannot be made from these settings"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "lzma", "cannot be made from these settings"),
    ],
)
def test_settings_that_make_no_exporter_are_named(
    variable: str, value: str, said: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UnusableDestinationError, match=said):
        opened(None)


def test_an_option_that_is_no_address_is_named(opened: Opened) -> None:
    with pytest.raises(UnusableDestinationError, match="--endpoint is no address"):
        opened("http://")


def test_an_exporter_that_is_not_installed_is_named_with_its_extra(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    without: Callable[..., list[Any]] = lambda **_: []  # noqa: E731
    monkeypatch.setattr(sending, "entry_points", without)
    with pytest.raises(UnusableDestinationError, match=r"agent-kernel-otel\[http\]"):
        opened(None, HTTP)


@both
def test_an_exporter_without_the_places_that_are_used_sends_all_the_same(
    protocol: Protocol, opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Closed:
        """An exporter that shows nothing but what is public."""

        def __init__(self, **options: Any) -> None:
            inner = entry_point.load()(**options)
            self.export, self.shutdown = inner.export, inner.shutdown

    (entry_point,) = entry_points(
        group="opentelemetry_traces_exporter",
        name="otlp_proto_grpc" if protocol == GRPC else "otlp_proto_http",
    )
    stand_in = type("EntryPoint", (), {"load": lambda _: Closed})()
    monkeypatch.setattr(sending, "entry_points", lambda **_: [stand_in])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    status = 400 if protocol == HTTP else "INVALID_ARGUMENT"
    answers = [{"status": status}, {"status": status}]
    with ScriptedCollector(tmp_path, *answers, protocol=protocol) as collector:
        delivered(opened(collector.endpoint, protocol).send(spans(3)))
        assert collector.sizes() == [3, 3, 3]
        assert len(collector.spans()) == 3
