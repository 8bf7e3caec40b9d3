# SPDX-License-Identifier: Apache-2.0
"""What leaves of the kernel's own log records, and what does not.

The kernel's log records carry goals, roles, peer addresses and the texts of exceptions. Of a
record whose logger is ``weaver_kernel`` or ``agent_kernel``, or below one of them, only these
leave: the message before its arguments are filled in, the exception's class, and the extras
listed in :data:`EXPORTED`. All other extras are dropped, those of later releases too. Records of
all other loggers pass untouched.

The rule is applied in three places, of which any one is enough:

- :class:`KernelLogFilter`, for an app that exports logs by a pipeline of its own;
- :func:`scrub_exports_of`, at a handler that only exports;
- :class:`KernelLogProcessor`, inside a logger provider, in front of what exports.
"""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord

from agent_kernel_otel.config import InstrumentationConfig
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import IDENTIFIER_LIMIT, PrincipalRedactor, identifier
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES

WITHHELD: Final = "(message withheld)"
"""Stands for a message that cannot be told from one with values in it."""

_FILTERS_REPLACE: Final = sys.version_info >= (3, 12)

Exported = str | bool | int | float | list[str]
Reader = Callable[[object], "Exported | None"]


def _number(value: object) -> Exported | None:
    if isinstance(value, (bool, float)):
        return value
    # A larger one cannot be encoded, and would cost the whole export batch.
    return int(value) if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _texts(value: object) -> Exported | None:
    if not isinstance(value, (list, tuple)):
        return None
    return [text for text in map(identifier, value[:16]) if text is not None]


def _token_fault(value: object) -> Exported | None:
    # Policies log free text under the same name.
    return value if isinstance(value, str) and value in _TOKEN_FAULTS else None


_TOKEN_FAULTS: Final = frozenset(
    {"revoked", "expired", "invalid_signature", "principal_mismatch", "capability_mismatch"}
)

EXPORTED: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(
        (
            # ids
            "action_id", "audit_id", "call_id", "capability_id", "driver_id",
            "evicted_action_id", "handle_id", "kernel_id", "token_id",
            # closed sets, and class names
            "effective_mode", "error_type", "initial_mode", "reason_code", "requested_mode",
            "response_mode", "safety_class", "trust_policy", "vendor", "exception.type",
            # what the logging instrumentation adds when it is asked to
            "otelServiceName", "otelSpanID", "otelTraceID",
            "code.file.path", "code.function.name",
        ),
        identifier,
    ),
    **dict.fromkeys(
        (
            "actual", "budget_chars", "capability_count", "facts_count", "granted", "matches",
            "max_entries", "needs_redaction", "peer_count", "raw_size_chars",
            "redaction_warnings", "remaining", "requested", "reserved_released",
            "rows_returned", "timeout_s", "used", "yielded_any",
            "otelTraceSampled", "code.line.number",
        ),
        _number,
    ),
    "driver_ids": _texts,
    "reason": _token_fault,
}  # fmt: skip
"""The extras that leave, and how each is read; ``principal_id`` besides, as configured."""

_LOST: Final = "tokens will not survive restarts"
_SECRET: Final = "%s is not set. Using a random development secret — %s. Set %s in production."
_SENTENCES: Final = tuple(
    (sentence, re.split("%[sr]", sentence))
    for sentence in (
        _SECRET % ("AGENT_KERNEL_SECRET", _LOST, "AGENT_KERNEL_SECRET"),
        _SECRET % ("WEAVER_KERNEL_SECRET", _LOST, "WEAVER_KERNEL_SECRET"),
        _SECRET % ("%s", "tokens and audit-chain signatures will not survive restarts", "%s"),
        "mcp_unannotated_safety_fallback driver_id=%s safety_class=%s tools=%r",
    )
)
"""All messages of the kernel, 0.3.0 to 0.12.0, that are not the bare name of an event."""

_EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,63}")

# Not makeLogRecord: an app's own factory may add fields.
_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"taskName"}
_CACHED: Final = ("message", "asctime")
"""What formatters leave on a record that they have seen."""


class _Cleared(str):
    """Text that has been made fit to leave; doing it twice would hash a hash."""

    __slots__ = ()

    def __str__(self) -> str:
        # A str that converts to a plain one would lose the mark on its way through logging.
        return self


def is_kernel(logger: str) -> bool:
    """Whether a logger is the kernel's own."""
    return logger.partition(".")[0] in IMPORT_NAMES


