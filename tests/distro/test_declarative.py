# SPDX-License-Identifier: Apache-2.0
"""``OTEL_CONFIG_FILE``: a real file, a real app, a real receiver."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from agent_kernel_otel import __version__
from tests.distro.zero_code import KERNEL_APP, environment, install, run
from tests.support.otlp_sink import OtlpSink

NONCE = secrets.token_hex(12)
PLACE = "instrumentation/development.python.weaver_kernel"
INNER = "agent_kernel.route"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


def write(
    folder: Path,
    endpoint: str,
    ours: Mapping[str, Any] | None = None,
    others: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A configuration file that sends spans and log records to an endpoint."""
    exporter = {"otlp_grpc": {"endpoint": endpoint}}
    blocks = {**({"weaver_kernel": dict(ours)} if ours is not None else {}), **(others or {})}
    file = folder / "otel.yaml"
    file.write_text(
        json.dumps(
            {
                "file_format": "1.0",
                "tracer_provider": {"processors": [{"batch": {"exporter": exporter}}]},
                "logger_provider": {
                    "processors": [
                        {"simple": {"exporter": exporter}},
                        {"batch": {"exporter": exporter}},
                    ]
                },
                "instrumentation/development": {"python": blocks},
                **more,
            }
        )
    )
    return file


def run_orders(file: Path | str, **variables: str) -> CompletedProcess[str]:
    env = environment(ORDERS_NONCE=NONCE, OTEL_CONFIG_FILE=str(file), **variables)
    return run(str(KERNEL_APP), env=env)


def names(sink: OtlpSink) -> list[str]:
    return [span.name for span in sink.spans()]


@pytest.fixture(scope="module")
def orders(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[OtlpSink, CompletedProcess[str]]]:
    """The kernel app, run once with a file whose settings are not those of the environment."""
    with OtlpSink() as receiver:
        ours = {"span_level": "debug", "principal_id": "off"}
        file = write(tmp_path_factory.mktemp("file"), receiver.endpoint, ours)
        # A bare word, which YAML takes for false.
        file.write_text(file.read_text().replace('"off"', "off"))
        yield (
            receiver,
            run_orders(
                file,
                OTEL_AGENT_KERNEL_SPAN_LEVEL="off",
                OTEL_AGENT_KERNEL_PRINCIPAL_ID="hash",
                OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
            ),
        )


