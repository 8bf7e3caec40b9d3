# SPDX-License-Identifier: Apache-2.0
"""Which records of an audit file are to be exported."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.scrub import identifier

if TYPE_CHECKING:
    from agent_kernel_otel.audit.records import AuditRecord

EVENTS: Final = ("invoke", "expand", "deny")
"""The kinds of records."""

_AGE: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_NANOSECONDS: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Moment:
    """A time as a person writes it.

    Attributes:
        text: What was written.
        nanoseconds: Since the epoch; of an age, how long before now.
        is_age: Whether it depends on when it is asked for.
    """

    text: str
    nanoseconds: int
    is_age: bool

    @classmethod
    def read(cls, text: str) -> Moment:
        """Read a time.

        Args:
            text: ISO 8601, where no time zone means UTC, or an age, such as ``30m``.

        Raises:
            ValueError: It is neither.
        """
        age = _AGE.fullmatch(text)
        if age:
            seconds = int(age[1]) * _SECONDS[age[2]]
            return cls(text, seconds * _NANOSECONDS, is_age=True)
        # Python 3.10 does not know the letter.
        iso = f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text
        time = datetime.fromisoformat(iso)
        if time.tzinfo is None:
            time = time.replace(tzinfo=timezone.utc)
        since = time - _EPOCH
        seconds = since.days * 86_400 + since.seconds
        return cls(text, seconds * _NANOSECONDS + since.microseconds * 1_000, is_age=False)

    def at(self, now: int) -> int:
        """The time itself, in nanoseconds since the epoch."""
        return now - self.nanoseconds if self.is_age else self.nanoseconds


@dataclass(frozen=True)
class Selection:
    """Which records are to be exported: those that all of this is true of.

    Attributes:
        since: They were written then or later.
        until: They were written before then.
        events: They are of one of these kinds; of any, if empty.
        only_failed: They tell of something that did not succeed.
        principals: One of these asked; anybody, if empty.
        capabilities: One of these was asked for; any, if empty.
    """

    since: Moment | None = None
    until: Moment | None = None
    events: frozenset[str] = frozenset()
    only_failed: bool = False
    principals: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()

    def filters(self) -> dict[str, Any]:
        """What is left out, by option and as it was written: for a checkpoint."""
        given = {
            "--since": self.since.text if self.since else None,
            "--until": self.until.text if self.until else None,
            "--event": sorted(self.events),
            "--failed": self.only_failed,
            "--principal": sorted(self.principals),
            "--capability": sorted(self.capabilities),
        }
        return {option: value for option, value in given.items() if value}

    def matcher(self, now: int) -> Callable[[AuditRecord], bool] | None:
        """What tells whether a record is to be exported; ``None`` where all are.

        Args:
            now: What ages are counted from, in nanoseconds since the epoch.
        """
        if not self.filters():
            return None
        since = self.since.at(now) if self.since else None
        until = self.until.at(now) if self.until else None
        events, only_failed = self.events, self.only_failed
        principals, capabilities = _as_read(self.principals), _as_read(self.capabilities)

        def matches(record: AuditRecord) -> bool:
            return (
                (since is None or record.time >= since)
                and (until is None or record.time < until)
                and (not events or record.event_type in events)
                and (not only_failed or record.failed)
                and (not principals or record.principal_id in principals)
                and (not capabilities or record.capability_id in capabilities)
            )

        return matches


def _as_read(ids: frozenset[str]) -> frozenset[str | None]:
    """Ids in the form that those of records are read in."""
    return frozenset(map(identifier, ids))
