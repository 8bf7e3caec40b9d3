# SPDX-License-Identifier: Apache-2.0
"""What is said of a kernel and of its capabilities on each of its operations, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.by_kernel import ByKernel
from agent_kernel_otel.counts import Cell, CountGroup, Counts
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import Attributes
from agent_kernel_otel.weaver.outcomes import is_foreign
from agent_kernel_otel.weaver.reading import describe_capability, read, read_id, registered
from agent_kernel_otel.weaver.series import (
    CapabilityCounts,
    KernelCounts,
    attempt_series,
    capability_labels,
    has_room_for,
    safety_label,
)
from agent_kernel_otel.weaver.sessions import SessionNames


@dataclass(slots=True)
class Described:
    """What is said and counted of a capability, and what that was made of.

    Attributes:
        attributes: Of an operation on it. Not to be changed.
        tool_attributes: The same, with what backends that know the GenAI conventions look for.
        counts: Where calls of it are counted.
    """

    capability: Any
    safety_class: Any
    sensitivity: Any
    description: Any
    attributes: Attributes
    tool_attributes: Attributes
    counts: CapabilityCounts


class KernelFacts:
    """One kernel's counts and its own attributes, and those of its capabilities.

    Args:
        kernel: The kernel; not kept.
        system: Value of ``agent_kernel.system``.
        counts: What is counted of the kernel.
        capability_limit: How many capabilities of the process metrics tell apart.

    Attributes:
        attributes: What is said of the kernel itself. Not to be changed.
        cells: Where what it does is counted.
        succeeded: Where successful attempts are counted, by driver, for those that have succeeded.
    """

    _REMEMBERED: Final = 1_000

    def __init__(self, kernel: Any, system: str, counts: Counts, capability_limit: int) -> None:
        self.counts = counts
        self.cells = KernelCounts(counts)
        self._of_labels: dict[tuple[str, str], CapabilityCounts] = {}
        self.attributes: Attributes = {semconv.SYSTEM: system}
        kernel_id = identifier(vars(kernel).get("_kernel_id"))
        if kernel_id is not None:
            self.attributes[semconv.KERNEL_ID] = kernel_id
        self._capability_limit = capability_limit
        self._begun = 0
        self._kinds: tuple[type, ...] = ()
        self._plain = False
        self.succeeded: dict[str, Cell] = {}
        self._attempts: dict[tuple[str, str, str | None], Cell] = {}
        self._capabilities: dict[str, Described] = {}

    def about(self, kernel: Any, capability_id: object) -> Described:
        """What is said and counted of an operation on a capability.

        Args:
            kernel: The kernel.
            capability_id: The id asked for; anything.
        """
        store = getattr(kernel.__dict__.get("_registry"), "_store", None)
        if type(capability_id) is str and type(store) is dict:
            capability = store.get(capability_id)
        else:
            capability = registered(kernel, capability_id)
        if type(capability_id) is not str or capability is None:
            return self._describe(capability_id, capability)
        known = self._capabilities.get(capability_id)
        if (
            known is None
            or known.capability is not capability
            # It is the app's object, and can have been changed.
            or known.safety_class is not capability.safety_class
            or known.sensitivity is not capability.sensitivity
            or known.description is not capability.description
        ):
            known = self._describe(capability_id, capability)
            if len(self._capabilities) >= self._REMEMBERED:
                self._capabilities.clear()
            self._capabilities[capability_id] = known
        return known

    def attempt_cell(self, driver_id: str, status: str, error_type: str | None) -> Cell:
        """Where a driver's attempt is counted."""
        cell = self._attempts.get((driver_id, status, error_type))
        if cell is None:
            cell = self.counts.cell(attempt_series(driver_id, status, error_type))
            if len(self._attempts) >= self._REMEMBERED:
                self._attempts.clear()
                self.succeeded.clear()
            self._attempts[driver_id, status, error_type] = cell
            if status == "success":
                self.succeeded[driver_id] = cell
        return cell

    def is_plain(self, kernel: Any) -> bool:
        """Whether all but the drivers and the budget is the kernel's own, and runs no other code."""
        own = vars(kernel)
        provider = own.get("_token_provider")
        kinds = (
            type(provider),
            type(getattr(provider, "_revocation", None)),
            type(own.get("_router")),
            type(own.get("_firewall")),
            type(own.get("_handle_store")),
            type(own.get("_trace_store")),
        )
        if kinds != self._kinds:
            self._kinds = kinds
            self._plain = not any(is_foreign(kind) for kind in kinds if kind is not NoneType)
        return self._plain

    def _describe(self, capability_id: object, capability: Any) -> Described:
        name = identifier(capability_id)
        attributes = dict(self.attributes)
        if name is not None:
            attributes[semconv.CAPABILITY_ID] = name
        describe_capability(capability, attributes)
        tool_attributes = {
            **attributes,
            semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
            semconv.GEN_AI_TOOL_TYPE: "function",
        }
        if name is not None:
            tool_attributes[semconv.GEN_AI_TOOL_NAME] = name
        description = identifier(read(capability, "description"))
        if description:
            tool_attributes[semconv.GEN_AI_TOOL_DESCRIPTION] = description
        return Described(
            capability,
            read(capability, "safety_class"),
            read(capability, "sensitivity"),
            read(capability, "description"),
            attributes,
            tool_attributes,
            self.counts_of(*self._labels(name, capability)),
        )

    def _labels(self, name: str | None, capability: Any) -> tuple[str, str]:
        if capability is None:
            name = None
        safety_class = read_id(capability, "safety_class")
        return capability_labels(name, safety_class, self._capability_limit)

    def begin_at_zero(self, kernel: Any) -> None:
        """Have the counts of registered capabilities begin at 0, so that the first is an increase.

        Only where metrics can tell all of them apart; else those that are used come first.
        """
        store = getattr(vars(kernel).get("_registry"), "_store", None)
        if not isinstance(store, dict) or len(store) == self._begun:
            return
        self._begun = len(store)
        pairs = [(identifier(name), capability) for name, capability in list(store.items())]
        wanted = [(name, safety_label(read_id(one, "safety_class"))) for name, one in pairs]
        if has_room_for(wanted, self._capability_limit):
            for name, capability in pairs:
                self.counts_of(*self._labels(name, capability))

    def counts_of(self, capability: str, safety_class: str) -> CapabilityCounts:
        """Where calls of a capability are counted, by its labels."""
        known = self._of_labels.get((capability, safety_class))
        if known is None:
            known = CapabilityCounts(self.counts, capability, safety_class)
            self._of_labels[capability, safety_class] = known
        return known


