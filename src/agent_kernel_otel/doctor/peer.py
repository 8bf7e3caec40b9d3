# SPDX-License-Identifier: Apache-2.0
"""Why a request failed, found out step by step: name, connection, TLS, protocol.

The libraries' own error texts change from release to release, and can hold credentials; what a
socket does can be relied on.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final

from agent_kernel_otel.doctor.answers import Outcome
from agent_kernel_otel.doctor.destinations import GRPC, HTTP, Destination

_HTTP2_GREETING: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
)
"""The connection preface and empty SETTINGS, which an HTTP/2 server answers with its own."""
_HTTP1_GREETING: Final = b"OPTIONS * HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n"
_SETTINGS: Final = 4
_TLS_ALERT: Final = b"\x15\x03"
_VERIFY_CODES: Final = {
    10: Outcome.EXPIRED,
    62: Outcome.WRONG_NAME,  # of a host
    64: Outcome.WRONG_NAME,  # of an address
}
_ALERT_WAIT: Final = 0.5

TLS: Final = "tls"
HTTP2: Final = "http2"
HTTP1: Final = "http1"
SILENT: Final = "silent"
UNKNOWN: Final = "unknown"


def examine(destination: Destination, timeout: float) -> Outcome:
    """What is in the way of a request that got no answer.

    Args:
        destination: Where it was sent.
        timeout: Seconds that each step may take.

    Returns:
        The cause; :attr:`Outcome.FAILED` where everything that can be told from here is right.
    """
    host, port = destination.peer
    if not host:
        return Outcome.BAD_ADDRESS
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return Outcome.UNRESOLVABLE
    try:
        with socket.create_connection((host, port), timeout):
            pass
    except ConnectionRefusedError:
        return Outcome.REFUSED
    except OSError:
        return Outcome.UNREACHABLE
    return _talk(destination, (host, port), timeout)


def _talk(destination: Destination, peer: tuple[str, int], timeout: float) -> Outcome:
    speaks = language_of(peer, timeout)
    if speaks in {SILENT, UNKNOWN}:
        return Outcome.SILENT if speaks == SILENT else Outcome.FAILED
    if destination.tls != (speaks == TLS):
        return Outcome.NO_TLS if destination.tls else Outcome.NEEDS_TLS
    if speaks == TLS:
        fault = _tls_fault(destination, peer, timeout)
        if fault is not None:
            return fault
        speaks = _language_within_tls(peer, timeout)
    wrong = {(GRPC, HTTP1): Outcome.SPEAKS_HTTP, (HTTP, HTTP2): Outcome.SPEAKS_GRPC}
    return wrong.get((destination.protocol, speaks), Outcome.FAILED)


def language_of(peer: tuple[str, int], timeout: float) -> str:
    """What a listener speaks: TLS, HTTP/2, HTTP/1, nothing, or something else."""
    try:
        with _tls_connection(peer, timeout, _trusting()):
            return TLS
    except ssl.SSLError as error:
        # An alert is TLS, too: it may ask for another version, or for a certificate.
        if "ALERT" in (error.reason or "") and "VERSION_NUMBER" not in (error.reason or ""):
            return TLS
    except TimeoutError:
        pass  # many that do not know TLS wait for the rest of what they take for a request
    except OSError:
        pass
    for greeting in (_HTTP2_GREETING, _HTTP1_GREETING):
        try:
            with socket.create_connection(peer, timeout) as plain:
                speaks = _greet(plain, greeting)
        except OSError:
            return UNKNOWN
        if speaks != UNKNOWN:
            return speaks
    return UNKNOWN


def _language_within_tls(peer: tuple[str, int], timeout: float) -> str:
    context = _trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with _tls_connection(peer, timeout, context) as connection:
            if connection.selected_alpn_protocol() == "http/1.1":
                return HTTP1
            return _greet(connection, _HTTP2_GREETING)
    except OSError:
        return UNKNOWN


def _greet(connection: socket.socket, greeting: bytes) -> str:
    try:
        connection.sendall(greeting)
        answer = connection.recv(64)
    except TimeoutError:
        return SILENT
    except OSError:
        return UNKNOWN
    if answer.startswith(b"HTTP/"):
        return HTTP1
    if answer.startswith(_TLS_ALERT):
        return TLS
    return HTTP2 if len(answer) >= 9 and answer[3] == _SETTINGS else UNKNOWN


def _tls_fault(destination: Destination, peer: tuple[str, int], timeout: float) -> Outcome | None:
    try:
        context = ssl.create_default_context(cafile=destination.certificate)
        if destination.client_certificate is not None:
            context.load_cert_chain(*destination.client_certificate)
    except (OSError, ValueError):
        return Outcome.UNTRUSTED  # the finding about the file says more
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with _tls_connection(peer, timeout, context) as connection:
            # With TLS 1.3 a server that wants a certificate says so only after the handshake, or
            # hangs up without a word.
            connection.settimeout(_ALERT_WAIT)
            with suppress(TimeoutError):
                return None if connection.recv(1) else Outcome.NEEDS_CLIENT_CERTIFICATE
    except ssl.SSLCertVerificationError as error:
        return _VERIFY_CODES.get(error.verify_code, Outcome.UNTRUSTED)
    except ssl.SSLError as error:
        if "CERTIFICATE" in (error.reason or "") or "HANDSHAKE_FAILURE" in (error.reason or ""):
            return Outcome.NEEDS_CLIENT_CERTIFICATE
    except OSError as error:
        hung_up = isinstance(error, ConnectionResetError)
        return Outcome.NEEDS_CLIENT_CERTIFICATE if hung_up else None
    return None


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _tls_connection(
    peer: tuple[str, int], timeout: float, context: ssl.SSLContext
) -> ssl.SSLSocket:
    plain = socket.create_connection(peer, timeout)
    try:
        return context.wrap_socket(plain, server_hostname=peer[0])
    except BaseException:
        plain.close()
        raise
