# SPDX-License-Identifier: Apache-2.0
"""The hash chain of audit files: whether records were changed, removed, added or moved.

Each record is signed together with its number and the hash of the one before it, by HMAC-SHA256
over the kernel's canonical JSON. What a chain cannot tell is that its newest records are missing,
or all of it: a chain that was cut at its end is a shorter chain that holds. A pruned SQLite store
begins at the checkpoint which it says itself, as it does for the kernel.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_kernel_otel.audit.files.entries import (
    AuditFile,
    AuditFileError,
    Entry,
    Link,
    Position,
)

GENESIS_HASH: Final = "0" * 64
"""What the first record of a chain has as the hash of the one before it."""
_TICK: Final = 1000
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class ChainResult:
    """Whether the chain of a file holds.

    Attributes:
        path: The file.
        ok: Whether it does.
        records: How many records were found to be good.
        continues: Whether it goes on from the end of the file before it.
        place: The first record that is not good, as in :class:`Entry`; ``None`` where all are.
        detail: What is wrong with it, or what was checked, in one sentence.
        end: Up to where it was checked, for ``entries(until=...)``.
        cut_off: What stands there of a last record that is cut off, and was not checked.
    """

    path: Path
    ok: bool
    records: int
    continues: bool
    place: str | None
    detail: str
    end: Position
    cut_off: Entry | None = None


def verify_chains(
    files: Iterable[AuditFile], key: str, tick: Callable[[], None] | None = None
) -> list[ChainResult]:
    """Check files in order, each a chain of its own or the next part of the one before it.

    Args:
        files: The files, which are read from their beginning.
        key: The secret that the kernel wrote them with.
        tick: Called now and then, to show how far it is.

    Returns:
        A result for each file. One that goes on from a file that does not hold cannot hold.

    Raises:
        AuditFileError: A file cannot be read, or its records are not chained at all.
        ValueError: The key is empty.
    """
    if not key:
        raise ValueError("the key is empty")
    chain = _Chain(key, tick or _nothing)
    return [chain.verify(file) for file in files]


def _nothing() -> None:
    pass


class _BrokenError(Exception):
    """The chain does not hold; the message says why."""


class _Chain:
    def __init__(self, key: str, tick: Callable[[], None]) -> None:
        self._mac = hmac.new(key.encode(), digestmod="sha256")
        self._tick = tick
        self._last: Link | None = None
        """The end of the file before, if any was read."""
        self._is_broken = False

    def verify(self, file: AuditFile) -> ChainResult:
        first_hash = file.first_hash()
        before = self._last
        records = 0
        last: Link | None = None
        continues = False
        cut_off: Entry | None = None
        place: str | None = None
        for entry in file.entries():
            if entry.is_cut_off:
                cut_off = entry
                break
            try:
                link = _link_of(entry, file, is_first=last is None)
                if last is None:
                    continues = self._check_first(link, first_hash, before)
                else:
                    _check_next(link, last)
                self._check_hash(entry, link, is_first=last is None)
            except _BrokenError as error:
                place, detail = entry.place, str(error)
                if file.first_hash() != first_hash:
                    detail = "the store was pruned while it was checked; check it again"
                break
            last = link
            records += 1
            if records % _TICK == 0:
                self._tick()
        self._tick()
        if place is not None:
            self._last, self._is_broken = None, True
        else:
            if last is not None:
                self._last, self._is_broken = last, False
            detail = f"{records} record{'' if records == 1 else 's'} checked"
            if cut_off is not None:
                detail += ", and not the last one, which is cut off"
        end = file.position()
        return ChainResult(
            file.path, place is None, records, continues, place, detail, end, cut_off
        )

    def _check_first(self, link: Link, first_hash: str | None, before: Link | None) -> bool:
        """Whether the first record of a file goes on from the file before it."""
        if before is not None and link.prev_hash == before.record_hash:
            _check_next(link, before)
            return True
        if link.prev_hash == (first_hash or GENESIS_HASH):
            return False
        if before is not None:
            raise _BrokenError(
                f"it does not go on from seq {before.seq}, where the file before it ends, and is "
                "no beginning: a file between them is missing, or records are"
            )
        if self._is_broken:
            raise _BrokenError("it is no beginning, and the file before it does not hold")
        if first_hash is not None:
            raise _BrokenError("it does not go on from where the store says it was pruned")
        raise _BrokenError(
            "it is no beginning of a chain: give the file before it first, or records before it "
            "were removed"
        )

    def _check_hash(self, entry: Entry, link: Link, *, is_first: bool) -> None:
        mac = self._mac.copy()
        try:
            content = {"seq": link.seq, "prev_hash": link.prev_hash, "trace": entry.payload}
            mac.update(_encode(content).encode())
        except RecursionError:
            raise _BrokenError("it is nested too deeply to be checked") from None
        if mac.hexdigest() != link.record_hash:
            if is_first:
                raise _BrokenError("its hash does not fit: the key is another, or it was changed")
            raise _BrokenError("its hash does not fit: it was changed after it was written")


def _link_of(entry: Entry, file: AuditFile, *, is_first: bool) -> Link:
    if entry.problem is not None:
        raise _BrokenError(f"it cannot be read: {entry.problem}")
    if entry.link is not None:
        return entry.link
    if is_first:
        raise AuditFileError(
            f"{file.path}: its records are not chained, as those of an export are not; check the "
            "store that it was made from"
        )
    raise _BrokenError("it is not chained, and was added later")


def _check_next(link: Link, last: Link) -> None:
    if link.seq != last.seq + 1:
        raise _BrokenError(
            f"it does not follow seq {last.seq}: records were removed, added or moved"
        )
    if link.prev_hash != last.record_hash:
        raise _BrokenError(
            f"it was not written after seq {last.seq} as that is now: records were removed, "
            "added or moved"
        )
