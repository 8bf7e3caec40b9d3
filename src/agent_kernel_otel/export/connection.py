# SPDX-License-Identifier: Apache-2.0
"""One request over the connection of the SDK's own OTLP exporter, and what came of it.

The exporter is made as the SDK makes it, so that its variables, headers, TLS files, compression
and time-out are the user's. Its own loop of attempts is passed by: it gives up after seconds, and
does not tell what it was answered. Where that loop cannot be passed by, in a release to come, the
exporter is used as it is.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.doctor.answers import Outcome
from agent_kernel_otel.doctor.destinations import GRPC, Destination
from agent_kernel_otel.doctor.masking import shown_answer
from agent_kernel_otel.doctor.probing import cause_of
from agent_kernel_otel.export.otlp import Encoder, sdk_span
from agent_kernel_otel.pipeline.notices import complaints, quieten_exporters
from agent_kernel_otel.pipeline.wire import Answer, watch

_TIMEOUT: Final = 10.0
_TOO_LARGE: Final = re.compile(
    r"larger than max|exceeds max|too large|maximum (request|message) size", re.IGNORECASE
)
"""What gRPC servers in C, Go, Java and Rust, and the Collector over HTTP, say of a large request."""

_REFUSALS: Final = {
    "UNAUTHENTICATED": Outcome.UNAUTHENTICATED,
    "PERMISSION_DENIED": Outcome.FORBIDDEN,
    "UNIMPLEMENTED": Outcome.UNIMPLEMENTED,
    "NOT_FOUND": Outcome.UNIMPLEMENTED,
    "FAILED_PRECONDITION": Outcome.SERVER_ERROR,
    "ALREADY_EXISTS": Outcome.SERVER_ERROR,
}
"""gRPC statuses to which another attempt would change nothing."""
_PASSING: Final = {
    "RESOURCE_EXHAUSTED": Outcome.OVERLOADED,
    "UNAVAILABLE": Outcome.FAILED,
    "DEADLINE_EXCEEDED": Outcome.SILENT,
}
_HTTP_REFUSALS: Final = {
    401: Outcome.UNAUTHENTICATED,
    403: Outcome.FORBIDDEN,
    404: Outcome.NOT_FOUND,
    405: Outcome.NOT_FOUND,
    407: Outcome.UNAUTHENTICATED,
    501: Outcome.UNIMPLEMENTED,
}
_INVALID: Final = "INVALID_ARGUMENT"
_HTTP_INVALID: Final = 400
_HTTP_PASSING: Final = {408: Outcome.SILENT, 429: Outcome.OVERLOADED}
_HTTP_TOO_LARGE: Final = 413
_BAD_ADDRESSES: Final = frozenset({"InvalidSchema", "MissingSchema", "InvalidURL"})
_GRPC_NAMES: Final = ("_client", "_headers")


class Fate(Enum):
    """What became of a request. One that is too large, or invalid, may be taken in parts."""

    TAKEN = "taken"
    LATER = "later"
    TOO_LARGE = "too large"
    INVALID = "invalid"
    REFUSED = "refused"


@dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        fate: What became of it.
        outcome: Why, as far as it is known; :attr:`Outcome.FAILED` where nobody answered.
        status: The gRPC or HTTP status.
        said: What the receiver or the library said, scrubbed.
        pause: How many seconds to wait, as the receiver demands.
        rejected: How many spans of a request that was taken were rejected.
    """

    fate: Fate
    outcome: Outcome = Outcome.OK
    status: str = ""
    said: str = ""
    pause: float | None = None
    rejected: int = 0


