# SPDX-License-Identifier: Apache-2.0
"""A kernel that knows no telemetry, and writes its audit trail into a file: ``audited.py FILE``."""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path

from weaver_kernel import PolicyDenied
from weaver_kernel.stores import JsonlTraceStore

TOUR = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "tour.py"))


async def main(path: str) -> None:
    kernel, _ = TOUR["make_kernel"](trace_store=JsonlTraceStore(path))
    token = TOUR["grant"](kernel, "orders.list")
    for _ in range(100):
        await kernel.invoke(token, principal=TOUR["AGENT"], args={})
    try:
        TOUR["grant"](kernel, "customers.delete")
    except PolicyDenied:
        print("denied")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
