# SPDX-License-Identifier: Apache-2.0
"""The sink that sends OTLP, waits for a receiver that is away, and loses nothing.

One thread sends one request at a time, so that spans arrive in order and a receiver that is slow
slows the export down. A request is confirmed when the receiver has answered that it took it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.resources import Resource
from opentelemetry.util._importlib_metadata import entry_points

from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.doctor import answer_findings
from agent_kernel_otel.doctor.answers import Answer, Outcome
from agent_kernel_otel.doctor.destinations import (
    GRPC,
    Destination,
    destinations,
    otlp_destination,
)
from agent_kernel_otel.doctor.masking import shown_choice
from agent_kernel_otel.doctor.quiet import quiet
from agent_kernel_otel.export.connection import Connection, Fate, Reply, connect
from agent_kernel_otel.export.sink import (
    Delivered,
    DeliveryError,
    Sink,
    UnusableDestinationError,
)
from agent_kernel_otel.export.stopping import Stopped
from agent_kernel_otel.export.summary import duration

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts: the first ones, and after a while."""
_LONGEST_DEMANDED: Final = 600.0
"""Seconds that a receiver can have us wait at once."""
_MOST_PATIENCE: Final = 10
"""How many times the patience a receiver can have us wait in all, for one request."""
_MOST_INVALID: Final = 256
"""How many requests in a row can be called invalid, each half of the one before, until that is taken
for a refusal of everything, and not of some of the spans."""
_UNREMARKABLE: Final = 1.0
"""Seconds that a receiver can be away without a word about it."""
_RECONNECTS: Final = (("grpc.max_reconnect_backoff_ms", 1000),)
"""gRPC connects anew only after a pause that grows to minutes, also where a channel is made anew. A
receiver that is back must be noticed at once."""
_SHORTEST_ATTEMPT: Final = 1.0
_SECONDS_BETWEEN_LOOKS: Final = 0.1
_CLOSING: Final = 1.0

_WRONG_SETTINGS: Final = frozenset(
    {
        Outcome.UNTRUSTED,
        Outcome.OTHER_AUTHORITIES,
        Outcome.WRONG_NAME,
        Outcome.EXPIRED,
        Outcome.NEEDS_CLIENT_CERTIFICATE,
        Outcome.NEEDS_TLS,
        Outcome.NO_TLS,
        Outcome.SPEAKS_GRPC,
        Outcome.SPEAKS_HTTP,
    }
)
"""What no waiting helps against, where the receiver has never taken anything."""
_FIXES: Final = {Outcome.OVERLOADED: "raise the limit at the receiver, or export at another time"}
"""Where the doctor's advice is to send less."""


def open_otlp_sink(
    *,
    endpoint: str | None,
    resource: Resource,
    patience: float,
    notify: Callable[[str], None],
    is_stopping: Callable[[], bool] = lambda: False,
) -> Sink:
    """Open the sink that sends OTLP, by gRPC or HTTP as the environment says.

    All ``OTEL_EXPORTER_OTLP_*`` variables mean what they mean to the SDK, whose exporter it is.
    Nothing is sent before there are spans.

    Args:
        endpoint: Where to instead; over HTTP the address before ``/v1/traces``, or one that ends
            in ``/traces``.
        resource: Whose spans they are.
        patience: Seconds to wait for a receiver that takes nothing. One that says for how long it
            wants to be left alone is waited for once in any case, and again up to ten times that.
        notify: Told in one line when the receiver is waited for, and when it goes on; called by
            another thread.
        is_stopping: Whether nothing is to be tried again any more; also asked by that thread.

    Raises:
        UnusableDestinationError: The settings do not make an exporter.
    """
    # The core of gRPC writes what it thinks of a peer straight to stderr, unless it is told not to
    # before it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    destination = _destination(os.environ, endpoint)
    with quiet():  # what the SDK cannot read it repeats
        exporter = _exporter(destination)
    connection = connect(destination, exporter, os.environ, resource)
    return _OtlpSink(connection, patience, notify, is_stopping)


def _destination(environ: Mapping[str, str], endpoint: str | None) -> Destination:
    names = environ.get("OTEL_TRACES_EXPORTER", "")
    environ = {**environ, "OTEL_TRACES_EXPORTER": names if "otlp" in names else "otlp"}
    found = next(d for d in destinations(environ) if d.signal == "traces" and d.protocol)
    if not found.is_otlp:
        raise UnusableDestinationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {shown_choice(found.protocol)}: set it to grpc, or to "
            "http/protobuf"
        )
    if endpoint is not None:
        if found.protocol != GRPC:
            endpoint = _with_path(endpoint)
        found = replace(
            otlp_destination(environ, "traces", "otlp", found.protocol, endpoint),
            variable="--endpoint",
        )
    if not found.peer[0]:
        raise UnusableDestinationError(
            f"{found.variable} is no address: set it to http://HOST:PORT"
        )
    return found


