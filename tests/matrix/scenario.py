# SPDX-License-Identifier: Apache-2.0
"""Takes one release of weaver-kernel through everything it can do, and prints the traces.

Runs inside the environment of that release. It looks at what the release offers and never at its
version, and leaves the judging to ``expected.py``.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import sys
from typing import Any

from opentelemetry import trace

import agent_kernel_otel
from tests.matrix.recording import PROVIDERS, Seen, forget, recorder, tree
from tests.matrix.scenes import SCENES, ask, framed
from tests.matrix.world import AGENT, FEATURES, Kernel, audited, lib, make_kernel

counted: dict[str, dict[str, Any]] = {}
"""By scene, what was counted of it, without what is 0, and how many audit records it left."""


def play(name: str, function: Any) -> tuple[list[dict[str, Any]], Seen]:
    forget()
    agent_kernel_otel.stats.reset()
    before = audited()
    seen = asyncio.run(function())
    numbers = dict(vars(agent_kernel_otel.stats.snapshot()))
    del numbers["counts"]
    numbers["denials_by_reason"] = dict(numbers["denials_by_reason"])
    counted[name] = {
        "counts": {field: number for field, number in numbers.items() if number},
        "audited": audited() - before,
    }
    if trace.get_current_span().get_span_context().is_valid:
        recorder.faults.append(f"{function.__name__} left a span current")
    for span_id in recorder.open:
        recorder.faults.append(f"{function.__name__} left {recorder.names[span_id]} open")
    recorder.open.clear()
    return tree(seen), seen


def every_attribute() -> dict[str, Any]:
    """All that an instrumentation could replace: the class, and the globals of its modules."""
    found = {f"Kernel.{name}": value for name, value in vars(Kernel).items()}
    for name, module in list(sys.modules.items()):
        if name == lib.__name__ or name.startswith(lib.__name__ + "."):
            found.update({f"{name}:{key}": value for key, value in vars(module).items()})
    return found


def not_restored(before: dict[str, Any]) -> list[str]:
    after = every_attribute()
    missing = object()
    names = before.keys() | after.keys()
    return sorted(n for n in names if before.get(n, missing) is not after.get(n, missing))


async def invoke_two_kernels() -> Seen:
    chosen, other = make_kernel(), make_kernel()
    agent_kernel_otel.instrument_kernel(chosen, **PROVIDERS)
    await other.invoke(ask(other, "items.list").token, principal=AGENT, args={})
    token = ask(chosen, "items.list").token
    seen = framed(await chosen.invoke(token, principal=AGENT, args={}), token)
    agent_kernel_otel.uninstrument_kernel(chosen)
    await chosen.invoke(ask(chosen, "items.list").token, principal=AGENT, args={})
    return seen


async def grant_and_invoke() -> Seen:
    kernel = make_kernel(**({"budget_manager": lib.BudgetManager()} if FEATURES["budget"] else {}))
    token = ask(kernel, "items.list").token
    return framed(await kernel.invoke(token, principal=AGENT, args={}), token)


def main() -> None:
    logging.getLogger(lib.__name__).setLevel(logging.CRITICAL)  # it tells of each denial
    played: dict[str, Any] = {}
    play("", grant_and_invoke)  # whatever the kernel itself sets up at its first use is not ours
    before = every_attribute()
    played["not instrumented"] = play("not instrumented", grant_and_invoke)
    restored = {}

    instrumentor = agent_kernel_otel.KernelInstrumentor()
    instrumentor.instrument(**PROVIDERS)
    for name, (needs, function) in SCENES.items():
        if needs is None or FEATURES[needs]:
            played[name] = play(name, function)
    instrumentor.uninstrument()
    restored["uninstrument"] = not_restored(before)
    played["uninstrumented"] = play("uninstrumented", grant_and_invoke)

    for _ in range(2):
        instrumentor.instrument(**PROVIDERS, span_level="debug")
        again = "instrumented again, at level debug"
        played[again] = play(again, grant_and_invoke)
        instrumentor.uninstrument()
    restored["second uninstrument"] = not_restored(before)

    played["one kernel of two"] = play("one kernel of two", invoke_two_kernels)
    restored["uninstrument_kernel"] = not_restored(before)

    print(
        json.dumps(
            {
                "release": importlib.metadata.version("weaver-kernel"),
                "features": sorted(name for name, present in FEATURES.items() if present),
                "scenes": {name: trees for name, (trees, _) in played.items()},
                "counted": {name: counted[name] for name in played},
                "seen": {name: seen for name, (_, seen) in played.items()},
                "not restored": restored,
                "faults": recorder.faults,
            }
        )
    )


if __name__ == "__main__":
    main()
