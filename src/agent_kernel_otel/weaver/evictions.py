# SPDX-License-Identifier: Apache-2.0
"""What a handle store gave up during one call, and why, without walking it.

The kernel's stores say nothing of it. It shows in how many handles there are before and after;
and those that have expired are at the front, since all that the kernel stores live equally long.
(An app that also stores handles itself, for other times, can make an expired one count as given
up for its room.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

_NO_HANDLES: Final[Mapping[str, Any]] = {}


class Held(NamedTuple):
    """What a store held before a call.

    Attributes:
        handles: The store's own table; an empty one where it is a store of another kind.
        number: How many handles were in it.
        expired: How many of them had expired, where the call can be when they are given up.
    """

    handles: Mapping[str, Any]
    number: int
    expired: int


def held_by(store: Any) -> Held:
    """What a store holds, just before it is asked to store one more or to give one out."""
    try:
        handles = store._meta
        number = len(handles)
        makes_room = (
            number >= store._max_entries
            or (store._store_count + 1) % store._EVICT_INTERVAL == 0
            or getattr(store, "_max_total_bytes", None) is not None
        )
        return Held(handles, number, _expired_at_the_front(handles) if makes_room else 0)
    except Exception:  # a store of the app's, which may have the same names for something else
        return Held(_NO_HANDLES, 0, 0)


def _expired_at_the_front(handles: Mapping[str, Any]) -> int:
    now = datetime.now(tz=timezone.utc)
    number = 0
    for handle in handles.values():
        if handle.expires_at > now:
            break
        number += 1
    return number


def evicted_from(store: Any, held: Held, stored: int) -> Iterator[tuple[str, int]]:
    """What was given up since, by reason.

    Args:
        store: The store.
        held: What it held before.
        stored: How many handles were added meanwhile.

    Yields:
        A value of ``agent_kernel.eviction_reason``, and how many.
    """
    gone = held.number + stored - len(held.handles)
    if gone <= 0:
        return
    limit = store._max_entries
    by_bytes = getattr(store, "_max_total_bytes", None) is not None
    if not stored or (not by_bytes and len(held.handles) < limit):
        yield "expired", gone
        return
    expired = min(held.expired, gone)
    capacity = min(gone - expired, max(0, held.number + stored - expired - limit))
    yield "expired", expired
    yield "capacity", capacity
    yield "bytes", gone - expired - capacity