def test_the_files_settings_win_over_the_environments(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, _ = orders
    assert INNER in names(sink)
    assert not any("agent_kernel.principal_id" in span.attributes for span in sink.spans())


def test_each_span_arrives_once_and_nothing_is_printed(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, done = orders
    ids = [span.span_id for span in sink.spans()]
    assert len(ids) == len(set(ids))
    assert done.stderr == ""


def test_what_the_file_does_not_say_of_the_service_we_do(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    (resource,) = {tuple(sorted(span.resource.items())) for span in orders[0].spans()}
    said = dict(resource)
    assert said["service.name"] == "orders"
    assert said["telemetry.distro.name"] == "agent-kernel-otel"
    assert said["telemetry.distro.version"] == __version__
    assert "telemetry.auto.version" in said


def test_no_raw_log_record_of_the_kernel_leaves_by_the_files_pipelines(
    orders: tuple[OtlpSink, CompletedProcess[str]],
) -> None:
    sink, done = orders
    bodies = [log.body for log in sink.logs() if log.scope.startswith("weaver_kernel")]
    assert {"request_capabilities", "invoke_failure", "advertise"} <= set(bodies)
    assert NONCE.encode() not in sink.raw_bytes()
    assert NONCE in done.stdout, "nothing was planted"


def test_not_even_where_a_handler_of_the_apps_own_exports(sink: OtlpSink, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import logging, os\n"
        "from opentelemetry.sdk._logs import LoggerProvider\n"
        "from opentelemetry._logs import get_logger_provider, LogRecord\n"
        "logger = get_logger_provider().get_logger('weaver_kernel.kernel')\n"
        "logger.emit(LogRecord(body='goal ' + os.environ['NONCE'], attributes={'goal': os.environ['NONCE']}))\n"
        "get_logger_provider().get_logger('app').emit(LogRecord(body='mine'))\n"
    )
    file = write(tmp_path, sink.endpoint)
    run(str(app), env=environment(NONCE=NONCE, OTEL_CONFIG_FILE=str(file)))
    bodies = [log.body for log in sink.logs()]
    assert sorted(bodies) == ["(message withheld)"] * 2 + ["mine"] * 2
    assert NONCE.encode() not in sink.raw_bytes()


def test_what_the_file_says_of_the_service_is_kept(sink: OtlpSink, tmp_path: Path) -> None:
    said = {"service.name": "shop", "telemetry.distro.name": "house-blend"}
    attributes = [{"name": name, "value": value} for name, value in said.items()]
    file = write(tmp_path, sink.endpoint, resource={"attributes": attributes})
    run_orders(file, OTEL_SERVICE_NAME="not-read", OTEL_RESOURCE_ATTRIBUTES="not=read")
    for span in sink.spans():
        assert said.items() <= span.resource.items()
        assert "not" not in span.resource


def test_what_the_files_detectors_find_is_kept(sink: OtlpSink, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        sink.endpoint,
        resource={"detection/development": {"detectors": [{"service": {}}, {"process": {}}]}},
    )
    run_orders(file, OTEL_SERVICE_NAME="detected")
    (resource,) = {tuple(sorted(map(str, span.resource.items()))) for span in sink.spans()}
    assert "('service.name', 'detected')" in resource
    assert any("process.pid" in attribute for attribute in resource)


@pytest.mark.parametrize("value", [False, "false", "off"])
def test_not_enabled_means_not_instrumented(sink: OtlpSink, tmp_path: Path, value: object) -> None:
    done = run_orders(write(tmp_path, sink.endpoint, {"enabled": value, "span_level": "debug"}))
    assert sink.logs()
    assert sink.spans() == []
    assert done.stderr == ""


def test_what_the_environment_disables_the_file_does_not_enable(
    sink: OtlpSink, tmp_path: Path
) -> None:
    file = write(tmp_path, sink.endpoint, {"enabled": True})
    run_orders(file, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="weaver_kernel")
    assert sink.logs()
    assert sink.spans() == []


def test_a_file_without_our_block_leaves_the_environments_settings_in_force(
    sink: OtlpSink, tmp_path: Path
) -> None:
    done = run_orders(write(tmp_path, sink.endpoint), OTEL_AGENT_KERNEL_SPAN_LEVEL="debug")
    assert INNER in names(sink)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        (
            {"span_level": "loud"},
            (
                "span_level='loud' cannot be read: expected one of off, info, debug; "
                "OTEL_AGENT_KERNEL_SPAN_LEVEL='debug' is used"
            ),
        ),
        (
            {"capability_id_limit": "many"},
            (
                "capability_id_limit='many' cannot be read: expected a whole number of at least 1; "
                "the default 100 is used"
            ),
        ),
        (
            {"gen_ai_metrics": [True]},
            (
                "gen_ai_metrics=[True] cannot be read: expected true or false; "
                "the default false is used"
            ),
        ),
        (
            {"capture_content": {"goals": False}},
            (
                "capture_content={'goals': False} cannot be read: expected none, or a list of "
                "arguments, goals, justifications, results; the default none is used"
            ),
        ),
        (
            {"principal_hash_key": 17},
            (
                "principal_hash_key=*** cannot be read: expected a text that is not empty; "
                "the default none is used"
            ),
        ),
        (
            {"enabled": "maybe"},
            "enabled='maybe' cannot be read: expected true or false; the default true is used",
        ),
        ({"span_levle": "off"}, "span_levle is unknown and ignored; did you mean 'span_level'?"),
    ],
)
def test_a_setting_that_cannot_be_read_is_said_in_one_line_and_the_next_source_counts(
    sink: OtlpSink, tmp_path: Path, ours: dict[str, Any], line: str
) -> None:
    file = write(tmp_path, sink.endpoint, ours)
    done = run_orders(file, OTEL_AGENT_KERNEL_SPAN_LEVEL="debug")
    assert done.stderr.splitlines() == [f"{file}: {PLACE}.{line}"]
    assert INNER in names(sink)


SECRET = "pepper-4711"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "there is no such file"),
        ("", "Configuration file is empty"),
        ("[1, 2]", "Configuration must be a mapping/object, got list"),
        (f"file_format: '1.0'\nkey: [{SECRET}\n", "line 3, column 1: expected ',' or ']'"),
        (f"file_format: '1.0'\ntracer_provider: {SECRET}\n", "tracer_provider: expected type "),
        (
            f"file_format: '1.0'\nresource: {{attributs: {SECRET}}}\n",
            "resource: Additional properties are not allowed ('attributs' was unexpected)",
        ),
        ("file_format: '7.0'\n", "Unsupported file_format '7.0'"),
        (
            "file_format: '1.0'\ninstrumentation/development: {python: {weaver_kernel: debug}}\n",
            f"{PLACE}: expected type object",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_one_line_and_nothing_is_sent(
    sink: OtlpSink, tmp_path: Path, text: str | None, cause: str
) -> None:
    file = tmp_path / "otel.yaml"
    if text is not None:
        file.write_text(text)
    done = run_orders(file, OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint)
    bare = run(str(KERNEL_APP), env=environment(ORDERS_NONCE=NONCE), instrumented=False)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"OTEL_CONFIG_FILE={file} cannot be used: {cause}")
    assert line.endswith("; OpenTelemetry is not set up, and the app runs without it")
    assert SECRET not in line
    assert done.stdout == bare.stdout
    assert sink.raw_bytes() == b""


