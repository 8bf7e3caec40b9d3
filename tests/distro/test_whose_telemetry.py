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


def path_with_another(folder: Path, *, ours_is_found_first: bool) -> str:
    """A search path on which another distro and configurator are found before or after ours."""
    install(
        folder,
        "other",
        {
            "opentelemetry_distro": "other = other:Distro",
            "opentelemetry_configurator": "other-setup = other:Configurator",
        },
        OTHER,
    )
    return os.pathsep.join([*(site.getsitepackages() if ours_is_found_first else []), str(folder)])


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
    path = path_with_another(tmp_path, ours_is_found_first=ours_is_found_first)
    probe = (
        "import os; from opentelemetry import trace\n"
        "print(type(trace.get_tracer_provider()).__name__); os._exit(0)\n"
    )
    env = environment(PYTHONPATH=path, **chosen)
    assert run("-u", "-c", probe, env=env).stdout.splitlines() == printed


@pytest.mark.parametrize("ours_is_found_first", [True, False])
def test_another_distro_beside_ours_configures_and_one_line_says_so(
    tmp_path: Path, ours_is_found_first: bool
) -> None:
    path = path_with_another(tmp_path, ours_is_found_first=ours_is_found_first)
    probe = (
        "import os, subprocess, sys; from agent_kernel_otel import KernelInstrumentor\n"
        "print(KernelInstrumentor().is_instrumented_by_opentelemetry)\n"
        "print({name for name in os.environ if name.startswith('OTEL_')})\n"
        "subprocess.run([sys.executable, '-c', '1'], stdout=subprocess.DEVNULL, check=True)\n"
    )
    done = run("-u", "-c", probe, env=environment(PYTHONPATH=path))
    assert done.stdout.splitlines() == [
        "other distro",
        "other configurator: None",
        "True",
        "set()",
    ]
    (hint,) = [line for line in done.stderr.splitlines() if "agent-kernel-otel" in line]
    assert hint.startswith("other configures OpenTelemetry, because it is installed beside ")
    assert hint.endswith("OTEL_PYTHON_DISTRO=agent_kernel")
    assert "agent_kernel already loaded" not in done.stderr


def test_a_distro_that_is_named_but_not_installed_is_said() -> None:
    done = run("-c", "", env=environment(OTEL_PYTHON_DISTRO="elstic"))
    (line,) = done.stderr.splitlines()
    assert line.startswith("OTEL_PYTHON_DISTRO=elstic names none that is installed: ")
    assert line.endswith("there are agent_kernel of agent-kernel-otel")


def test_an_app_whose_provider_is_refused_is_told_once_what_to_do(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "own.py"
    app.write_text(
        OWN_PROVIDER.format(apps=str(KERNEL_APP.parent)) + "trace.set_tracer_provider(mine)\n"
        "trace.set_tracer_provider(mine)\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "metrics.set_meter_provider(MeterProvider())\n"
        "asyncio.run(orders.main())\n"
    )
    env = environment(ORDERS_NONCE=NONCE, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint)
    refused = [line for line in run(str(app), env=env).stderr.splitlines() if "not allowed" in line]
    assert len(refused) == 3
    (told,) = [line for line in refused if "OTEL_PYTHON_CONFIGURATOR=none" in line]
    assert told is refused[0]


FAILING = {
    "in instrument()": "class Instrumentor:\n    def instrument(self, **kwargs):\n        {fail}\n",
    "when it is made": "class Instrumentor:\n    def __init__(self):\n        {fail}\n",
    "at import": "{fail}\n",
}


@pytest.mark.parametrize("place", FAILING)
@pytest.mark.parametrize(
    "fail", ["raise RuntimeError('no luck')", "raise ImportError('no luck')", "raise SystemExit(3)"]
)
def test_an_instrumentor_that_fails_stops_no_other_and_no_hook(
    tmp_path: Path, place: str, fail: str
) -> None:
    install(
        tmp_path,
        "broken",
        {
            "opentelemetry_instrumentor": "broken = broken:Instrumentor",
            "opentelemetry_post_instrument": "broken = hook:run",
        },
        FAILING[place].format(fail=fail),
    )
    (tmp_path / "hook.py").write_text("def run(): print('post hook')\n")
    probe = (
        "from agent_kernel_otel import KernelInstrumentor\n"
        "print(KernelInstrumentor().is_instrumented_by_opentelemetry)\n"
    )
    # It is found, and fails, before all others.
    env = environment(
        PYTHONPATH=str(tmp_path),
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    done = run("-c", probe, env=env)
    assert done.stdout.splitlines() == ["post hook", "True"]
    assert done.stderr.count("instrumentor broken failed and is skipped") == 1


UNROBUST = """
from opentelemetry.instrumentation.distro import BaseDistro
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
class Distro(BaseDistro):
    def _configure(self, **kwargs):
        from agent_kernel_otel.weaver.switching import switch
        def fail():
            raise OSError("planted")
        switch.update = fail
class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()
    def _instrument(self, **kwargs):
        print("the next one")
    def _uninstrument(self, **kwargs):
        pass
def hook():
    print("post hook")
"""


def test_a_fault_of_ours_does_not_stop_what_another_distro_loads(tmp_path: Path) -> None:
    install(
        tmp_path,
        "other",
        {
            "opentelemetry_distro": "other = other:Distro",
            "opentelemetry_instrumentor": "next = other:Instrumentor",
            "opentelemetry_post_instrument": "other = other:hook",
        },
        UNROBUST,
    )
    path = [*site.getsitepackages(), str(tmp_path)]  # ours is loaded first
    env = environment(
        PYTHONPATH=os.pathsep.join(path),
        OTEL_PYTHON_CONFIGURATOR="none",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="logging",  # which would take the line to see
    )
    done = run("-c", "print('app')", env=env)
    assert done.stdout.splitlines() == ["the next one", "post hook", "app"]
    assert "telemetry is incomplete: OSError" in done.stderr
    assert "planted" not in done.stderr
