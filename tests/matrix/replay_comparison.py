# SPDX-License-Identifier: Apache-2.0
"""Compares the spans of audit records with those of the calls that left them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from agent_kernel_otel import action_id, semconv, trace_context
from tests.matrix.replay_differences import (
    DIFFERENCES,
    ONLY_REPLAYED,
    SPAN_STATUS,
    STREAM_OF_CHUNKS,
    UNRECORDED,
    Situation,
)
from tests.matrix.replayed import Replayed
from tests.matrix.spans import ABSENT, PRESENT


@dataclass
class Call:
    """A call of a kernel, and what it left.

    Attributes:
        scene: In which it was made.
        situation: What came to pass in it.
        live: Its span.
        until: When its scene was over.
    """

    scene: str
    situation: Situation
    live: ReadableSpan
    until: int


class Comparison:
    """Holds the spans of audit records against those of the calls that left them.

    Args:
        release: Of the kernel that was called, such as ``0.12.0``.

    Attributes:
        problems: What is wrong.
    """

    def __init__(self, release: str) -> None:
        self.problems: list[str] = []
        self._release = release
        self._occurred: set[object] = set()

    def compare(self, calls: list[Call], spans: list[Replayed]) -> None:
        """Compare each call's live span with its replayed one."""
        by_action = {span.attributes[semconv.ACTION_ID]: span for span in spans}
        if len(by_action) != len(spans):
            self.problems.append("several spans are of the same action")
        for call in calls:
            context = call.live.context
            assert context is not None
            action = action_id(context)
            replayed = by_action.pop(action, None) if action is not None else None
            if replayed is None:
                self._unrecorded(call)
                continue
            if trace_context(str(action)) != context:
                self._say(call, "trace_context() has another span of its action")
            if replayed.links != ((context.trace_id, context.span_id),):
                self._say(call, f"its replayed span links to {replayed.links}")
            self._recorded(call, replayed)
        for action in by_action:
            self.problems.append(f"the record of {action} has no live span")

    def _say(self, call: Call, problem: str) -> None:
        self.problems.append(f"{call.scene}: {call.situation.text}: {problem}")

    def _unrecorded(self, call: Call) -> None:
        for known in UNRECORDED:
            if known.situation is call.situation and known.releases.have(self._release):
                self._occurred.add(known)
                return
        self._say(call, "it has no record")

    def _recorded(self, call: Call, replayed: Replayed) -> None:
        live = {**(call.live.attributes or {}), SPAN_STATUS: call.live.status.status_code.name}
        got = {
            key: value
            for key, value in {**replayed.attributes, SPAN_STATUS: replayed.status}.items()
            if key not in ONLY_REPLAYED
        }
        expected = self._expected(call.situation, live)
        for key in sorted(expected.keys() | got.keys()):
            one, other = expected.get(key, ABSENT), got.get(key, ABSENT)
            if one != other and not (one == PRESENT and other != ABSENT):
                self._say(call, f"{key} is {other!r}, not {one!r}; live {live.get(key, ABSENT)!r}")
        if call.live.name != replayed.name:
            self._say(call, f"its replayed span is called {replayed.name}")
        if replayed.attributes.get(semconv.REPLAYED) is not True:
            self._say(call, "its replayed span does not say so")
        warnings = replayed.attributes.get(semconv.RESULT_WARNINGS)
        if warnings is not None and warnings != live.get(semconv.REDACTIONS, warnings):
            self._say(call, f"{warnings} warnings in its record")  # no scene has other notices
        self._check_time(call, replayed)

    def _expected(self, situation: Situation, live: dict[str, Any]) -> dict[str, Any]:
        """What the replayed span has, but for what only that has."""
        expected = dict(live)
        for number, difference in enumerate(DIFFERENCES):
            if situation not in difference.situations or not difference.releases.have(
                self._release
            ):
                continue
            for key, value in difference.replayed.items():
                if value != live.get(key, ABSENT):
                    self._occurred.add((number, key))
                expected[key] = value
        return {key: value for key, value in expected.items() if value != ABSENT}

    def _check_time(self, call: Call, replayed: Replayed) -> None:
        start, end = call.live.start_time, call.live.end_time
        assert start is not None
        assert end is not None
        if call.situation is STREAM_OF_CHUNKS:
            end = call.until  # the kernel writes the record of a closed stream a little later
        # Records have microseconds.
        if not start - 1_000 < replayed.start <= end or replayed.end != replayed.start + 1:
            self._say(call, f"it took from {start} to {end}, its record from {replayed.start}")

    def never_occurred(self) -> list[str]:
        """What is declared as a difference of this release, and was none."""
        found = [
            f"{known.situation.text} has a record"
            for known in UNRECORDED
            if known.releases.have(self._release) and known not in self._occurred
        ]
        for number, difference in enumerate(DIFFERENCES):
            found += [
                f"{key} is never {value!r} on {difference.records}"
                for key, value in difference.replayed.items()
                if difference.releases.have(self._release) and (number, key) not in self._occurred
            ]
        return [f"a difference that is declared does not occur: {each}" for each in found]
