# SPDX-License-Identifier: Apache-2.0
"""What the findings say that OpenTelemetry does, it does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.distro.zero_code import environment
from tests.doctor.harness import INSTRUMENT, diagnosis

SHOW = """
from opentelemetry import trace
provider = trace.get_tracer_provider()
print("provider", type(provider).__name__)
print("sampler", getattr(provider, "sampler", None) and provider.sampler.get_description())
processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
print("exporters", len(processors))
"""


def run(variables: dict[str, str]) -> str:
    """What a process says of how it was set up; its exporters send to nobody."""
    variables = {
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        **variables,
    }
    done = subprocess.run(
        [INSTRUMENT, sys.executable, "-c", SHOW],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout or done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_PYTHON_CONFIGURATOR": "nowhere"},
        {"OTEL_CONFIG_FILE": "/nowhere/otel.yaml"},
        {"OTEL_SDK_DISABLED": "true"},
    ],
    ids=str,
)
def test_where_nothing_is_configured_nothing_is(variables: dict[str, str]) -> None:
    assert diagnosis(variables).problems
    assert "provider ProxyTracerProvider" in run(variables)


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "jaeger"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "x-key: value"},
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"},
        {"OTEL_PYTHON_DISTRO": "nowhere"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_where_nothing_is_exported_there_is_no_exporter(variables: dict[str, str]) -> None:
    assert diagnosis(variables).findings
    said = run(variables)
    assert "provider TracerProvider" in said
    assert "exporters 0" in said


@pytest.mark.parametrize(
    ("variables", "sampler"),
    [
        ({"OTEL_TRACES_SAMPLER": "allways_on"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, "TraceIdRatioBased{1.0}"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "soon"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "3s"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"}, "ParentBased{root:AlwaysOnSampler"),
        ({"OTEL_SDK_DISABLED": "1"}, "ParentBased{root:AlwaysOnSampler"),
    ],
    ids=str,
)
def test_what_is_used_instead_is_used(variables: dict[str, str], sampler: str) -> None:
    assert diagnosis(variables).findings
    said = run(variables)
    assert f"sampler {sampler}" in said
    assert "exporters 1" in said


def test_an_unknown_propagator_stops_the_launcher() -> None:
    assert diagnosis({"OTEL_PROPAGATORS": "b4"}).problems
    said = run({"OTEL_PROPAGATORS": "b4"})
    assert "provider" not in said
    assert "Propagator b4 not found" in said
