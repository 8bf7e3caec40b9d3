# SPDX-License-Identifier: Apache-2.0
"""``opentelemetry-instrument python app.py``, with a real app, and a real receiver."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from agent_kernel_otel import __version__
from tests.distro.zero_code import KERNEL_APP, environment, install, run
from tests.support.otlp_sink import OtlpSink

NONCE = secrets.token_hex(12)


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def orders() -> Iterator[tuple[OtlpSink, CompletedProcess[str]]]:
    """The kernel app, run once with nothing set but the endpoint."""
    with OtlpSink() as receiver:
        env = environment(ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        yield receiver, run(str(KERNEL_APP), env=env)


def test_a_kernel_app_sends_its_spans(orders: tuple[OtlpSink, CompletedProcess[str]]) -> None:
    sink, _ = orders
    names = [span.name for span in sink.spans()]
    for name in ("grant", "invoke", "policy.evaluate", "driver.execute", "firewall.apply"):
        assert f"agent_kernel.{name}" in names
    assert {span.attributes["agent_kernel.system"] for span in sink.spans()} == {"weaver_kernel"}


def test_nothing_is_printed_by_us(orders: tuple[OtlpSink, CompletedProcess[str]]) -> None:
    assert orders[1].stderr == ""


def test_the_apps_own_handler_prints_what_it_prints_without_us(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    bare = run(str(KERNEL_APP), env=environment(ORDERS_NONCE=NONCE), instrumented=False)
    assert orders[1].stdout == bare.stdout
    assert NONCE in bare.stdout


def test_no_planted_secret_is_in_any_byte_that_leaves(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, _ = orders
    assert {log.body for log in sink.logs()} >= {
        "request_capabilities",
        "driver_failure",
        "invoke_failure",
        "deny_trace_record_failed",
        "advertise",
        "import_remote",
    }
    assert NONCE.encode() not in sink.raw_bytes()
    assert b"sk-live" not in sink.raw_bytes()


def test_a_formatted_message_of_the_kernel_leaves_as_its_template(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    bodies = [log.body for log in orders[0].logs() if log.scope == "weaver_kernel._secrets"]
    (body,) = bodies
    assert body.startswith("%s is not set. Using a random development secret")
    assert body.endswith("Set %s in production.")


def test_logs_of_app_and_kernel_have_the_ids_of_the_span_around_them(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, _ = orders
    by_id = {span.span_id: span for span in sink.spans()}
    from_handlers = [log for log in sink.logs() if log.scope == "orders"]
    from_kernel = [log for log in sink.logs() if log.body == "invoke_start"]
    assert from_handlers
    assert {by_id[log.span_id].name for log in from_handlers} == {"agent_kernel.driver.execute"}
    assert {by_id[log.span_id].name for log in from_kernel} == {"agent_kernel.invoke"}
    assert all(by_id[log.span_id].trace_id == log.trace_id for log in from_kernel + from_handlers)


def test_the_resource_names_the_service_and_the_distro(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, _ = orders
    for item in (*sink.spans(), *sink.logs()):
        assert item.resource["service.name"] == "orders"
        assert item.resource["telemetry.distro.name"] == "agent-kernel-otel"
        assert item.resource["telemetry.distro.version"] == __version__


def test_all_three_signals_of_an_app_without_a_kernel_arrive_and_no_kernel_is_imported(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "plain.py"
    app.write_text(
        "import logging, sys\n"
        "from opentelemetry import metrics, trace\n"
        "metrics.get_meter('plain').create_counter('plain.calls').add(1)\n"
        "with trace.get_tracer('plain').start_as_current_span('work'):\n"
        "    logging.getLogger('plain').warning('at work')\n"
        "print([name for name in sys.modules\n"
        "       if name.partition('.')[0] in ('weaver_kernel', 'agent_kernel')])\n"
    )
    done = run(str(app), env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint))
    assert (done.stdout, done.stderr) == ("[]\n", "at work\n")
    (span,), (log,) = sink.spans(), sink.logs()
    assert (span.name, span.resource["service.name"]) == ("work", "plain")
    assert (log.body, log.trace_id, log.span_id) == ("at work", span.trace_id, span.span_id)
    assert {metric.name for metric in sink.metrics()} == {
        "plain.calls",
        "agent_kernel.telemetry_sent",
        "agent_kernel.telemetry_dropped",
    }


def test_without_a_word_from_the_user_all_signals_go_to_localhost_4317_by_grpc() -> None:
    # Port 4317 may be taken where tests run, so that the exporters themselves are looked at.
    exporters = (
        "import gc, os\n"
        "kinds = ('OTLPSpanExporter', 'OTLPMetricExporter', 'OTLPLogExporter')\n"
        "for one in gc.get_objects():\n"
        "    if type(one).__name__ in kinds:\n"
        "        print(type(one).__name__, 'grpc' in type(one).__module__, one._endpoint)\n"
        "os._exit(0)\n"
    )
    assert sorted(run("-u", "-c", exporters, env=environment()).stdout.splitlines()) == [
        "OTLPLogExporter True localhost:4317",
        "OTLPMetricExporter True localhost:4317",
        "OTLPSpanExporter True localhost:4317",
    ]


def test_a_users_settings_are_kept(sink: OtlpSink) -> None:
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_TRACES_EXPORTER="console",
        OTEL_SERVICE_NAME="shop",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,telemetry.distro.name=mine",
    )
    done = run(str(KERNEL_APP), env=env)
    assert sink.spans() == []
    assert '"name": "agent_kernel.invoke"' in done.stdout
    resource = sink.logs()[0].resource
    assert resource["service.name"] == "shop"
    assert resource["deployment.environment.name"] == "test"
    assert resource["telemetry.distro.name"] == "mine"


def test_an_endpoint_and_headers_of_the_users_are_used(sink: OtlpSink) -> None:
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=sink.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="x-team=payments",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    run(str(KERNEL_APP), env=env)
    assert "agent_kernel.invoke" in [span.name for span in sink.spans()]
    assert {headers["x-team"] for headers in sink.headers()} == {"payments"}


def test_principal_ids_in_kernel_logs_and_spans_are_the_same_keyed_hash(sink: OtlpSink) -> None:
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_AGENT_KERNEL_PRINCIPAL_ID="hash",
        OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY="pepper",
    )
    run(str(KERNEL_APP), env=env)
    in_logs = {log.attributes.get("principal_id") for log in sink.logs()} - {None}
    in_spans = {span.attributes.get("agent_kernel.principal_id") for span in sink.spans()} - {None}
    assert in_logs == in_spans
    assert len(in_logs) == 1
    assert b"alice@example.com" not in sink.raw_bytes()


def test_a_bad_setting_is_reported_once_and_the_app_runs_with_the_default(sink: OtlpSink) -> None:
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_AGENT_KERNEL_SPAN_LEVEL="loud",
        OTEL_AGENT_KERNEL_SPAN_LEVLE="debug",
    )
    done = run(str(KERNEL_APP), env=env)
    bad, unknown = done.stderr.splitlines()
    assert bad.startswith("OTEL_AGENT_KERNEL_SPAN_LEVEL='loud' cannot be read")
    assert unknown.startswith("variable OTEL_AGENT_KERNEL_SPAN_LEVLE is unknown and ignored")
    assert "agent_kernel.invoke" in [span.name for span in sink.spans()]


def test_a_disabled_sdk_exports_nothing_and_is_not_even_set_up(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import threading; from opentelemetry import trace\n"
        "print(type(trace.get_tracer_provider()).__name__, threading.active_count())\n"
    )
    env = environment(
        ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint, OTEL_SDK_DISABLED="true"
    )
    assert run(str(app), env=env).stdout == "ProxyTracerProvider 1\n"
    assert "invoke_success" in run(str(KERNEL_APP), env=env).stdout
    assert sink.raw_bytes() == b""


def test_a_kernel_message_of_a_release_to_come_leaves_as_its_template(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import logging\n"
        f"logging.getLogger('weaver_kernel.next').warning('refused to call %s', '{NONCE}')\n"
    )
    done = run(str(app), env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint))
    assert done.stderr == f"refused to call {NONCE}\n"
    assert [log.body for log in sink.logs()] == ["refused to call %s"]


def test_a_service_name_that_a_detector_of_the_users_finds_is_kept(
    sink: OtlpSink, tmp_path: Path
) -> None:
    install(
        tmp_path,
        "detecting",
        {"opentelemetry_resource_detector": "detecting = detecting:Detector"},
        "from opentelemetry.sdk.resources import Resource, ResourceDetector\n"
        "class Detector(ResourceDetector):\n"
        "    def detect(self):\n"
        "        return Resource({'service.name': 'detected'})\n",
    )
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="detecting",
        PYTHONPATH=str(tmp_path),
    )
    run(str(KERNEL_APP), env=env)
    assert {span.resource["service.name"] for span in sink.spans()} == {"detected"}


def test_a_handler_of_the_apps_own_into_our_provider_lets_no_secret_pass(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "own.py"
    app.write_text(
        f"import asyncio, logging, sys; sys.path.insert(0, {str(KERNEL_APP.parent)!r})\n"
        "import orders\n"
        "from opentelemetry.instrumentation.logging.handler import LoggingHandler\n"
        "logging.getLogger('weaver_kernel').addHandler(LoggingHandler())\n"
        "logging.getLogger('weaver_kernel').propagate = False\n"
        "logging.getLogger('weaver_kernel').setLevel('DEBUG')\n"
        "asyncio.run(orders.main())\n"
    )
    run(str(app), env=environment(ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint))
    assert {"invoke_failure", "advertise"} <= {log.body for log in sink.logs()}
    assert NONCE.encode() not in sink.raw_bytes()


def test_the_effective_configuration_is_printed_once_on_request_without_secrets(
    sink: OtlpSink,
) -> None:
    env = environment(
        OTEL_LOG_LEVEL="debug",
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=sink.endpoint.replace("//", f"//user:{NONCE}@"),
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{NONCE}",
        OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY=NONCE,
        OTEL_AGENT_KERNEL_PRINCIPAL_ID="hash",
    )
    done = run("-c", "pass", env=env)
    assert done.stderr.count("effective configuration") == 1
    rows = {tuple(line.split()[:2]) for line in done.stderr.splitlines()}
    assert ("OTEL_TRACES_EXPORTER", "otlp") in rows
    assert ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint) in rows
    assert ("OTEL_AGENT_KERNEL_PRINCIPAL_ID", "hash") in rows
    assert NONCE not in done.stderr


def test_one_failing_instrumentor_does_not_stop_the_others(sink: OtlpSink, tmp_path: Path) -> None:
    install(
        tmp_path,
        "broken",
        {"opentelemetry_instrumentor": "broken = broken:Instrumentor"},
        "class Instrumentor:\n"
        "    def instrument(self, **kwargs):\n"
        "        raise RuntimeError('no luck')\n",
    )
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        PYTHONPATH=str(tmp_path),  # it is found, and fails, before all others
    )
    done = run(str(KERNEL_APP), env=env)
    assert done.stderr.count("instrumentor broken failed and is skipped") == 1
    assert "agent_kernel.invoke" in [span.name for span in sink.spans()]
    assert "invoke_start" in [log.body for log in sink.logs()]
