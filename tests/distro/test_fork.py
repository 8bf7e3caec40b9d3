# SPDX-License-Identifier: Apache-2.0
"""Processes that make others, in every way that Python has: none hangs, and all arrives, once.

What the processes of ``apps/forking_app.py`` say they did is compared with what the receiver got.
"""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distro.apps.forking_app import ENDS, INHERITED, TERMINATED
from tests.distro.zero_code import APPS, LAUNCHER, environment
from tests.support.faulty_collector import FaultyCollector, Protocol
from tests.support.otlp_records import Item

APP = APPS / "forking_app.py"
HANGS_AFTER = 100.0
FORKS = 50
"""In a row, while the parent exports without pause."""
WITHOUT_PAUSE = {
    "OTEL_BSP_SCHEDULE_DELAY": "1",
    "OTEL_BLRP_SCHEDULE_DELAY": "1",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
}
GRPC: Protocol = "grpc"
HTTP: Protocol = "http/protobuf"


@dataclass(frozen=True)
class Case:
    """What the app does, and over which protocol its telemetry goes."""

    mode: str
    argument: str = ""
    protocol: Protocol = GRPC

    def __str__(self) -> str:
        return "-".join(filter(None, (self.mode, self.argument, self.protocol[:4])))


BUSY = [Case("busy", str(FORKS), protocol) for protocol in (GRPC, HTTP)]
IDLE = [Case("idle", "10", protocol) for protocol in (GRPC, HTTP)]
MULTIPROCESSING = [Case("multiprocess", method) for method in ("spawn", "forkserver", "fork")]
ELSEWHERE = [Case("elsewhere", protocol=protocol) for protocol in (GRPC, HTTP)]
SIGTERM = Case("sigterm")
SIGTERM_AT_THE_END = Case("sigterm_at_the_end")
RUN_ANOTHER = Case("run_another")
CASES = [
    *BUSY,
    *MULTIPROCESSING,
    *IDLE,
    *ELSEWHERE,
    SIGTERM,
    SIGTERM_AT_THE_END,
    RUN_ANOTHER,
]
STUCK = [Case("stuck", "2", protocol) for protocol in (GRPC, HTTP)]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@dataclass(frozen=True)
class Worked:
    """One time that a process worked: by its own words, and in what was received."""

    name: str
    pid: int
    spans: list[Item]
    logs: list[Item]

    @property
    def instances(self) -> set[str]:
        """The service instances that it was received from."""
        return {_instance(item) for item in self.spans + self.logs}


class Run:
    """What the processes of one run said, and what was received of them."""

    def __init__(
        self, collector: FaultyCollector, output: str, errors: str, returncode: int, folder: Path
    ) -> None:
        self.said = [json.loads(line) for line in output.splitlines()]
        self.errors = errors
        self.returncode = returncode
        self.spans = collector.spans()
        self.metrics = collector.metrics()
        self.reports = {
            int(report.suffix[1:]): json.loads(report.read_text())["telemetry"]
            for report in folder.glob("report.*")
        }
        spans = {
            span.attributes.get("agent_kernel.action_id"): span
            for span in self.spans
            if span.name == "agent_kernel.invoke"
        }
        invoked = Counter(
            span.attributes["agent_kernel.action_id"]
            for span in self.spans
            if span.name == "agent_kernel.invoke"
        )
        logged: dict[str, list[Item]] = {}
        for log in collector.logs():
            logged.setdefault(str(log.body), []).append(log)
        self.worked = [
            Worked(
                line["name"],
                line["pid"],
                [spans[line["action"]]] * invoked[line["action"]]
                if invoked[line["action"]]
                else [],
                logged.get(f"{line['name']} served", []),
            )
            for line in self.said
            if "name" in line
        ]

    def exit_codes(self) -> list[int | None]:
        """Those of the children, in the order in which they were waited for."""
        return [line["code"] for line in self.said if "reaped" in line]

    def counted(self, instance: str) -> dict[str, list[int]]:
        """What an instance's instruments came to, at each collection."""
        counts: dict[str, list[int]] = {"served": [], "open": [], "took": []}
        for metric in self.metrics:
            if metric.name in counts and _instance(metric) == instance:
                for point in metric.points:
                    counts[metric.name].append(int(point.get("asInt", point.get("count", 0))))
        return counts


def _instance(item: Item) -> str:
    return str(item.resource["service.instance.id"])


