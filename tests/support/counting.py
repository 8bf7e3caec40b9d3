# SPDX-License-Identifier: Apache-2.0
"""What is counted belongs to the process: how one test does not see another's counts."""

from __future__ import annotations

from agent_kernel_otel import counts
from agent_kernel_otel.cardinality import Bounded
from agent_kernel_otel.weaver import series


def begin_anew() -> None:
    """Have all counts at 0, as a forked child has them, and every label free to be used."""
    counts.process._begin_anew()
    for name, value in vars(series).items():
        if isinstance(value, Bounded):
            value._admitted.clear()
        elif hasattr(value, "cache_clear"):
            assert value.__module__ == series.__name__, name
            value.cache_clear()