def _with_path(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith("/traces") else f"{path}/v1/traces").geturl()


def _exporter(destination: Destination) -> Any:
    group = "opentelemetry_traces_exporter"
    entry_point = next(iter(entry_points(group=group, name=destination.entry_point)), None)
    if entry_point is None:
        raise UnusableDestinationError(
            f"OTLP over {destination.protocol} needs an exporter that is not installed: "
            "pip install 'agent-kernel-otel[http]', or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        )
    options: dict[str, Any] = {"endpoint": destination.address}
    if destination.protocol == GRPC:
        options["channel_options"] = _RECONNECTS
    try:
        return entry_point.load()(**options)
    except Exception as error:  # it reads whatever the user has set
        raise UnusableDestinationError(
            "the OTLP exporter cannot be made from these settings "
            f"({shown_choice(f'{type(error).__name__}: {error}')}); "
            "`agent-kernel-otel doctor` tells which"
        ) from error


class _OtlpSink:
    """Sends what it is given, by a thread of its own.

    Args:
        connection: Where to.
        patience: Seconds to wait for a receiver that takes nothing.
        notify: Told when it is waited for.
        is_stopping: Whether nothing is to be tried again any more.
    """

    def __init__(
        self,
        connection: Connection,
        patience: float,
        notify: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.destination = f"{connection.destination.endpoint} ({connection.destination.protocol})"
        self._connection = connection
        self._patience = patience
        self._notify = notify
        self._is_stopping = is_stopping
        self._given: queue.SimpleQueue[tuple[Sequence[Any], Future[Delivered]] | None]
        self._given = queue.SimpleQueue()
        self._failure: DeliveryError | Stopped | None = None
        self._closed = threading.Event()
        self._is_proven = False
        self._invalid_in_a_row = 0
        self._most_spans: int | None = None
        # Nothing in it may keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="otlp-sink", daemon=True)
        self._thread.start()

    def send(self, spans: Sequence[ReplayedSpan]) -> Future[Delivered]:
        """Encode spans, and send them after those before."""
        future: Future[Delivered] = Future()
        future.set_running_or_notify_cancel()  # it cannot be cancelled: the order would not hold
        if self._closed.is_set():
            future.set_exception(self._cut_short())
        else:
            self._given.put((self._connection.encode(spans), future))
        return future

    def close(self) -> None:
        """Give up what is not confirmed yet, and end the thread."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(queue.Empty):
            while (given := self._given.get_nowait()) is not None:
                given[1].set_exception(self._cut_short())
        self._given.put(None)
        self._connection.close()  # ends a gRPC request in flight; an HTTP one ends by its time-out
        self._thread.join(_CLOSING)

    def _work(self) -> None:
        with suppress_instrumentation():
            while (given := self._given.get()) is not None:
                self._settle(*given)

    def _settle(self, encoded: Sequence[Any], future: Future[Delivered]) -> None:
        if self._failure is None:
            try:
                future.set_result(self._deliver(encoded))
            except (DeliveryError, Stopped) as error:
                self._failure = error
            except Exception as error:
                text = f"sending to {self.destination} raised {type(error).__qualname__}"
                self._failure = DeliveryError(text, permanent=True)
        if self._failure is not None:
            future.set_exception(self._failure)

    def _deliver(self, encoded: Sequence[Any]) -> Delivered:
        rejected, said = 0, ""
        invalid: Reply | None = None
        most = self._most_spans or max(1, len(encoded))
        waiting = [encoded[start : start + most] for start in range(0, len(encoded), most)]
        while waiting and self._invalid_in_a_row < _MOST_INVALID:
            spans = waiting.pop(0)
            reply = self._send(spans)
            half = len(spans) // 2
            if reply.fate is Fate.INVALID:
                invalid = reply
                self._invalid_in_a_row += 1
            if reply.fate is Fate.TAKEN:
                refused = min(reply.rejected, len(spans))  # some count otherwise
                rejected += refused
                said = said or reply.said
                if refused < len(spans):
                    self._is_proven, self._invalid_in_a_row = True, 0
            elif half:
                if reply.fate is Fate.TOO_LARGE:
                    self._most_spans = half
                waiting[:0] = [spans[:half], spans[half:]]
            elif reply.fate is Fate.TOO_LARGE:
                raise self._error("takes no request of even one span", reply, permanent=True)
            else:
                rejected += 1
                said = said or reply.said or reply.status
        if invalid and not (self._is_proven and self._invalid_in_a_row < _MOST_INVALID):
            raise self._error("refuses spans", invalid, permanent=True)
        return Delivered(rejected, said or None)

    def _send(self, spans: Sequence[Any]) -> Reply:
        """Send one request until it is taken, or known to be of no use as a whole."""
        wait = _Waiting(self._patience)
        while not self._closed.is_set():
            reply = self._connection.ask(spans, min(self._connection.timeout, wait.left()))
            if self._closed.is_set() and reply.fate is not Fate.TAKEN:
                break  # an answer to an interrupted request means nothing
            if reply.fate is Fate.REFUSED:
                raise self._error("refuses spans", reply, permanent=True)
            if reply.fate is not Fate.LATER:
                if wait.is_told:
                    self._notify(f"{self.destination} goes on")
                return reply
            pause = wait.pause(reply.pause)
            if pause is None:
                what = f"has taken nothing for {duration(wait.seconds())}"
                raise self._error(what, self._connection.explain(reply), permanent=False)
            if not wait.is_told and wait.is_remarkable(pause):
                wait.is_told = True
                self._tell(reply)
            self._pause(pause)
        raise self._cut_short()

    def _pause(self, seconds: float) -> None:
        """Wait until the next attempt, unless there is to be none."""
        end = time.monotonic() + seconds
        while not self._closed.is_set() and (left := end - time.monotonic()) > 0:
            if self._is_stopping():
                raise Stopped
            self._closed.wait(min(left, _SECONDS_BETWEEN_LOOKS))

    def _tell(self, reply: Reply) -> None:
        reply = self._connection.explain(reply)
        if reply.outcome in _WRONG_SETTINGS and not self._is_proven:
            raise self._error("cannot be sent to", reply, permanent=True)
        demanded = f", for {reply.pause:g} s as it says" if reply.pause else ""
        self._notify(f"waiting for {self.destination}{demanded}: {self._explanation(reply)[0]}")

    def _cut_short(self) -> DeliveryError:
        text = f"the connection to {self.destination} was closed before all was sent"
        return DeliveryError(text, permanent=False)

    def _error(self, what: str, reply: Reply, *, permanent: bool) -> DeliveryError:
        why, fix = self._explanation(reply)
        return DeliveryError(f"{self.destination} {what}: {why}; {fix}", permanent=permanent)

    def _explanation(self, reply: Reply) -> tuple[str, str]:
        """What is so and what to do, in the doctor's words."""
        destination = self._connection.destination
        answer = Answer(destination, reply.outcome, reply.status, reply.said)
        (finding,) = answer_findings.answers([answer])
        what = finding.problem.removeprefix("traces: ")
        return what, _FIXES.get(reply.outcome, finding.fix)


class _Waiting:
    """How long one request has been waited with.

    Args:
        patience: Seconds to wait at most; some times that, if the receiver demands it.

    Attributes:
        is_told: Whether it has been said that there is a wait.
    """

    def __init__(self, patience: float) -> None:
        self.is_told = False
        self._patience = patience
        self._began = time.monotonic()
        self._deadline = self._began + patience
        self._end = self._began + _MOST_PATIENCE * patience
        self._is_obeyed = False
        self._next_pause = _FIRST_PAUSE

    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds that an attempt may take."""
        return max(_SHORTEST_ATTEMPT, self._deadline - time.monotonic())

    def is_remarkable(self, pause: float) -> bool:
        """Whether it is to be told of a wait."""
        return self.seconds() + pause > _UNREMARKABLE

    def pause(self, demanded: float | None) -> float | None:
        """Seconds until the next attempt; ``None`` if there is to be none.

        Args:
            demanded: What the receiver says.
        """
        now = time.monotonic()
        pause = self._next_pause
        self._next_pause = min(2 * pause, _LONGEST_PAUSE)
        if demanded is not None and self._is_obeyed and now >= self._end:
            return None
        if demanded is not None:
            self._is_obeyed = True
            pause = min(max(pause, demanded), _LONGEST_DEMANDED)
            self._deadline = now + pause + self._patience
            return pause
        return None if now >= self._deadline else min(pause, self._deadline - now)