class KernelTable:
    """The facts of each kernel, kept while it lives.

    Args:
        system: Value of ``agent_kernel.system``.
        sessions: Names the budget sessions.
        first_met: Called with each kernel when it is met for the first time.
        group: What is counted of all of them.
        capability_limit: How many capabilities of the process metrics tell apart.

    Attributes:
        facts: Those of each kernel that was met, by its ``id()``.
        met: How many kernels there have been.
    """

    def __init__(
        self,
        system: str,
        sessions: SessionNames,
        first_met: Callable[[Any], None],
        group: CountGroup,
        capability_limit: int,
    ) -> None:
        self._system = system
        self._group = group
        self._capability_limit = capability_limit
        self._first_met = first_met
        self._sessions = sessions
        self.facts: ByKernel[KernelFacts] = ByKernel()
        self.met = 0

    def of(self, kernel: Any) -> KernelFacts:
        """The facts of a kernel."""
        return self.facts.get(id(kernel)) or self._learn(kernel)

    def _learn(self, kernel: Any) -> KernelFacts:
        facts = KernelFacts(kernel, self._system, self._group.of(kernel), self._capability_limit)
        self.facts.put(kernel, facts)
        self.met += 1
        self._first_met(kernel)
        return facts

    def alive(self) -> list[Any]:
        """The kernels met that are still there."""
        kernels = [reference() for reference in list(self.facts.owners.values())]
        return [kernel for kernel in kernels if kernel is not None]

    def session_of(self, kernel: Any) -> str | None:
        """The kernel's budget session; ``None`` where it has no budget manager."""
        if kernel.__dict__.get("_budget_manager") is None:
            return None
        return self._sessions.of(kernel)
