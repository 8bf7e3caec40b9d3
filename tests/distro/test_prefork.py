# SPDX-License-Identifier: Apache-2.0
"""Servers that serve with several processes: each request's span arrives once, from its worker.

Real servers under load; each answer is the action id of the kernel invocation that the request
led to, so that requests can be told from one another in what was received.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

import pytest

from tests.distro.zero_code import APPS, LAUNCHER, environment
from tests.support.faulty_collector import FaultyCollector, Protocol
from tests.support.otlp_records import Item
from tests.support.ports import free_port

SCRIPTS = Path(sys.executable).parent
REQUESTS = 150
CLIENTS = 8
HANGS_AFTER = 60.0
EXIT_SECONDS = 2.0
RECYCLED_AFTER = 20


@dataclass(frozen=True)
class Case:
    """A server's command line, and what is done to it.

    Attributes:
        name: Of the case.
        command: Without the address to listen on.
        workers: How many serve at once.
        reloads: Whether it is told to reload in the middle of the load.
        instrumented: Whether it runs with telemetry at all.
        behaviour: The receiver's.
        protocol: As ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
    """

    name: str
    command: tuple[str, ...]
    workers: int
    reloads: bool = False
    instrumented: bool = True
    behaviour: str = "healthy"
    protocol: Protocol = "grpc"

    def __str__(self) -> str:
        return self.name


def _gunicorn(name: str, *options: str, workers: int = 4, **rest: Any) -> Case:
    # Not --config: the launcher takes that for an abbreviation of options of its own.
    command = ("gunicorn", "web_app:app", "-c", "gunicorn_conf.py", "--log-level", "warning")
    return Case(name, (*command, "--workers", str(workers), *options), workers, **rest)


def _uvicorn(name: str, **rest: Any) -> Case:
    command = ("uvicorn", "web_app:asgi", "--log-level", "warning", "--workers", "2")
    return Case(name, command, 2, **rest)


GUNICORN = _gunicorn("gunicorn")
RELOAD = _gunicorn("reload", reloads=True)
RECYCLE = _gunicorn("recycle", "--max-requests", str(RECYCLED_AFTER), workers=2)
UVICORN = _uvicorn("uvicorn")
SERVING = [
    GUNICORN,
    _gunicorn("http", protocol="http/protobuf"),
    _gunicorn("preload", "--preload"),
    _gunicorn("threads", "--threads", "4", workers=2),
    RELOAD,
    RECYCLE,
    UVICORN,
]
UNHEARD = [
    _gunicorn("gunicorn-unheard", behaviour="tar_pit"),
    _uvicorn("uvicorn-unheard", behaviour="tar_pit"),
]
BARE = {
    "gunicorn": _gunicorn("gunicorn-bare", instrumented=False),
    "uvicorn": _uvicorn("uvicorn-bare", instrumented=False),
}
serving = pytest.mark.parametrize("case", SERVING, ids=str)


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        answers: Action ids that the clients got.
        returncode: The server's exit code.
        seconds: How long its end took.
        errors: What it wrote to standard error.
        spans: Those received.
        metrics: Those received.
        reports: For each process what its telemetry came to, by signal.
    """

    answers: list[str]
    returncode: int
    seconds: float
    errors: str
    spans: list[Item]
    metrics: list[Item]
    reports: list[dict[str, dict[str, Any]]]

    def served(self) -> list[Item]:
        """The spans of the requests."""
        return [span for span in self.spans if span.name == "agent_kernel.invoke"]


