# SPDX-License-Identifier: Apache-2.0
"""``OTEL_METRICS_EXPORTER=prometheus``: a page is really served, and nothing else depends on it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from agent_kernel_otel.distro.metrics_page import MetricsPage
from agent_kernel_otel.faults import faults
from tests.distro.zero_code import APPS, environment, install, run
from tests.support.otlp_records import Item
from tests.support.otlp_sink import OtlpSink
from tests.support.ports import HOST, free_port
from tests.support.scraped import (
    ScrapedApp,
    scrape,
    scraped_environment,
)

APP = APPS / "scraped_app.py"
LIMIT = 1000
"""Of the series of one instrument."""


@pytest.fixture
def app() -> Iterator[ScrapedApp]:
    with ScrapedApp.of(APP) as running:
        yield running


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listening:
        yield int(listening.getsockname()[1])


def test_a_scrape_sees_all_that_was_counted_up_to_that_moment(app: ScrapedApp) -> None:
    for calls in range(1, 4):
        app.tell("count")
        page = {sample.name: sample.value for sample in app.samples()}
        assert page["calls_total"] == page["open"] == page["took_milliseconds_count"] == calls


def test_neither_name_nor_version_of_a_scope_is_a_label(app: ScrapedApp) -> None:
    app.tell("count")
    labels = {s.name: set(s.labels) for s in app.samples() if s.name != "target_info"}
    assert labels["calls_total"] == {"kind"}
    assert set().union(*labels.values()) == {"kind", "le"}


def test_the_page_is_what_opentelemetry_measures_and_nothing_else(app: ScrapedApp) -> None:
    app.tell("count")
    assert {sample.name for sample in app.samples()} == {
        "target_info",
        "calls_total",
        "open",
        *(f"took_milliseconds_{part}" for part in ("bucket", "count", "sum")),
    }


def test_it_listens_once_although_it_is_asked_for_twice() -> None:
    with ScrapedApp.of(APP, OTEL_METRICS_EXPORTER="prometheus,prometheus") as app:
        assert app.tell("listening") == "1"
        assert app.errors() == []


def test_without_a_word_from_the_user_it_is_at_localhost_9464() -> None:
    # That port may be taken where tests run: then it is said so, and named.
    told = "import os; print(os.environ.get('AGENT_KERNEL_OTEL_METRICS_PAGE'))"
    variables = scraped_environment(0)
    for name in ("OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"):
        variables[name] = ""
    done = run("-c", told, env=environment(**variables))
    assert "http://localhost:9464/metrics" in done.stdout + done.stderr


def test_push_and_pull_at_once_each_with_its_temporality() -> None:
    with (
        OtlpSink() as sink,
        ScrapedApp.of(
            APP,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        ) as app,
    ):
        for calls in (1, 2, 3):
            app.tell("count")
            app.tell("flush")
            assert app.value("calls_total", kind="plain") == calls
        app.end()
        sent = [metric for metric in sink.metrics() if metric.name == "calls"]
    assert [_sum(metric) for metric in sent if _sum(metric)] == [1, 1, 1]
    assert {m.raw["sum"]["aggregationTemporality"] for m in sent} == {
        "AGGREGATION_TEMPORALITY_DELTA"
    }


def _sum(metric: Item) -> int:
    return sum(int(point.get("asInt", 0)) for point in metric.points)


def test_target_info_is_the_resource_as_it_is_sent_by_otlp() -> None:
    with (
        OtlpSink() as sink,
        ScrapedApp.of(
            APP,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
            OTEL_SERVICE_NAME="shop",
        ) as app,
    ):
        app.tell("count")
        (info,) = (sample for sample in app.samples() if sample.name == "target_info")
        app.end()
        resource = sink.metrics()[0].resource
    assert info.labels == {name.replace(".", "_"): str(value) for name, value in resource.items()}
    assert info.labels["service_name"] == "shop"


def test_flushing_puts_nothing_on_the_page_twice(app: ScrapedApp) -> None:
    app.tell("count")
    for _ in range(3):
        assert app.tell("flush") == "True"
    assert app.value("calls_total", kind="plain") == 1


def test_pages_are_made_one_at_a_time() -> None:
    # OpenTelemetry's exporter gives two that ask at once one page twice, and an empty one.
    inside = 0
    most = 0

    def make(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)  # as long as a page of many series takes
        inside -= 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"made"]

    page = MetricsPage(make, HOST, free_port())
    page.start()
    try:
        with ThreadPoolExecutor(4) as scrapers:
            port = urlsplit(page.address).port or 0
            pages = list(scrapers.map(lambda _: scrape(port), range(4)))
    finally:
        page.close()
    assert pages == ["made"] * 4
    assert most == 1


def test_a_page_that_cannot_be_made_is_an_error_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(environ: object, start_response: object) -> list[bytes]:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr(faults, "reraise", False)
    page = MetricsPage(fail, HOST, free_port())
    page.start()
    before = faults.count
    try:
        with pytest.raises(HTTPError, match="500"):
            scrape(urlsplit(page.address).port or 0)
    finally:
        page.close()
    assert faults.count == before + 1


def test_a_client_that_never_asks_keeps_nobody_waiting(app: ScrapedApp) -> None:
    with socket.create_connection((HOST, app.port)):
        app.tell("count")
        assert app.value("calls_total", kind="plain") == 1
        begun = time.monotonic()
        assert app.end() == 0
    assert time.monotonic() - begun < 8.0  # the client would be given ten seconds
    assert app.errors() == []


def test_the_limit_to_series_holds_on_the_page(app: ScrapedApp) -> None:
    app.tell(f"spread {LIMIT + 500}")
    calls = [sample for sample in app.samples() if sample.name == "calls_total"]
    rest = [sample for sample in calls if sample.labels.get("otel_metric_overflow")]
    assert len(rest) == 1
    assert len(calls) <= LIMIT + 1
    assert sum(sample.value for sample in calls) == LIMIT + 500


def test_a_provider_that_is_shut_down_listens_no_more_and_the_app_goes_on(app: ScrapedApp) -> None:
    app.tell("stop")
    with pytest.raises(URLError):
        app.scrape()
    assert app.tell("listening") == "0"
    assert app.errors() == []


# --- where it cannot be served ---


def test_a_port_that_is_taken_gives_one_line_that_names_the_variable(taken: int) -> None:
    with ScrapedApp.of(APP, port=taken) as app:
        app.tell("count")
        (line,) = app.errors()
        assert f"OTEL_EXPORTER_PROMETHEUS_PORT={taken}" in line
        assert "another process listens there" in line
        assert app.tell("listening") == "0"
        assert app.end() == 0


def test_a_port_that_is_taken_does_not_stop_otlp(taken: int) -> None:
    with (
        OtlpSink() as sink,
        ScrapedApp.of(
            APP,
            port=taken,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        ) as app,
    ):
        app.tell("count")
        assert app.end() == 0
        assert len(app.errors()) == 1
        assert "calls" in {metric.name for metric in sink.metrics()}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "192.0.2.1"),  # of nobody: an address for documentation
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "no such host"),
    ],
)
def test_an_address_that_cannot_be_listened_on_gives_one_line(variable: str, value: str) -> None:
    with ScrapedApp.of(APP, port=free_port(), **{variable: value}) as app:
        app.tell("count")
        (line,) = app.errors()
        assert f"{variable}={value}" in line
        assert app.end() == 0


def test_the_extra_that_is_missing_gives_one_line_and_otlp_goes_on(tmp_path: Path) -> None:
    # What is found first hides the installed distribution, entry points and all.
    install(tmp_path, "opentelemetry_exporter_prometheus", {}, "")
    with (
        OtlpSink() as sink,
        ScrapedApp.of(
            APP,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
            PYTHONPATH=str(tmp_path),
        ) as app,
    ):
        app.tell("count")
        (line,) = app.errors()
        assert "OTEL_METRICS_EXPORTER='otlp,prometheus'" in line
        assert "pip install 'agent-kernel-otel[prometheus]'" in line
        assert line.endswith("; 'otlp' is used")
        app.end()
        assert "calls" in {metric.name for metric in sink.metrics()}


def test_without_the_extra_and_without_otlp_no_metrics_leave(tmp_path: Path) -> None:
    install(tmp_path, "opentelemetry_exporter_prometheus", {}, "")
    with ScrapedApp.of(APP, PYTHONPATH=str(tmp_path)) as app:
        (line,) = app.errors()
        assert line.endswith("no metrics are exported")
        assert app.tell("listening") == "0"


# --- from a configuration file ---

FILE = """
file_format: "1.0"
meter_provider:
  readers:
    - pull: {{exporter: {{prometheus/development: {{host: "{host}", port: {port}}}}}}}
