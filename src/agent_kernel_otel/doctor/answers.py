# SPDX-License-Identifier: Apache-2.0
"""What can come of an OTLP request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent_kernel_otel.doctor.destinations import Destination


class Outcome(str, Enum):
    """What came of an OTLP request to an endpoint."""

    OK = "ok"
    UNRESOLVABLE = "name_does_not_resolve"
    REFUSED = "connection_refused"
    UNREACHABLE = "unreachable"
    SILENT = "no_answer"
    SLOW = "too_slow"
    UNTRUSTED = "certificate_not_trusted"
    OTHER_AUTHORITIES = "other_authorities_trusted"
    WRONG_NAME = "certificate_of_another_name"
    EXPIRED = "certificate_expired"
    NEEDS_CLIENT_CERTIFICATE = "needs_client_certificate"
    NEEDS_TLS = "needs_tls"
    NO_TLS = "does_not_speak_tls"
    SPEAKS_GRPC = "speaks_grpc"
    SPEAKS_HTTP = "speaks_http"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "wrong_path"
    UNIMPLEMENTED = "signal_not_taken"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    REDIRECTED = "redirected"
    NOT_OTLP = "not_otlp"
    BAD_ADDRESS = "bad_address"
    CANNOT_EXPORT = "exporter_cannot_be_made"
    FAILED = "failed"


@dataclass(frozen=True)
class Answer:
    """What came of one OTLP request.

    Attributes:
        destination: Where it was sent.
        outcome: What came of it.
        status: The gRPC status or the HTTP status, as text; empty where there was none.
        said: What the receiver, or the library, said of it, scrubbed.
        seconds: How long it took.
    """

    destination: Destination
    outcome: Outcome
    status: str = ""
    said: str = ""
    seconds: float = 0.0
