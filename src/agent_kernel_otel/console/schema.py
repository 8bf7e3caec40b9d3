# SPDX-License-Identifier: Apache-2.0
"""The store's SQLite file: its tables, and opening one without harming somebody else's."""

from __future__ import annotations

import os
import sqlite3
from typing import Final

_APPLICATION_ID: Final = 0x616B6F74  # "akot"
_VERSION: Final = 1
_BUSY_TIMEOUT_SECONDS: Final = 5.0

# The primary key of `spans` and `logs` starts with the batch, so that evicting a batch is one
# range delete. Columns hold what queries select by; everything else is in the batch's payload.
_TABLES: Final = """
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    signal TEXT NOT NULL,
    received_ns INTEGER NOT NULL,
    items INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX batches_by_signal ON batches (signal, id);
CREATE TABLE spans (
    batch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    is_root INTEGER NOT NULL,
    name TEXT NOT NULL,
    service TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    capability_id TEXT NOT NULL,
    principal_id TEXT NOT NULL,
    reason_code TEXT NOT NULL,
    PRIMARY KEY (batch, position)
) WITHOUT ROWID;
CREATE INDEX spans_by_trace ON spans (trace_id, batch);
CREATE TABLE logs (
    batch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    PRIMARY KEY (batch, position)
) WITHOUT ROWID;
CREATE INDEX logs_by_trace ON logs (trace_id, batch);
CREATE TABLE series (
    key BLOB PRIMARY KEY,
    batch INTEGER NOT NULL,
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    name TEXT NOT NULL,
    unit TEXT NOT NULL,
    description TEXT NOT NULL,
    kind TEXT NOT NULL,
    monotonic INTEGER NOT NULL,
    point BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX series_by_batch ON series (batch);
"""


class StoreError(Exception):
    """The store cannot be opened, or cannot take what it was given; the text says why."""


def connect(path: str | None) -> sqlite3.Connection:
    """Opens the database, and creates it if it is new.

    Args:
        path: The file, or None for a database in memory.

    Returns:
        A connection without implicit transactions, usable from any thread (one at a time).

    Raises:
        StoreError: The file cannot be opened, or is something else than a console's database.
    """
    try:
        if path is not None:
            # Telemetry names people and their actions: for its owner's eyes only.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            ":memory:" if path is None else path,
            timeout=_BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        # sqlite3's own text does not name the file; that of OSError does.
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"cannot use {path} as the database: {reason}") from error
    return connection


def _prepare(connection: sqlite3.Connection, path: str | None) -> None:
    has_tables = connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]
    if has_tables:
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if application != _APPLICATION_ID:
            raise StoreError(
                f"cannot use {path} as the database: it is an SQLite file of something else"
            )
        if version != _VERSION:
            raise StoreError(
                f"cannot use {path} as the database: its format is {version}, "
                f"this release reads {_VERSION}; choose a new file"
            )
    if path is not None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    if not has_tables:
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
            f" PRAGMA user_version = {_VERSION}; COMMIT;"
        )