"""


def _by_file(folder: Path, port: int) -> ScrapedApp:
    file = folder / "otel.yaml"
    file.write_text(FILE.format(host=HOST, port=port))
    app = ScrapedApp([sys.executable, str(APP)], {"OTEL_CONFIG_FILE": str(file)}, port)
    assert app.hear() == "ready"
    return app


def test_a_configuration_file_gives_the_same_page(tmp_path: Path) -> None:
    with _by_file(tmp_path, free_port()) as app:
        app.tell("count")
        assert app.value("calls_total", kind="plain") == 1
        assert app.tell("listening") == "1"
        assert "python_info" not in app.scrape()


def test_a_port_of_a_file_that_is_taken_gives_one_line(tmp_path: Path, taken: int) -> None:
    with _by_file(tmp_path, taken) as app:
        (line,) = app.errors()
        assert f"port: {taken} in the file: another process listens there" in line
        assert app.end() == 0


# --- several processes ---


def test_forked_children_leave_the_page_to_their_parent_which_warns_once() -> None:
    with ScrapedApp.of(APP) as app:
        app.tell("count")
        for generations in (1, 1, 2):
            assert app.tell(f"fork {generations}") == "0 listening"
        assert app.value("calls_total", kind="plain") == 1
        (line,) = app.errors()
        assert f"shows process {app.process.pid} only" in line
        assert f"http://{HOST}:{app.port}/metrics" in line
        assert "OTEL_METRICS_EXPORTER=otlp" in line
        assert app.end() == 0


def test_no_child_hangs_that_is_forked_while_pages_are_made() -> None:
    with ScrapedApp.of(APP) as app, ThreadPoolExecutor(2) as scrapers:
        app.tell("spread 900")
        forked = threading.Event()

        def scrape_on() -> int:
            pages = 0
            while not forked.is_set():
                app.scrape()
                pages += 1
            return pages

        scraping = [scrapers.submit(scrape_on) for _ in range(2)]
        try:
            told = {app.tell("fork") for _ in range(40)}
        finally:
            forked.set()
        assert told == {"0 listening"}
        assert all(scraped.result() for scraped in scraping)


def test_a_child_that_outlives_its_parent_neither_holds_the_port_nor_answers() -> None:
    with ScrapedApp.of(APP) as first:
        child = int(first.tell("leave_a_child"))
        first.process.kill()
        first.process.wait()
        try:
            with pytest.raises(URLError):
                scrape(first.port)
            with ScrapedApp.of(APP, port=first.port) as second:
                assert second.errors() == []
                assert second.tell("listening") == "1"
        finally:
            os.kill(child, signal.SIGKILL)


def test_forked_children_go_on_sending_by_otlp() -> None:
    with (
        OtlpSink() as sink,
        ScrapedApp.of(
            APP,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
        ) as app,
    ):
        app.tell("count")
        assert app.tell("multiprocess fork") == "0"
        assert app.value("calls_total", kind="plain") == 1
        app.end()
        last = {
            m.resource["service.instance.id"]: _sum(m) for m in sink.metrics() if m.name == "calls"
        }
    assert sorted(last.values()) == [1, 1]


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["gunicorn", "preload"])
def test_the_page_of_a_prefork_server_is_that_of_the_process_that_forks(
    options: tuple[str, ...],
) -> None:
    port, serving = free_port(), free_port()
    server = str(Path(sys.executable).parent / "gunicorn")
    command = [server, "web_app:app", "-c", "gunicorn_conf.py", "--log-level", "warning"]
    variables = scraped_environment(
        port, WEAVER_KERNEL_SECRET="a secret of the tests and of no one"
    )
    with ScrapedApp(
        [*command, *options, "--workers", "2", "--bind", f"{HOST}:{serving}"],
        variables,
        port,
        APPS,
    ) as app:
        assert [app.hear(), app.hear()] == ["ready", "ready"]
        for _ in range(8):
            with urlopen(f"http://{HOST}:{serving}/") as answer:  # nothing but http is asked for
                assert answer.status == 200
        names = {sample.name for sample in app.samples()}
        assert "requests_total" not in names  # they were served by the workers
        (line,) = app.errors()
        assert f"shows process {app.process.pid} only" in line
        # The workers, which are still there, hold nothing that would be asked in its place.
        app.process.kill()
        app.process.wait()
        with pytest.raises(URLError):
            scrape(port)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_is_started_anew_says_whose_the_page_is(method: str) -> None:
    with ScrapedApp.of(APP) as app:
        assert app.tell(f"multiprocess {method}") == "0"
        (line,) = app.errors()
        assert f"shows process {app.process.pid} only, which has started this one" in line
        assert app.tell("listening") == "1"
