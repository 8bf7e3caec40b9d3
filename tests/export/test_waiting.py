# SPDX-License-Identifier: Apache-2.0
"""A receiver that is away is waited for, as long as that is of use and nobody interrupts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.export import sending
from agent_kernel_otel.export.sink import (
    Delivered,
)
from tests.export.scripted_collector import ScriptedCollector
from tests.export.sinks import (
    ANY_TIME,
    GRPC,
    HTTP,
    SECRET,
    Opened,
    both,
    delivered,
    failure,
    spans,
)
from tests.support.faulty_collector import FaultyCollector, Protocol
from tests.support.ports import free_port


@both
def test_a_receiver_that_is_dead_is_waited_for_and_gets_everything(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    port = free_port()
    sink = opened(f"http://127.0.0.1:{port}", protocol)
    futures = [sink.send(spans(5)), sink.send(spans(5, 5))]
    waits = opened.told.get(timeout=ANY_TIME)
    assert waits.startswith(f"waiting for {sink.destination}: nothing listens at 127.0.0.1:{port}")
    with ScriptedCollector(tmp_path, protocol=protocol, port=port) as collector:
        assert [delivered(future) for future in futures] == [Delivered(0, None)] * 2
        assert collector.sizes() == [5, 5]
    assert opened.told.get(timeout=ANY_TIME) == f"{sink.destination} goes on"
    assert opened.told.empty()


@both
def test_a_receiver_that_dies_in_between_and_comes_back_gets_the_rest(
    protocol: Protocol, opened: Opened, tmp_path: Path
) -> None:
    port = free_port()
    with ScriptedCollector(tmp_path, protocol=protocol, port=port) as collector:
        sink = opened(collector.endpoint, protocol)
        delivered(sink.send(spans(2)))
    rest = sink.send(spans(2, 2))
    assert opened.told.get(timeout=ANY_TIME).startswith("waiting for")
    with ScriptedCollector(tmp_path, protocol=protocol, port=port) as collector:
        delivered(rest)
        actions = [span.attributes[semconv.ACTION_ID] for span in collector.spans()]
        assert actions == [f"action-{number}" for number in range(1, 5)]


def test_a_receiver_that_is_long_away_is_tried_as_often_as_at_first(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pauses are then those of gRPC itself; its sixth one would be of seven seconds and more.
    monkeypatch.setattr(sending, "_LONGEST_PAUSE", 0.25)
    monkeypatch.setattr(sending, "_UNREMARKABLE", 600.0)
    tried: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened(f"http://127.0.0.1:{listener.getsockname()[1]}", GRPC, patience=600).send(spans(1))
        for _ in range(7):
            connection, _ = listener.accept()
            connection.close()
            tried.append(time.monotonic())
    assert tried[-1] - tried[-2] < 4


@both
@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("refused", "nothing listens at"),
        ("tar_pit", "accepts connections and does not answer"),
        ("server_error", "answers with an error"),
        ("resource_exhausted", "refuses for now"),
    ],
)
def test_patience_ends_with_what_is_wrong_and_what_to_do(
    behaviour: str, why: str, protocol: Protocol, opened: Opened
) -> None:
    with FaultyCollector(behaviour, protocol) as collector:
        sink = opened(collector.endpoint, protocol, patience=0.5)
        first, second = sink.send(spans(2)), sink.send(spans(2, 2))
        error = failure(first)
        assert not error.permanent
        assert re.match(
            rf"{re.escape(sink.destination)} has taken nothing for \d\.\d s: ", str(error)
        )
        assert why in str(error)
        assert failure(second) is error
        assert failure(sink.send(spans(1))) is error


def test_a_name_that_does_not_resolve_is_told_of(opened: Opened) -> None:
    with FaultyCollector("dns_failure") as collector:
        error = failure(opened(collector.endpoint, patience=0.1).send(spans(1)))
    assert "the name collector.invalid does not resolve" in str(error)
    assert not error.permanent


def test_each_success_renews_the_patience(opened: Opened, tmp_path: Path) -> None:
    # Away for about 0.75 s each time, which is longer than the patience only in all.
    away, taken = {"status": "UNAVAILABLE"}, dict[str, Any]()
    with ScriptedCollector(tmp_path, *[away, away, taken] * 3) as collector:
        sink = opened(collector.endpoint, GRPC, patience=2)
        for start in range(3):
            delivered(sink.send(spans(1, start)))
        assert collector.sizes() == [1] * 9


@both
def test_a_receiver_that_takes_every_other_request_gets_everything_without_a_word(
    protocol: Protocol, opened: Opened
) -> None:
    with FaultyCollector("flapping", protocol) as collector:
        sink = opened(collector.endpoint, protocol)
        for future in [sink.send(spans(1, start)) for start in range(4)]:
            delivered(future)
        assert len({span.span_id for span in collector.spans()}) == 4
        assert len(collector.spans()) == 4
    assert opened.told.empty()


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        (GRPC, {"status": "RESOURCE_EXHAUSTED", "retry": 1.5}),
        (GRPC, {"status": "UNAVAILABLE", "retry": 1.5, "as_the_sdk_reads_it": True}),
        (HTTP, {"status": 429, "headers": {"Retry-After": "2"}}),
        (HTTP, {"status": 503, "headers": {"Retry-After": "2"}}),
    ],
)
def test_a_receiver_that_asks_to_wait_is_waited_for_longer_than_the_patience(
    protocol: Protocol, answer: dict[str, Any], opened: Opened, tmp_path: Path
) -> None:
    away = {"status": 503 if protocol == HTTP else "UNAVAILABLE"}
    with ScriptedCollector(tmp_path, answer, away, protocol=protocol) as collector:
        sink = opened(collector.endpoint, protocol, patience=1)
        began = time.monotonic()
        delivered(sink.send(spans(3)))
        assert time.monotonic() - began >= 1.5
        assert collector.sizes() == [3, 3, 3]
    assert " as it says: " in opened.told.get(timeout=ANY_TIME)
    assert opened.told.get(timeout=ANY_TIME) == f"{sink.destination} goes on"


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        (GRPC, {"status": "RESOURCE_EXHAUSTED", "retry": 0.5}),
        (HTTP, {"status": 429, "headers": {"Retry-After": "1"}}),
    ],
)
@pytest.mark.parametrize("patience", [0.0, 0.1])
def test_a_receiver_that_only_ever_asks_to_wait_is_not_waited_for_without_end(
    protocol: Protocol, answer: dict[str, Any], patience: float, opened: Opened, tmp_path: Path
) -> None:
    with ScriptedCollector(tmp_path, *[answer] * 50, protocol=protocol) as collector:
        error = failure(opened(collector.endpoint, protocol, patience).send(spans(1)))
        assert 2 <= len(collector.sizes()) <= 4
    assert not error.permanent
    assert "has taken nothing for " in str(error)


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1", "1e999"])
def test_a_wait_that_makes_no_sense_is_none(header: str, opened: Opened, tmp_path: Path) -> None:
    answer = {"status": 503, "headers": {"Retry-After": header}}
    with ScriptedCollector(tmp_path, answer, protocol=HTTP) as collector:
        delivered(opened(collector.endpoint, HTTP).send(spans(1)))
        assert collector.sizes() == [1, 1]


@pytest.mark.parametrize(
    ("behaviour", "speaks"), [("tls_mismatch", GRPC), ("tls_mismatch", HTTP), ("plain_text", GRPC)]
)
def test_what_no_waiting_helps_against_is_told_at_once(
    behaviour: str, speaks: Protocol, opened: Opened
) -> None:
    with FaultyCollector(behaviour, speaks) as collector:
        error = failure(opened(collector.endpoint, speaks, patience=600).send(spans(1)))
    assert error.permanent
    assert "TLS" in str(error)


def test_a_receiver_of_the_other_protocol_is_told_at_once(opened: Opened) -> None:
    with FaultyCollector("healthy", HTTP) as collector:
        error = failure(opened(collector.endpoint, GRPC, patience=600).send(spans(1)))
    assert error.permanent
    assert "speaks HTTP/1.1" in str(error)


def test_what_once_took_spans_is_waited_for_whatever_stands_in_for_it(
    opened: Opened, tmp_path: Path
) -> None:
    port = free_port()
    with ScriptedCollector(tmp_path, port=port) as collector:
        sink = opened(collector.endpoint, GRPC)
        delivered(sink.send(spans(1)))
    with ScriptedCollector(tmp_path, port=port, protocol=HTTP):
        rest = sink.send(spans(1, 1))
        assert "speaks HTTP/1.1" in opened.told.get(timeout=ANY_TIME)
    with ScriptedCollector(tmp_path, port=port):
        assert delivered(rest) == Delivered(0, None)


@both
@pytest.mark.parametrize("behaviour", ["refused", "tar_pit", "slow"])
def test_closing_does_not_hang_and_fails_what_is_left(
    behaviour: str, protocol: Protocol, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with FaultyCollector(behaviour, protocol) as collector:
        sink = opened(collector.endpoint, protocol, patience=600)
        first, second = sink.send(spans(1)), sink.send(spans(1, 1))
        closing = threading.Thread(target=sink.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
        assert not failure(second).permanent
        if protocol == GRPC or behaviour == "refused":
            assert not failure(first).permanent
        assert not failure(sink.send(spans(1))).permanent


@both
@pytest.mark.parametrize("behaviour", ["refused", "tar_pit"])
def test_an_interrupt_gets_through_while_the_receiver_is_waited_for(
    behaviour: str, protocol: Protocol
) -> None:
    app = textwrap.dedent(
        """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
        from opentelemetry.sdk.resources import Resource
        from agent_kernel_otel.audit.replay import ReplayedSpan
        from agent_kernel_otel.export.sending import open_otlp_sink
        sink = open_otlp_sink(
            endpoint=sys.argv[1],
            resource=Resource({}),
            patience=600,
            notify=lambda line: print(line, flush=True),
        )
        span = ReplayedSpan("x", b"1" * 16, b"2" * 8, 1, {}, failed=False, live=None)
        try:
            future = sink.send([span])
            print("sent", flush=True)
            future.result()
        except KeyboardInterrupt:
            sink.close()
            print("interrupted", flush=True)
        """
    )
    with (
        FaultyCollector(behaviour, protocol) as collector,
        subprocess.Popen(
            [sys.executable, "-c", app, collector.endpoint],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **collector.environment(),
                "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
            },
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        if behaviour == "refused":
            assert process.stdout.readline().startswith("waiting for")
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(ANY_TIME) == 0


def test_nothing_but_our_own_lines_is_written_to_the_terminal(tmp_path: Path) -> None:
    app = textwrap.dedent(
        """
        import sys
        from opentelemetry.sdk.resources import Resource
        from agent_kernel_otel.audit.replay import ReplayedSpan
        from agent_kernel_otel.export.sending import open_otlp_sink
        sink = open_otlp_sink(
            endpoint=sys.argv[1], resource=Resource({}), patience=600, notify=print
        )
        span = ReplayedSpan("x", b"1" * 16, b"2" * 8, 1, {}, failed=False, live=None)
        print(sink.send([span]).exception())
        sink.close()
        """
    )
    with FaultyCollector("tls_mismatch") as collector:
        run = subprocess.run(
            [sys.executable, "-c", app, collector.endpoint],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OTEL_EXPORTER_OTLP_HEADERS": f"not a header {SECRET}"},
        )
    assert "is not trusted" in run.stdout
    assert run.stderr == ""


def test_a_fault_in_telling_of_a_wait_ends_the_sink_and_not_its_thread_alone(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: str) -> None:
        raise OSError(line)

    with FaultyCollector("refused") as collector:
        monkeypatch.setattr(opened, "told", type("Told", (), {"put": staticmethod(broken)}))
        error = failure(opened(collector.endpoint).send(spans(1)))
    assert str(error).endswith("raised OSError")