class Scrubber:
    """The rule itself.

    Args:
        config: Says in which form principal ids leave.
    """

    def __init__(self, config: InstrumentationConfig) -> None:
        self._principal = PrincipalRedactor(config.principal_id, config.principal_hash_key)

    def scrub(self, record: logging.LogRecord) -> None:
        """Take out of a kernel's record all that must not leave, in place."""
        fields = vars(record)
        extras = {name: value for name, value in fields.items() if name not in _STANDARD}
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            extras["exception.type"] = record.exc_info[0].__name__
        for name in extras:
            fields.pop(name, None)
        for name in _CACHED:
            fields.pop(name, None)
        fields.update(self.extras(extras.items()))
        record.msg = _Cleared(_template(record.msg, filled=not record.args))
        record.args = None
        record.exc_info = record.exc_text = record.stack_info = None

    def extras(self, extras: Iterable[tuple[str, Any]]) -> dict[str, Exported]:
        """Of a record's extras those that may leave, in the form in which they may."""
        kept: dict[str, Exported] = {}
        for name, value in extras:
            exported: Exported | None
            if name != "principal_id":
                reader = EXPORTED.get(name)
                exported = reader(value) if reader is not None else None
            elif isinstance(value, _Cleared):
                exported = value
            else:
                principal = self._principal(value)
                exported = _Cleared(principal) if principal is not None else None
            if exported is not None:
                kept[name] = exported
        return kept


def _template(message: object, *, filled: bool) -> str:
    """The message without values.

    Args:
        message: What was logged.
        filled: Whether values may already be in it: they are apart where a record has arguments.
    """
    if isinstance(message, _Cleared):
        return message
    if not isinstance(message, str):
        return WITHHELD
    if not filled:
        return message[:IDENTIFIER_LIMIT]
    if _EVENT_NAME.fullmatch(message):
        return message
    for sentence, pieces in _SENTENCES:
        if _contains_in_order(message, pieces):
            return sentence
    return WITHHELD


def _contains_in_order(text: str, pieces: Iterable[str]) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


class KernelLogFilter(logging.Filter):
    """Keeps what must not leave out of the kernel's log records; for an app's own pipeline.

    Attach it to the handler that exports::

        handler = LoggingHandler(logger_provider=provider)
        handler.addFilter(KernelLogFilter())
        logging.getLogger().addHandler(handler)

    It never refuses a record. From Python 3.12 on the handler gets a scrubbed copy, and no other
    handler is affected. Before that a filter cannot replace a record: it is scrubbed in place,
    and handlers that come later see it scrubbed too. Add the exporting handler last there, or
    give the kernel's loggers a handler of their own.

    Where the zero-code distro is in charge, all this is done already.

    Args:
        config: Says in which form principal ids leave; read from ``OTEL_AGENT_KERNEL_*`` by
            default.
    """

    def __init__(self, config: InstrumentationConfig | None = None) -> None:
        super().__init__()
        self._scrubber = Scrubber(config or InstrumentationConfig.resolve())

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]
        """Scrub one record; see the class."""
        if not is_kernel(record.name):
            return True
        try:
            if not _FILTERS_REPLACE:
                self._scrubber.scrub(record)
                return True
            scrubbed = copy.copy(record)
            self._scrubber.scrub(scrubbed)
        except Exception:
            faults.swallow("scrubbing a log record")
            return False
        return scrubbed


def scrub_exports_of(handler: logging.Handler, config: InstrumentationConfig) -> None:
    """Have a handler that exports see scrubbed copies of the kernel's records.

    Unlike :class:`KernelLogFilter` it leaves the record alone on every Python.

    Args:
        handler: A handler that exports, and does not print.
        config: Says in which form principal ids leave.
    """
    emit = handler.emit
    scrubber = Scrubber(config)

    def emit_scrubbed(record: logging.LogRecord) -> None:
        if is_kernel(record.name):
            try:
                scrubbed = copy.copy(record)
                scrubber.scrub(scrubbed)
            except Exception:
                faults.swallow("scrubbing a log record")
                return
            record = scrubbed
        emit(record)

    handler.emit = emit_scrubbed  # type: ignore[method-assign]


class KernelLogProcessor(LogRecordProcessor):
    """Scrubs the kernel's log records inside a logger provider.

    It must be added before the processor that exports. It sees messages with their arguments
    filled in, and lets only those pass that it can tell to hold none; the other two places,
    which see the template, lose less.

    Args:
        config: Says in which form principal ids leave.
    """

    def __init__(self, config: InstrumentationConfig) -> None:
        self._scrubber = Scrubber(config)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Scrub one record, in place."""
        scope = log_record.instrumentation_scope
        if scope is None or not is_kernel(scope.name):
            return
        record = log_record.log_record
        attributes, body = record.attributes or {}, record.body
        # First of all: what fails below must not let them through.
        record.attributes, record.body, record.event_name = {}, WITHHELD, None
        try:
            record.attributes = self._scrubber.extras(attributes.items())
            record.body = _template(body, filled=True)
        except Exception:
            faults.swallow("scrubbing a log record")

    def enabled(self, **asked: Any) -> bool:  # noqa: ARG002 - the SDK's signature
        """Whether this processor needs records: no, so that those that export decide."""
        return False

    def shutdown(self) -> None:
        """Nothing to release."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Nothing to flush."""
        return True
