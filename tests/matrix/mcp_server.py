# SPDX-License-Identifier: Apache-2.0
"""A real MCP server over stdio, whose one tool returns the ``_meta`` that it was called with.

Its digits are spelt as letters, because the kernel takes some runs of digits for phone numbers and
redacts them on the way back.
"""

from __future__ import annotations

import json
from typing import Any

from mcp.server.fastmcp import Context, FastMCP  # type: ignore[import-not-found, unused-ignore]

IN_LETTERS = str.maketrans("0123456789", "ghijklmnop")

server: Any = FastMCP("meta", log_level="ERROR")


@server.tool(name="items.list")  # type: ignore[untyped-decorator, unused-ignore]
def tell_meta(ctx: Context) -> str:  # type: ignore[type-arg, unused-ignore]
    """The request's own ``_meta``, as JSON."""
    given = ctx.request_context.meta
    meta = {} if given is None else given.model_dump(exclude_none=True)
    return json.dumps(meta).translate(IN_LETTERS)


if __name__ == "__main__":
    server.run("stdio")