def _run(case: Case) -> Outcome:
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "errors").open("w+") as errors,
        FaultyCollector(case.behaviour, case.protocol) as collector,
    ):
        port = free_port()
        variables = {
            **collector.environment(),
            "AGENT_KERNEL_OTEL_REPORT": str(Path(folder) / "report"),
            # The kernel warns where there is none.
            "WEAVER_KERNEL_SECRET": "a secret of the tests and of nobody else",
        }
        process = subprocess.Popen(
            [*_command(case), *_listening_on(case, port)],
            cwd=APPS,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with _killed_if_it_hangs(process) as output:
            _wait_until_ready(output, case.workers)
            answers = _load(f"http://127.0.0.1:{port}/", case, process)
            ends = time.monotonic()
            process.send_signal(signal.SIGTERM)
            returncode = process.wait()
            seconds = time.monotonic() - ends
        errors.seek(0)
        return Outcome(
            answers=answers,
            returncode=returncode,
            seconds=seconds,
            errors=errors.read(),
            spans=collector.spans(),
            metrics=collector.metrics(),
            reports=[
                json.loads(report.read_text())["telemetry"]
                for report in Path(folder).glob("report.*")
            ],
        )


@contextmanager
def _killed_if_it_hangs(process: subprocess.Popen[str]) -> Iterator[IO[str]]:
    watchdog = threading.Timer(HANGS_AFTER, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        with process.stdout as output:
            yield output
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def _command(case: Case) -> Sequence[str]:
    launcher = [LAUNCHER] if case.instrumented else []
    return [*launcher, str(SCRIPTS / case.command[0]), *case.command[1:]]


def _listening_on(case: Case, port: int) -> Sequence[str]:
    if case.command[0] == "gunicorn":
        return ["--bind", f"127.0.0.1:{port}"]
    return ["--port", str(port)]


def _wait_until_ready(output: IO[str], workers: int) -> None:
    for _ in range(workers):
        assert output.readline() == "ready\n"


def _load(address: str, case: Case, server: subprocess.Popen[str]) -> list[str]:
    def ask(_: int) -> str:
        with urlopen(address, timeout=HANGS_AFTER) as answer:  # nothing but http is asked for
            return str(answer.read().decode())

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = clients.map(ask, range(REQUESTS))
        got = [next(answers) for _ in range(REQUESTS // 3)]
        if case.reloads:
            server.send_signal(signal.SIGHUP)
        got += answers
        if case.reloads:
            assert server.stdout is not None
            _wait_until_ready(server.stdout, case.workers)
            got += clients.map(ask, range(REQUESTS // 3))
        return got


@pytest.fixture(scope="module")
def outcomes() -> Mapping[Case, Outcome]:
    """Few at a time: they are servers under load."""
    cases = [*SERVING, *BARE.values(), *UNHEARD]
    with ThreadPoolExecutor(3) as pool:
        return dict(zip(cases, pool.map(_run, cases), strict=True))


@serving
def test_each_requests_span_arrives_once(case: Case, outcomes: Mapping[Case, Outcome]) -> None:
    outcome = outcomes[case]
    assert len(outcome.answers) == len(set(outcome.answers)) >= REQUESTS
    received = Counter(span.attributes["agent_kernel.action_id"] for span in outcome.served())
    assert received == Counter(outcome.answers)
    assert len({span.span_id for span in outcome.spans}) == len(outcome.spans)


@serving
def test_each_worker_is_an_instance_that_counts_its_own_requests(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    outcome = outcomes[case]
    served = Counter(_instance(span) for span in outcome.served())
    counted = {
        _instance(metric): int(metric.points[-1]["asInt"])
        for metric in outcome.metrics
        if metric.name == "requests"
    }
    assert counted == served
    workers = len(outcome.reports) - 1
    assert len(served) <= workers
    if case is RELOAD:
        assert case.workers < len(served)
    if case is RECYCLE:
        assert len(served) >= REQUESTS / RECYCLED_AFTER
        assert max(served.values()) <= RECYCLED_AFTER + 1


@serving
def test_the_books_of_all_processes_are_what_was_received(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    outcome = outcomes[case]
    for report in outcome.reports:
        for entry in report.values():
            assert entry["sent"] == entry["ended"]
            assert entry["pending"] == 0
    assert sum(report["traces"]["ended"] for report in outcome.reports) == len(outcome.spans)


@pytest.mark.parametrize("case", SERVING + UNHEARD, ids=str)
def test_no_worker_hangs_or_is_killed(case: Case, outcomes: Mapping[Case, Outcome]) -> None:
    outcome = outcomes[case]
    bare = outcomes[BARE[case.command[0]]]
    assert outcome.returncode == bare.returncode
    # Each worker, each helper of Python's, and the one that has started them has come to its end.
    assert len(outcome.reports) >= case.workers + 1
    said = [line for line in outcome.errors.splitlines() if not line.startswith("telemetry ")]
    assert said == bare.errors.splitlines() == []
    assert len(outcome.answers) >= REQUESTS


@serving
def test_the_end_of_a_server_is_held_up_for_two_seconds_at_most(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    usual = outcomes[BARE[case.command[0]]].seconds
    if outcomes[case].seconds > usual + EXIT_SECONDS:
        # The machine may have been busy: once more, alone.
        assert _run(case).seconds < usual + EXIT_SECONDS


def _instance(item: Item) -> str:
    return str(item.resource["service.instance.id"])
