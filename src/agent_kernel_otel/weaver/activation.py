# SPDX-License-Identifier: Apache-2.0
"""For which kernels the instrumentation is active: all, some, or none."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


class Activation:
    """Which kernels are traced, and under which configuration.

    Attributes:
        everywhere: What traces each kernel that has no choice of its own.
    """

    def __init__(self) -> None:
        self.everywhere: WeaverInstrumentation | None = None
        # By id: a subclass of the kernel may be unhashable. None stands for "opted out".
        self._choices: dict[int, tuple[weakref.ref[Any], WeaverInstrumentation | None]] = {}

    def of(self, kernel: Any) -> WeaverInstrumentation | None:
        """What traces this kernel, if anything does."""
        if self._choices:
            choice = self._choices.get(id(kernel))
            if choice is not None:
                return choice[1]
        return self.everywhere

    def choose(self, kernel: Any, instrumentation: WeaverInstrumentation | None) -> None:
        """Trace one kernel by its own configuration, or with ``None`` not at all."""
        key = id(kernel)
        reference = weakref.ref(kernel, lambda _: self._choices.pop(key, None))
        self._choices[key] = (reference, instrumentation)

    def chosen(self, kernel: Any) -> bool:
        """Whether a kernel is traced by a configuration of its own."""
        choice = self._choices.get(id(kernel))
        return choice is not None and choice[1] is not None

    def forget(self, kernel: Any) -> None:
        """Let what holds everywhere hold for this kernel too."""
        self._choices.pop(id(kernel), None)

    def forget_opt_outs(self) -> None:
        """Drop the choices that only an instrumentation of every kernel gives a meaning."""
        for key, (_, instrumentation) in list(self._choices.items()):
            if instrumentation is None:
                self._choices.pop(key, None)

    def kernels(self) -> list[Any]:
        """The kernels that have a configuration of their own, and are alive."""
        alive = [
            reference()
            for reference, instrumentation in list(self._choices.values())
            if instrumentation is not None
        ]
        return [kernel for kernel in alive if kernel is not None]


activation = Activation()
active = activation.of
