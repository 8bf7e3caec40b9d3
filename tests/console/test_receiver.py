# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agent_kernel_otel.console import wire
from agent_kernel_otel.console.intake import Intake
from agent_kernel_otel.console.notices import Notices
from agent_kernel_otel.console.receiver import PortUnavailable, Receiver
from agent_kernel_otel.console.records import attributes_of
from tests.console.conftest import MAX_REQUEST_BYTES, Receiving
from tests.console.harness import logs_json, send_grpc, span, traces_json, traces_request
from tests.support.ports import free_port

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def post(
    receiving: Receiving,
    body: bytes,
    content_type: str = PROTOBUF,
    path: str = "/v1/traces",
    **headers: str,
) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", receiving.receiver.http_port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, {"content-type": content_type, **named})
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type", ""), answer.read()
    finally:
        connection.close()


def error_text(answer: tuple[int, str, bytes]) -> str:
    """The message of the Status in an error's body, read by the answer's own content type."""
    _, content_type, body = answer
    if content_type == PROTOBUF:
        return str(Status.FromString(body).message)
    assert content_type == JSON
    return str(json.loads(body)["message"])


def test_protobuf_over_grpc_is_stored(receiving: Receiving) -> None:
    request = traces_request(span("work"))
    answer = send_grpc(receiving.receiver.grpc_port, request.SerializeToString())
    assert not ExportTraceServiceResponse.FromString(answer).HasField("partial_success")
    (stored,) = receiving.store.trace(bytes.fromhex("11" * 16)).spans
    assert stored.span == request.resource_spans[0].scope_spans[0].spans[0]


def test_protobuf_over_http_is_stored_and_answered_in_protobuf(receiving: Receiving) -> None:
    request = traces_request(span("work"))
    status, content_type, body = post(receiving, request.SerializeToString())
    assert (status, content_type) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(body) == ExportTraceServiceResponse()
    (stored,) = receiving.store.trace(bytes.fromhex("11" * 16)).spans
    assert stored.span.name == "work"


def test_json_over_http_is_stored_and_answered_in_json(receiving: Receiving) -> None:
    sent = traces_json(
        span("work", parent_id="02" * 8, links=(("ab" * 16, "cd" * 8),), attributes={"n": 3})
    )
    sent["resourceSpans"][0]["unknownField"] = {"newer": "than this release"}
    answer = post(receiving, json.dumps(sent).encode(), f"{JSON}; charset=utf-8")
    assert answer == (200, JSON, b"{}")
    (stored,) = receiving.store.trace(bytes.fromhex("11" * 16)).spans
    assert stored.span.span_id == bytes.fromhex("01" * 8)
    assert stored.span.parent_span_id == bytes.fromhex("02" * 8)
    assert stored.span.links[0].trace_id == bytes.fromhex("ab" * 16)
    assert stored.span.attributes[0].value.int_value == 3


def test_every_kind_of_value_in_json_is_understood(receiving: Receiving) -> None:
    values = [
        {"stringValue": "text"},
        {"boolValue": True},
        {"intValue": "-5"},
        {"intValue": 6},
        {"doubleValue": 0.5},
        {"doubleValue": "NaN"},
        {"bytesValue": "AP8="},
        {"kvlistValue": {"values": [{"key": "k", "value": {"arrayValue": {"values": [{}]}}}]}},
    ]
    sent = {
        **span("work"),
        "kind": "SPAN_KIND_SERVER",
        "start_time_unix_nano": 7,
        "traceState": None,
        "attributes": [{"key": str(n), "value": value} for n, value in enumerate(values)],
    }
    del sent["startTimeUnixNano"]
    assert post(receiving, json.dumps(traces_json(sent)).encode(), JSON)[0] == 200
    (stored,) = receiving.store.trace(bytes.fromhex("11" * 16)).spans
    read = list(attributes_of(stored.span.attributes).values())
    assert read[:5] == ["text", True, -5, 6, 0.5]
    assert math.isnan(read[5])
    assert read[6:] == [b"\x00\xff", {"k": [None]}]
    assert (stored.span.kind, stored.span.start_time_unix_nano) == (2, 7)


def test_grpc_at_the_http_port_is_told_so(receiving: Receiving) -> None:
    with pytest.raises(grpc.RpcError):
        send_grpc(receiving.receiver.http_port, b"")
    assert any("this is gRPC" in notice for notice in receiving.notices)


def test_the_http_exporter_of_the_sdk_is_understood_gzipped(receiving: Receiving) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        receiving.receiver.url(receiving.receiver.http_port) + "/v1/traces",
        compression=Compression.Gzip,
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("work") as work:
        trace_id = work.get_span_context().trace_id
    provider.shutdown()
    (stored,) = receiving.store.trace(trace_id.to_bytes(16, "big")).spans
    assert stored.span.name == "work"


