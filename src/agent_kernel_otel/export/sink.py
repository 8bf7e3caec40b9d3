# SPDX-License-Identifier: Apache-2.0
"""Where replayed spans go: what every destination is to the loop that feeds it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from agent_kernel_otel.audit.files.entries import Position
from agent_kernel_otel.audit.replay import ReplayedSpan


class DeliveryError(Exception):
    """Spans could not be delivered.

    Its message is one line for people: what happened, and what to do. It holds no credentials.

    Attributes:
        permanent: Whether trying again is of no use: it was refused. If not, nobody answered in
            time.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class UnusableDestinationError(ValueError):
    """A destination cannot even be opened, as it is configured; the message says what to change."""


class Delivered(NamedTuple):
    """What became of spans that were delivered.

    Attributes:
        rejected: How many of them the receiver did not take.
        reason: What it said of those, scrubbed.
        end: Up to where the file has been written that they are in, if they are in one.
    """

    rejected: int = 0
    reason: str | None = None
    end: Position | None = None


class Sink(Protocol):
    """A destination of replayed spans. It is used by one thread, that of the loop.

    Attributes:
        destination: What it is, for people and for the checkpoint; without credentials.
    """

    destination: str

    def send(self, spans: Sequence[ReplayedSpan]) -> Future[Delivered]:
        """Encode spans, and deliver them after those that were sent before.

        It does not wait for the delivery. Whoever calls it keeps the number of deliveries that are
        not done bounded.

        Args:
            spans: The spans of one request; not kept after this returns.

        Returns:
            Done when the receiver has confirmed them. It fails with a :class:`DeliveryError`, or
            with :class:`~agent_kernel_otel.export.stopping.Stopped` where trying again would be
            of use and is not wanted any more, and after that all later ones do, with the same.
        """
        ...

    def close(self) -> None:
        """Let go of the destination; never hangs.

        What is not delivered yet is given up: its futures fail with a :class:`DeliveryError`. To
        deliver it, wait for the futures first.
        """
        ...