class Connection(ABC):
    """A connection to a receiver of OTLP.

    Args:
        destination: Where it leads.
        exporter: The SDK's exporter to there.
        environ: The environment, whose secrets are not repeated.
        resource: Whose spans are sent.

    Attributes:
        destination: Where it leads.
        timeout: Seconds that the exporter would wait for an answer.
    """

    def __init__(
        self,
        destination: Destination,
        exporter: Any,
        environ: Mapping[str, str],
        resource: Resource,
    ) -> None:
        self.destination = destination
        client = getattr(exporter, "_client", None)
        timeout = getattr(exporter, "_timeout", None) or getattr(client, "_timeout", None)
        self.timeout: float = timeout or _TIMEOUT
        self._exporter = exporter
        # An address given as an option can hold credentials as well as one of the environment.
        self._environ = {**environ, "ENDPOINT": destination.address}
        self._resource = resource
        self._encoder = Encoder(resource)
        self._wire = watch(exporter, "traces")

    def encode(self, spans: Iterable[ReplayedSpan]) -> Sequence[Any]:
        """Make spans ready, one by one, so that any part of them can make a request."""
        return self._encoder.spans(spans)

    def ask(self, spans: Sequence[Any], timeout: float) -> Reply:
        """Send one request, once.

        Args:
            spans: What :meth:`encode` gave, or a part of it.
            timeout: Seconds to wait for an answer.
        """
        self._wire.answer = Answer()
        try:
            return self._ask(spans, timeout)
        except Exception as error:  # its text can repeat headers; its type says enough
            return Reply(Fate.REFUSED, Outcome.CANNOT_EXPORT, said=type(error).__name__)

    @abstractmethod
    def _ask(self, spans: Sequence[Any], timeout: float) -> Reply: ...

    def close(self) -> None:
        """Let go of the connection, also while a request is in flight."""
        with suppress(Exception):
            self._exporter.shutdown()

    def explain(self, reply: Reply) -> Reply:
        """Look for the cause of a reply where nobody answered."""
        if reply.outcome is not Outcome.FAILED:
            return reply
        outcome = cause_of(self.destination, self._environ, reply.status)
        # What the library guesses is of no use where more is known.
        is_known = outcome not in {Outcome.FAILED, Outcome.SERVER_ERROR}
        return replace(reply, outcome=outcome, said="" if is_known else reply.said)

    def _reply(
        self, fate: Fate, outcome: Outcome, status: str, said: str, pause: float | None = None
    ) -> Reply:
        if fate is not Fate.TAKEN and _TOO_LARGE.search(said):
            fate = Fate.TOO_LARGE
        if outcome in {Outcome.UNAUTHENTICATED, Outcome.FORBIDDEN}:
            said = ""  # who refuses credentials may name them
        return Reply(fate, outcome, status, shown_answer(said, self._environ), pause)

    def _taken(self) -> Reply:
        answer = self._wire.answer
        said = shown_answer(answer.error or "", self._environ)
        return Reply(Fate.TAKEN, said=said, rejected=answer.rejected)


class GrpcConnection(Connection):
    """Sends OTLP over gRPC."""

    def _ask(self, spans: Sequence[bytes], timeout: float) -> Reply:
        # Not before it has been told to be quiet, which it looks up when it is loaded.
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415

        try:
            self._exporter._client.Export(
                request=ExportTraceServiceRequest.FromString(self._encoder.request(spans)),
                metadata=self._exporter._headers,
                timeout=timeout,
            )
        except grpc.RpcError as error:
            return self._read(error)
        return self._taken()

    def _read(self, error: Any) -> Reply:
        status, said = error.code().name, error.details() or ""
        if status in _REFUSALS:
            return self._reply(Fate.REFUSED, _REFUSALS[status], status, said)
        if status == _INVALID:
            return self._reply(Fate.INVALID, Outcome.SERVER_ERROR, status, said)
        outcome = _PASSING.get(status, Outcome.SERVER_ERROR)
        return self._reply(Fate.LATER, outcome, status, said, _retry_delay(error))