@contextmanager
def _running(
    case: Case, collector: FaultyCollector, folder: Path, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [LAUNCHER, sys.executable, str(APP), case.mode, case.argument],
        env=environment(
            **{
                **collector.environment(),
                "AGENT_KERNEL_OTEL_REPORT": str(folder / "report"),
                # The kernel warns where there is none.
                "WEAVER_KERNEL_SECRET": "a secret of the tests and of nobody else",
                **variables,
            }
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(HANGS_AFTER, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def _run(case: Case, behaviour: str = "healthy", **variables: str) -> Run:
    with (
        tempfile.TemporaryDirectory() as folder,
        FaultyCollector(behaviour, case.protocol) as collector,
        _running(case, collector, Path(folder), **variables) as process,
    ):
        output, errors = process.communicate()
        return Run(collector, output, errors, process.returncode, Path(folder))


@pytest.fixture(scope="module")
def runs() -> Mapping[Case, Run]:
    """All cases, side by side."""
    with ThreadPoolExecutor(4) as pool:
        pace = {case: WITHOUT_PAUSE if case in BUSY else {} for case in CASES}
        return dict(zip(CASES, pool.map(lambda case: _run(case, **pace[case]), CASES), strict=True))


@every_case
def test_nothing_fails_in_the_app(case: Case, runs: Mapping[Case, Run]) -> None:
    run = runs[case]
    assert run.returncode == (TERMINATED if case == SIGTERM_AT_THE_END else 0), run.errors
    assert "Traceback" not in run.errors
    # What gRPC says where a child is likely to hang.
    assert "fork()" not in run.errors


@pytest.mark.parametrize("case", [*BUSY, *IDLE], ids=str)
def test_no_forked_child_hangs(case: Case, runs: Mapping[Case, Run]) -> None:
    assert runs[case].exit_codes() == list(range(1, int(case.argument) + 1))


@pytest.mark.parametrize("case", ELSEWHERE, ids=str)
def test_a_fork_in_a_thread_a_loop_or_a_forked_child_is_like_any_other(
    case: Case, runs: Mapping[Case, Run]
) -> None:
    assert runs[case].exit_codes() == [2, 3, 4, 5, 6]


def test_a_forked_child_ends_by_sigterm_as_its_parent_would(runs: Mapping[Case, Run]) -> None:
    inherited, own_handler = runs[SIGTERM].exit_codes()
    assert inherited == TERMINATED
    assert own_handler == 8


@pytest.mark.parametrize("case", MULTIPROCESSING, ids=str)
def test_a_child_of_multiprocessing_that_is_terminated_ends_by_that(
    case: Case, runs: Mapping[Case, Run]
) -> None:
    assert runs[case].exit_codes() == [0, TERMINATED]


@every_case
def test_whatever_a_process_does_arrives_once(case: Case, runs: Mapping[Case, Run]) -> None:
    run = runs[case]
    assert {worked.name for worked in run.worked} == _names(case)
    assert {
        worked.name: (len(worked.spans), len(worked.logs))
        for worked in run.worked
        if (len(worked.spans), len(worked.logs)) != (1, 1)
    } == {}
    assert len({span.span_id for span in run.spans}) == len(run.spans)


@every_case
def test_each_process_is_an_instance_of_its_own(case: Case, runs: Mapping[Case, Run]) -> None:
    by_process: dict[int, set[str]] = {}
    for worked in runs[case].worked:
        by_process.setdefault(worked.pid, set()).update(worked.instances)
    assert {len(instances) for instances in by_process.values()} == {1}
    assert len(set.union(*by_process.values())) == len(by_process)


@pytest.mark.parametrize("case", MULTIPROCESSING, ids=str)
def test_a_child_is_called_what_its_parent_is(case: Case, runs: Mapping[Case, Run]) -> None:
    sent = [*runs[case].spans, *runs[case].metrics]
    assert {one.resource["service.name"] for one in sent} == {APP.stem}


@every_case
def test_each_process_counts_from_nothing(case: Case, runs: Mapping[Case, Run]) -> None:
    run = runs[case]
    works = Counter(worked.pid for worked in run.worked)
    for worked in run.worked:
        own = INHERITED if worked.name == "main" else works[worked.pid]
        (instance,) = worked.instances
        for name, values in run.counted(instance).items():
            assert values, f"{worked.name} has sent no {name}"
            assert values[-1] == max(values) == own, f"{worked.name}: {name} {values}"


@every_case
def test_the_books_of_each_process_are_what_was_received(
    case: Case, runs: Mapping[Case, Run]
) -> None:
    run = runs[case]
    received = Counter(map(_instance, run.spans))
    without_report = 0
    for worked in run.worked:
        if worked.pid not in run.reports:
            without_report += 1
            continue
        books = run.reports[worked.pid]
        assert books["traces"]["ended"] == received[worked.instances.pop()]
        for entry in books.values():
            assert entry["sent"] == entry["ended"] > 0
            assert entry["pending"] == 0
    # Who ends by os._exit() has no end of which it could tell.
    by_exit = {"idle": 5, "busy": FORKS // len(ENDS), "elsewhere": 2}
    assert without_report == by_exit.get(case.mode, 0)


def test_sigterm_while_the_process_ends_does_not_cut_that_short(runs: Mapping[Case, Run]) -> None:
    run = runs[SIGTERM_AT_THE_END]
    last = [metric.points[-1]["asInt"] for metric in run.metrics if metric.name == "ended"]
    assert last[-1] == "1"
    assert len(run.reports) == 1


@pytest.fixture(scope="module")
def stuck() -> Mapping[Case, Run]:
    """Forks while the receiver says nothing, after all else, because they are timed."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(STUCK, pool.map(lambda case: _run(case, "tar_pit"), STUCK), strict=True))


@pytest.mark.parametrize("case", STUCK, ids=str)
def test_a_fork_while_exports_hang_is_held_up_briefly_and_the_child_does_not_hang(
    case: Case, stuck: Mapping[Case, Run]
) -> None:
    run = stuck[case]
    assert run.exit_codes() == [1, 2]
    assert "fork()" not in run.errors
    # The machine may have been busy: then again, alone.
    assert _in_time(run) or any(_in_time(_run(case, "tar_pit")) for _ in range(3)), run.said


def _in_time(run: Run) -> bool:
    ends = {line["pid"]: line["at"] for line in run.said if "at" in line and "reaped" not in line}
    reaped = {line["reaped"]: line["at"] for line in run.said if "reaped" in line}
    forks = [line["forked"] for line in run.said if "forked" in line]
    return max(forks) < 0.75 and all(at - ends[child] < 2.0 for child, at in reaped.items())


@pytest.mark.parametrize("protocol", [GRPC, HTTP])
def test_an_export_that_a_fork_interrupts_is_repeated(protocol: Protocol) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        FaultyCollector("healthy", protocol) as collector,
        _Stall(collector.endpoint) as stall,
        _running(
            Case("recover", protocol=protocol),
            collector,
            Path(folder),
            OTEL_EXPORTER_OTLP_ENDPOINT=stall.endpoint,
            OTEL_EXPORTER_OTLP_TIMEOUT="15",
        ) as process,
    ):
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "forked" in line:
                break
        stall.end()
        output, errors = process.communicate("go\n")
        run = Run(collector, said + output, errors, process.returncode, Path(folder))
    assert run.said[-1]["flushed"], run.errors
    (worked,) = run.worked
    assert (len(worked.spans), len(worked.logs)) == (1, 1)
    assert len({span.span_id for span in run.spans}) == len(run.spans)
    for entry in run.reports[worked.pid].values():
        assert entry["sent"] == entry["ended"] > 0


class _Stall(socketserver.ThreadingTCPServer):
    """A network in front of a receiver in which nothing moves until it is told to."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.partition("://")[2].partition(":")
        self.target = (host, int(port))
        self.moves = threading.Event()
        super().__init__(("127.0.0.1", 0), _Stalled)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.moves.set()

    def __exit__(self, *_: object) -> None:
        self.moves.set()
        self.shutdown()
        self.server_close()


class _Stalled(socketserver.BaseRequestHandler):
    server: _Stall

    def handle(self) -> None:
        self.server.moves.wait()
        with socket.create_connection(self.server.target) as receiver:
            back = threading.Thread(target=_move, args=(receiver, self.request), daemon=True)
            back.start()
            _move(self.request, receiver)
            back.join()


def _move(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _names(case: Case) -> set[str]:
    if case in BUSY + IDLE:
        return {"main", *(f"child-{number}" for number in range(int(case.argument)))}
    of_mode = {
        "elsewhere": {"of-thread", "in-loop", "nested", "grandchild", "grandchild-of-_exit"},
        "sigterm": {"inherited", "own-handler"},
        "multiprocess": {
            "parent",
            "parent's",
            "terminated",
            "pool-1",
            "pool-2",
            "terminated-pool",
            "executor-1",
            "executor-2",
        },
        "run_another": {"script", "popen"},
    }
    return {"main"} | of_mode.get(case.mode, set())
