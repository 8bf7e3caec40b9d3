# SPDX-License-Identifier: Apache-2.0
"""What must hold after a seed was played; each check returns what it found wrong, as lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from tests.simulation.told import Told
from tests.simulation.traced import Traced
from tests.simulation.world import World


@dataclass
class Evidence:
    """All that is known of one seed.

    Attributes:
        bare: The run in which nothing was instrumented.
        traced: The run in which everything was.
        told: By operation, what must have been told.
    """

    bare: World
    traced: Traced
    told: dict[int, Told]


Check = Callable[[Evidence], Iterable[str]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Register a check under its name."""
    CHECKS[function.__name__] = function
    return function


@check
def app_sees_the_same(evidence: Evidence) -> Iterator[str]:
    """Results, exceptions, their identity, and what collaborators are asked, are as without us."""
    traced = evidence.traced.world.runs
    if evidence.bare.runs.keys() != traced.keys():
        yield "not the same operations ran"
    for number, run in evidence.bare.runs.items():
        if number not in traced:
            continue
        without, with_us = run.seen_by_app(), traced[number].seen_by_app()
        for before, after in zip(without, with_us, strict=True):
            if before != after:
                yield f"operation {number} ({run.op.kind}) without us: {before}\n    with us: {after}"


@check
def nothing_stays_attached(evidence: Evidence) -> Iterator[str]:
    """After an operation, and between two frames of a stream, the context is the caller's."""
    for number, run in evidence.traced.world.runs.items():
        if run.leaks:
            yield f"operation {number} ({run.op.kind}) left {run.leaks} changed"


@check
def every_span_ends_once(evidence: Evidence) -> Iterator[str]:
    """No span is left open, and none ends twice."""
    recorder = evidence.traced.capture.recorder
    if recorder.open:
        yield f"{len(recorder.open)} spans never ended: {Counter(recorder.open.values())}"
    yield from recorder.complaints


@check
def spans_tell_the_truth(evidence: Evidence) -> Iterator[str]:
    """Each operation has its span tree, with its true outcome, and nothing else has spans."""
    ended = evidence.traced.capture.recorder.ended
    for number in sorted(ended.keys() - evidence.told.keys()):
        yield f"{len(ended[number])} spans are of no operation: {number}"
    for number, told in evidence.told.items():
        kind = evidence.bare.runs[number].op.kind
        for problem in _compare_spans(told, ended.get(number, [])):
            yield f"operation {number} ({kind}): {problem}"


def _compare_spans(told: Told, spans: list[ReadableSpan]) -> Iterator[str]:
    ids = {span.context.span_id for span in spans if span.context}
    roots = [span for span in spans if span.parent is None or span.parent.span_id not in ids]
    below = [span for span in spans if span not in roots]
    if told.root is None:
        if spans:
            yield f"it must have no spans, and has {[span.name for span in spans]}"
        return
    if len(roots) != 1:
        yield f"it has {len(roots)} roots: {[span.name for span in roots]}"
        return
    yield from _compare_span(told.root, roots[0])
    root_context = roots[0].context
    for span in below:
        if span.parent is None or root_context is None:
            continue
        if span.parent.span_id != root_context.span_id:
            yield f"{span.name} is not a child of the operation"
    expected = sorted(told.children, key=lambda child: child.name)
    found = sorted(below, key=lambda span: span.name)
    names = [child.name for child in expected], [span.name for span in found]
    if names[0] != names[1]:
        yield f"below it must be {names[0]}, and there is {names[1]}"
        return
    remaining = list(found)
    for child in expected:
        same = [span for span in remaining if span.name == child.name]
        fitting = [span for span in same if not list(_compare_span(child, span))]
        if fitting:
            remaining.remove(fitting[0])
        else:
            yield from _compare_span(child, same[0])
            remaining.remove(same[0])


def _compare_span(expected: Any, span: ReadableSpan) -> Iterator[str]:
    if span.name != expected.name:
        yield f"it is called {span.name}, and not {expected.name}"
    status = span.status.status_code.name
    if status != ("ERROR" if expected.failed else "UNSET"):
        yield f"{span.name} has status {status}"
    attributes = span.attributes or {}
    for key, value in expected.attributes.items():
        if attributes.get(key) != value:
            yield f"{key} of {span.name} must be {value!r}, and is {attributes.get(key)!r}"


@check
def events_tell_the_truth(evidence: Evidence) -> Iterator[str]:
    """Each denial has its decision event, each failure its exception event, and nothing else."""
    events = evidence.traced.capture.events()
    rootless = {
        number for number, run in evidence.bare.runs.items() if "rootless" in run.op.chances
    }
    for number, told in evidence.told.items():
        if number in rootless and told.root is None:
            continue  # nothing ties its events to it
        found = Counter(events.get(number, []))
        if found != told.events:
            kind = evidence.bare.runs[number].op.kind
            yield f"operation {number} ({kind}) must have events {dict(told.events)}, and has {found}"


@check
def no_fault_of_ours(evidence: Evidence) -> Iterator[str]:
    """The product swallows what the application's processors raise, and has nothing of its own."""
    raised = evidence.traced.capture.raising.raised
    if evidence.traced.faults != raised:
        yield f"{evidence.traced.faults} faults were swallowed, and {raised} were planned"
