# SPDX-License-Identifier: Apache-2.0
"""What is said of a kernel and of its capabilities on each of its operations, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import Attributes
from agent_kernel_otel.weaver.by_kernel import ByKernel
from agent_kernel_otel.weaver.reading import describe_capability
from agent_kernel_otel.weaver.sessions import SessionNames


@dataclass(slots=True)
class _Described:
    """A capability's attributes, and what they were made of."""

    capability: Any
    safety_class: Any
    sensitivity: Any
    description: Any
    attributes: Attributes
    tool_attributes: Attributes

    def still_holds(self, capability: Any) -> bool:
        """Whether the capability is the same and has not been changed."""
        return (
            self.capability is capability
            and self.safety_class is capability.safety_class
            and self.sensitivity is capability.sensitivity
            and self.description is capability.description
        )


class KernelFacts:
    """One kernel's own attributes, and those of its capabilities.

    Args:
        kernel: The kernel; not kept.
        system: Value of ``agent_kernel.system``.

    Attributes:
        attributes: What is said of the kernel itself. Not to be changed.
    """

    _REMEMBERED: Final = 1_000

    def __init__(self, kernel: Any, system: str) -> None:
        self.attributes: Attributes = {semconv.SYSTEM: system}
        kernel_id = identifier(vars(kernel).get("_kernel_id"))
        if kernel_id is not None:
            self.attributes[semconv.KERNEL_ID] = kernel_id
        self._capabilities: dict[str, _Described] = {}

    def about(self, capability_id: object, capability: Any, *, as_tool: bool) -> Attributes:
        """Attributes of an operation on a capability, for the caller to add to.

        Args:
            capability_id: The id asked for; anything.
            capability: The capability of that id, ``None`` where the kernel does not know it.
            as_tool: Whether to add what backends that know the GenAI conventions look for.
        """
        if type(capability_id) is str and capability is not None:
            known = self._capabilities.get(capability_id)
            if known is None or not known.still_holds(capability):
                known = self._describe(capability_id, capability)
            return dict(known.tool_attributes if as_tool else known.attributes)
        return self._attributes_of(capability_id, capability, as_tool=as_tool)

    def _describe(self, capability_id: str, capability: Any) -> _Described:
        described = _Described(
            capability,
            capability.safety_class,
            capability.sensitivity,
            capability.description,
            self._attributes_of(capability_id, capability, as_tool=False),
            self._attributes_of(capability_id, capability, as_tool=True),
        )
        if len(self._capabilities) >= self._REMEMBERED:
            self._capabilities.clear()
        self._capabilities[capability_id] = described
        return described

    def _attributes_of(
        self, capability_id: object, capability: Any, *, as_tool: bool
    ) -> Attributes:
        attributes = dict(self.attributes)
        name = identifier(capability_id)
        if name is not None:
            attributes[semconv.CAPABILITY_ID] = name
        describe_capability(capability, attributes)
        if as_tool:
            attributes[semconv.GEN_AI_OPERATION_NAME] = semconv.EXECUTE_TOOL
            attributes[semconv.GEN_AI_TOOL_TYPE] = "function"
            if name is not None:
                attributes[semconv.GEN_AI_TOOL_NAME] = name
            description = identifier(getattr(capability, "description", None))
            if description:
                attributes[semconv.GEN_AI_TOOL_DESCRIPTION] = description
        return attributes


class KernelTable:
    """The facts of each kernel, kept while it lives.

    Args:
        system: Value of ``agent_kernel.system``.
        sessions: Names the budget sessions.
        first_met: Called with each kernel when it is met for the first time.

    Attributes:
        met: How many kernels there have been.
    """

    def __init__(
        self, system: str, sessions: SessionNames, first_met: Callable[[Any], None]
    ) -> None:
        self._system = system
        self._first_met = first_met
        self._sessions = sessions
        self._facts: ByKernel[KernelFacts] = ByKernel()
        self.met = 0

    def of(self, kernel: Any) -> KernelFacts:
        """The facts of a kernel."""
        return self._facts.get(id(kernel)) or self._learn(kernel)

    def _learn(self, kernel: Any) -> KernelFacts:
        facts = KernelFacts(kernel, self._system)
        self._facts.put(kernel, facts)
        self.met += 1
        self._first_met(kernel)
        return facts

    def session_of(self, kernel: Any) -> str | None:
        """The kernel's budget session; ``None`` where it has no budget manager."""
        if kernel.__dict__.get("_budget_manager") is None:
            return None
        return self._sessions.of(kernel)
