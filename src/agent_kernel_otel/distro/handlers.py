# SPDX-License-Identifier: Apache-2.0
"""The handlers through which OpenTelemetry exports an app's log records."""

from __future__ import annotations

import logging
from functools import cache
from weakref import WeakSet

from agent_kernel_otel.config import InstrumentationConfig
from agent_kernel_otel.config_file import Block, config_file
from agent_kernel_otel.weaver.logs import scrub_exports_of

_attended: WeakSet[logging.Handler] = WeakSet()


@cache
def process_config() -> InstrumentationConfig:
    """The configuration that the process's environment gives."""
    file = config_file()
    if file is None or file.problem is None:
        return InstrumentationConfig.resolve()
    # What is wrong with the file is said by the configurator, which knows what comes of it.
    return InstrumentationConfig.resolve(block=Block(file.path, {}))


def attend_exporting_handlers() -> None:
    """See to the exporting handlers of the root logger; those seen to before are left alone.

    They get scrubbed copies of the kernel's records, and the app's warnings go on being printed
    where the app has set up no logging.
    """
    for handler in logging.getLogger().handlers:
        if _exports(handler) and handler not in _attended:
            _attended.add(handler)
            scrub_exports_of(handler, process_config())
            _keep_the_last_resort(handler)
            # The provider has exported all by the time logging shuts down, and the thread that
            # this handler would flush in cannot start that late on Python 3.12.0 and 3.12.1.
            handler.flushOnClose = False  # type: ignore[attr-defined]


def _exports(handler: logging.Handler) -> bool:
    # There are two such classes, by release and configuration, and one of them is about to go.
    return any(kind.__module__.startswith("opentelemetry.") for kind in type(handler).__mro__)


def _keep_the_last_resort(handler: logging.Handler) -> None:
    # Python prints warnings by itself only while there is no handler at all, so that an exporting
    # one would silence an app that relies on it.
    emit = handler.emit

    def emit_and_print(record: logging.LogRecord) -> None:
        emit(record)
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not is_printed(record.name):
            last.handle(record)

    handler.emit = emit_and_print  # type: ignore[method-assign]


def is_printed(name: str) -> bool:
    """Whether any handler that a logger's records reach does more than export them."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if not all(map(_exports, logger.handlers)):
            return True
        logger = logger.parent if logger.propagate else None
    return False
