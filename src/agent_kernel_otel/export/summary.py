# SPDX-License-Identifier: Apache-2.0
"""What became of the records, counted and told at the end."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from agent_kernel_otel.cli import fail, say
from agent_kernel_otel.faults import our_line

COMPLETE: Final = 0
SOME_FAILED: Final = 1
UNUSABLE: Final = 2
UNDELIVERED: Final = 3
CHAIN_BROKEN: Final = 4
FAULT: Final = 70
"""``EX_SOFTWARE`` of ``sysexits.h``; 1 is what Python gives."""

_OUTCOMES: Final = {
    COMPLETE: "complete",
    SOME_FAILED: "some_failed",
    UNUSABLE: "unusable",
    UNDELIVERED: "undelivered",
    CHAIN_BROKEN: "chain_broken",
    FAULT: "fault",
}
_HEADLINES: Final = {
    COMPLETE: "export complete",
    SOME_FAILED: "export finished, but some records failed",
    UNUSABLE: "export stopped",
    UNDELIVERED: "export stopped: the spans could not be delivered",
    CHAIN_BROKEN: "nothing was exported: the hash chain does not hold",
    FAULT: "export stopped by a fault of its own",
}
_LONGEST_REASON: Final = 200


@dataclass(slots=True)
class Counts:
    """What became of records; each is in one of these numbers.

    Attributes:
        exported: The receiver has confirmed them.
        skipped: The filters left them out.
        unreadable: They could not be read.
        rejected: The receiver refused them.
    """

    exported: int = 0
    skipped: int = 0
    unreadable: int = 0
    rejected: int = 0

    @property
    def read(self) -> int:
        """All of them."""
        return self.exported + self.skipped + self.unreadable + self.rejected

    def add(self, other: Counts) -> None:
        """Count others too."""
        self.exported += other.exported
        self.skipped += other.skipped
        self.unreadable += other.unreadable
        self.rejected += other.rejected


@dataclass
class Summary:
    """How an export ended.

    Attributes:
        is_dry_run: Whether it only counted.
        destination: Where it went.
        counts: What became of the records, those of interrupted earlier runs too.
        exit_code: What the process exits with.
        earlier: How many of those that were read an interrupted earlier run has read.
        cut_off: Last lines that were cut off, and failed for that.
        seconds: How long this run took.
        rejection: What the receiver said of what it rejected.
        problems: What went wrong besides, a line each.
        advice: What to do now.
        checkpoint: Where how far it has come is kept, if it is.
        verified: How many records the chain was verified of; ``None`` where nobody asked for it.
        linked: How many spans of this run have a link to their live span; ``None`` likewise.
        headline: How it ended, where the exit code does not say it.
    """

    is_dry_run: bool
    destination: str = ""
    counts: Counts = field(default_factory=Counts)
    exit_code: int = COMPLETE
    earlier: int = 0
    cut_off: int = 0
    seconds: float = 0.0
    rejection: str | None = None
    problems: list[str] = field(default_factory=list)
    advice: str | None = None
    checkpoint: str | None = None
    verified: int | None = None
    linked: int | None = None
    headline: str | None = None

    @property
    def failed(self) -> int:
        """Records that were not exported though they were selected."""
        return self.counts.unreadable + self.counts.rejected + self.cut_off

    @property
    def read(self) -> int:
        """All records."""
        return self.counts.read + self.cut_off

    @property
    def rate(self) -> float:
        """Records a second in this run."""
        return (self.read - self.earlier) / self.seconds if self.seconds > 0 else 0.0

    def tell(self, *, as_json: bool) -> None:
        """Write it for scripts to stdout, if it can be written there, or for people to stderr."""
        if not (as_json and say(sys.stdout, self.json())):
            say(sys.stderr, self.text())

    def text(self) -> str:
        """For people, in lines."""
        lines = [self._headline()]
        if self.exit_code != CHAIN_BROKEN:
            lines += self._table()
        lines += self.problems
        if self.advice:
            lines.append(self.advice)
        return "".join(f"{one_line(line)}\n" for line in lines)

    def _headline(self) -> str:
        told = self.headline or _HEADLINES.get(self.exit_code, "export interrupted")
        if self.is_dry_run and self.exit_code in {COMPLETE, SOME_FAILED}:
            told = "dry run: nothing was sent"
        if self.exit_code == CHAIN_BROKEN or not self.read or not self.seconds:
            return told
        return f"{told}; {duration(self.seconds)}, {self.rate:,.0f} records/s"

    def _table(self) -> list[str]:
        earlier = f"{self.earlier:,} of them by the interrupted run before" if self.earlier else ""
        rows = [
            ("read", self.read, earlier),
            (
                "to export" if self.is_dry_run else "exported",
                self.counts.exported,
                self.destination,
            ),
            ("skipped", self.counts.skipped, "by the filters" if self.counts.skipped else ""),
            ("failed", self.failed, self._failures()),
        ]
        if self.verified is not None:
            rows.insert(0, ("verified", self.verified, "the hash chain holds"))
        if self.linked is not None:
            rows.append(("linked", self.linked, "to the live spans of their actions"))
        width = max(len(f"{number:,}") for _, number, _ in rows)
        return [f"  {name:<9} {number:>{width},}  {note}".rstrip() for name, number, note in rows]

    def json(self) -> str:
        """For scripts, one line."""
        content: dict[str, Any] = {
            "outcome": _OUTCOMES.get(self.exit_code, "interrupted"),
            "exit_code": self.exit_code,
            "dry_run": self.is_dry_run,
            "read": self.read,
            "exported": 0 if self.is_dry_run else self.counts.exported,
            "skipped": self.counts.skipped,
            "failed": self.failed,
            "unreadable": self.counts.unreadable,
            "cut_off": self.cut_off,
            "rejected": self.counts.rejected,
            "rejection": self.rejection,
            "read_before": self.earlier,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.rate, 1),
            "destination": self.destination,
            "checkpoint": self.checkpoint,
            "verified": self.verified,
            "linked": self.linked,
            "problems": self.problems,
            "advice": self.advice,
        }
        if self.is_dry_run:
            content["to_export"] = self.counts.exported
        return json.dumps(content) + "\n"

    def _failures(self) -> str:
        kinds = (
            (self.counts.unreadable, "could not be read"),
            (self.cut_off, "cut off at the end of a file"),
            (self.counts.rejected, "rejected by the receiver"),
        )
        told = [f"{number:,} {kind}" for number, kind in kinds if number]
        if self.rejection and self.counts.rejected:
            told[-1] += f": {one_line(self.rejection, _LONGEST_REASON)}"
        return ", ".join(told)


def refuse(
    problem: str, *, as_json: bool, is_dry_run: bool = False, exit_code: int = UNUSABLE
) -> int:
    """Tell why nothing is done.

    Args:
        problem: Why.
        as_json: Whether to write the summary for scripts too.
        is_dry_run: Whether it would only have counted.
        exit_code: What the process exits with.

    Returns:
        The exit code.
    """
    problem = one_line(problem)
    if as_json:
        summary = Summary(is_dry_run=is_dry_run, exit_code=exit_code, problems=[problem])
        say(sys.stdout, summary.json())
    return fail(problem, exit_code)


def fault(error: Exception) -> str:
    """What nobody foresaw, in words that repeat nothing of what was exported."""
    return f"{type(error).__qualname__} at {our_line(error)}; please report that"


def one_line(text: str, limit: int | None = None) -> str:
    """Text as one line that no terminal takes for anything but text.

    Args:
        text: Any text.
        limit: Most characters of it.
    """
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 3]}..."


def duration(seconds: float) -> str:
    """A length of time at a glance."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
