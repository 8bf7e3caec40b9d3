# SPDX-License-Identifier: Apache-2.0
"""Refused tokens and refused expansions: denials after the grant."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from weaver_kernel import (
    CapabilityToken,
    Handle,
    HandleConstraintViolation,
    HandleExpired,
    HandleNotFound,
    HandleStore,
    HMACTokenProvider,
    Kernel,
    Principal,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    TokenScopeError,
)

from agent_kernel_otel import semconv
from agent_kernel_otel.weaver.outcomes import token_reason_of
from tests.support.capture import Capture
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import ALICE, BOB, READ, StreamingDriver, make_kernel, token_of
from tests.support.refusals import check_denied, check_failed


def expired(kernel: Kernel) -> CapabilityToken:
    provider: HMACTokenProvider = vars(kernel)["_token_provider"]
    return provider.issue(READ, "alice", ttl_seconds=-1)


def revoked(kernel: Kernel) -> CapabilityToken:
    token = token_of(kernel)
    vars(kernel)["_token_provider"].revoke(token.token_id)
    return token


def forged(kernel: Kernel) -> CapabilityToken:
    return dataclasses.replace(token_of(kernel), signature="0" * 64)


def of_another_capability(kernel: Kernel) -> CapabilityToken:
    return dataclasses.replace(token_of(kernel), capability_id="tasks.add")


REFUSED: list[tuple[Callable[[Kernel], CapabilityToken], Principal, type[Exception], str]] = [
    (expired, ALICE, TokenExpired, "token_expired"),
    (revoked, ALICE, TokenRevoked, "token_revoked"),
    (forged, ALICE, TokenInvalid, "token_invalid"),
    (of_another_capability, ALICE, TokenInvalid, "token_invalid"),
    (token_of, BOB, TokenScopeError, "token_principal_mismatch"),
]


@pytest.mark.parametrize(("make", "principal", "kind", "code"), REFUSED)
@pytest.mark.parametrize("how", ["invoke", "stream", "dry run"])
async def test_a_refused_token_is_a_denial_at_enforcement(
    capture: Capture,
    make: Callable[[Kernel], CapabilityToken],
    principal: Principal,
    kind: type[Exception],
    code: str,
    how: str,
) -> None:
    driver = StreamingDriver()
    kernel = make_kernel(driver)
    token = make(kernel)
    call: Any
    if how == "stream":
        call = drain(open_stream(kernel, token=token, principal=principal))
    elif how == "dry run":
        call = kernel.invoke(token, principal=principal, args={}, dry_run=True)
    else:
        call = kernel.invoke(token, principal=principal, args={})
    with pytest.raises(kind) as raised:
        await call
    root = check_denied(
        capture, semconv.INVOKE,
        error=raised.value, phase="enforce", engine="HMACTokenProvider",
        code=code, category="token",
    )  # fmt: skip
    assert [child.name for child in root.children] == [semconv.POLICY]
    assert root[semconv.TOKEN_ID] == token.token_id
    assert root[semconv.DRY_RUN] is (how == "dry run")
    assert root.get(semconv.STREAM_END) == ("failed" if how == "stream" else None)
    assert root.get(semconv.DRIVER_ID) is None
    assert root.get(semconv.ACTION_ID) is None
    assert not driver.closed
    assert str(raised.value) not in capture.exported_text()


class CodedError(Exception):
    reason_code = "mfa_required"


class ExpiredYesterday(TokenExpired):
    pass


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (CodedError("no"), "mfa_required", "other"),
        (ExpiredYesterday("no"), "token_expired", "token"),
        (TokenScopeError("neither id differs"), None, None),
    ],
    ids=repr,
)
async def test_a_token_provider_of_the_apps_own_may_refuse_in_its_own_way(
    capture: Capture, error: Exception, code: str | None, category: str | None
) -> None:
    tracer = capture.tracer_provider.get_tracer("app")

    class Provider(HMACTokenProvider):
        def verify(self, *args: Any, **kwargs: Any) -> None:
            with tracer.start_as_current_span(
                "ask the key server", record_exception=False, set_status_on_exception=False
            ):
                raise error

    kernel = make_kernel(token_provider=Provider(secret="test-signing-key"))
    with pytest.raises(type(error)) as raised:
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert raised.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "verify"
    root = check_denied(
        capture, semconv.INVOKE, error=error, phase="enforce", engine="Provider",
        code=code, category=category,
    )  # fmt: skip
    assert root.only(semconv.POLICY).only("ask the key server")


@pytest.mark.parametrize("error", [OSError("key server"), KeyError("k")], ids=repr)
async def test_a_token_provider_that_crashes_has_decided_nothing(
    capture: Capture, error: Exception
) -> None:
    class Provider(HMACTokenProvider):
        def verify(self, *args: Any, **kwargs: Any) -> None:
            raise error

    kernel = make_kernel(token_provider=Provider(secret="test-signing-key"))
    with pytest.raises(type(error)) as raised:
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert raised.value is error
    policy = check_failed(capture, semconv.INVOKE, error).only(semconv.POLICY)
    assert policy[semconv.POLICY_OUTCOME] == "error"
    assert policy[semconv.ERROR_TYPE] == type(error).__qualname__
    assert policy.status == "ERROR"


def test_a_scope_error_is_told_apart_by_ids_and_never_by_its_text() -> None:
    error = TokenScopeError("issued for principal, or for capability")
    assert token_reason_of(error, "a", "c", "b", "c") == "token_principal_mismatch"
    assert token_reason_of(error, "a", "c", "a", "d") == "token_capability_mismatch"
    assert token_reason_of(error, "a", "c", "a", "c") is None


async def test_an_accepted_token_is_an_allowed_enforcement(capture: Capture) -> None:
    kernel = make_kernel()
    await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    policy = capture.root().only(semconv.POLICY)
    assert policy[semconv.POLICY_OUTCOME] == "allowed"
    assert policy[semconv.POLICY_PHASE] == "enforce"
    assert policy[semconv.POLICY_ENGINE] == "HMACTokenProvider"
    assert policy.get(semconv.REASON_CODE) is None


async def test_an_accepted_token_is_an_event_at_level_debug() -> None:
    with instrumented(span_level="debug") as capture:
        kernel = make_kernel()
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        (event,) = capture.events()
        assert event.severity == "DEBUG"
        assert event.attributes[semconv.POLICY_PHASE] == "enforce"


# Expansions -----------------------------------------------------------------------------------


async def handle_of(kernel: Kernel, **constraints: Any) -> Handle:
    frame = await kernel.invoke(token_of(kernel, **constraints), principal=ALICE, args={})
    assert frame.handle is not None
    return frame.handle


@pytest.mark.parametrize(
    ("principal", "query", "constraints", "code", "category"),
    [
        (BOB, {}, {}, "handle_principal_mismatch", "handle"),
        (None, {}, {}, "handle_principal_mismatch", "handle"),
        (ALICE, {"fields": ["title"]}, {"allowed_fields": ["id"]},
         "handle_constraint_violation", "handle"),
        (ALICE, {"filter": {"id": 2}}, {"scope": {"id": 1}},
         "handle_constraint_violation", "handle"),
        (ALICE, {"filter": "id=1"}, {}, "invalid_constraint", "constraint"),
    ],
)  # fmt: skip
async def test_a_refused_expansion_is_a_denial_without_policy_span(
    capture: Capture,
    principal: Principal | None,
    query: dict[str, Any],
    constraints: dict[str, Any],
    code: str,
    category: str,
) -> None:
    kernel = make_kernel()
    handle = await handle_of(kernel, **constraints)
    capture.clear()
    with pytest.raises(HandleConstraintViolation) as raised:
        kernel.expand(handle, query=query, principal=principal)
    root = check_denied(
        capture, semconv.EXPAND, error=raised.value, phase="expand", engine="HandleStore",
        code=code, category=category,
    )  # fmt: skip
    assert not root.children
    assert root[semconv.HANDLE_ID] == handle.handle_id
    assert str(raised.value) not in capture.exported_text()


async def test_a_handle_that_is_gone_is_an_error(capture: Capture) -> None:
    kernel = make_kernel()
    handle = dataclasses.replace(await handle_of(kernel), handle_id="gone")
    capture.clear()
    with pytest.raises(HandleNotFound) as raised:
        kernel.expand(handle, query={}, principal=ALICE)
    check_failed(capture, semconv.EXPAND, raised.value)


async def test_a_handle_that_expired_is_an_error(capture: Capture) -> None:
    kernel = make_kernel(handle_store=HandleStore(default_ttl_seconds=-1))
    handle = await handle_of(kernel)
    capture.clear()
    with pytest.raises(HandleExpired) as raised:
        kernel.expand(handle, query={}, principal=ALICE)
    check_failed(capture, semconv.EXPAND, raised.value)


async def test_an_expansion_has_the_audit_records_action_id_and_the_rows(
    capture: Capture,
) -> None:
    kernel = make_kernel()
    handle = await handle_of(kernel)
    capture.clear()
    frame = kernel.expand(handle, query={"limit": 1}, principal=ALICE)
    expand = capture.root()
    assert expand.outline() == semconv.EXPAND
    assert expand[semconv.STATUS] == "success"
    assert expand[semconv.RESULT_ROWS] == len(frame.table_preview) == 1
    assert expand[semconv.RESPONSE_MODE] == "table"
    (record,) = [trace for trace in kernel.list_traces() if trace.event_type == "expand"]
    assert expand[semconv.ACTION_ID] == record.action_id == frame.action_id
    assert not capture.events()
