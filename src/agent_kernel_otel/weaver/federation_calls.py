# SPDX-License-Identifier: Apache-2.0
"""Discovering peers and importing what they offer: counts, and nothing that names a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import Attributes
from agent_kernel_otel.weaver.calls import KernelCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation


class DiscoverCall(KernelCall):
    """``Kernel.discover_peers``: counts, and no address and no remote id."""

    __slots__ = ()

    name = semconv.DISCOVER

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],  # noqa: ARG002
        *,
        telling: bool,
    ) -> None:
        super().__init__(instrumentation, kernel)
        if telling:
            self.open()

    def describe(self, result: Any) -> None:
        """Add how much was found."""
        self.late[semconv.FEDERATION_PEERS] = len(result)
        found = sum(len(manifest.capabilities) for manifest in result)
        self.late[semconv.FEDERATION_CAPABILITIES] = found


class ImportCall(KernelCall):
    """``Kernel.import_remote``: counts and the trust policy, and no remote id."""

    __slots__ = ("_trust_policy",)

    name = semconv.IMPORT

    def __init__(
        self,
        instrumentation: WeaverInstrumentation,
        kernel: Any,
        args: Sequence[Any],  # noqa: ARG002 - all calls are made alike
        kwargs: Mapping[str, Any],
        *,
        telling: bool,
    ) -> None:
        self._trust_policy = kwargs.get("trust_policy", "most_restrictive")
        super().__init__(instrumentation, kernel)
        if telling:
            self.open()

    def start_attributes(self) -> Attributes:
        """Add the trust policy."""
        trust_policy = identifier(self._trust_policy) or ""
        return {**super().start_attributes(), semconv.FEDERATION_TRUST_POLICY: trust_policy}

    def describe(self, result: Any) -> None:
        """Add how much was imported."""
        self.late[semconv.FEDERATION_CAPABILITIES] = len(result)
