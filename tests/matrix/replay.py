# SPDX-License-Identifier: Apache-2.0
"""Lets one release of weaver-kernel write audit records, replays them, and compares the spans.

Runs inside the environment of that release. It replays in each way that there is: records in hand,
audit files, and the command. Prints what is wrong as a JSON list.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import tempfile
from pathlib import Path
from time import time_ns

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agent_kernel_otel import KernelInstrumentor, LinksFileExporter, semconv
from agent_kernel_otel.faults import faults
from tests.matrix.audit_trails import Trail, trails
from tests.matrix.recording import PROVIDERS, recorder, tracer_provider
from tests.matrix.replay_comparison import Call, Comparison
from tests.matrix.replay_differences import GRANTED, SERVED, situation_of
from tests.matrix.replay_scenes import AUDITED
from tests.matrix.replayed import Replayed, by_command, by_exporter, by_file
from tests.matrix.world import FEATURES, lib

RELEASE = importlib.metadata.version("weaver-kernel")

_OPERATIONS = (
    semconv.GRANT, semconv.INVOKE, semconv.EXPAND, semconv.DISCOVER, semconv.IMPORT,
)  # fmt: skip


class Kept(SpanProcessor):
    """Keeps the spans of operations, in the order in which they end."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.name in _OPERATIONS:
            self.spans.append(span)


def play(kept: Kept) -> list[Call]:
    """All calls of all scenes."""
    calls = []
    for scene, (needs, function) in AUDITED.items():
        if needs is not None and not FEATURES[needs]:
            continue
        kept.spans.clear()
        asyncio.run(function())
        until = time_ns()
        for span in kept.spans[:-1]:  # what prepares the call that the scene is about
            situation = GRANTED if span.name == semconv.GRANT else SERVED
            calls.append(Call(scene, situation, span, until))
        calls.append(Call(scene, situation_of(scene), kept.spans[-1], until))
    return calls


def round_trip(trail: Trail, kept: Kept, links: Path) -> list[str]:
    """What is wrong with the replay of all scenes' records from one kind of trail.

    Args:
        trail: Where the kernel keeps them.
        kept: What keeps the live spans.
        links: Where it is written down which live span each action had.
    """
    calls = play(kept)
    records = trail.records()
    spans = by_exporter(records)
    for span in spans:
        recorder.conform(span.name, span.attributes)
    comparison = Comparison(RELEASE)
    comparison.compare(calls, spans)
    problems = [*comparison.problems, *comparison.never_occurred()]
    ways = {"exporting again": by_exporter(records)}
    files = trail.files()
    directory = files[0].parent
    before = {path: path.read_bytes() for path in directory.iterdir()}
    for path in files:
        ways[f"reading {path.name}"] = by_file(path)
        ways[f"the command on {path.name}"] = by_command(path, links, chained=trail.is_chained)
    if {path: path.read_bytes() for path in directory.iterdir()} != before:
        problems.append("the audit files, or those beside them, have changed")
    for way, others in ways.items():
        if others != spans:
            problems.append(f"{way} gives other spans: {_first_difference(spans, others)}")
    return [f"{trail.name}: {problem}" for problem in [*problems, *trail.verify()]]


def _first_difference(expected: list[Replayed], got: list[Replayed]) -> str:
    for one, other in zip(expected, got, strict=False):
        if one != other:
            return f"{other} instead of {one}"
    return f"{len(got)} instead of {len(expected)}"


def main() -> None:
    faults.reraise = True
    logging.getLogger(lib.__name__).setLevel(logging.CRITICAL)  # it tells of each denial
    kept = Kept()
    tracer_provider.add_span_processor(kept)
    KernelInstrumentor().instrument(**PROVIDERS)
    problems = []
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as beside:
        links = Path(beside) / "links.jsonl"
        tracer_provider.add_span_processor(SimpleSpanProcessor(LinksFileExporter(links)))
        for begin in trails(Path(scratch)):
            problems += round_trip(begin(), kept, links)
    KernelInstrumentor().uninstrument()
    print(json.dumps([*problems, *dict.fromkeys(recorder.faults)]))


if __name__ == "__main__":
    main()
