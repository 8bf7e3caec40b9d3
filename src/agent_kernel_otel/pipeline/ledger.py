# SPDX-License-Identifier: Apache-2.0
"""What became of every span, log record and metric batch that was handed to an exporter.

For each :class:`Account` holds, at any time at which nothing is being exported::

    ended == sent + refused + dropped (of all reasons) + pending
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Final

TRACES: Final = "traces"
METRICS: Final = "metrics"
LOGS: Final = "logs"

QUEUE_FULL: Final = "queue_full"
"""More ended at once than the queue holds; the oldest went."""
UNANSWERED: Final = "unanswered"
"""No answer within the exporter's time-out: nobody there, no way to trust it, or too slow."""
FAILED: Final = "failed"
"""The exporter could not send it at all, such as for its size."""
EXIT: Final = "exit"
"""Unsent, or sent and not acknowledged, when the time at the end of the process was over."""
REASONS: Final = (QUEUE_FULL, UNANSWERED, FAILED, EXIT)


@dataclass(frozen=True)
class Totals:
    """What became of one signal's items: spans, log records, or metric batches.

    A metric batch is one collection of all instruments.

    Attributes:
        ended: Items given to an exporter's pipeline; once for each exporter of the signal.
        sent: Acknowledged by the receiver.
        refused: Items whose export the receiver answered with an error, or rejected one by one.
        dropped: Items that no receiver has answered for, by reason.
        pending: Waiting, or being exported.
        endpoint: Where they go, if the exporter tells.
        last_error: What the exporter last complained of, scrubbed.
    """

    ended: int = 0
    sent: int = 0
    refused: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    pending: int = 0
    endpoint: str | None = None
    last_error: str | None = None

    @property
    def lost(self) -> int:
        """Items that have certainly not been accepted."""
        return self.refused + sum(self.dropped.values())


class Account:
    """The books of one pipeline.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        endpoint: Where its exporter sends to.
    """

    def __init__(self, signal: str, endpoint: str | None = None) -> None:
        self.signal = signal
        self.endpoint = endpoint
        self.reset()

    def reset(self) -> None:
        """Start anew, as a forked child does."""
        # Counted on the app's threads: this is one step that no thread switch can divide.
        self._ended, self._crowded_out = count(), count()
        self.end_one = self._ended.__next__
        self.crowd_one_out = self._crowded_out.__next__
        self._lock = threading.Lock()
        self._sent = self._refused = 0
        self._dropped: Counter[str] = Counter()
        self.last_error: str | None = None

    def settle(self, sent: int = 0, refused: int = 0, **dropped: int) -> None:
        """Enter what became of some items."""
        with self._lock:
            self._sent += sent
            self._refused += refused
            self._dropped.update(dropped)

    def totals(self) -> Totals:
        """The books as they stand."""
        dropped = {reason: n for reason, n in self._dropped.items() if n}
        crowded_out = _value(self._crowded_out)
        if crowded_out:
            dropped[QUEUE_FULL] = crowded_out
        settled = self._sent + self._refused + sum(dropped.values())
        ended = _value(self._ended)
        return Totals(
            ended=ended,
            sent=self._sent,
            refused=self._refused,
            dropped=dropped,
            # What was entered between the two readings is not less than nothing.
            pending=max(0, ended - settled),
            endpoint=self.endpoint,
            last_error=self.last_error,
        )


def _value(counted: count[int]) -> int:
    # An iterator tells its next value to a reader only by how it would be pickled or printed.
    return int(repr(counted)[len("count(") : -1])


class Ledger:
    """All accounts of the process."""

    def __init__(self) -> None:
        self._accounts: list[Account] = []

    def open(self, signal: str, endpoint: str | None = None) -> Account:
        """A new account for a pipeline."""
        account = Account(signal, endpoint)
        self._accounts.append(account)
        return account

    def snapshot(self) -> dict[str, Totals]:
        """The totals of each signal that has a pipeline."""
        totals: dict[str, Totals] = {}
        for account in self._accounts:
            entry = account.totals()
            before = totals.get(account.signal)
            totals[account.signal] = entry if before is None else _sum(before, entry)
        return totals


def _sum(one: Totals, other: Totals) -> Totals:
    return Totals(
        ended=one.ended + other.ended,
        sent=one.sent + other.sent,
        refused=one.refused + other.refused,
        dropped=dict(Counter(one.dropped) + Counter(other.dropped)),
        pending=one.pending + other.pending,
        endpoint=", ".join(filter(None, dict.fromkeys((one.endpoint, other.endpoint)))) or None,
        last_error=other.last_error or one.last_error,
    )


ledger: Final = Ledger()
"""The books of this process."""
