# SPDX-License-Identifier: Apache-2.0
"""How many values a label of a metric may take before the others share one.

Ids that a caller or an app's class chooses would otherwise make ever new series. The limits hold
for the whole process, because what is exported does.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.semconv import OTHER


class Bounded:
    """Told apart are the values that came first, up to a limit.

    Args:
        limit: How many, besides the known ones.
        known: Values that are always told apart.
    """

    def __init__(self, limit: int, known: Iterable[Hashable] = ()) -> None:
        self._limit = limit
        self._known = frozenset(known)
        self._admitted: set[Hashable] = set()
        self._lock = SafeLock()

    def admits(self, value: Hashable, limit: int | None = None) -> bool:
        """Whether a value is told apart; where there is room for it, it is from now on.

        Args:
            value: The value.
            limit: A limit other than the usual one.
        """
        if value in self._admitted or value in self._known:
            return True
        with self._lock:
            if len(self._admitted) >= (self._limit if limit is None else limit):
                return False
            self._admitted.add(value)
        return True

    def has_room_for(self, values: Iterable[Hashable], limit: int | None = None) -> bool:
        """Whether all of these values would be told apart."""
        wanted = self._admitted.union(values) - self._known
        return len(wanted) <= (self._limit if limit is None else limit)

    def label(self, value: str | None, limit: int | None = None) -> str | None:
        """A text as a label, ``_OTHER`` past the limit; ``None`` is a label that is absent."""
        return value if value is None or self.admits(value, limit) else OTHER
