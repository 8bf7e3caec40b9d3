# SPDX-License-Identifier: Apache-2.0
"""Whose OpenTelemetry it is: the app's own, another distro's, or ours."""

from __future__ import annotations

import os
import secrets
import site
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distro.zero_code import KERNEL_APP, environment, install, run
from tests.support.otlp_sink import OtlpSink

NONCE = secrets.token_hex(12)


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


OWN_PROVIDER = """
import asyncio, sys
sys.path.insert(0, {apps!r})
import orders
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
mine = TracerProvider()
mine.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda s: s.name + "\\n")))
"""


def test_a_provider_that_an_app_gives_a_kernel_is_kept(sink: OtlpSink, tmp_path: Path) -> None:
    app = tmp_path / "own.py"
    app.write_text(
        OWN_PROVIDER.format(apps=str(KERNEL_APP.parent))
        + "from agent_kernel_otel import instrument_kernel\n"
        "make = orders.make_kernel\n"
        "def make_instrumented(**collaborators):\n"
        "    kernel = make(**collaborators)\n"
        "    instrument_kernel(kernel, tracer_provider=mine)\n"
        "    return kernel\n"
        "orders.make_kernel = make_instrumented\n"
        "asyncio.run(orders.main())\n"
    )
    env = environment(ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint)
    done = run(str(app), env=env)
    assert "agent_kernel.invoke" in done.stdout.splitlines()
    assert "agent_kernel.invoke" not in [span.name for span in sink.spans()]


def test_an_app_that_names_no_configurator_of_ours_sets_the_global_provider_itself(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "own.py"
    app.write_text(
        OWN_PROVIDER.format(apps=str(KERNEL_APP.parent)) + "trace.set_tracer_provider(mine)\n"
        "asyncio.run(orders.main())\n"
    )
    env = environment(
        ORDERS_NONCE=NONCE,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        OTEL_PYTHON_CONFIGURATOR="none",
    )
    done = run(str(app), env=env)
    assert "agent_kernel.invoke" in done.stdout.splitlines()
    assert sink.raw_bytes() == b""


def test_providers_that_an_app_set_up_before_us_are_kept(sink: OtlpSink, tmp_path: Path) -> None:
    app = tmp_path / "own.py"
    app.write_text(
        OWN_PROVIDER.format(apps=str(KERNEL_APP.parent)) + "trace.set_tracer_provider(mine)\n"
        "import threading\n"
        "before = threading.active_count()\n"
        "from opentelemetry.instrumentation.auto_instrumentation import initialize\n"
        "initialize(swallow_exceptions=False)\n"
        "assert trace.get_tracer_provider() is mine\n"
        "assert threading.active_count() == before, 'exporters of ours are running'\n"
        "asyncio.run(orders.main())\n"
    )
    env = environment(ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint)
    done = run(str(app), env=env, instrumented=False)
    assert "agent_kernel.invoke" in done.stdout.splitlines()
    assert sink.raw_bytes() == b""


OTHER = """
import os
from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
class Distro(BaseDistro):
    def _configure(self, **kwargs):
        print("other distro")
class Configurator(_OTelSDKConfigurator):
    def _configure(self, **kwargs):
        print("other configurator:", os.environ.get("OTEL_TRACES_EXPORTER"))
"""


@pytest.mark.parametrize("ours_is_found_first", [True, False])
@pytest.mark.parametrize(
    ("chosen", "printed"),
    [
        (
            {"OTEL_PYTHON_DISTRO": "other"},
            ["other distro", "other configurator: None", "ProxyTracerProvider"],
        ),
        (
            {"OTEL_PYTHON_DISTRO": "agent_kernel", "OTEL_PYTHON_CONFIGURATOR": "other-setup"},
            ["other configurator: None", "ProxyTracerProvider"],
        ),
        (
            {"OTEL_PYTHON_DISTRO": "agent_kernel", "OTEL_PYTHON_CONFIGURATOR": "agent_kernel"},
            ["TracerProvider"],
        ),
    ],
)
def test_a_distro_or_configurator_that_the_user_names_wins(
    tmp_path: Path, chosen: dict[str, str], printed: list[str], ours_is_found_first: bool
) -> None:
    install(
        tmp_path,
        "other",
        {
            "opentelemetry_distro": "other = other:Distro",
            "opentelemetry_configurator": "other-setup = other:Configurator",
        },
        OTHER,
    )
    path = [*(site.getsitepackages() if ours_is_found_first else []), str(tmp_path)]
    probe = (
        "import os; from opentelemetry import trace\n"
        "print(type(trace.get_tracer_provider()).__name__); os._exit(0)\n"
    )
    env = environment(PYTHONPATH=os.pathsep.join(path), **chosen)
    assert run("-u", "-c", probe, env=env).stdout.splitlines() == printed
