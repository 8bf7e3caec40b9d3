# SPDX-License-Identifier: Apache-2.0
"""Small receivers that give one certain answer, on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]


@contextlib.contextmanager
def http_receiver(
    answers: Mapping[str, tuple[int, Mapping[str, str], bytes]],
    tls: ssl.SSLContext | None = None,
    seen: list[tuple[str, dict[str, str], bytes]] | None = None,
) -> Iterator[str]:
    """Answers a POST by its path, or by ``*``, with a status, headers and a body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if seen is not None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append((self.path, headers, body))
            status, more, content = answers.get(self.path, answers["*"])
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is there
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who looks at what it speaks hangs up in the middle

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_receiver(
    answers: Mapping[str, tuple[grpc.StatusCode, str]],
    seen: list[dict[str, str]] | None = None,
    credentials: Any = None,
) -> Iterator[str]:
    """Answers an Export by its service (``trace``, ``metrics``, ``logs``, or ``*`` for any), or takes it."""

    class Answering(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: Any) -> Any:
            wanted = answers.get(call.method.split(".")[3], answers.get("*"))

            def export(_: bytes, context: Any) -> bytes:
                if seen is not None:
                    seen.append({item.key: str(item.value) for item in call.invocation_metadata})
                if wanted is not None:
                    context.abort(*wanted)
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(3))
    server.add_generic_rpc_handlers((Answering(),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"{'http' if credentials is None else 'https'}://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def tls_context(folder: Path, *, client_authority: bool = False, name: str = "127.0.0.1") -> Any:
    """A server's TLS, whose authority is written to ``ca.pem``; it may want a client's."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if client_authority:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        client = authority.issue_cert("client.example")
        client.private_key_pem.write_to_path(str(folder / "client.key"))
        client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    return context


def grpc_credentials(folder: Path) -> Any:
    """A server's TLS over gRPC that wants a client's certificate; the files as above."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True)
