# SPDX-License-Identifier: Apache-2.0
"""What every start logs at debug is what the doctor says, with nobody asked."""

from __future__ import annotations

import logging

import pytest

from agent_kernel_otel.doctor import at_start
from agent_kernel_otel.doctor.at_start import log_diagnosis


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_LOG_LEVEL", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.invalid:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary")


def test_at_debug_the_doctors_text_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, at_start.__name__):
        log_diagnosis()
    (record,) = caplog.records
    text = record.getMessage()
    assert "configured by" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in text
    assert "grpc → http://collector.invalid:4317" in text
    assert "canary" not in text
    assert "resolve" not in text


def test_above_debug_nothing_is_worked_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_start, "_text", pytest.fail)
    with caplog.at_level(logging.INFO, at_start.__name__):
        log_diagnosis()
    assert not caplog.records


def test_the_variable_prints_it_where_no_logging_is_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_LOG_LEVEL", "debug")
    log_diagnosis()
    assert "configured by" in capsys.readouterr().err


def test_a_fault_never_reaches_the_app(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise RuntimeError("ours")

    monkeypatch.setattr(at_start, "_text", fail)
    with caplog.at_level(logging.DEBUG, at_start.__name__):
        log_diagnosis()
