# SPDX-License-Identifier: Apache-2.0
"""Whether each endpoint answers: a real OTLP request to real sockets, and why one fails."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from tests.doctor.harness import codes, diagnosis
from tests.doctor.receivers import grpc_credentials, grpc_receiver, http_receiver, tls_context
from tests.support.faulty_collector import FaultyCollector, Protocol
from tests.support.otlp_sink import OtlpSink

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
TAKES_ALL: dict[str, tuple[int, dict[str, str], bytes]] = {"*": (200, {}, b"")}
BOTH: tuple[Protocol, ...] = ("grpc", "http/protobuf")


def test_a_collector_takes_the_request_of_every_signal_and_stores_nothing() -> None:
    with OtlpSink() as sink:
        found = diagnosis({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}, ask=True)
        assert not found.problems
        assert [answer.outcome.value for answer in found.answers or ()] == ["ok", "ok", "ok"]
        sink.wait_for(lambda received: len(received.headers()) == 3)
        assert [*sink.spans(), *sink.logs(), *sink.metrics()] == []


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("refused", "connection_refused"),
        ("dns_failure", "name_does_not_resolve"),
        ("tar_pit", "no_answer"),
        ("slow", "too_slow"),
        ("server_error", "server_error"),
        ("flapping", "server_error"),
        ("resource_exhausted", "overloaded"),
        ("tls_mismatch", "certificate_not_trusted"),
        ("plain_text", "does_not_speak_tls"),
    ],
)
def test_each_way_to_fail_is_told_from_the_others(
    behaviour: str, code: str, protocol: Protocol
) -> None:
    with FaultyCollector(behaviour, protocol) as collector:
        variables = {**collector.environment(), "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        found = diagnosis(variables, ask=True)
    assert codes(found) == {code}
    (finding,) = found.problems
    assert finding.problem.startswith("traces, metrics, logs: ")
    assert finding.fix


@pytest.mark.parametrize("protocol", BOTH)
def test_a_healthy_collector_is_healthy_over_both_protocols(protocol: Protocol) -> None:
    with FaultyCollector("healthy", protocol) as collector:
        assert not diagnosis(collector.environment(), ask=True).problems


def test_the_port_of_grpc_is_told_from_that_of_http() -> None:
    with OtlpSink() as sink:
        over_http = diagnosis({**HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}, ask=True)
    assert codes(over_http) == {"speaks_grpc"}
    with http_receiver(TAKES_ALL) as endpoint:
        over_grpc = diagnosis({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert codes(over_grpc) == {"speaks_http"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "wrong_path"),
        (429, "overloaded"),
        (500, "server_error"),
        (302, "redirected"),
    ],
)
def test_http_statuses_are_explained(status: int, code: str) -> None:
    answer = {"*": (status, {"Location": "/elsewhere"}, b"no")}
    with http_receiver(answer) as endpoint:
        found = diagnosis({**HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert codes(found) == {code}
    assert found.answers is not None
    assert code == "redirected" or str(status) in found.answers[0].status


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
        (grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
        (grpc.StatusCode.UNIMPLEMENTED, "signal_not_taken"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded"),
        (grpc.StatusCode.INTERNAL, "server_error"),
    ],
)
def test_grpc_statuses_are_explained(status: grpc.StatusCode, code: str) -> None:
    with grpc_receiver({"*": (status, "no")}) as endpoint:
        found = diagnosis({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert codes(found) == {code}


def test_a_backend_of_traces_alone_is_known_over_grpc() -> None:
    not_here = (grpc.StatusCode.UNIMPLEMENTED, "unknown service")
    with grpc_receiver({"metrics": not_here, "logs": not_here}) as endpoint:
        found = diagnosis({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    (finding,) = found.problems
    assert finding.code == "signal_not_taken"
    assert finding.problem.startswith("metrics, logs: ")
    assert "OTEL_METRICS_EXPORTER OTEL_LOGS_EXPORTER" in finding.fix


def test_a_backend_of_traces_alone_is_known_over_http() -> None:
    with http_receiver({"/v1/traces": (200, {}, b""), "*": (404, {}, b"no page")}) as endpoint:
        found = diagnosis({**HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    (finding,) = found.problems
    assert (finding.code, finding.problem[:14]) == ("signal_not_taken", "metrics, logs:")


def test_a_signals_own_address_needs_its_path() -> None:
    with http_receiver({"/v1/traces": (200, {}, b""), "*": (404, {}, b"")}) as endpoint:
        variables = {
            **HTTP,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        (finding,) = diagnosis(variables, ask=True).problems
        assert finding.code == "wrong_path"
        assert finding.fix.startswith("end OTEL_EXPORTER_OTLP_TRACES_ENDPOINT with /v1/traces")
        variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] += "/v1/traces"
        assert not diagnosis(variables, ask=True).problems


def test_a_web_page_is_no_receiver() -> None:
    page = {"*": (200, {"Content-Type": "text/html"}, b"<html>")}
    with http_receiver(page) as endpoint:
        found = diagnosis({**HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert codes(found) == {"not_otlp"}


def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.socket() as unused, http_receiver(TAKES_ALL) as endpoint:
        unused.bind(("127.0.0.1", 0))
        variables = {
            **HTTP,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "http_proxy": f"http://127.0.0.1:{unused.getsockname()[1]}",
        }
        (finding,) = diagnosis(variables, ask=True).problems
        assert finding.code == "proxy"
        assert "http_proxy" in finding.problem
        assert not diagnosis({**variables, "no_proxy": "127.0.0.1"}, ask=True).problems


@pytest.mark.parametrize("protocol", BOTH)
def test_tls_that_is_wanted_and_not_spoken_is_told(protocol: Protocol, tmp_path: Path) -> None:
    with http_receiver(TAKES_ALL, tls_context(tmp_path)) as endpoint:
        plain = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.replace("https", "http"),
        }
        assert codes(diagnosis(plain, ask=True)) == {"needs_tls"}


def test_a_certificate_is_trusted_once_its_authority_is_given(tmp_path: Path) -> None:
    with http_receiver(TAKES_ALL, tls_context(tmp_path)) as endpoint:
        variables = {**HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        assert codes(diagnosis(variables, ask=True)) == {"certificate_not_trusted"}
        variables["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(tmp_path / "ca.pem")
        assert not diagnosis(variables, ask=True).problems


def test_authorities_that_overrule_the_exporters_own_are_named(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    tls_context(tmp_path / "others")
    with http_receiver(TAKES_ALL, tls_context(tmp_path)) as endpoint:
        variables = {
            **HTTP,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
            "REQUESTS_CA_BUNDLE": str(tmp_path / "others" / "ca.pem"),
        }
        ours = diagnosis(variables, ask=True)
        found = diagnosis(variables, ask=True, ours=False)
    assert codes(ours) == set(), "our pipelines use what the user has set"
    before_1_45 = not hasattr(OTLPSpanExporter(), "_client")
    assert codes(found) == (set() if before_1_45 else {"other_authorities_trusted"})
    assert before_1_45 or "REQUESTS_CA_BUNDLE" in found.problems[0].fix


def test_a_certificate_of_another_name_is_told(tmp_path: Path) -> None:
    with http_receiver(TAKES_ALL, tls_context(tmp_path, name="other.example")) as endpoint:
        variables = {
            **HTTP,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
        }
        assert codes(diagnosis(variables, ask=True)) == {"certificate_of_another_name"}


def test_a_client_certificate_that_is_wanted_is_told_and_shown(tmp_path: Path) -> None:
    with http_receiver(TAKES_ALL, tls_context(tmp_path, client_authority=True)) as endpoint:
        variables = {
            **HTTP,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
        }
        assert codes(diagnosis(variables, ask=True)) == {"needs_client_certificate"}
        variables["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(tmp_path / "client.pem")
        variables["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(tmp_path / "client.key")
        assert not diagnosis(variables, ask=True).problems


def test_certificates_are_seen_to_over_grpc_too(tmp_path: Path) -> None:
    with grpc_receiver({}, credentials=grpc_credentials(tmp_path)) as endpoint:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        assert codes(diagnosis(variables, ask=True)) == {"certificate_not_trusted"}
        variables["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(tmp_path / "ca.pem")
        assert codes(diagnosis(variables, ask=True)) == {"needs_client_certificate"}
        variables["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(tmp_path / "client.pem")
        variables["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(tmp_path / "client.key")
        assert not diagnosis(variables, ask=True).problems


def test_the_request_is_made_with_the_exporters_own_headers_and_compression() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    over_http: list[tuple[str, dict[str, str], bytes]] = []
    with http_receiver(TAKES_ALL, seen=over_http) as endpoint:
        diagnosis({**variables, **HTTP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert {path for path, _, _ in over_http} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    for _, headers, _ in over_http:
        assert headers["x-tenant"] == "blue"
        assert headers["content-encoding"] == "gzip"
    over_grpc: list[dict[str, str]] = []
    with grpc_receiver({}, seen=over_grpc) as endpoint:
        diagnosis({**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, ask=True)
    assert [headers["x-tenant"] for headers in over_grpc] == ["blue"] * 3


def test_the_exporters_of_a_configuration_file_are_asked(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []
    file = tmp_path / "otel.yaml"
    with http_receiver(TAKES_ALL, seen=seen) as endpoint:
        file.write_text(f"""
file_format: "1.0"
tracer_provider:
  processors:
    - batch:
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/traces
            headers: [{{name: x-tenant, value: blue}}]
""")
        found = diagnosis({"OTEL_CONFIG_FILE": str(file)}, ask=True)
    assert not found.problems
    assert [(path, headers["x-tenant"]) for path, headers, _ in seen] == [("/v1/traces", "blue")]
    assert {note.code for note in found.notes} == {"no_metrics_exporter", "no_logs_exporter"}
