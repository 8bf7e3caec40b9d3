# SPDX-License-Identifier: Apache-2.0
"""An agent whose tool is an agent of Kelpie's; the kernel knows nothing of that.

python tests/backends/kelpie_client.py URL AGENT_ID
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any
from urllib.request import Request, urlopen

from opentelemetry import trace
from weaver_kernel.drivers.base import ExecutionContext

from tests.support.kernels import ALICE, grant, make_kernel, memory_driver

_tracer = trace.get_tracer("an.app")


def main() -> None:
    url, agent_id = sys.argv[1:]
    secret = os.environ["AGENT_SECRET"]

    def answer(context: ExecutionContext) -> Any:
        # The line that an app adds: which agent it talks to, in the words of the GenAI conventions.
        about = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": agent_id}
        with _tracer.start_as_current_span("invoke_agent", attributes=about):
            for path in ("messages", f"archival?q={secret}"):
                # Nothing but http is asked for.
                urlopen(Request(f"{url}/v1/agents/{agent_id}/{path}", data=secret.encode())).close()
        return [{"id": 1}]

    kernel = make_kernel(memory_driver(answer=answer))
    token = grant(kernel).token
    asyncio.run(kernel.invoke(token, principal=ALICE, args={"text": secret}))


if __name__ == "__main__":
    main()
