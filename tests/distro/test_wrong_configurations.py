# SPDX-License-Identifier: Apache-2.0
"""What is set wrongly gives one line that names it and says what would do; the app runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_kernel_otel.distro.checks import repair, unreadable
from agent_kernel_otel.distro.defaults import apply_defaults
from tests.distro.zero_code import environment, run
from tests.support.otlp_sink import OtlpSink

ALL_SILENT = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}

BAD_VALUES: dict[str, tuple[Mapping[str, str], str, str]] = {
    # What is set; what the line has; whether the span still arrives.
    "level": ({"OTEL_AGENT_KERNEL_SPAN_LEVEL": "loud"}, "off, info, debug", "arrives"),
    "limit": ({"OTEL_AGENT_KERNEL_CAPABILITY_ID_LIMIT": "0"}, "at least 1", "arrives"),
    "content": ({"OTEL_AGENT_KERNEL_CAPTURE_CONTENT": "all"}, "arguments, goals", "arrives"),
    "exit time": ({"OTEL_AGENT_KERNEL_EXIT_TIMEOUT": "-1"}, "from 0 to 60", "arrives"),
    "path": ({"OTEL_AGENT_KERNEL_PROPAGATE_CONTEXT": "grpc"}, "http, mcp", "arrives"),
    "flag": ({"OTEL_AGENT_KERNEL_CAPTURE_EXCEPTION_TEXT": "perhaps"}, "true or false", "arrives"),
    "unknown": ({"OTEL_AGENT_KERNEL_SPAN_LEVL": "off"}, "did you mean", "arrives"),
    "queue": ({"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, "'16384' is used", "arrives"),
    "batch": ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}, "'128' is used", "arrives"),
    "too large a batch": ({"OTEL_BLRP_MAX_QUEUE_SIZE": "64"}, "64 at most", "arrives"),
    "interval": ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "milliseconds above 0", "arrives"),
    "timeout": ({"OTEL_EXPORTER_OTLP_TIMEOUT": "fast"}, "such as 3; '3' is used", "arrives"),
    "span limit": ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "few"}, "a whole number", "arrives"),
    "sampler": ({"OTEL_TRACES_SAMPLER": "sometimes"}, "traceidratio; 'parent", "arrives"),
    "share": (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "lots"},
        "from 0 to 1",
        "arrives",
    ),
    "ids": ({"OTEL_PYTHON_ID_GENERATOR": "dice"}, "such as random", "arrives"),
    "temporality": (
        {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sideways"},
        "delta or lowmemory; 'cumulative' is used",
        "arrives",
    ),
    "compression": ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, "gzip", "arrives"),
    "protocol": ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http"}, "nothing is exported", "does not"),
    "exporter": ({"OTEL_TRACES_EXPORTER": "oltp"}, "no traces are exported", "does not"),
    "endpoint": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, "http:// or", "does not"),
    "port": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:x"}, "http:// or", "does not"),
    "certificate": ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/none"}, "can be read", "does not"),
    "headers": ({"OTEL_EXPORTER_OTLP_HEADERS": "s3cr3t"}, "name=value pairs", "does not"),
    "file that is missing": (
        {"OTEL_CONFIG_FILE": "/none/otel.yaml"},
        "/none/otel.yaml",
        "does not",
    ),
    "file that is none": ({"OTEL_CONFIG_FILE": "{folder}/broken.yaml"}, "broken.yaml", "does not"),
    "distro": ({"OTEL_PYTHON_DISTRO": "no_such"}, "no_such", "does not matter"),
    "configurator": ({"OTEL_PYTHON_CONFIGURATOR": "no_such"}, "no_such", "does not matter"),
}

APP = """
import sys
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("work"):
    print("at work")
