# SPDX-License-Identifier: Apache-2.0
"""Handle stores and trace stores as the kernel sees them: what they took, lost and gave up."""

from __future__ import annotations

from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.current import Aside, recorded_live
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.evictions import Held, evicted_from, held_by
from agent_kernel_otel.weaver.grant_calls import ExpandCall
from agent_kernel_otel.weaver.outcomes import is_foreign
from agent_kernel_otel.weaver.reading import read, read_id
from agent_kernel_otel.weaver.view import View, inner_step

_EVENT_TYPES: Final = {semconv.GRANT: "deny", semconv.INVOKE: "invoke", semconv.EXPAND: "expand"}
"""What an audit record is about, where an older release does not say."""


class HandleStoreView(View):
    """A handle store during an invocation or an expansion."""

    __slots__ = ()
    _call: KernelCall

    def store(self, *args: Any, **kwargs: Any) -> Any:
        """Keep a full result, and count it with what had to make room for it."""
        call, store = self._call, self._real
        held = held_by(store)
        if call.debug or is_foreign(type(store)):
            handle = inner_step(call, semconv.HANDLE, store.store, args, kwargs)
        else:
            # The kernel's own looks at no kernel, and opens no span.
            handle = store.store(*args, **kwargs)
        call.count(call.facts.cells.stored)
        if len(held.handles) != held.number + 1:
            _count_evicted(call, store, held, stored=1)
        return handle

    def expand(self, *args: Any, **kwargs: Any) -> Any:
        """Give out a part of a full result; older releases have no action id here."""
        call, store = self._call, self._real
        if isinstance(call, ExpandCall):
            call.acts_as(kwargs.get("action_id"))
        held = held_by(store)
        try:
            with Aside():
                return store.expand(*args, **kwargs)
        finally:
            _count_evicted(call, store, held, stored=0)


class TraceStoreView(View):
    """A trace store: each record holds the action id, on paths where nothing else does."""

    __slots__ = ()
    _call: KernelCall

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Write an audit record, and count it."""
        record = args[0] if args else kwargs.get("trace")
        call, store = self._call, self._real
        if call.recording and call.action_id is None:
            call.acts_as(read(record, "action_id"))
        event_type = read(record, "event_type") or _EVENT_TYPES.get(call.name)
        evicted = read(store, "evicted_count")
        try:
            if call.debug or is_foreign(type(store)):
                result = self._record_aside(args, kwargs, record, event_type)
            else:
                result = store.record(*args, **kwargs)
        except BaseException as error:
            self.failed(event_type, error)
            raise
        call.count(call.facts.cells.audit(event_type, failed=False))
        if evicted is not None and read(store, "evicted_count") != evicted:
            self.dropped(evicted)
        return result

    def _record_aside(self, args: Any, kwargs: Any, record: Any, event_type: object) -> Any:
        said = {semconv.EVENT_TYPE: identifier(event_type) or ""}
        marker = recorded_live.set(read_id(record, "action_id"))
        try:
            return inner_step(
                self._call, semconv.AUDIT, self._real.record, args, kwargs, lambda _: said
            )
        finally:
            recorded_live.reset(marker)

    def failed(self, event_type: object, error: BaseException) -> None:
        """Count a record that could not be written.

        Args:
            event_type: What it is about.
            error: What the store raised.
        """
        self._call.audit_error = error
        self._call.count(self._call.facts.cells.audit(event_type, failed=True))

    def dropped(self, before: Any) -> None:
        """Count records that were given up to make room.

        Args:
            before: How many there had been before.
        """
        try:
            number = self._real.evicted_count - before
            self._call.count(self._call.facts.cells.audit_evicted, number)
        except Exception:
            faults.swallow("counting evicted audit records")


def _count_evicted(call: KernelCall, store: Any, held: Held, *, stored: int) -> None:
    try:
        for reason, number in evicted_from(store, held, stored):
            call.count(call.facts.cells.evicted[reason], number)
    except Exception:
        faults.swallow("counting evicted handles")
