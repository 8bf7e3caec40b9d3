# SPDX-License-Identifier: Apache-2.0
"""SQLite: what the kernel's ``SQLiteTraceStore`` writes, also while it writes.

Rows are fetched in pages, each with a connection of its own, so that no lock is held between two
pages: a kernel that writes the same file waits for a page at most, and never in vain.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from agent_kernel_otel.audit.files.entries import (
    AuditFileError,
    ChangedFileError,
    Entry,
    Link,
    Position,
)
from agent_kernel_otel.audit.files.parsing import NoRecordError, parse_object

MAGIC: Final = b"SQLite format 3\0"
_PAGE: Final = 1000
_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of payload after which a page ends, however few rows it has."""
_PATIENCE: Final = 10.0
_FARTHEST: Final = 10_000
"""Rows that are tried one by one after damage, which is more than one page of SQLite leads to."""
_DAMAGED: Final = "the database is damaged there"
_ROWS: Final = (
    "SELECT seq, prev_hash, record_hash, payload FROM traces "
    "WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?"
)
_COLUMNS: Final = ("seq", "prev_hash", "record_hash", "payload")
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1


class _Page(NamedTuple):
    rows: list[tuple[Any, ...]]
    error: sqlite3.Error | None


class SqliteFile:
    """The table ``traces`` of a SQLite file.

    A position is the number of a row, and its hash. The rows are counted by their numbers.

    Args:
        path: Where the file is.
        patience: How long to wait for another process that has locked it, in seconds.

    Raises:
        AuditFileError: It has no such table, or cannot be read.
    """

    format = "sqlite"

    def __init__(self, path: Path, patience: float = _PATIENCE) -> None:
        self.path = path
        self.size: int | None = None
        self.done = 0
        self._patience = patience
        self._real_path = path.resolve()
        self._seq: int | None = None
        self._hash = ""
        self._damage: sqlite3.Error | None = None
        self._find_damage()
        self._check_table()
        self._first = self._measure()

    def _find_damage(self) -> None:
        """See whether SQLite refuses the file as a whole, as it does one that is cut off."""
        error = self._fetch("SELECT 1 FROM sqlite_master").error
        if error is not None:
            if not _is_damage(error):
                self._fail(error)
            self._damage = error

    def _check_table(self) -> None:
        columns = {
            _text(name): (_text(kind).upper(), key)
            for _, name, kind, _, _, key in self._rows("PRAGMA table_info(traces)")
        }
        if all(name in columns for name in _COLUMNS) and columns["seq"] == ("INTEGER", 1):
            return
        if self._damage is not None:
            self._fail(self._damage)
        raise AuditFileError(
            f"{self.path}: it is a SQLite file without a table traces as SQLiteTraceStore writes"
        )

    def _measure(self) -> int:
        """See how many rows there are; their numbers have no gaps unless some were removed."""
        least, most = (self._fetch(f"SELECT {end}(seq) FROM traces") for end in ("min", "max"))
        if least.error is not None:  # damaged there; the kernel counts from 0
            pruned_to = self._meta("checkpoint_next_seq") or ""
            first = int(pruned_to) if pruned_to.isdecimal() else 0
        else:
            first = least.rows[0][0] or 0
        if most.error is None:
            last = most.rows[0][0]
            self.size = 0 if last is None else last - first + 1
        return first

    def entries(
        self, after: Position | None = None, until: Position | None = None
    ) -> Iterator[Entry]:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.entries`."""
        self._seq, self._hash, self.done = None, "", 0
        if after:
            self._seq = self._check(after)
            self._hash = str(after["record_hash"])
            self.done = self._seq - self._first + 1
        if until is not None and not until:
            return
        last = _LARGEST if until is None else self._check(until)
        seq = _SMALLEST if self._seq is None else self._seq + 1
        while seq <= last:
            page = self._fetch(_ROWS, seq, last, _PAGE)
            if page.rows:
                seq = page.rows[-1][0] + 1
            elif page.error is None:
                break
            else:
                begin = max(seq, self._first)
                found, page = self._beyond_damage(page.error, begin, last)
                for lost in range(begin, found):
                    self.done = lost - self._first + 1
                    yield Entry(f"seq {lost}", None, problem=_DAMAGED)
                seq = found + 1
            for number, prev_hash, record_hash, payload in page.rows:
                link = Link(number, _text(prev_hash), _text(record_hash))
                self._seq, self._hash = number, link.record_hash
                self.done = number - self._first + 1
                yield _entry(link, payload)
        if self._damage is not None:
            self._fail(self._damage)

    def _beyond_damage(self, error: sqlite3.Error, begin: int, last: int) -> tuple[int, _Page]:
        """The first row that can be read, though not together with those around it.

        Raises:
            AuditFileError: None can, or it is no damage.
        """
        for seq in range(begin, min(begin + _FARTHEST, last + 1)):
            if not _is_damage(error):
                break
            page = self._fetch(_ROWS, seq, seq, 1)
            if page.error is None:
                return seq, page
            error = page.error
        return self._fail(error)

    def _check(self, position: Position) -> int:
        """The number in a position.

        Raises:
            ChangedFileError: The row is not there any more, or is another one.
        """
        seq = position.get("seq")
        if not isinstance(seq, int):
            raise ChangedFileError(f"{self.path}: its format is another than when it was last read")
        rows = self._rows("SELECT record_hash FROM traces WHERE seq = ?", seq)
        if not rows:
            pruned_to = self._meta("checkpoint_next_seq")
            if pruned_to == str(seq + 1):
                rows = [(self.first_hash(),)]
            elif pruned_to is not None and pruned_to.isdecimal() and int(pruned_to) > seq:
                raise ChangedFileError(
                    f"{self.path}: records after seq {seq}, the last one read, have been pruned"
                )
            else:
                raise ChangedFileError(
                    f"{self.path}: it no longer holds seq {seq}, the last one read of it"
                )
        if _text(rows[0][0]) != position.get("record_hash"):
            raise ChangedFileError(
                f"{self.path}: its seq {seq}, the last one read, is now another record"
            )
        return seq

    def position(self) -> Position:
        """See :meth:`agent_kernel_otel.audit.files.entries.AuditFile.position`."""
        return {} if self._seq is None else {"seq": self._seq, "record_hash": self._hash}

    def first_hash(self) -> str | None:
        """The checkpoint that pruning has left; ``None`` where nothing was pruned."""
        return self._meta("checkpoint_hash")

    def _meta(self, key: str) -> str | None:
        if not self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'"):
            return None
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return _text(rows[0][0]) if rows else None

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        page = self._fetch(query, *values)
        if page.error is not None:
            self._fail(page.error)
        return page.rows

    def _fetch(self, query: str, *values: Any) -> _Page:
        for _ in range(3):
            before = self._unused_log()
            if before is None:
                break
            page = self._fetch_once("immutable=1", query, values)
            if self._unused_log() == before:
                return page
        return self._fetch_once("mode=ro", query, values)

    def _log(self) -> Path:
        return self._real_path.with_name(self._real_path.name + "-wal")

    def _unused_log(self) -> tuple[int, int] | None:
        """What tells that nobody has written meanwhile, in a file with a write-ahead log.

        Such a file that nobody has open is read as one that does not change: SQLite would make
        the log anew otherwise and leave it there, as the property of whoever only reads.
        """
        try:
            with self._real_path.open("rb") as file:
                header = file.read(20)
            if header[18:20] != b"\x02\x02":
                return None
            if self._log().exists():
                return None
            status = self._real_path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _fetch_once(self, option: str, query: str, values: tuple[Any, ...]) -> _Page:
        rows: list[tuple[Any, ...]] = []
        size = 0
        try:
            with closing(
                sqlite3.connect(
                    f"{self._real_path.as_uri()}?{option}", timeout=self._patience, uri=True
                )
            ) as connection:
                # Text that is no UTF-8 would stop the whole query, and be in its error message.
                connection.text_factory = bytes
                if self._damage is not None:
                    # What is there of a file that is cut off can be read with this switched on.
                    connection.execute("PRAGMA writable_schema=ON")
                for row in connection.execute(query, values):
                    rows.append(row)
                    size += len(row[-1]) if isinstance(row[-1], bytes) else 0
                    if size > _PAGE_BYTES:
                        break
        except sqlite3.Error as error:
            return _Page(rows, error)
        return _Page(rows, None)

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        text = str(error)
        if "locked" in text or "busy" in text:
            problem = f"another process has had it locked for {self._patience:g} s; try again later"
        elif "readonly" in text:
            problem = (
                "a write to it was interrupted and has to be undone first, by whoever may write: "
                "open it once with the kernel"
            )
        elif "unable to open" in text and self._log().exists():
            problem = (
                f"what {self._log().name} holds has to be read with it, which takes a folder that "
                "may be written to: copy both into one"
            )
        elif _is_damage(error):
            place = "" if self._seq is None else f" after seq {self._seq}"
            problem = f"the database is damaged{place}; sqlite3's .recover saves what is left of it"
        else:
            problem = f"SQLite cannot read it: {text}"
        raise AuditFileError(f"{self.path}: {problem}") from error


def _is_damage(error: sqlite3.Error) -> bool:
    signs = ("malformed", "not a database", "disk I/O", "corrupt")
    return any(sign in str(error) for sign in signs)


def _entry(link: Link, payload: object) -> Entry:
    place = f"seq {link.seq}"
    if not isinstance(payload, bytes):
        return Entry(place, None, link, "its payload is no text")
    try:
        return Entry(place, parse_object(payload), link)
    except NoRecordError as error:
        return Entry(place, None, link, str(error))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