sys.exit(3)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, ...]]]:
    """What each run printed, wrote to standard error, and sent."""
    folder = tmp_path_factory.mktemp("apps")
    (folder / "broken.yaml").write_text("file_format: '1.0'\ntracer_provider: [\n")
    (folder / "app.py").write_text(APP)
    with OtlpSink() as sink:

        def outcome(name: str) -> tuple[str, ...]:
            given = {
                key: value.replace("{folder}", str(folder))
                for key, value in BAD_VALUES[name][0].items()
            }
            env = environment(
                **{
                    "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
                    "OTEL_SERVICE_NAME": name,
                    **given,
                }
            )
            done = run(str(folder / "app.py"), env=env, fails=True)
            return done.stdout, done.stderr, str(done.returncode)

        with ThreadPoolExecutor(2) as pool:
            done = dict(zip(BAD_VALUES, pool.map(outcome, BAD_VALUES), strict=True))
        sent = {span.resource["service.name"] for span in sink.spans()}
        yield {
            name: (*texts, "arrives" if name in sent else "does not")
            for name, texts in done.items()
        }


@pytest.mark.parametrize("name", BAD_VALUES)
def test_one_line_says_what_is_wrong_and_the_app_runs(
    name: str, outcomes: dict[str, tuple[str, ...]]
) -> None:
    _, expected, arrival = BAD_VALUES[name]
    output, errors, returncode, arrived = outcomes[name]
    assert (output, returncode) == ("at work\n", "3")
    (line,) = errors.splitlines()
    assert expected in line
    assert "s3cr3t" not in line
    assert arrival in {arrived, "does not matter"}


def test_there_are_more_than_twenty() -> None:
    assert len(BAD_VALUES) > 20


def repaired(
    caplog: pytest.LogCaptureFixture, **variables: str
) -> tuple[dict[str, str], list[str]]:
    environ = dict(variables)
    apply_defaults(environ)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        repair(environ)
    return environ, [record.getMessage() for record in caplog.records]


def test_the_defaults_can_be_read(caplog: pytest.LogCaptureFixture) -> None:
    environ, lines = repaired(caplog)
    assert lines == []
    assert list(unreadable(environ)) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4317/path"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///run/otel.sock"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:4317"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "inf"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "anything, where no share is asked for"),
        ("OTEL_TRACES_EXPORTER", "otlp,console"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer abc, x-tenant=a%20b,"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250.5"),
    ],
)
def test_what_opentelemetry_can_read_stays_as_it_is(
    variable: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ, lines = repaired(caplog, **{variable: value})
    assert lines == []
    assert environ[variable] == value


def test_no_compression_is_left_to_the_exporter_over_grpc_which_does_not_know_the_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ, lines = repaired(caplog, OTEL_EXPORTER_OTLP_COMPRESSION="none")
    assert lines == []
    assert "OTEL_EXPORTER_OTLP_COMPRESSION" not in environ


def test_a_value_that_decides_where_data_goes_silences_its_signals_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ, lines = repaired(caplog, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="ftp://collector")
    assert environ["OTEL_LOGS_EXPORTER"] == "none"
    assert environ["OTEL_TRACES_EXPORTER"] == "otlp"
    assert len(lines) == 1
    environ, lines = repaired(caplog, OTEL_EXPORTER_OTLP_ENDPOINT="ftp://collector")
    assert environ.items() >= ALL_SILENT.items()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in environ


def test_no_secret_is_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    _, lines = repaired(
        caplog,
        OTEL_EXPORTER_OTLP_ENDPOINT="ftp://user:s3cr3t@collector",
        OTEL_EXPORTER_OTLP_HEADERS="s3cr3t",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS='x="s3cr3t"',
    )
    assert len(lines) == 3
    assert "s3cr3t" not in "".join(lines)


def test_repairing_twice_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    environ, lines = repaired(caplog, OTEL_BSP_MAX_QUEUE_SIZE="x", OTEL_LOGS_EXPORTER="y")
    assert len(lines) == 2
    caplog.clear()
    repair(environ)
    assert caplog.records == []
