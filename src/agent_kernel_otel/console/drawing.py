# SPDX-License-Identifier: Apache-2.0
"""A trace as lines of text: a heading, the tree with its guides, and what has no span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from rich.text import Text

from agent_kernel_otel.console.describe import (
    describe_attribute,
    describe_event,
    describe_log,
    describe_span,
)
from agent_kernel_otel.console.glyphs import GLUE, clock_time
from agent_kernel_otel.console.tree import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_kernel_otel.console.glyphs import Glyphs
    from agent_kernel_otel.console.records import LogView
    from agent_kernel_otel.console.tree import TraceTree

MAX_LINES: Final = 1_000
"""Lines drawn of one trace; a person reads no more, and ``--json`` has them all."""

_MAX_DEPTH: Final = 24
_MAX_ATTRIBUTES: Final = 64

Line = tuple[str, str, Text]
"""Guides of the line, guides of its continuation if it is wrapped, and the line."""

# Log records and events are described only once it is their turn: there may be very many.
_Entry = Node | Callable[[], Text]


def draw_trace(tree: TraceTree, glyphs: Glyphs, *, attributes: bool = False) -> Iterator[Line]:
    """Draws a trace.

    Args:
        tree: The trace.
        glyphs: The symbols to use.
        attributes: Whether to show every attribute of every span, on lines of their own.

    Yields:
        Its lines, in order.
    """
    services = {node.span.service for node in tree.walk()}
    yield "", "", _heading(tree, services, glyphs)
    drawn: set[str] = set()
    entries = _draw_nodes(tree, glyphs, len(services) > 1, attributes)
    for line, node in islice(entries, MAX_LINES):
        if node is not None:
            drawn.add(node.span.span_id)
        yield line
    if next(entries, None) is not None:
        yield "", "", _left_out(tree, drawn, glyphs)
    if tree.loose_logs:
        yield "", "", Text("log records of spans that were not received", "yellow")
        yield from _draw_logs(tree.loose_logs[:MAX_LINES], glyphs)


def draw_logs(logs: list[LogView], glyphs: Glyphs) -> Iterator[Line]:
    """Draws log records that belong to no trace."""
    yield "", "", Text("log records without a span", "bold")
    yield from _draw_logs(logs, glyphs)


def _draw_logs(logs: list[LogView], glyphs: Glyphs) -> Iterator[Line]:
    for position, log in enumerate(logs):
        last = position == len(logs) - 1
        yield (
            glyphs.last_branch if last else glyphs.branch,
            "   " if last else glyphs.rail,
            describe_log(log, glyphs, service=log.service),
        )


def _heading(tree: TraceTree, services: set[str], glyphs: Glyphs) -> Text:
    spans = [node.span for node in tree.walk()]
    heading = Text().append(f"trace {tree.trace_id}", "bold")
    parts = []
    if spans:
        start = min(span.start_ns for span in spans)
        parts.append(clock_time(start))
        if len(services) == 1:
            parts.append(glyphs.clean(spans[0].service) or "unnamed service")
        parts.append(f"{len(spans)} span{'s' if len(spans) != 1 else ''}")
        if not tree.updated:
            parts.append(glyphs.duration(max(start, *(span.end_ns for span in spans)) - start))
    else:
        parts.append("no span received")
    heading.append("".join(f"  {part.replace(' ', GLUE)}" for part in parts), "dim")
    if tree.updated:
        late = [
            f"{count} late {word}{'s' if count != 1 else ''}"
            for count, word in ((tree.fresh_spans, "span"), (tree.fresh_logs, "log record"))
            if count
        ]
        heading.append(f"  updated: {', '.join(late)}", "bold yellow")
    return heading


def _draw_nodes(
    tree: TraceTree, glyphs: Glyphs, name_services: bool, attributes: bool
) -> Iterator[tuple[Line, Node | None]]:
    # A stack of (what to draw, its guides, the guides below it, its depth, service around it).
    pending: list[tuple[_Entry, str, str, int, str | None]] = [
        (root, "", "", 0, None) for root in reversed(tree.roots) if root.shown
    ]
    while pending:
        entry, guide, rail, depth, service = pending.pop()
        if not isinstance(entry, Node):
            yield (guide, rail, entry()), None
            continue
        span = entry.span
        entries = _entries(entry, glyphs, attributes)
        own_service = span.service if name_services and span.service != service else ""
        text = describe_span(span, glyphs, note=entry.note, service=own_service)
        if tree.updated and not entry.fresh:
            text.append("  (shown before)", "dim")
        if depth > _MAX_DEPTH:
            text.append(f"  (level {depth})", "dim")
        yield (guide, rail + (glyphs.rail if entries else "   "), text), entry
        for position, below in enumerate(reversed(entries)):
            last = position == 0
            inside = rail if depth >= _MAX_DEPTH else rail + ("   " if last else glyphs.rail)
            branch = glyphs.last_branch if last else glyphs.branch
            pending.append((below, rail + branch, inside, depth + 1, span.service))


def _entries(node: Node, glyphs: Glyphs, attributes: bool) -> list[_Entry]:
    timed: list[tuple[int, _Entry]] = [
        (child.span.start_ns, child) for child in node.children if child.shown
    ]
    timed += [(log.time_ns, partial(describe_log, log, glyphs)) for log in node.logs]
    if node.fresh:
        timed += [(event[0], partial(describe_event, *event, glyphs)) for event in node.span.events]
    timed.sort(key=lambda entry: entry[0])
    every: list[_Entry] = []
    if attributes and node.fresh:
        every += [
            partial(describe_attribute, key, value, glyphs)
            for key, value in islice(node.span.attributes.items(), _MAX_ATTRIBUTES)
        ]
    return every + [entry for _, entry in timed]


def _left_out(tree: TraceTree, drawn: set[str], glyphs: Glyphs) -> Text:
    nodes = [node for node in tree.walk() if node.shown and node.span.span_id not in drawn]
    counts = Counter(node.span.outcome for node in nodes)
    among = ", ".join(
        f"{counts[outcome]:,} {outcome}"
        for outcome in ("denied", "error", "cancelled")
        if counts[outcome]
    )
    return Text(
        f"{glyphs.ellipsis} {len(nodes):,} more spans are not drawn"
        + (f", among them {among}" if among else "")
        + "; --json has them all",
        "yellow",
    )