def test_logs_and_metrics_have_their_own_paths(receiving: Receiving) -> None:
    logs = logs_json({"body": {"stringValue": "hello"}, "traceId": "11" * 16, "spanId": "01" * 8})
    assert post(receiving, json.dumps(logs).encode(), JSON, "/v1/logs")[0] == 200
    metrics = {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {"metrics": [{"name": "m", "gauge": {"dataPoints": [{"asInt": "7"}]}}]}
                ]
            }
        ]
    }
    assert post(receiving, json.dumps(metrics).encode(), JSON, "/v1/metrics")[0] == 200
    (log,) = receiving.store.trace(bytes.fromhex("11" * 16)).logs
    assert log.record.body.string_value == "hello"
    (series,) = receiving.store.metric_series()
    assert (series.name, series.point.as_int) == ("m", 7)


def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(receiving: Receiving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiving.receiver.http_port, timeout=30)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        connection.request("POST", "/v1/traces", b"{}", {"content-type": JSON})
        assert connection.getresponse().read() == b"{}"
        times.append(time.perf_counter() - start)
    connection.close()
    # The delay is 40 ms on every answer; anything below it on any answer shows that it is gone.
    assert min(times[1:]) < 0.03


def test_an_empty_request_succeeds(receiving: Receiving) -> None:
    assert post(receiving, b"") == (200, PROTOBUF, b"")
    assert post(receiving, b"{}", JSON) == (200, JSON, b"{}")
    assert receiving.store.last_batch == 0


def test_malformed_protobuf_over_grpc_is_an_invalid_argument(receiving: Receiving) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        send_grpc(receiving.receiver.grpc_port, b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "malformed" in raised.value.details()
    assert receiving.notices == [f"refused over gRPC, traces: {raised.value.details()}"]


def test_malformed_protobuf_over_http_is_a_400(receiving: Receiving) -> None:
    answer = post(receiving, b"\xff\xff\xff")
    assert (answer[0], answer[1]) == (400, PROTOBUF)
    assert "malformed" in error_text(answer)
    assert receiving.notices == [f"refused over HTTP, POST /v1/traces: {error_text(answer)}"]


def deeply_nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return {**span("deep"), "attributes": [{"key": "deep", "value": value}]}


DEEP = b'{"resourceSpans":' + b"[" * 200_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut off"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(DEEP, id="deep"),
        pytest.param(b'{"resourceSpans": 3}', id="a number for a list"),
        pytest.param(json.dumps(traces_json(span("x", trace_id="zz"))).encode(), id="not hex"),
        pytest.param(json.dumps(traces_json(span("\ud800"))).encode(), id="lone surrogate"),
        pytest.param(json.dumps({"resourceSpans": [{"resource": [1]}]}).encode(), id="list"),
        pytest.param(
            json.dumps(traces_json({**span("x"), "startTimeUnixNano": "1e400"})).encode(), id="huge"
        ),
        pytest.param(json.dumps(traces_json({**span("x"), "traceId": 7})).encode(), id="id number"),
        pytest.param(json.dumps(traces_json({**span("x"), "name": 7})).encode(), id="name number"),
        pytest.param(json.dumps(traces_json({**span("x"), "flags": 2**40})).encode(), id="flags"),
        pytest.param(json.dumps(traces_json(deeply_nested(60))).encode(), id="too deep to keep"),
        pytest.param(json.dumps(traces_json(deeply_nested(220))).encode(), id="too deep to read"),
    ],
)
def test_malformed_json_is_a_400_and_the_receiver_lives_on(
    receiving: Receiving, body: bytes
) -> None:
    answer = post(receiving, body, JSON)
    assert (answer[0], answer[1]) == (400, JSON)
    assert "malformed" in error_text(answer)
    assert len(receiving.notices) == 1
    assert post(receiving, json.dumps(traces_json(span("after"))).encode(), JSON)[0] == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_a_415(receiving: Receiving, content_type: str) -> None:
    answer = post(receiving, traces_request(span("x")).SerializeToString(), content_type)
    assert answer[0] == 415
    assert "application/x-protobuf" in error_text(answer)
    assert receiving.store.last_batch == 0
    assert len(receiving.notices) == 1


def test_other_content_encodings_are_a_415(receiving: Receiving) -> None:
    answer = post(receiving, b"", content_encoding="br")
    assert answer[0] == 415
    assert "gzip" in error_text(answer)


def oversize_json() -> bytes:
    return json.dumps(traces_json(span("x" * MAX_REQUEST_BYTES))).encode()


