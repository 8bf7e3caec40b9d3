# SPDX-License-Identifier: Apache-2.0
"""What a handle store gave up during one call, and why, without walking it.

The kernel's stores say nothing of it. It shows in how many handles there are before and after;
and the handles that have expired are at the front, since all that the kernel stores live equally
long. (An app that also stores handles itself, for other times, can make one that expired count
as given up for its room.)
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any


class StoreSize:
    """How many handles a store holds; made before a call, asked after it.

    Args:
        store: A handle store of any class.
    """

    __slots__ = ("_before", "_expired", "_handles", "_store")

    def __init__(self, store: Any) -> None:
        self._store = store
        handles = getattr(store, "_meta", None)
        self._handles: dict[str, Any] = handles if type(handles) is dict else {}
        self._before = len(self._handles)
        self._expired = self._expired_at_the_front() if self._may_evict() else 0

    def _may_evict(self) -> bool:
        """Whether storing one more can be when the store makes room."""
        store = self._store
        every = getattr(store, "_EVICT_INTERVAL", 0)
        return (
            self._before >= getattr(store, "_max_entries", self._before + 1)
            or getattr(store, "_max_total_bytes", None) is not None
            or (every > 0 and (getattr(store, "_store_count", 0) + 1) % every == 0)
        )

    def _expired_at_the_front(self) -> int:
        now = datetime.now(tz=timezone.utc)
        number = 0
        for handle in self._handles.values():
            if handle.expires_at > now:
                break
            number += 1
        return number

    def evicted(self, stored: int) -> Iterator[tuple[str, int]]:
        """What was given up since, by reason.

        Args:
            stored: How many handles were added meanwhile.

        Yields:
            A value of ``agent_kernel.eviction_reason``, and how many.
        """
        gone = self._before + stored - len(self._handles)
        if gone <= 0:
            return
        limit = getattr(self._store, "_max_entries", None)
        by_bytes = getattr(self._store, "_max_total_bytes", None) is not None
        if not stored or (not by_bytes and limit is not None and len(self._handles) < limit):
            yield "expired", gone
            return
        expired = min(self._expired, gone)
        left = self._before + stored - expired
        capacity = 0 if limit is None else min(gone - expired, max(0, left - limit))
        for reason, number in (
            ("expired", expired),
            ("capacity", capacity),
            ("bytes", gone - expired - capacity),
        ):
            if number:
                yield reason, number
