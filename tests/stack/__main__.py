# SPDX-License-Identifier: Apache-2.0
"""``make stack``: the stack with the demo, until Ctrl-C; nothing of it is left behind."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import quote

from agent_kernel_otel import semconv
from tests.stack.programs import Program
from tests.stack.stack import Stack

_WHERE = """
The stack is running, with a demo of agents in trouble. Look at

  traces    {jaeger}/search?service={service}
  denials   {jaeger}/search?service={service}&tags={denied}
  metrics   {prometheus}/graph?g0.tab=0&g0.expr={rates}
  alerts    {prometheus}/alerts and, in some minutes, {alertmanager}/#/alerts
  files     {folder} (logs, data; removed at the end)

Send your own: OTEL_EXPORTER_OTLP_ENDPOINT={otlp} opentelemetry-instrument python app.py
The dashboards need Grafana: agent-kernel-otel dashboards, or docker compose (collector-config/stack).
A Jaeger that was built here has no web page of its own; JAEGER=/path/to/jaeger takes a released one.

Ctrl-C ends it all.
"""
_SERVICE = "support-desk"
_RATES = (
    f"sum by ({semconv.STATUS.replace('.', '_')}) (rate({semconv.INVOCATIONS.prometheus_name}[1m]))"
)
_ENOUGH = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _where(stack: Stack) -> str:
    return _WHERE.format(
        jaeger=stack.address("jaeger", 16686),
        prometheus=stack.address("prometheus", 9090),
        alertmanager=stack.address("alertmanager", 9093),
        otlp=stack.address("collector", 4317),
        service=_SERVICE,
        denied=quote(json.dumps({semconv.STATUS: "denied"})),
        rates=quote(_RATES),
        folder=stack.folder,
    )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in _ENOUGH:
        signal.signal(each, signal.SIG_IGN)  # once is enough: what has been started is being ended
    raise KeyboardInterrupt


def _until_one_ends(programs: list[Program]) -> Program:
    while True:
        for program in programs:
            if program.ended:
                return program
        threading.Event().wait(0.5)


def main() -> int:
    """Run until Ctrl-C, or until one of the programs ends by itself."""
    for each in _ENOUGH:
        signal.signal(each, _stop)
    with ExitStack() as running:
        try:
            folder = Path(
                running.enter_context(tempfile.TemporaryDirectory(prefix="agent-kernels-"))
            )
            stack = running.enter_context(Stack(folder))
            demos = [
                running.enter_context(stack.demo(name)) for name in ("demo", "demo-misconfigured")
            ]
            print(_where(stack), flush=True)
            ended = _until_one_ends([*stack.programs.values(), *demos])
            print(f"{ended.name} has ended:\n{ended.log()[-2000:]}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nending ...", flush=True)
            return 0
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
