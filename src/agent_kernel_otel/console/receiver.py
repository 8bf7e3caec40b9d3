# SPDX-License-Identifier: Apache-2.0
"""The receiver: OTLP over gRPC and over HTTP, on two ports of one host."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.console import grpc_endpoint
from agent_kernel_otel.console.http_endpoint import ANY_HOST, LOOPBACK_HOSTS, HttpServer

if TYPE_CHECKING:
    from agent_kernel_otel.console.intake import Intake

_PROBE_SECONDS: Final = 0.5
_GRPC_STOP_SECONDS: Final = 1.0


class PortUnavailable(Exception):  # noqa: N818 - what the person is told
    """A port cannot be listened on; the text says which, why, and what to do."""


class Receiver:
    """Listens from its creation until :meth:`stop`.

    Args:
        intake: Where requests go.
        host: Address or name to listen on.
        grpc_port: Port for gRPC, 0 for any free one.
        http_port: Port for HTTP, 0 for any free one.

    Raises:
        PortUnavailable: A port cannot be had.

    Attributes:
        host: As given.
        grpc_port: The port in use.
        http_port: The port in use.
    """

    def __init__(self, intake: Intake, host: str, grpc_port: int, http_port: int) -> None:
        self.host = host
        if grpc_port and grpc_port == http_port:
            raise PortUnavailable(
                f"--grpc-port and --http-port are both {grpc_port}; each needs a port of its own"
            )
        family, address = _resolve(host)
        _require_own(family, address, host)
        listener = _listen(family, address, host, http_port, "--http-port")
        try:
            if grpc_port:
                # gRPC does not say why it cannot listen; a plain socket does.
                _listen(family, address, host, grpc_port, "--grpc-port").close()
            self._grpc, self.grpc_port = _start_grpc(intake, host, address, grpc_port)
        except BaseException:
            listener.close()
            raise
        self.http_port: int = listener.getsockname()[1]
        self._http = HttpServer(intake, listener, _allowed_hosts(host, address))

    def stop(self) -> None:
        """Stops taking requests and lets those under way end, for about a second."""
        stopped = self._grpc.stop(_GRPC_STOP_SECONDS)
        self._http.stop()
        stopped.wait(_GRPC_STOP_SECONDS + 1.0)

    def url(self, port: int) -> str:
        """Gives the URL of one of the two ports, as a client on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{_bracketed(host)}:{port}"


def is_loopback(host: str) -> bool:
    """Says whether only this machine can reach an address or name."""
    try:
        return ipaddress.ip_address(_resolve(host)[1]).is_loopback
    except (PortUnavailable, ValueError):
        return False


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PortUnavailable(f"--host {host}: no such address ({error})") from error
    # Of a name's addresses the IPv4 one, which every client tries.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def _start_grpc(intake: Intake, host: str, address: str, port: int) -> tuple[Any, int]:
    try:
        return grpc_endpoint.start(intake, f"{_bracketed(address)}:{port}")
    except OSError as error:
        raise _in_use(host, port, "--grpc-port") from error


def _listen(
    family: socket.AddressFamily, address: str, host: str, port: int, option: str
) -> socket.socket:
    if port and _is_taken(family, address, port):
        raise _in_use(host, port, option)
    # Named, not left to the default: asyncio switches Nagle's delay off only where it sees TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # On Windows the option would let two listeners share the port.
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port, option) from error
        raise PortUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            f"choose others with --host and {option}"
        ) from error
    return listener


def _is_taken(family: socket.AddressFamily, address: str, port: int) -> bool:
    # Binding alone does not tell everywhere: some systems let a second server share a port, or
    # take one address of a port that another holds on all addresses.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            return probe.connect_ex((address, port)) == 0
        except OSError:
            return False


def _require_own(family: socket.AddressFamily, address: str, host: str) -> None:
    # Before a port is asked for: whoever listens at another machine's does not take it from us.
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise PortUnavailable(f"--host {host} is no address of this machine") from error


def _in_use(host: str, port: int, option: str) -> PortUnavailable:
    return PortUnavailable(
        f"port {port} on {host} is in use, probably by an OpenTelemetry Collector, Jaeger or "
        f"another console; stop that, or choose a port with {option} (0 takes any free one)"
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _allowed_hosts(host: str, address: str) -> tuple[str, ...]:
    try:
        everywhere = ipaddress.ip_address(address).is_unspecified
    except ValueError:
        everywhere = False
    # Which names reach a machine from outside cannot be known here.
    return (ANY_HOST,) if everywhere else (*LOOPBACK_HOSTS, host, _bracketed(address))
