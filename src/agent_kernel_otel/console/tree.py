# SPDX-License-Identifier: Apache-2.0
"""The tree of a trace: which span is under which, with their logs, whatever was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_kernel_otel.console.records import LogView, SpanView, Trace, view_log, view_span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


# Compared by identity: a tree of nodes is too deep to be compared by value.
@dataclass(eq=False)
class Node:
    """A span in its place.

    Attributes:
        span: The span.
        note: What is odd about its place; empty if nothing is.
        children: Spans under it, by start.
        logs: Fresh log records of it, by time.
        fresh: Whether it arrived after the trace was shown last.
        shown: Whether it belongs to the drawing: it, a log record of it or a span below it is
            fresh.
    """

    span: SpanView
    note: str = ""
    children: list[Node] = field(default_factory=list)
    logs: list[LogView] = field(default_factory=list)
    fresh: bool = True
    shown: bool = True


@dataclass(frozen=True)
class TraceTree:
    """A trace as a tree.

    Attributes:
        trace_id: 32 hexadecimal digits.
        roots: The spans at the top, by start.
        loose_logs: Fresh log records of spans that are not here, by time.
        fresh_spans: Number of spans that arrived after the trace was shown last.
        fresh_logs: The same for log records.
        updated: Whether part of the trace was shown before.
    """

    trace_id: str
    roots: list[Node]
    loose_logs: list[LogView]
    fresh_spans: int
    fresh_logs: int
    updated: bool

    def walk(self) -> Iterator[Node]:
        """Gives every node, parents before their children."""
        return _walk(self.roots)


def build_tree(trace: Trace, after: int) -> TraceTree:
    """Builds the tree.

    Args:
        trace: The trace, not empty.
        after: Number of the last request that was there when the trace was shown last; what came
            later is fresh.
    """
    spans = [view_span(received) for received in trace.spans]
    logs = sorted((view_log(received) for received in trace.logs), key=lambda log: log.time_ns)
    nodes = {
        span.span_id: Node(span, fresh=span.batch > after)
        for span in sorted(spans, key=lambda span: span.start_ns)
    }
    roots = _place(nodes)
    loose: list[LogView] = []
    fresh_logs = [log for log in logs if log.batch > after]
    for log in fresh_logs:
        node = nodes.get(log.span_id)
        (loose if node is None else node.logs).append(log)
    for node in reversed(list(_walk(roots))):
        node.shown = node.fresh or bool(node.logs) or any(child.shown for child in node.children)
    fresh_spans = sum(node.fresh for node in nodes.values())
    return TraceTree(
        trace_id=trace.trace_id,
        roots=roots,
        loose_logs=loose,
        fresh_spans=fresh_spans,
        fresh_logs=len(fresh_logs),
        updated=fresh_spans + len(fresh_logs) < len(nodes) + len(logs),
    )


def _place(nodes: dict[str, Node]) -> list[Node]:
    roots = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        if parent is not None:
            parent.children.append(node)
        else:
            roots.append(node)
            if node.span.parent_id:
                node.note = f"parent {node.span.parent_id} not received"
    reached = {node.span.span_id for node in _walk(roots)}
    for node in nodes.values():
        if node.span.span_id not in reached:
            # Spans that are each other's ancestors: cut the ring here, and show the rest below.
            nodes[node.span.parent_id].children.remove(node)
            node.note = "its parents form a ring"
            roots.append(node)
            reached.update(below.span.span_id for below in _walk([node]))
    return roots


def _walk(roots: Iterable[Node]) -> Iterator[Node]:
    # Not recursive: a chain of spans may be deeper than Python's stack.
    pending = list(roots)[::-1]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(node.children))