def test_a_folder_or_another_kind_of_file_is_said(tmp_path: Path) -> None:
    other = tmp_path / "otel.toml"
    other.write_text("")
    for path, cause in ((tmp_path, "it is not a file"), (other, "Unsupported file format: .toml")):
        assert f"OTEL_CONFIG_FILE={path} cannot be used: {cause}" in run_orders(path).stderr


def test_a_part_that_cannot_be_set_up_is_said_in_one_line(sink: OtlpSink, tmp_path: Path) -> None:
    exporter = {"simple": {"exporter": {"acme": {"key": SECRET}}}}
    file = write(tmp_path, sink.endpoint, logger_provider={"processors": [exporter]})
    (line,) = run_orders(file).stderr.splitlines()
    assert line.startswith(f"OTEL_CONFIG_FILE={file} cannot be used: Plugin 'acme' not found")
    assert line.endswith("; OpenTelemetry is in part only set up, and the app goes on")
    assert SECRET not in line
    assert "agent_kernel.invoke" in names(sink)


def test_an_unknown_key_at_the_top_is_said(sink: OtlpSink, tmp_path: Path) -> None:
    file = write(tmp_path, sink.endpoint, tracer_provder={})
    (line,) = run_orders(file).stderr.splitlines()
    assert line == f"OTEL_CONFIG_FILE={file}: unknown and ignored: tracer_provder"
    assert "agent_kernel.invoke" in names(sink)


def test_without_the_extra_its_name_is_said_and_the_app_runs(
    sink: OtlpSink, tmp_path: Path
) -> None:
    (tmp_path / "jsonschema.py").write_text("raise ImportError('not installed')\n")
    file = write(tmp_path, sink.endpoint)
    (line,) = run_orders(file, PYTHONPATH=str(tmp_path)).stderr.splitlines()
    assert line.startswith(f"OTEL_CONFIG_FILE={file} needs opentelemetry-configuration")
    assert "pip install 'agent-kernel-otel[config]'; OpenTelemetry is not set up" in line
    assert sink.raw_bytes() == b""


