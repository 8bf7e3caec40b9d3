# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that are started a moment later."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below those that systems give to connections, which would else take one before its server does; and
# each once only.
_untried = iter(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    for port in _untried:
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("all ports are taken, or were given away")
