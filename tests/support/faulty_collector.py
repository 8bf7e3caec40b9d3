# SPDX-License-Identifier: Apache-2.0
"""A real OTLP receiver in a process of its own that misbehaves on request.

================== ============================================================================
behaviour          what it does
================== ============================================================================
healthy            answers at once
refused            nothing listens on the port, and nothing else can take it
dns_failure        its host name does not exist
tar_pit            accepts connections and never says a word
slow               answers after 4 seconds, and stores
flapping           refuses the first request of each signal as unavailable, takes the second, ...
server_error       500 / ``INTERNAL``
resource_exhausted 429 / ``RESOURCE_EXHAUSTED``, without a word on when to come back
unavailable_then_ok 503 / ``UNAVAILABLE`` for the first ``count`` requests of each signal
partial_success    takes each request, and rejects ``count`` of its items
tls_mismatch       speaks TLS with a certificate that nobody trusts
plain_text         speaks no TLS where the sender does
================== ============================================================================
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from tests.support import otlp_server
from tests.support.otlp_records import Received

if TYPE_CHECKING:
    from typing_extensions import Self

Protocol = Literal["grpc", "http/protobuf"]
_AS_IF_HEALTHY: Final = frozenset({"tls_mismatch", "plain_text"})
_DEADLINE: Final = 30.0


class FaultyCollector(Received):
    """Starts the receiver, and reads what it received; a context manager.

    Args:
        behaviour: One of those of this module.
        protocol: As ``OTEL_EXPORTER_OTLP_PROTOCOL`` has it.
        count: How many requests or items the behaviour concerns, where it concerns a number.
    """

    def __init__(self, behaviour: str, protocol: Protocol = "grpc", count: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="faulty-collector-")
        super().__init__(Path(self._folder.name) / "requests.jsonl")
        self.behaviour = behaviour
        self.protocol: Protocol = protocol
        self._concerned = count
        self._address = ""
        self._running = ExitStack()
        self._running.callback(self._folder.cleanup)

    def __enter__(self) -> Self:
        if self.behaviour == "dns_failure":
            self._address = "collector.invalid:4317"
        elif self.behaviour == "refused":
            bound = self._running.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{bound.getsockname()[1]}"
        else:
            self._address = f"127.0.0.1:{self._start()}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    @property
    def endpoint(self) -> str:
        """A value for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        scheme = "https" if self.behaviour in _AS_IF_HEALTHY else "http"
        return f"{scheme}://{self._address}"

    def environment(self) -> dict[str, str]:
        """The variables that make an app send here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
        }

    def _start(self) -> int:
        wanted = {
            "behaviour": "healthy" if self.behaviour in _AS_IF_HEALTHY else self.behaviour,
            "protocol": self.protocol,
            "count": self._concerned,
            "output": str(self.written),
            "certificate": self._certificate() if self.behaviour == "tls_mismatch" else None,
        }
        process = subprocess.Popen(
            # Isolated, so that what the tests do to their environment never reaches the receiver.
            [sys.executable, "-I", otlp_server.__file__, json.dumps(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._running.callback(_stop, process)
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise RuntimeError("the OTLP receiver did not start")
        return int(port)

    def _certificate(self) -> str:
        import trustme

        pem = Path(self._folder.name) / "server.pem"
        certificate = trustme.CA().issue_cert("127.0.0.1", "localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        return str(pem)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    try:
        process.wait(_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
