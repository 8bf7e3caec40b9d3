# SPDX-License-Identifier: Apache-2.0
"""Names for the budget sessions of kernels."""

from __future__ import annotations

from typing import Any

from agent_kernel_otel.by_kernel import ByKernel
from agent_kernel_otel.config import SessionNamer
from agent_kernel_otel.faults import faults
from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.scrub import identifier


class SessionNames:
    """One name for each kernel that has a budget, kept while the kernel lives.

    Args:
        setting: A fixed name, a callable that is asked once for each kernel, or ``None`` for
            generated names: ``{kernel_id}-{n}`` with the smallest free n, so that kernels made
            for each request use names again instead of making ever new ones.
    """

    def __init__(self, setting: str | SessionNamer | None) -> None:
        self._setting = setting
        self._names: ByKernel[str] = ByKernel()
        self._lock = SafeLock()

    def of(self, kernel: Any) -> str:
        """The session of a kernel."""
        name = self._names.get(id(kernel))
        return self._name(kernel) if name is None else name

    def _name(self, kernel: Any) -> str:
        given = self._ask(kernel)
        with self._lock:
            known = self._names.get(id(kernel))
            if known is not None:
                return known  # another thread has named it meanwhile
            name = given or self._generated(kernel)
            self._names.put(kernel, name)
        return name

    def _ask(self, kernel: Any) -> str | None:
        setting = self._setting
        if not callable(setting):
            return identifier(setting)
        try:
            return identifier(setting(kernel))
        except Exception:
            faults.swallow("asking the session callable for a name")
            return None

    def _generated(self, kernel: Any) -> str:
        prefix = identifier(vars(kernel).get("_kernel_id")) or "agent-kernel"
        taken = set(self._names.values())
        number = 1
        while f"{prefix}-{number}" in taken:
            number += 1
        return f"{prefix}-{number}"
