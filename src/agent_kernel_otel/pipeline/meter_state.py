# SPDX-License-Identifier: Apache-2.0
"""What a meter provider remembers: bounded, and forgotten in a forked child.

Neither can be had by a public name: SDKs before 1.45.2 have no limit to the attribute sets of an
instrument, so that an id used as an attribute is a leak, and no SDK starts its cumulative values
anew after a fork, so that a child would count its parent's measurements a second time. Where the
private places are others in a release to come, the SDK is left as it is.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics.view import View

from agent_kernel_otel.faults import faults

SERIES_LIMIT: Final = 1000
"""Attribute sets that one instrument keeps apart; the others share one."""
OVERFLOW: Final = {"otel.metric.overflow": True}
"""Attributes of what the others share, as the specification has it."""

_LIMIT_ARGUMENT: Final = "aggregation_cardinality_limit"
HAS_LIMIT: Final = _LIMIT_ARGUMENT in inspect.signature(View.__init__).parameters


def limiting_views(limit: int = SERIES_LIMIT) -> list[View]:
    """A view that limits every instrument, where the SDK has such a thing."""
    if not HAS_LIMIT:
        return []
    options: dict[str, Any] = {_LIMIT_ARGUMENT: limit}
    return [View(instrument_name="*", **options)]


def limit_series(provider: Any, limit: int = SERIES_LIMIT) -> None:
    """Limit every instrument of a provider whose SDK cannot do it itself."""
    for storage in _storages(provider):
        storage._instrument_view_instrument_matches = _LimitedInstruments(limit)


def forget_measurements(provider: Any) -> None:
    """Have all instruments of a provider start at nothing, in a forked child."""
    consumer = getattr(provider, "_measurement_consumer", None)
    if consumer is None:
        return
    consumer._lock = threading.Lock()
    for storage in _storages(provider):
        # It may have been held by a thread that is not here any more.
        storage._lock = threading.RLock()
        storage._instrument_view_instrument_matches.clear()


def _storages(provider: Any) -> Iterator[Any]:
    try:
        storages = provider._measurement_consumer._reader_storages.values()
        yield from (s for s in storages if hasattr(s, "_instrument_view_instrument_matches"))
    except AttributeError:
        faults.swallow("looking into the meter provider")


class _LimitedInstruments(dict[Any, Any]):
    """Instruments with what they keep; each gets a limit when it is entered."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, instrument: Any, matches: Any) -> None:
        for match in matches:
            match._attributes_aggregation = _LimitedSets(self._limit)
        super().__setitem__(instrument, matches)


class _LimitedSets(dict[Any, Any]):
    """Attribute sets with their aggregations. Past the limit, all share one."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: Any, aggregation: Any) -> None:
        if len(self) < self._limit:
            super().__setitem__(key, aggregation)
        elif _OVERFLOW_KEY not in self:
            aggregation._attributes = dict(OVERFLOW)
            super().__setitem__(_OVERFLOW_KEY, aggregation)

    def __missing__(self, key: Any) -> Any:
        return super().__getitem__(_OVERFLOW_KEY)


_OVERFLOW_KEY: Final = frozenset(OVERFLOW.items())
