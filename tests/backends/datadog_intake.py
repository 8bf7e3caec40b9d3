# SPDX-License-Identifier: Apache-2.0
"""The process behind :class:`~tests.backends.isolated.IsolatedIntake`: all there is in a network of its own.

Run as a script inside a network namespace with a folder as its only argument, it makes every address
its own, listens in the place of Datadog's intake, and prints the port. It writes one JSON line for each
request, and at the end, when its standard input is closed, to where anybody tried to send anything.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import select
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

REQUESTS: Final = "requests.jsonl"
ATTEMPTS: Final = "attempts.json"
_ROUTES: Final = (
    ("ip", "link", "set", "lo", "up"),
    # Nothing leaves, and what would is seen: packets to any address come here.
    ("ip", "route", "add", "local", "default", "dev", "lo"),
    ("ip", "-6", "route", "add", "local", "default", "dev", "lo"),
)
_DECODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}
_EVERYTHING: Final = 0x0003
_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_SYN, _ACK = 0x02, 0x10


class Watcher:
    """Sees the destination of each connection that is tried, and of each datagram."""

    def __init__(self) -> None:
        self.attempts: set[tuple[str, int]] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
        self._socket.bind(("lo", 0))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> None:
        """See nothing more."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _watch(self) -> None:
        while True:
            readable, _, _ = select.select([self._socket], [], [], 0.05)
            if readable:
                self._see(self._socket.recv(128))
            elif self._ended.is_set():
                return

    def _see(self, frame: bytes) -> None:
        kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
        if kind == _IPV4:
            protocol, address, carried = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
        elif kind == _IPV6:
            protocol, address, carried = packet[6], packet[24:40], packet[40:]
        else:
            return
        begins = protocol == _TCP and carried[13] & (_SYN | _ACK) == _SYN
        if begins or protocol == _UDP:
            port = int.from_bytes(carried[2:4], "big")
            self.attempts.add((str(ip_address(address)), port))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    output: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = _DECODERS[self.headers["Content-Encoding"] or "identity"](body)
        request = {
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": base64.b64encode(body).decode(),
        }
        # One write, which threads do not tear.
        self.output.write(json.dumps(request) + "\n")
        self._answer(202)

    def do_GET(self) -> None:
        # Asked whether the key is good.
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "14")
        self.end_headers()
        self.wfile.write(b'{"valid":true}')

    def handle(self) -> None:
        # Who asks first whether the intake answers does not wait for the answer.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *arguments: Any) -> None:
        """Nobody reads it."""


def main() -> None:
    folder = Path(sys.argv[1])
    for route in _ROUTES:
        subprocess.run(route, check=True)
    watcher = Watcher()
    with (folder / REQUESTS).open("w", buffering=1) as _Handler.output:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()
        serving.join()
        server.server_close()
    watcher.end()
    (folder / ATTEMPTS).write_text(json.dumps(sorted(watcher.attempts)))


if __name__ == "__main__":
    main()
