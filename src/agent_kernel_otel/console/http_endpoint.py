# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP: protobuf and JSON, plain and gzipped."""

from __future__ import annotations

import threading
import zlib
from typing import TYPE_CHECKING, Any, Final

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from agent_kernel_otel.console import otlp_json, wire
from agent_kernel_otel.console.intake import INVALID_ARGUMENT, Refusal, too_large

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agent_kernel_otel.console.intake import Intake
    from agent_kernel_otel.console.wire import Encoding, Signal

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
ANY_HOST: Final = "*"
"""In an allow-list: every name, for a console that listens on all addresses."""

_ENCODINGS: Final[dict[str, Encoding]] = {
    "application/x-protobuf": "protobuf",
    "application/json": "json",
}
_MEDIA_TYPES: Final = {encoding: name for name, encoding in _ENCODINGS.items()}
_GZIP: Final = 31
_CONNECTIONS: Final = 64
_DECODING_AT_ONCE: Final = 2
_SHUTDOWN_SECONDS: Final = 1


class HttpServer:
    """An HTTP server in a thread of its own.

    Args:
        intake: Where requests go.
        listener: A listening socket; it is closed with the server.
        allowed_hosts: Names that the ``Host`` header may have, without port, IPv6 addresses in
            brackets; or :data:`ANY_HOST`. Anything else is refused, so
            that no web page can reach the console by a name that it controls.
    """

    def __init__(
        self, intake: Intake, listener: socket.socket, allowed_hosts: tuple[str, ...]
    ) -> None:
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                _HostGuard(build_application(intake), intake, allowed_hosts),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="otlp-http", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops taking requests; those under way have a second to end."""
        self._server.should_exit = True
        self._thread.join(_SHUTDOWN_SECONDS + 1.0)
        self._listener.close()


def build_application(intake: Intake) -> Starlette:
    """Builds the ASGI application with the three OTLP routes."""
    # Decoding is processor time: more of it at once would only need more memory.
    limiter: list[anyio.CapacityLimiter] = []

    def route(signal: Signal) -> Route:
        async def export(request: Request) -> Response:
            if not limiter:
                limiter.append(anyio.CapacityLimiter(_DECODING_AT_ONCE))
            encoding: Encoding = "json"
            try:
                encoding = _encoding(request)
                body = await _read_body(request, intake.max_request_bytes)
                response = await anyio.to_thread.run_sync(
                    intake.take, signal, body, encoding, limiter=limiter[0]
                )
            except Refusal as refusal:
                intake.report("HTTP", f"POST {request.url.path}", refusal)
                return _refused(refusal, encoding)
            return _response(response, encoding, 200)

        return Route(f"/v1/{signal.name}", export, methods=["POST"])

    async def no_such_thing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        refusal = Refusal(
            INVALID_ARGUMENT,
            status,
            "OTLP is taken by POST at /v1/traces, /v1/metrics and /v1/logs",
        )
        intake.report("HTTP", f"{request.method} {request.url.path}"[:80], refusal)
        return _refused(refusal, "json")

    return Starlette(
        routes=[route(signal) for signal in wire.SIGNALS],
        exception_handlers={404: no_such_thing, 405: no_such_thing},
    )


class _HostGuard:
    """Refuses requests whose ``Host`` header is not in the allow-list.

    Starlette has a middleware for it, but its older releases refuse ``[::1]`` and upper case.
    """

    def __init__(
        self, application: ASGIApp, intake: Intake, allowed_hosts: tuple[str, ...]
    ) -> None:
        self._application = application
        self._intake = intake
        self._allowed = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        named = len(hosts) == 1 and _without_port(hosts[0]) in self._allowed
        if named or ANY_HOST in self._allowed:
            await self._application(scope, receive, send)
            return
        text = f"the Host header {', '.join(hosts)[:80]!r} does not name this console"
        if scope["method"] == "PRI":
            # The first word of every HTTP/2 connection.
            text = "this is gRPC, which has a port of its own"
        refusal = Refusal(INVALID_ARGUMENT, 400, text)
        self._intake.report("HTTP", scope["path"][:80], refusal)
        await _refused(refusal, "json")(scope, receive, send)


def _without_port(host: str) -> str:
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def _encoding(request: Request) -> Encoding:
    # Nothing else: a web page can send text/plain and forms without asking the browser first.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _ENCODINGS:
        raise Refusal(
            INVALID_ARGUMENT,
            415,
            f"content type {content_type[:80]!r}; OTLP is application/x-protobuf or "
            "application/json",
        )
    return _ENCODINGS[content_type]


async def _read_body(request: Request, limit: int) -> bytes:
    compression = request.headers.get("content-encoding", "identity").strip().lower()
    if compression not in ("identity", "", "gzip"):
        raise Refusal(
            INVALID_ARGUMENT, 415, f"content encoding {compression[:80]!r}; only gzip is known"
        )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large(limit)
    if compression != "gzip":
        return bytes(body)
    return await anyio.to_thread.run_sync(_gunzip, bytes(body), limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(INVALID_ARGUMENT, 400, f"malformed gzip: {error}") from error
    if len(inflated) > limit:
        raise too_large(limit)
    if not inflater.eof:
        raise Refusal(INVALID_ARGUMENT, 400, "malformed gzip: it ends too early")
    return inflated


def _refused(refusal: Refusal, encoding: Encoding) -> Response:
    status = wire.status_message(refusal.code, refusal.text)
    response = _response(status, encoding, refusal.http_status)
    if refusal.http_status == 503:
        response.headers["retry-after"] = "1"
    return response


def _response(message: Any, encoding: Encoding, status: int) -> Response:
    body = otlp_json.encode(message) if encoding == "json" else wire.serialize(message)
    return Response(body, status, media_type=_MEDIA_TYPES[encoding])
