# SPDX-License-Identifier: Apache-2.0
"""Exceptions, tokens and ids whose own methods raise cost neither the call nor its span."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from weaver_kernel import DriverError, HMACTokenProvider, TokenScopeError

from agent_kernel_otel import instrument_kernel, semconv, uninstrument_kernel
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import PrincipalRedactor
from tests.support.capture import Capture
from tests.support.kernels import ALICE, BOB, grant, make_kernel, token_of


class _Incomparable(str):
    """An id that cannot be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> NoReturn:
        raise RuntimeError("compared")

    __ne__ = __eq__


async def test_an_id_that_cannot_be_compared_leaves_the_kernels_own_error(capture: Capture) -> None:
    class Provider(HMACTokenProvider):
        def verify(self, token: Any, **expected: Any) -> None:
            raise TokenScopeError("not yours")

    kernel = make_kernel(token_provider=Provider(secret="test-signing-key"))
    token = token_of(kernel)
    token.principal_id = _Incomparable("alice")
    with pytest.raises(TokenScopeError):
        await kernel.invoke(token, principal=BOB, args={})
    policy = capture.root().only(semconv.POLICY)
    assert policy[semconv.REASON_CODE] == "token_principal_mismatch"
    assert semconv.STATUS not in policy.attributes, "a policy span has an outcome, no status"


async def test_a_token_whose_properties_raise_fails_in_the_kernel_and_is_traced(
    capture: Capture,
) -> None:
    class Token:
        @property
        def capability_id(self) -> NoReturn:
            raise LookupError("gone")

    with pytest.raises(LookupError):
        await make_kernel().invoke(Token(), principal=ALICE, args={})  # type: ignore[call-overload]
    invoke = capture.root()
    assert invoke[semconv.STATUS] == "error"
    assert invoke[semconv.ERROR_TYPE] == "LookupError"


async def test_an_exception_whose_text_raises_still_gives_its_event() -> None:
    class MuteError(DriverError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Router:
        def route(self, capability_id: str) -> NoReturn:
            raise MuteError

    captured = Capture()
    kernel = make_kernel(router=Router())
    token = grant(kernel).token
    instrument_kernel(kernel, **captured.providers, capture_exception_text=True)
    with pytest.raises(MuteError):
        await kernel.invoke(token, principal=ALICE, args={})
    uninstrument_kernel(kernel)
    event = captured.events(semconv.INVOKE_EXCEPTION)[0]
    assert event.attributes[semconv.EXCEPTION_MESSAGE] == ""
    assert event.attributes[semconv.ERROR_TYPE].endswith("MuteError")


async def test_a_class_name_that_cannot_be_encoded_is_mended(capture: Capture) -> None:
    odd = type("Odd", (Exception,), {"__qualname__": "Odd\ud800"})

    class Router:
        def route(self, capability_id: str) -> NoReturn:
            raise odd

    kernel = make_kernel(router=Router())
    token = grant(kernel).token
    capture.clear()
    with pytest.raises(odd):
        await kernel.invoke(token, principal=ALICE, args={})
    assert capture.root()[semconv.ERROR_TYPE] == "Odd?"


async def test_a_policy_span_ends_where_its_event_cannot_be_emitted() -> None:
    class Logger:
        def emit(self, **_: Any) -> NoReturn:
            raise RuntimeError("broken")

    captured = Capture()
    kernel = make_kernel()
    token = grant(kernel).token
    faults.reraise = False
    instrument_kernel(
        kernel,
        tracer_provider=captured.tracer_provider,
        logger_provider=SimpleNamespace(get_logger=lambda *_, **__: Logger()),
    )
    with pytest.raises(TokenScopeError):
        await kernel.invoke(token, principal=BOB, args={})
    uninstrument_kernel(kernel)
    assert captured.root().only(semconv.POLICY)[semconv.POLICY_OUTCOME] == "denied"
    captured.check()


def test_hashes_without_a_key_agree_within_the_process() -> None:
    hashed = PrincipalRedactor("hash")("alice")
    assert hashed == PrincipalRedactor("hash")("alice") != "alice"
