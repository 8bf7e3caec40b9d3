# SPDX-License-Identifier: Apache-2.0
"""Coroutines that are stepped by hand, in the caller's own context, and left there."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from typing import Any, cast

import pytest

from agent_kernel_otel.current import come_back, current_operation
from tests.support.collaborators import raw
from tests.support.instrumented import instrumented
from tests.support.kernels import ALICE, grant, make_kernel, token_of


class _Waiting:
    """A driver that never answers."""

    driver_id = "waiting"

    async def execute(self, ctx: Any) -> Any:
        await _Pause()
        return raw(ctx)


class _Pause:
    def __await__(self) -> Any:
        yield


class _Closing:
    """A policy engine in whose midst such a coroutine is finalised."""

    def __init__(self, left: list[Any]) -> None:
        self._left = left

    def evaluate(self, request: Any, capability: Any, principal: Any, *, justification: str) -> Any:
        self._left.clear()
        raise ConnectionError


def test_one_that_is_finalised_in_the_midst_of_another_call_hurts_neither() -> None:
    copy_context().run(_leave_one)  # what it leaves current stays in there


def _leave_one() -> None:
    with instrumented() as captured:
        kernel = make_kernel(_Waiting())
        left: list[Any] = [kernel.invoke(token_of(kernel), principal=ALICE, args={})]
        left[0].send(None)
        other = make_kernel(policy=_Closing(left))
        with suppress(ConnectionError):
            grant(other)
        assert current_operation() is None
        assert len(captured.spans()) > 2


@pytest.mark.parametrize(("error", "undone"), [(ValueError, False), (LookupError, True)], ids=str)
def test_a_marker_that_cannot_be_undone_raises_nothing(
    error: type[Exception], undone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def reset(self, _: Any) -> None:
            raise error

    monkeypatch.setattr("agent_kernel_otel.current._current", Gone())
    assert come_back(cast("Any", None)) is undone
