# SPDX-License-Identifier: Apache-2.0
"""The page of metrics that Kelpie serves, as its exporter writes it, and a server that shows it.

Kelpie itself does not build; its text is known from its source and that of its exporter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Final

from tests.support.serving import Serving

BOUNDS: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
SCOPE: Final = 'otel_scope_name="kelpie"'


@dataclass(frozen=True)
class State:
    """What a server has done since it started.

    Attributes:
        uptime: Seconds since then.
        agents: Agents in storage.
        calls: How many operations ended, by operation and status.
        seconds: How long each of an operation took, in the order of their end, over and over.
        activated: Activations of actors.
        deactivated: Agents that were deleted.
    """

    uptime: int
    agents: int
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[str, tuple[float, ...]] = field(default_factory=dict)
    activated: int = 0
    deactivated: int = 0


_SECONDS: Final = {
    "create": (0.0, 0.001),
    "handle_message_full": (3.2, 0.8, 7.5),
    "continue_with_tool_results": (1.5,),
    "delete_agent": (0.002,),
}


def _worked(times: int, uptime: int) -> State:
    return State(
        uptime,
        agents=3,
        calls={
            ("create", "success"): 12 * times,
            ("handle_message_full", "success"): 18 * times,
            ("handle_message_full", "error"): 2 * times,
            ("handle_message_full", "forwarded"): 3 * times,
            ("handle_message_full", "forward_error"): times,
            ("continue_with_tool_results", "success"): 30 * times,
            ("delete_agent", "success"): times,
        },
        seconds=_SECONDS,
        activated=12 * times,
        deactivated=times,
    )


HISTORY: Final = (State(3, 3), _worked(1, 60), _worked(3, 120), _worked(1, 5), _worked(2, 40))
"""A cold start, work, and a restart after which the counters begin anew."""


def page(state: State) -> str:
    """The text of a server in a state; of what never happened it has no word."""
    families = [
        _counter("kelpie_agents_activated_total", "agent activations", {"": state.activated}),
        _counter("kelpie_agents_deactivated_total", "agent deactivations", {"": state.deactivated}),
        _histogram(state),
        _counter(
            "kelpie_invocations_total",
            "invocations",
            {
                f'operation="{operation}",status="{status}",': count
                for (operation, status), count in sorted(state.calls.items())
            },
        ),
        _gauge("otel_scope_info", "Instrumentation Scope metadata", f"{{{SCOPE}}} 1")
        if state.calls
        else "",
        _gauge("target_info", "Target metadata", '{service_name="kelpie"} 1'),
        "\n"
        + _gauge(
            "kelpie_agents_active_count", "Current number of active agents", f" {state.agents}"
        ),
        "\n"
        + _gauge("kelpie_server_uptime_seconds", "Server uptime in seconds", f" {state.uptime}"),
    ]
    return "".join(families)


def repaired(text: str) -> str:
    """The page with the names that the Collector gives its counters."""
    return re.sub(r"\b(kelpie_\w+)_total_total\b", r"\1_total", text)


def _counter(name: str, what: str, counts: dict[str, int]) -> str:
    # The exporter appends its suffix to a name that has it.
    name += "_total"
    samples = [f"{name}{{{labels}{SCOPE}}} {count}\n" for labels, count in counts.items() if count]
    if not samples:
        return ""
    return f"# HELP {name} Total number of {what}\n# TYPE {name} counter\n" + "".join(samples)


def _gauge(name: str, what: str, sample: str) -> str:
    return f"# HELP {name} {what}\n# TYPE {name} gauge\n{name}{sample}\n"


def _histogram(state: State) -> str:
    name = "kelpie_invocation_duration_seconds"
    calls: Counter[str] = Counter()
    for (operation, _), count in state.calls.items():
        calls[operation] += count
    if not calls:
        return ""
    lines = [f"# HELP {name} Invocation duration in seconds", f"# TYPE {name} histogram"]
    for operation, count in sorted(calls.items()):
        taken = [state.seconds[operation][n % len(state.seconds[operation])] for n in range(count)]
        lines += _of_operation(name, f'operation="{operation}",{SCOPE}', taken)
    return "\n".join(lines) + "\n"


def _of_operation(name: str, labels: str, taken: list[float]) -> Iterator[str]:
    for bound in BOUNDS:
        yield f'{name}_bucket{{{labels},le="{bound}"}} {sum(t <= bound for t in taken)}'
    yield f'{name}_bucket{{{labels},le="+Inf"}} {len(taken)}'
    yield f"{name}_sum{{{labels}}} {sum(taken):g}"
    yield f"{name}_count{{{labels}}} {len(taken)}"


class KelpieStub(Serving):
    """Serves the page; a context manager.

    Args:
        repaired: Whether the names are as the Collector repairs them.
    """

    def __init__(self, *, repaired: bool = False) -> None:
        self._repaired = repaired
        self.show(HISTORY[0])
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = stub._text.encode() if self.path == "/metrics" else b""
                self.send_response(200 if text else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
                """Say nothing."""

        super().__init__(Handler)

    def show(self, state: State) -> None:
        """Be in another state from now on."""
        text = page(state)
        self._text = repaired(text) if self._repaired else text
