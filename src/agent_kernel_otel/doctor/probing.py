# SPDX-License-Identifier: Apache-2.0
"""Asks each endpoint, with a real OTLP request that makes no data.

The request goes through the very exporter that the SDK would use, made from the same variables,
so that its protocol, address, TLS files, headers, compression and time-out are the real ones. It
holds one resource without any item: receivers answer it, and store nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from opentelemetry.util._importlib_metadata import entry_points

from agent_kernel_otel.doctor import peer
from agent_kernel_otel.doctor.answers import Answer, Outcome
from agent_kernel_otel.doctor.destinations import GRPC, Destination, peer_of
from agent_kernel_otel.doctor.masking import shown_answer, shown_choice
from agent_kernel_otel.doctor.quiet import quiet
from agent_kernel_otel.pipeline.wire import watch

_LONGEST_WAIT: Final = 10.0
_STEP: Final = 2.0
_ONE_EMPTY_RESOURCE: Final = b"\x0a\x00"
"""The first field of each of the three requests is its list of resources."""

_TIMED_OUT: Final = "DEADLINE_EXCEEDED"
_BY_GRPC_STATUS: Final = {
    "UNAUTHENTICATED": Outcome.UNAUTHENTICATED,
    "PERMISSION_DENIED": Outcome.FORBIDDEN,
    "UNIMPLEMENTED": Outcome.UNIMPLEMENTED,
    "NOT_FOUND": Outcome.UNIMPLEMENTED,
    "RESOURCE_EXHAUSTED": Outcome.OVERLOADED,
    "INVALID_ARGUMENT": Outcome.SERVER_ERROR,
    "FAILED_PRECONDITION": Outcome.SERVER_ERROR,
    "ABORTED": Outcome.SERVER_ERROR,
    "DATA_LOSS": Outcome.SERVER_ERROR,
}
_NO_WORD_FROM_THE_RECEIVER: Final = ("UNAVAILABLE", _TIMED_OUT, "INTERNAL", "UNKNOWN")
_BAD_ADDRESSES: Final = frozenset({"InvalidSchema", "MissingSchema", "InvalidURL"})
_BY_HTTP_STATUS: Final = {
    401: Outcome.UNAUTHENTICATED,
    403: Outcome.FORBIDDEN,
    404: Outcome.NOT_FOUND,
    405: Outcome.NOT_FOUND,
    407: Outcome.UNAUTHENTICATED,
    429: Outcome.OVERLOADED,
    501: Outcome.UNIMPLEMENTED,
}


def ask_all(
    destinations: Sequence[Destination], environ: Mapping[str, str], *, ours: bool
) -> tuple[Answer, ...]:
    """Ask every OTLP endpoint, at the same time.

    Args:
        destinations: Where to; those that are no OTLP are left out.
        environ: The environment that the exporters are to see.
        ours: Whether they would be part of our pipelines, which see to what an exporter does not.
    """
    asked = [destination for destination in destinations if destination.is_otlp]
    answers: dict[int, Answer] = {}

    def ask_one(position: int) -> None:
        answers[position] = _ask(asked[position], environ, ours=ours)

    with _environment(environ), quiet():
        threads = [
            threading.Thread(target=ask_one, args=(position,), daemon=True)
            for position in range(len(asked))
        ]
        for thread in threads:
            thread.start()
        # A resolver can hang for longer than any time-out of ours.
        deadline = time.monotonic() + _LONGEST_WAIT + 4 * _STEP
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    return tuple(
        answers.get(position, Answer(destination, Outcome.SILENT, seconds=_LONGEST_WAIT))
        for position, destination in enumerate(asked)
    )


def _ask(destination: Destination, environ: Mapping[str, str], *, ours: bool) -> Answer:
    started = time.monotonic()
    status = said = ""
    try:
        exporter = _exporter_of(destination)
        if ours:
            watch(exporter, destination.signal)
    except Exception as error:  # it reads whatever the user has set
        outcome, said = Outcome.CANNOT_EXPORT, shown_choice(f"{type(error).__name__}: {error}")
    else:
        started = time.monotonic()  # what was imported until here is no fault of the receiver
        try:
            send = _over_grpc if destination.protocol == GRPC else _over_http
            outcome, status, said = send(exporter)
        except Exception as error:  # the libraries' own faults are an answer, too
            said = type(error).__name__
            status = _TIMED_OUT if "timeout" in said.lower() else ""
            outcome = Outcome.BAD_ADDRESS if said in _BAD_ADDRESSES else Outcome.FAILED
        with suppress(Exception):
            exporter.shutdown()
    seconds = time.monotonic() - started
    if outcome is Outcome.BAD_ADDRESS:
        said = ""  # it repeats the address
    if outcome is Outcome.FAILED:
        outcome = cause_of(destination, environ, status)
        if outcome is not Outcome.SERVER_ERROR:
            said = ""  # the library's guess, where more is known
    if outcome in {Outcome.UNAUTHENTICATED, Outcome.FORBIDDEN}:
        said = ""  # who refuses credentials may name them
    return Answer(destination, outcome, status, shown_answer(said, environ), seconds)


def _exporter_of(destination: Destination) -> Any:
    group = f"opentelemetry_{destination.signal}_exporter"
    for entry_point in entry_points(group=group, name=destination.entry_point):
        return entry_point.load()(**destination.options)
    raise LookupError(f"no exporter {destination.entry_point} is installed")


def _over_grpc(exporter: Any) -> tuple[Outcome, str, str]:
    import grpc  # type: ignore[import-untyped]

    request = _request_class(exporter).FromString(_ONE_EMPTY_RESOURCE)
    timeout = min(exporter._timeout, _LONGEST_WAIT)
    try:
        exporter._client.Export(request=request, metadata=exporter._headers, timeout=timeout)
    except grpc.RpcError as error:
        status, details = error.code().name, error.details() or ""
        if status in _NO_WORD_FROM_THE_RECEIVER:
            return Outcome.FAILED, status, details
        return _BY_GRPC_STATUS.get(status, Outcome.SERVER_ERROR), status, details
    return Outcome.OK, "OK", ""


def _request_class(exporter: Any) -> Any:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
    )
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    kind = type(exporter).__name__
    if "Metric" in kind:
        return ExportMetricsServiceRequest
    return ExportLogsServiceRequest if "Log" in kind else ExportTraceServiceRequest


def _over_http(exporter: Any) -> tuple[Outcome, str, str]:
    client = getattr(exporter, "_client", None)
    if client is not None:  # from 1.45 on
        timeout = min(client._timeout, _LONGEST_WAIT)
        result = client._submit(client._compress(_ONE_EMPTY_RESOURCE), timeout)
        if result.error is not None:
            raise result.error
        response = result.response
    else:
        timeout = min(exporter._timeout, _LONGEST_WAIT)
        response = exporter._export(_ONE_EMPTY_RESOURCE, timeout)
    code = response.status_code
    first = (response.history or [response])[0].status_code
    status = f"{code} {response.reason or ''}".strip()
    media_type = response.headers.get("Content-Type", "")
    if 300 <= first < 400:
        return Outcome.REDIRECTED, status, ""
    if code >= 400:
        said = "" if "html" in media_type else response.text
        return _BY_HTTP_STATUS.get(code, Outcome.SERVER_ERROR), status, said
    # A web page that takes any POST is no receiver of OTLP.
    return (Outcome.NOT_OTLP if "html" in media_type else Outcome.OK), status, ""


def cause_of(destination: Destination, environ: Mapping[str, str], status: str) -> Outcome:
    """Find out why a request got no answer from its receiver.

    Args:
        destination: Where it was sent.
        environ: The environment, which can say that a proxy is in between.
        status: Its gRPC or HTTP status; empty where it had none.
    """
    if destination.proxy is not None:
        # What the proxy does with it cannot be told from here; whether it is there can.
        host, port = peer_of(environ[destination.proxy], 80)
        at_proxy = Destination(destination.signal, "proxy", "", address=f"{host}:{port}", tls=False)
        found = peer.examine(at_proxy, _STEP)
        known = {Outcome.UNRESOLVABLE, Outcome.REFUSED, Outcome.UNREACHABLE}
        return found if found in known else Outcome.FAILED
    found = peer.examine(destination, _STEP)
    if found is Outcome.FAILED and destination.overruled_by is not None:
        return Outcome.OTHER_AUTHORITIES
    if found is not Outcome.FAILED or not status:
        return found
    return Outcome.SLOW if status == _TIMED_OUT else Outcome.SERVER_ERROR


@contextmanager
def _environment(environ: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _replace_environment(environ)
    # The core of gRPC writes what it thinks of a peer straight to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(environ: Mapping[str, str]) -> None:
    for gone in os.environ.keys() - environ.keys():
        del os.environ[gone]
    os.environ.update(environ)
