# SPDX-License-Identifier: Apache-2.0
"""A real MCP server over stdio, whose one tool returns the ``_meta`` that it was called with."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.fastmcp import Context, FastMCP  # type: ignore[import-not-found, unused-ignore]

server: Any = FastMCP("meta", log_level="ERROR")


@server.tool(name="items.list")  # type: ignore[untyped-decorator, unused-ignore]
def meta(ctx: Context) -> str:  # type: ignore[type-arg, unused-ignore]
    """The request's own ``_meta``, as JSON."""
    given = ctx.request_context.meta
    return json.dumps({} if given is None else given.model_dump(exclude_none=True))


if __name__ == "__main__":
    server.run("stdio")
