# SPDX-License-Identifier: Apache-2.0
"""For which kernels the instrumentation is active: all, some, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_kernel_otel.by_kernel import ByKernel

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


class Activation:
    """Which kernels are traced, and under which configuration.

    Attributes:
        everywhere: What traces each kernel that has no choice of its own.
        choices: What traces those that have one; ``None`` stands for "opted out".
    """

    def __init__(self) -> None:
        self.everywhere: WeaverInstrumentation | None = None
        self.choices: ByKernel[WeaverInstrumentation | None] = ByKernel()

    def of(self, kernel: Any) -> WeaverInstrumentation | None:
        """What traces this kernel, if anything does."""
        if self.choices:
            return self.choices.get(id(kernel), self.everywhere)
        return self.everywhere

    def is_needed(self) -> bool:
        """Whether any kernel is traced, or all that come will be."""
        return self.everywhere is not None or any(list(self.choices.values()))

    def propagated(self) -> frozenset[str]:
        """Into which requests any of the configurations wants the trace context written."""
        configured = [self.everywhere, *list(self.choices.values())]
        return frozenset[str]().union(
            *(one.telemetry.config.propagate_context for one in configured if one is not None)
        )

    def choose(self, kernel: Any, instrumentation: WeaverInstrumentation | None) -> None:
        """Trace one kernel by its own configuration, or with ``None`` not at all."""
        self.choices.put(kernel, instrumentation)

    def chosen(self, kernel: Any) -> bool:
        """Whether a kernel is traced by a configuration of its own."""
        return self.choices.get(id(kernel)) is not None

    def forget(self, kernel: Any) -> None:
        """Let what holds everywhere hold for this kernel too."""
        self.choices.drop(id(kernel))

    def forget_opt_outs(self) -> None:
        """Drop the choices that only an instrumentation of every kernel gives a meaning."""
        for key, instrumentation in list(self.choices.items()):
            if instrumentation is None:
                self.choices.drop(key)

    def kernels(self) -> list[Any]:
        """The kernels that have a configuration of their own, and are alive."""
        alive = [reference() for reference in list(self.choices.owners.values())]
        return [kernel for kernel in alive if kernel is not None and self.chosen(kernel)]


activation = Activation()
active = activation.of