PROBE = """
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()
    def _instrument(self, **options):
        print("probe", options)
    def _uninstrument(self, **options):
        pass
"""


def test_other_instrumentations_in_the_file_get_their_options(
    sink: OtlpSink, tmp_path: Path
) -> None:
    install(tmp_path, "probe", {"opentelemetry_instrumentor": "probe = probe:Instrumentor"}, PROBE)
    file = write(tmp_path, sink.endpoint, {}, {"probe": {"size": 3}})
    assert run_orders(file, PYTHONPATH=str(tmp_path)).stdout.startswith("probe {'size': 3}\n")


def test_the_distros_own_settings_are_read_from_the_block_too(
    sink: OtlpSink, tmp_path: Path
) -> None:
    file = write(tmp_path, sink.endpoint, {"exit_timeout": 0.25})
    code = (
        "from agent_kernel_otel.distro.handlers import process_config\n"
        "print(process_config().exit_timeout)\n"
    )
    env = environment(OTEL_CONFIG_FILE=str(file), OTEL_AGENT_KERNEL_EXIT_TIMEOUT="9")
    assert run("-c", code, env=env).stdout == "0.25\n"


BY_HAND = """
import asyncio, sys
from opentelemetry.configuration import configure_sdk, load_config_file
configure_sdk(load_config_file(sys.argv[1]))
sys.path.insert(0, {apps!r})
import orders
asyncio.run(orders.main())
"""


@pytest.mark.parametrize("instrumented", [True, False])
def test_an_app_that_applies_a_file_itself_has_our_settings_applied_too(
    sink: OtlpSink, tmp_path: Path, instrumented: bool
) -> None:
    app = tmp_path / "app.py"
    app.write_text(BY_HAND.format(apps=str(KERNEL_APP.parent)))
    file = write(tmp_path, sink.endpoint, {"span_level": "debug", "colour": "red"})
    # As where another vendor's configurator reads the file and the loader comes after it.
    env = environment(ORDERS_NONCE=NONCE, OTEL_PYTHON_CONFIGURATOR="none")
    if instrumented:
        env["OTEL_CONFIG_FILE"] = str(file)
    done = run(str(app), str(file), env=env, instrumented=instrumented)
    lines = [line for line in done.stderr.splitlines() if "OTEL_PYTHON_CONFIGURATOR" not in line]
    (line,) = lines
    source = file if instrumented else "declarative configuration"
    assert line.startswith(f"{source}: {PLACE}.colour is unknown and ignored; expected any of")
    assert INNER in names(sink)
    ids = [span.span_id for span in sink.spans()]
    assert len(ids) == len(set(ids))


def test_an_app_that_applies_a_file_itself_does_not_enable_what_the_environment_disables(
    sink: OtlpSink, tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(BY_HAND.format(apps=str(KERNEL_APP.parent)))
    file = write(tmp_path, sink.endpoint, {"span_level": "debug"})
    env = environment(
        ORDERS_NONCE=NONCE, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="other, weaver_kernel"
    )
    assert run(str(app), str(file), env=env, instrumented=False).stderr == ""
    assert sink.spans() == []


def test_the_file_in_the_reference_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    with OtlpSink() as sink:
        file = tmp_path / "otel.yaml"
        file.write_text(text.replace("http://localhost:4317", sink.endpoint))
        run(str(KERNEL_APP), env=environment(OTEL_CONFIG_FILE=str(file), ORDERS_NONCE="none"))
        spans = sink.spans()
    assert {span.resource["service.name"] for span in spans} == {"support-agent"}
    assert "agent_kernel.route" in {span.name for span in spans}, "span_level is debug"
    (principals,) = {
        len(str(span.attributes["agent_kernel.principal_id"]))
        for span in spans
        if "agent_kernel.principal_id" in span.attributes
    }
    assert principals == 16, "principal_id is hash"