def test_an_oversize_body_is_a_413(receiving: Receiving) -> None:
    answer = post(receiving, oversize_json(), JSON)
    assert (answer[0], answer[1]) == (413, JSON)
    assert "larger than 1 MiB" in error_text(answer)
    assert receiving.notices == [f"refused over HTTP, POST /v1/traces: {error_text(answer)}"]
    assert receiving.store.last_batch == 0


def test_an_oversize_body_of_unknown_length_is_a_413(receiving: Receiving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiving.receiver.http_port, timeout=30)
    chunks = (b"x" * 65_536 for _ in range(MAX_REQUEST_BYTES // 65_536 + 1))
    connection.request("POST", "/v1/traces", chunks, {"content-type": JSON}, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    answer.read()
    connection.close()


def test_a_gzip_bomb_is_a_413_and_is_never_inflated(receiving: Receiving) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"\0" * 1024 * 1024
    bomb = b"".join(compressor.compress(block) for _ in range(256)) + compressor.flush()
    assert len(bomb) < MAX_REQUEST_BYTES
    before = _peak_memory()
    answer = post(receiving, bomb, content_encoding="gzip")
    assert answer[0] == 413
    assert "after decompression" in error_text(answer)
    assert _peak_memory() - before < 64 * 1024 * 1024


def _peak_memory() -> int:
    resource = pytest.importorskip("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"{}" * 1000, mtime=0)[:-12]])
def test_malformed_gzip_is_a_400(receiving: Receiving, body: bytes) -> None:
    answer = post(receiving, body, JSON, content_encoding="gzip")
    assert answer[0] == 400
    assert "gzip" in error_text(answer)


def test_an_oversize_grpc_request_is_refused_without_inviting_a_retry(
    receiving: Receiving,
) -> None:
    request = traces_request(span("x" * MAX_REQUEST_BYTES)).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        send_grpc(receiving.receiver.grpc_port, request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "larger than 1 MiB" in raised.value.details()
    assert len(receiving.notices) == 1
    assert receiving.store.last_batch == 0


def test_a_gzip_bomb_over_grpc_is_refused(receiving: Receiving) -> None:
    request = traces_request(span("x" * 64 * MAX_REQUEST_BYTES)).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        send_grpc(receiving.receiver.grpc_port, request, compression=grpc.Compression.Gzip)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    send_grpc(receiving.receiver.grpc_port, traces_request(span("after")).SerializeToString())
    assert receiving.store.counters.spans == 1


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4318", "[::1", "*", ""],
)
def test_a_foreign_host_is_refused(receiving: Receiving, host: str) -> None:
    answer = post(receiving, b"{}", JSON, host=host)
    assert answer[0] == 400
    assert "Host" in error_text(answer)
    (notice,) = receiving.notices
    assert "Host" in notice
    assert repr(host) in notice


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:4318", "127.0.0.1:1", "[::1]:4318"])
def test_names_of_this_machine_are_accepted(receiving: Receiving, host: str) -> None:
    assert post(receiving, b"{}", JSON, host=host)[0] == 200


def test_a_preflight_of_a_web_page_gets_no_permission(receiving: Receiving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiving.receiver.http_port, timeout=30)
    connection.request(
        "OPTIONS",
        "/v1/traces",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 405
    assert not [name for name, _ in answer.getheaders() if name.startswith("access-control")]
    connection.close()


def test_a_wrong_path_says_where_otlp_goes(receiving: Receiving) -> None:
    answer = post(receiving, b"{}", JSON, "/")
    assert answer[0] == 404
    assert "/v1/traces" in error_text(answer)
    assert len(receiving.notices) == 1


def test_spans_with_invalid_ids_are_counted_as_rejected_and_the_rest_is_kept(
    receiving: Receiving,
) -> None:
    request = traces_request(
        span("good"),
        span("short", trace_id="11"),
        span("zero", trace_id="00" * 16),
        span("no span id", span_id=""),
    )
    answer = send_grpc(receiving.receiver.grpc_port, request.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert partial.rejected_spans == 3
    assert "trace id" in partial.error_message
    (stored,) = receiving.store.trace(bytes.fromhex("11" * 16)).spans
    assert stored.span.name == "good"
    assert len(receiving.notices) == 1


def test_many_bad_requests_give_one_notice_and_their_number() -> None:
    now = [0.0]
    lines: list[str] = []
    notices = Notices(lines.append, clock=lambda: now[0])
    for _ in range(1000):
        notices.warn("bad", "a bad request")
    assert lines == ["a bad request"]
    now[0] = 6.0
    notices.warn("bad", "a bad request")
    assert lines[1] == "a bad request (and 999 more like it)"


def test_kinds_of_notices_are_bounded_whatever_the_sender_makes_up() -> None:
    lines: list[str] = []
    notices = Notices(lines.append, clock=lambda: 0.0)
    for number in range(1000):
        notices.warn(f"kind {number}", "bad")
    assert len(lines) <= 21


def test_requests_at_the_same_time_are_all_stored(receiving: Receiving) -> None:
    def send(number: int) -> None:
        sent = span("work", trace_id=f"{number + 1:032x}")
        if number % 2:
            send_grpc(receiving.receiver.grpc_port, traces_request(sent).SerializeToString())
        else:
            assert post(receiving, json.dumps(traces_json(sent)).encode(), JSON)[0] == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(40)))
    assert receiving.store.counters.spans == 40
    assert len(receiving.store.changed_traces(0, receiving.store.last_batch)) == 40


def test_a_store_that_fails_is_answered_as_unavailable(receiving: Receiving) -> None:
    # The real failure of a full disk, without filling one.
    receiving.store._database.execute("PRAGMA max_page_count = 1")
    request = traces_request(*(span("x" * 200, span_id=f"{n + 1:016x}") for n in range(2000)))
    with pytest.raises(grpc.RpcError) as raised:
        send_grpc(receiving.receiver.grpc_port, request.SerializeToString())
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "full" in raised.value.details()
    answer = post(receiving, request.SerializeToString())
    assert answer[0] == 503
    assert receiving.store.counters.spans == 0
    assert receiving.store.changed_traces(0, receiving.store.last_batch) == []


def start_receiver(receiving: Receiving, **ports: int) -> Any:
    intake = Intake(receiving.store, Notices(receiving.notices.append))
    return Receiver(intake, "127.0.0.1", **{"grpc_port": 0, "http_port": 0, **ports})


@pytest.mark.parametrize("option", ["grpc_port", "http_port"])
def test_a_port_held_by_a_plain_socket_is_named_with_the_option_that_changes_it(
    receiving: Receiving, option: str
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortUnavailable) as raised:
            start_receiver(receiving, **{option: port})
    assert f"port {port} on 127.0.0.1 is in use" in str(raised.value)
    assert f"--{option.replace('_', '-')}" in str(raised.value)


@pytest.mark.parametrize("option", ["grpc_port", "http_port"])
@pytest.mark.parametrize("address", ["127.0.0.1", "[::]"])
def test_a_port_held_by_another_grpc_server_is_noticed_although_it_would_be_shared(
    receiving: Receiving, option: str, address: str
) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port(f"{address}:0")
    other.start()
    try:
        with pytest.raises(PortUnavailable) as raised:
            start_receiver(receiving, **{option: port})
        assert str(port) in str(raised.value)
    finally:
        other.stop(None).wait()


def test_another_grpc_server_cannot_share_our_port_afterwards(receiving: Receiving) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    with pytest.raises(RuntimeError):
        other.add_insecure_port(f"127.0.0.1:{receiving.receiver.grpc_port}")
    other.stop(None).wait()


def test_a_port_that_was_refused_leaves_the_other_one_free(receiving: Receiving) -> None:
    port = free_port()
    with pytest.raises(PortUnavailable):
        start_receiver(receiving, http_port=port, grpc_port=receiving.receiver.grpc_port)
    start_receiver(receiving, http_port=port).stop()


def test_on_all_addresses_any_host_name_is_accepted(receiving: Receiving) -> None:
    receiver = Receiver(Intake(receiving.store, Notices(lambda _: None)), "0.0.0.0", 0, 0)
    try:
        assert receiver.url(receiver.http_port) == f"http://127.0.0.1:{receiver.http_port}"
        reached = Receiving(receiving.store, receiver, [])
        assert post(reached, b"{}", JSON, host="docker.internal")[0] == 200
    finally:
        receiver.stop()


def test_an_unknown_host_is_named(receiving: Receiving) -> None:
    intake = Intake(receiving.store, Notices(receiving.notices.append))
    with pytest.raises(PortUnavailable, match=r"no\.such\.host\.invalid"):
        Receiver(intake, "no.such.host.invalid", 0, 0)


def test_the_receiver_listens_on_ipv6_loopback_too(receiving: Receiving) -> None:
    intake = Intake(receiving.store, Notices(receiving.notices.append))
    try:
        receiver = Receiver(intake, "::1", 0, 0)
    except PortUnavailable:
        assert not _has_ipv6()
        return
    try:
        assert receiver.url(receiver.http_port) == f"http://[::1]:{receiver.http_port}"
        with contextlib.closing(
            http.client.HTTPConnection("::1", receiver.http_port, timeout=30)
        ) as connection:
            connection.request("POST", "/v1/traces", b"{}", {"content-type": JSON})
            assert connection.getresponse().status == 200
    finally:
        receiver.stop()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_every_service_of_otlp_is_served(receiving: Receiving) -> None:
    for signal in wire.SIGNALS:
        assert send_grpc(receiving.receiver.grpc_port, b"", signal) == b""
