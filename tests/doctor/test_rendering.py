# SPDX-License-Identifier: Apache-2.0
"""The report as text: for a terminal, for a pipe, for a terminal of few characters."""

from __future__ import annotations

import io

import pytest

from agent_kernel_otel.doctor.rendering import text_of
from tests.doctor.harness import diagnosis

ILL = {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_METRICS_EXPORTER": "none"}


class Terminal(io.TextIOWrapper):
    """A stream that claims to be a terminal."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_colour_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_gets_colour_and_a_pipe_does_not() -> None:
    assert "\033[31m✗\033[0m OTEL_TRACES_SAMPLER" in text_of(diagnosis(ILL), Terminal("utf-8"))
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert "\033" not in text_of(diagnosis(ILL), pipe)
    assert "\033" not in text_of(diagnosis(ILL))


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in text_of(diagnosis(ILL), Terminal("utf-8"))


def test_a_stream_of_few_characters_gets_those_only() -> None:
    text = text_of(diagnosis(ILL), Terminal("ascii"))
    assert "x OTEL_TRACES_SAMPLER" in text
    text.replace("\033", "").encode("ascii")


def test_what_is_said_is_wrapped() -> None:
    text = text_of(diagnosis(ILL))
    said = text[text.index("1 problem") :] + text[: text.index("configuration")]
    assert max(map(len, said.splitlines())) <= 100


def test_problems_come_last_and_are_counted() -> None:
    text = text_of(diagnosis(ILL))
    assert "\n1 problem, 1 note\n✗ OTEL_TRACES_SAMPLER=always_off" in text
    assert text.rstrip().endswith("fix: leave it so, or set OTEL_METRICS_EXPORTER=otlp")
