# SPDX-License-Identifier: Apache-2.0
"""An app whose telemetry goes to a collector that fails it; what it does and says must not change.

``python faulty_app.py exit|sigterm|fork|burst`` works, says ``ready``, waits for a line on its
standard input, works again, and then

* ``exit``: ends by itself, with :data:`EXIT_CODE`;
* ``sigterm``: waits to be ended;
* ``fork``: leaves that work to :data:`CHILDREN` forked children that end by themselves, each with a
  code of its own, and ends as above once they have;
* ``burst``: does much more of it, and ends as above.

Lines that start with ``at`` tell when something was, and how long its process had waited for a
processor by then; those that start with ``rss`` tell of memory; all others are the same in every
run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import weaver_kernel as wk
from opentelemetry import metrics
from weaver_kernel.models import CapabilityRequest

EXIT_CODE = 7
CHILDREN = 3
ORDERS = 40
ORDERS_OF_A_BURST = 7_500

_logger = logging.getLogger("faulty_app")
_orders = metrics.get_meter("faulty_app").create_counter("orders")
_agent = wk.Principal("agent-1", roles=["reader"])


def say(*words: object) -> None:
    # One write for each line, so that those of several processes do not mix.
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


def say_time(event: str, process: int) -> None:
    say("at", event, repr(time.monotonic()), repr(seconds_without_processor(process)))


def seconds_without_processor(process: int) -> float:
    """How long a process, running or ended and not reaped, has waited while others computed."""
    try:
        with open(f"/proc/{process}/schedstat") as told:  # noqa: PTH123 - the app knows no style
            return int(told.read().split()[1]) / 1e9
    except OSError:
        return 0.0  # a system that does not count it


def make_kernel() -> wk.Kernel:
    registry = wk.CapabilityRegistry()
    for name, safety in (("list", wk.SafetyClass.READ), ("purge", wk.SafetyClass.DESTRUCTIVE)):
        registry.register(wk.Capability(f"orders.{name}", name, f"{name} orders", safety))
    kernel = wk.Kernel(registry, router=wk.StaticRouter(fallback=["memory"]))
    driver = wk.InMemoryDriver("memory")
    driver.register_handler("orders.list", lambda context: [{"id": context.args["id"]}])
    kernel.register_driver(driver)
    return kernel


def grant(kernel: wk.Kernel, capability: str) -> Any:
    request = CapabilityRequest(capability, goal="serve")
    return kernel.grant_capability(request, _agent, justification="the customer asks").token


async def work(kernel: wk.Kernel, orders: int) -> str:
    rows = 0
    token = grant(kernel, "orders.list")
    for number in range(orders):
        frame = await kernel.invoke(token, principal=_agent, args={"id": number})
        rows += len(frame.facts)
        _logger.warning("order %d served", number)
        _orders.add(1)
    try:
        grant(kernel, "orders.purge")
    except wk.PolicyDenied as denied:
        return f"{rows} facts, purge denied: {denied.reason_code}"
    return f"{rows} facts"


def fork_children(kernel: wk.Kernel) -> None:
    names = {}
    for number in range(1, CHILDREN + 1):
        name = f"child-{number}"
        child = os.fork()
        if child == 0:
            say(name, asyncio.run(work(kernel, ORDERS)))
            say_time(f"end-{name}", os.getpid())
            sys.exit(number)
        names[child] = name
    while names:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        say_time(f"reaped-{names[ended.si_pid]}", ended.si_pid)
        _, status = os.waitpid(ended.si_pid, 0)
        say(names.pop(ended.si_pid), "exit code", os.waitstatus_to_exitcode(status))


def resident_kilobytes() -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123 - the app knows no style
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def main(mode: str) -> int:
    logging.basicConfig(stream=sys.stderr)
    kernel = make_kernel()
    say("first", asyncio.run(work(kernel, ORDERS)))
    say("ready")
    sys.stdin.readline()
    before = resident_kilobytes()
    if mode == "fork":
        fork_children(kernel)
    else:
        orders = ORDERS_OF_A_BURST if mode == "burst" else ORDERS
        say("second", asyncio.run(work(kernel, orders)))
    say("rss", resident_kilobytes() - before)
    say_time("end", os.getpid())
    while mode == "sigterm":
        # Not signal.pause(): it goes on for ever if the signal comes just before it does.
        time.sleep(0.05)
    return EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
