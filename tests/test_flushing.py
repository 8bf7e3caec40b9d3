# SPDX-License-Identifier: Apache-2.0
"""A flush where the providers are not the distro's: their answer, within the deadline."""

from __future__ import annotations

import subprocess
import sys

from tests.distro.zero_code import environment

PROVIDER = """
import threading, time
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from agent_kernel_otel import flush
class Processor(SpanProcessor):
    def force_flush(self, timeout_millis=30000):
        {answer}
provider = TracerProvider()
provider.add_span_processor(Processor())
trace.set_tracer_provider(provider)
began = time.monotonic()
print(flush(0.2), time.monotonic() - began < 5)
"""


def printed(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_answer_of_other_providers_is_passed_on() -> None:
    assert printed(PROVIDER.format(answer="return True")) == "True True"
    assert printed(PROVIDER.format(answer="return False")) == "False True"


def test_a_provider_that_does_not_return_does_not_hold_up_the_caller() -> None:
    assert printed(PROVIDER.format(answer="threading.Event().wait()")) == "False True"


def test_where_nothing_is_set_up_there_is_nothing_to_wait_for() -> None:
    assert printed("from agent_kernel_otel import flush; print(flush())") == "True"