class HttpConnection(Connection):
    """Sends OTLP over HTTP."""

    def _ask(self, spans: Sequence[bytes], timeout: float) -> Reply:
        request = self._encoder.request(spans)
        client = getattr(self._exporter, "_client", None)
        if client is not None:  # SDK 1.45 on
            result = client._submit(client._compress(request), timeout)
            return self._failed(result.error) if result.error else self._read(result.response)
        try:
            response = self._exporter._export(request, timeout)
        except Exception as error:
            return self._failed(error)
        return self._read(response)

    def _failed(self, error: Exception) -> Reply:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & _BAD_ADDRESSES:
            return self._reply(Fate.REFUSED, Outcome.BAD_ADDRESS, "", "")
        if "RequestException" not in kinds or "InvalidHeader" in kinds:
            raise error
        outcome = Outcome.SILENT if "Timeout" in kinds else Outcome.FAILED
        return self._reply(Fate.LATER, outcome, "", type(error).__name__)

    def _read(self, response: Any) -> Reply:
        code = response.status_code
        status = f"HTTP {code} {response.reason or ''}".strip()
        media_type = response.headers.get("Content-Type", "")
        if 300 <= (response.history or [response])[0].status_code < 400:
            return self._reply(Fate.REFUSED, Outcome.REDIRECTED, status, "")
        if code < 400:
            # A web page that takes any POST is no receiver of OTLP.
            is_page = "html" in media_type
            return Reply(Fate.REFUSED, Outcome.NOT_OTLP, status) if is_page else self._taken()
        said = _said(response, media_type)
        if code == _HTTP_TOO_LARGE:
            return self._reply(Fate.TOO_LARGE, Outcome.SERVER_ERROR, status, said)
        if code in _HTTP_PASSING or (code >= 500 and code not in _HTTP_REFUSALS):
            outcome = _HTTP_PASSING.get(code, Outcome.SERVER_ERROR)
            pause = _retry_after(response.headers.get("Retry-After", ""))
            return self._reply(Fate.LATER, outcome, status, said, pause)
        fate = Fate.INVALID if code == _HTTP_INVALID else Fate.REFUSED
        return self._reply(fate, _HTTP_REFUSALS.get(code, Outcome.SERVER_ERROR), status, said)


class ExporterConnection(Connection):
    """Sends by the exporter's own loop of attempts, of which little more is known than its end."""

    def encode(self, spans: Iterable[ReplayedSpan]) -> Sequence[Any]:
        """The spans as those of the SDK."""
        return [sdk_span(span, self._resource) for span in spans]

    def _ask(self, spans: Sequence[Any], timeout: float) -> Reply:  # noqa: ARG002 - it has its own
        heard: list[str] = []
        complaints.heard = heard
        try:
            succeeded = self._exporter.export(spans).name == "SUCCESS"
        finally:
            complaints.heard = None
        if succeeded:
            return self._taken()
        return self._reply(Fate.LATER, Outcome.FAILED, "", heard[-1] if heard else "")


def connect(
    destination: Destination, exporter: Any, environ: Mapping[str, str], resource: Resource
) -> Connection:
    """Connect to a receiver.

    Args:
        destination: Where to.
        exporter: The SDK's exporter to there.
        environ: The environment, whose secrets are not repeated.
        resource: Whose spans are sent.
    """
    quieten_exporters()
    kind: type[Connection] = ExporterConnection
    if destination.protocol == GRPC:
        if all(hasattr(exporter, name) for name in _GRPC_NAMES):
            kind = GrpcConnection
    elif hasattr(getattr(exporter, "_client", None), "_submit") or hasattr(exporter, "_export"):
        kind = HttpConnection
    return kind(destination, exporter, environ, resource)


def _retry_delay(error: Any) -> float | None:
    metadata = dict(error.trailing_metadata() or ())
    info = RetryInfo()
    with suppress(DecodeError):
        if "google.rpc.retryinfo-bin" in metadata:
            info.ParseFromString(metadata["google.rpc.retryinfo-bin"])
            return _seconds(info)
        details = Status.FromString(metadata.get("grpc-status-details-bin", b"")).details
        if any(detail.Unpack(info) for detail in details):
            return _seconds(info)
    return None


def _seconds(info: Any) -> float:
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return max(0.0, seconds)


def _retry_after(header: str) -> float | None:
    if header.strip().isdecimal():
        return float(header)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _said(response: Any, media_type: str) -> str:
    if "protobuf" in media_type:
        with suppress(DecodeError):
            message: str = Status.FromString(response.content).message
            return message
    return "" if "html" in media_type else str(response.text)
