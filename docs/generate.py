# SPDX-License-Identifier: Apache-2.0
"""Writes the reference pages from the code; ``--check`` only tells whether they are up to date.

Run it with ``make docs`` after a change to ``semconv.py`` or to the table of patch targets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from agent_kernel_otel import semconv
from agent_kernel_otel.weaver.targets import OPERATIONS, SEAMS

DOCS = Path(__file__).parent

_TRACING_HEAD = """\
# Tracing reference

<!-- Written by docs/generate.py from src/agent_kernel_otel/semconv.py. Do not edit. -->

Everything that `agent-kernel-otel` emits for the Weaver kernel, and what it means. All spans are
`INTERNAL`. Scope: `agent_kernel_otel.weaver`. No schema URL is set: the names are this project's
own, but for `gen_ai.*`, `error.type`, `exception.*` and `security_rule.name`, which follow the
OpenTelemetry semantic conventions (those of GenAI are in development and can still change).

## How to read a trace

- `agent_kernel.status` says how a call ended: `success`, `error`, `denied` or `cancelled`.
  A denial is the kernel doing its work.
- The OpenTelemetry span status is `UNSET` unless the caller of that operation saw an exception
  (then `ERROR`, a denial included), or a driver attempt or a policy engine failed. It never has a
  description, because exception texts hold secrets. A policy span that denies stays `UNSET`.
- Exceptions are log events, not span events. A denial gives a decision event and no exception
  event; a cancellation, and an attempt that a fallback made good, give none.
- An invocation links to the grant of its token, where this process granted it and the grant was
  sampled. `agent_kernel.token_id` on both is what joins them for good.
- With `span_naming=gen_ai` the invoke span is called `execute_tool {capability id}`; its
  attributes are the same.
- A stream is one invoke span, from its first step to its end; it includes the consumer's time.
  Its firewall span covers the whole stream, and its driver span is a child of the operation.
- An unsampled parent is obeyed: no spans then, but log events are emitted all the same.
"""


def tracing() -> str:
    """The page ``tracing.md``."""
    return "\n".join(
        [
            _TRACING_HEAD,
            "## Spans\n",
            *_table(
                ("span", "level", "covers", "child of"),
                (
                    (f"`{span.name}`", f"`{span.level}`", span.opened_by, span.parent)
                    for span in semconv.SPANS.values()
                ),
            ),
            "\n## Attributes\n",
            "*Start* marks those that are known when the span starts, so that samplers see them.",
            "Sensitivity: `id` is a generated id, `identity` says who acts and follows the",
            "`principal_id` setting, `content` is user data and is exported only on request.\n",
            *_table(
                ("attribute", "type", "on", "start", "sensitivity", "meaning"),
                (_attribute_row(attribute) for attribute in semconv.ATTRIBUTES.values()),
            ),
            "\n## Log events\n",
            *_table(
                ("event", "severity", "emitted"),
                (
                    (f"`{event.name}`", event.severity, event.description)
                    for event in semconv.EVENTS.values()
                ),
            ),
            "\nEvents have the context of their span. Their body is a line for people, made of the",
            "names above.\n",
            "## What is patched\n",
            "The `Kernel` class and nothing else; [how and why](how-it-attaches.md).\n",
            *_table(
                ("method of `Kernel`", "opens"),
                ((f"`{target.method}`", f"`{target.span}`") for target in OPERATIONS),
            ),
            "",
            *_table(
                ("attribute of `Kernel`", "seen through a view during"),
                (
                    (
                        f"`{seam.attribute}`",
                        ", ".join(f"`{name}`" for name in sorted(seam.operations)),
                    )
                    for seam in SEAMS
                ),
            ),
            "",
        ]
    )


def _attribute_row(attribute: semconv.AttributeDefinition) -> tuple[str, ...]:
    values = ""
    if attribute.values:
        values = " One of " + ", ".join(f"`{value}`" for value in attribute.values) + "."
    return (
        f"`{attribute.name}`",
        attribute.type,
        _where(attribute.on),
        "yes" if attribute.at_start else "",
        attribute.sensitivity,
        attribute.description + values,
    )


def _where(names: tuple[str, ...]) -> str:
    if set(names) == {*semconv.SPANS, *semconv.EVENTS}:
        return "everything"
    if set(names) >= set(semconv.SPANS):
        rest = [name for name in names if name not in semconv.SPANS]
        return ", ".join(["every span", *map(_short, rest)])
    return ", ".join(map(_short, names))


def _short(name: str) -> str:
    return f"`{name.removeprefix('agent_kernel.')}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [_row(head), _row(("---",) * len(head))]
    return lines + [_row(row) for row in rows]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


PAGES = {"tracing.md": tracing}


def main() -> int:
    """Write the pages, or with ``--check`` name those that differ and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a drift")
    options = parser.parse_args()
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        text = page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    if options.check and stale:
        print(f"out of date: {', '.join(stale)}; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
