# SPDX-License-Identifier: Apache-2.0
"""The app's own collaborators, of every kind, meet the real objects and never a view."""

from __future__ import annotations

from typing import Any

import pytest
from weaver_kernel import BudgetManager, DriverError, HMACTokenProvider, Kernel

from tests.support.capture import Capture
from tests.support.kernels import ALICE, grant, make_kernel

_ATTRIBUTES = ("_policy", "_token_provider", "_router", "_drivers", "_firewall", "_budget_manager")


class Witness:
    """Compares what a collaborator sees of the kernel with what is there."""

    kernel: Kernel | None = None

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def look(self, from_where: str) -> None:
        if self.kernel is not None:
            self.seen.add(from_where)
            for name in _ATTRIBUTES:
                assert getattr(self.kernel, name) is vars(self.kernel)[name], (from_where, name)


async def test_a_budget_manager_meets_the_real_objects(capture: Capture) -> None:
    witness = Witness()

    class Budget(BudgetManager):
        async def allocate(self, requested: int | None = None) -> int:
            witness.look("allocate")
            return await super().allocate(requested)

        async def record_usage(self, actual: int, *, reserved: int | None = None) -> None:
            witness.look("record_usage")
            await super().record_usage(actual, reserved=reserved)

        async def release(self, reserved: int) -> None:
            witness.look("release")
            await super().release(reserved)

        def suggested_mode(self, requested: Any) -> Any:
            witness.look("suggested_mode")
            return super().suggested_mode(requested)

    kernel = make_kernel(budget_manager=Budget(10_000))
    token = grant(kernel).token
    witness.kernel = kernel
    await kernel.invoke(token, principal=ALICE, args={})
    vars(kernel)["_drivers"].clear()
    with pytest.raises(DriverError):
        await kernel.invoke(token, principal=ALICE, args={})
    assert witness.seen == {"allocate", "record_usage", "release", "suggested_mode"}


async def test_a_token_provider_meets_the_real_objects(capture: Capture) -> None:
    witness = Witness()

    class Provider(HMACTokenProvider):
        def issue(self, *args: Any, **kwargs: Any) -> Any:
            witness.look("issue")
            return super().issue(*args, **kwargs)

        def verify(self, *args: Any, **kwargs: Any) -> None:
            witness.look("verify")
            super().verify(*args, **kwargs)

    kernel = make_kernel(token_provider=Provider(secret="test-signing-key"))
    witness.kernel = kernel
    token = grant(kernel).token
    await kernel.invoke(token, principal=ALICE, args={})
    assert witness.seen == {"issue", "verify"}
