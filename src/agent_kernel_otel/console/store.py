# SPDX-License-Identifier: Apache-2.0
"""The bounded store: what was received, in SQLite, the oldest requests evicted first.

Every request is one batch: its payload compressed in ``batches``, what queries need in columns
beside it. Batch numbers rise, so "what is new" is a comparison, and a reader keeps a cursor.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.console import wire
from agent_kernel_otel.console.indexing import (
    Counters,
    log_rows,
    received_logs,
    received_spans,
    span_rows,
)
from agent_kernel_otel.console.records import ReceivedLog, ReceivedSpan, Trace, TraceChange
from agent_kernel_otel.console.schema import StoreError, connect
from agent_kernel_otel.console.series import POINT_TYPES, Series, add_delta, read_series
from agent_kernel_otel.console.wire import LOGS, METRICS, SIGNALS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_MAX_SPANS: Final = 100_000
DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
DEFAULT_MAX_SERIES: Final = 10_000

_DECODED_ITEMS: Final = 8_000


class Store:
    """Keeps the newest telemetry; every method may be called from any thread.

    Args:
        path: Database file, or None to keep it in memory.
        max_spans: Spans kept, and likewise log records and metric points. The newest request
            always stays whole.
        max_bytes: Compressed request bytes kept per signal.
        max_series: Metric series kept.

    Raises:
        StoreError: The file cannot be used.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        max_spans: int = DEFAULT_MAX_SPANS,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_series: int = DEFAULT_MAX_SERIES,
    ) -> None:
        self._max_items = max_spans
        self._max_bytes = max_bytes
        self._max_series = max_series
        self._database = connect(path)
        self._changed = threading.Condition(threading.Lock())
        self._counters = Counters()
        self._decoded: OrderedDict[int, tuple[int, dict[bytes, list[Any]]]] = OrderedDict()
        self._decoded_lock = threading.Lock()
        try:
            self._kept = {signal.name: self._measure(signal.name) for signal in SIGNALS}
            self._last_batch: int = self._one("SELECT COALESCE(MAX(id), 0) FROM batches")
        except sqlite3.Error as error:
            self._database.close()
            raise StoreError(f"cannot use {path} as the database: {error}") from error

    def close(self) -> None:
        """Closes the database; nothing may be called afterwards."""
        with self._changed:
            self._database.close()

    # Taking in ---------------------------------------------------------------------------------

    def add(self, signal: Signal, request: Any, payload: bytes) -> int:
        """Takes one request in, and evicts the oldest ones past the limits.

        Args:
            signal: What kind of request it is.
            request: The request.
            payload: The same, as protobuf bytes.

        Returns:
            The number of items refused: spans whose trace or span id has not the right length.

        Raises:
            StoreError: The database cannot take it, for example because the disk is full.
        """
        packed = zlib.compress(payload, 1)
        spans: list[tuple[Any, ...]] = []
        logs: list[tuple[int, bytes]] = []
        points: list[Series] = []
        if signal is TRACES:
            spans, amounts = span_rows(request)
        elif signal is LOGS:
            logs = log_rows(request)
            amounts = {"logs": len(logs)}
        else:
            points = list(read_series(request))
            amounts = {"points": len(points)}
        rejected = amounts.pop("rejected", 0)
        items = len(spans) + len(logs) + len(points)
        with self._changed:
            self._counters = self._counters.plus({"rejected": rejected})
            if not items:
                return rejected
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    batch = self._insert(signal, packed, items, spans, logs, points)
                    evicted, kept = self._evict(signal.name, items, len(packed))
                    evicted_series = self._evict_series() if points else 0
                    self._database.execute("COMMIT")
                except BaseException:
                    # SQLite has itself rolled back after some errors, such as a full disk.
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"the database cannot take more: {error}") from error
            self._kept[signal.name] = kept
            if signal is not METRICS:
                amounts["evicted_spans" if signal is TRACES else "evicted_logs"] = evicted
            amounts["evicted_series"] = evicted_series
            self._counters = self._counters.plus(amounts)
            self._last_batch = batch
            self._changed.notify_all()
        return rejected

    def _insert(
        self,
        signal: Signal,
        packed: bytes,
        items: int,
        spans: list[tuple[Any, ...]],
        logs: list[tuple[int, bytes]],
        points: list[Series],
    ) -> int:
        batch = self._database.execute(
            "INSERT INTO batches (signal, received_ns, items, payload) VALUES (?, ?, ?, ?)",
            (signal.name, time.time_ns(), items, packed),
        ).lastrowid
        if batch is None:
            raise sqlite3.DatabaseError("no row was written")
        self._database.executemany(
            f"INSERT INTO spans VALUES ({batch}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", spans
        )
        self._database.executemany(f"INSERT INTO logs VALUES ({batch}, ?, ?)", logs)
        for series in points:
            self._update_series(batch, series)
        return batch

    def _update_series(self, batch: int, series: Series) -> None:
        point = series.point
        if series.delta:
            row = self._database.execute(
                "SELECT point FROM series WHERE key = ?", (series.key,)
            ).fetchone()
            if row:
                total = wire.parse(POINT_TYPES[series.kind], row[0])
                point = add_delta(series.kind, total, point)
        self._database.execute(
            "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET batch = excluded.batch, point = excluded.point",
            (
                series.key,
                batch,
                series.service,
                series.instance,
                series.name,
                series.unit,
                series.description,
                series.kind,
                series.monotonic,
                wire.serialize(point),
            ),
        )

    def _evict(self, signal: str, items: int, size: int) -> tuple[int, tuple[int, int]]:
        kept_items, kept_bytes = self._kept[signal]
        kept_items, kept_bytes = kept_items + items, kept_bytes + size
        evicted = 0
        while kept_items > self._max_items or kept_bytes > self._max_bytes:
            oldest = self._database.execute(
                "SELECT id, items, LENGTH(payload) FROM batches WHERE signal = ?"
                " ORDER BY id LIMIT 2",
                (signal,),
            ).fetchall()
            if len(oldest) < 2:
                break
            batch, old_items, old_size = oldest[0]
            for table in ("spans", "logs"):
                self._database.execute(f"DELETE FROM {table} WHERE batch = ?", (batch,))
            self._database.execute("DELETE FROM batches WHERE id = ?", (batch,))
            kept_items, kept_bytes = kept_items - old_items, kept_bytes - old_size
            evicted += old_items
        return evicted, (kept_items, kept_bytes)

    def _evict_series(self) -> int:
        count = self._one("SELECT COUNT(*) FROM series")
        excess: int = count - self._max_series
        if excess > 0:
            self._database.execute(
                "DELETE FROM series WHERE key IN (SELECT key FROM series ORDER BY batch LIMIT ?)",
                (excess,),
            )
        return max(excess, 0)

    # Asking ------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """What has been taken and let go so far."""
        with self._changed:
            return self._counters

    def count_history(self) -> None:
        """Counts what the database has from before, as if it had been taken now."""
        until = self.last_batch
        amounts = [span_rows(request)[1] for request in self.requests(TRACES, 0, until)]
        with self._changed:
            for spans in amounts:
                self._counters = self._counters.plus({**spans, "rejected": 0})
            logs, points = (self._kept[signal.name][0] for signal in (LOGS, METRICS))
            self._counters = self._counters.plus({"logs": logs, "points": points})

    @property
    def last_batch(self) -> int:
        """Number of the newest request; 0 before the first."""
        with self._changed:
            return self._last_batch

    def wait_for_change(self, after: int, timeout: float) -> int:
        """Waits until there is a request newer than a known one.

        Args:
            after: Number of the newest request that the caller knows.
            timeout: Seconds to wait at most.

        Returns:
            Number of the newest request, which is ``after`` if none came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._last_batch > after, timeout)
            return self._last_batch

    def changed_traces(self, after: int, until: int) -> list[TraceChange]:
        """Lists the traces with spans or logs in the requests ``after < batch <= until``.

        Returns:
            Each trace once, in the order in which they arrived.
        """
        rows = self._all(
            "SELECT trace_id, MAX(is_root), MIN(start_ns) FROM ("
            " SELECT trace_id, is_root, start_ns, batch, position FROM spans"
            " WHERE batch > ? AND batch <= ?"
            " UNION ALL"
            " SELECT trace_id, 0, NULL, batch, position FROM logs"
            " WHERE batch > ? AND batch <= ? AND trace_id != X''"
            ") GROUP BY trace_id ORDER BY MIN(batch), MIN(position)",
            (after, until, after, until),
        )
        return [
            TraceChange(trace_id, bool(has_root), start_ns) for trace_id, has_root, start_ns in rows
        ]

    def trace(self, trace_id: bytes) -> Trace:
        """Reads all that is kept of one trace; its lists are empty if that is nothing.

        A span that was sent twice, as exporters do when an answer is lost, is there once.
        """
        spans: dict[bytes, ReceivedSpan] = {}
        for received in self._items_of_trace(TRACES, "spans", trace_id):
            spans.setdefault(received.span.span_id, received)
        logs = list(self._items_of_trace(LOGS, "logs", trace_id))
        return Trace(trace_id.hex(), list(spans.values()), logs)

    def logs_without_trace(self, after: int, until: int) -> list[ReceivedLog]:
        """Reads the log records of the requests ``after < batch <= until`` that name no trace."""
        batches = self._all(
            "SELECT DISTINCT batch FROM logs WHERE trace_id = X'' AND batch > ? AND batch <= ?"
            " ORDER BY batch",
            (after, until),
        )
        return [log for (batch,) in batches for log in self._decode(LOGS, batch).get(b"", ())]

    def requests(self, signal: Signal, after: int, until: int) -> Iterator[Any]:
        """Reads the requests of one signal with ``after < batch <= until``, as received."""
        batches = self._all(
            "SELECT id FROM batches WHERE signal = ? AND id > ? AND id <= ? ORDER BY id",
            (signal.name, after, until),
        )
        for (batch,) in batches:
            request = self._request(signal, batch)
            if request is not None:
                yield request

    def metric_series(self) -> list[Series]:
        """Reads every metric series, by service, name and instance."""
        rows = self._all(
            "SELECT key, service, instance, name, unit, description, kind, monotonic, point"
            " FROM series ORDER BY service, name, instance, key"
        )
        return [
            Series(
                key=key,
                service=service,
                instance=instance,
                name=name,
                unit=unit,
                description=description,
                kind=kind,
                monotonic=bool(monotonic),
                delta=False,
                point=wire.parse(POINT_TYPES[kind], point),
            )
            for (
                key,
                service,
                instance,
                name,
                unit,
                description,
                kind,
                monotonic,
                point,
            ) in rows
        ]

    def denials(self, after: int) -> list[tuple[str, str, int]]:
        """Counts the denied policy decisions in requests later than ``after`` that are kept.

        Returns:
            Reason code, capability id and their count, the most frequent first; either text is
            empty where the span does not say.
        """
        return self._all(
            "SELECT reason_code, capability_id, COUNT(*) AS n FROM spans"
            " WHERE batch > ? AND outcome = 'denied' AND name != ?"
            " GROUP BY reason_code, capability_id ORDER BY n DESC, reason_code, capability_id",
            (after, semconv.POLICY),
        )

    # Inside ------------------------------------------------------------------------------------

    def _items_of_trace(self, signal: Signal, table: str, trace_id: bytes) -> Iterator[Any]:
        batches = self._all(
            f"SELECT DISTINCT batch FROM {table} WHERE trace_id = ? ORDER BY batch", (trace_id,)
        )
        for (batch,) in batches:
            yield from self._decode(signal, batch).get(trace_id, ())

    def _decode(self, signal: Signal, batch: int) -> dict[bytes, list[Any]]:
        # One request often holds many traces, which are read one after the other.
        with self._decoded_lock:
            if batch in self._decoded:
                self._decoded.move_to_end(batch)
                return self._decoded[batch][1]
            request = self._request(signal, batch)
            if request is None:
                return {}
            by_trace: dict[bytes, list[Any]] = {}
            items: Any = received_spans if signal is TRACES else received_logs
            size = 0
            for trace_id, received in items(batch, request):
                by_trace.setdefault(trace_id, []).append(received)
                size += 1
            self._decoded[batch] = (size, by_trace)
            while (
                len(self._decoded) > 1
                and sum(count for count, _ in self._decoded.values()) > _DECODED_ITEMS
            ):
                self._decoded.popitem(last=False)
            return by_trace

    def _request(self, signal: Signal, batch: int) -> Any | None:
        rows = self._all("SELECT payload FROM batches WHERE id = ?", (batch,))
        return wire.parse(signal.request, zlib.decompress(rows[0][0])) if rows else None

    def _measure(self, signal: str) -> tuple[int, int]:
        row = self._database.execute(
            "SELECT COALESCE(SUM(items), 0), COALESCE(SUM(LENGTH(payload)), 0)"
            " FROM batches WHERE signal = ?",
            (signal,),
        ).fetchone()
        return row[0], row[1]

    def _one(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._changed:
            return self._database.execute(query, values).fetchall()
