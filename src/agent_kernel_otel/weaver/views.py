# SPDX-License-Identifier: Apache-2.0
"""What the kernel's own code sees instead of its collaborators while one of its calls runs.

A view overrides the methods that the kernel calls, tells the call about them, and forwards
everything else to the real object, which it never writes to. Nobody but the kernel's own code
meets a view: collaborators run *aside*, where the kernel hands out the real objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isasyncgen
from time import perf_counter_ns, time_ns
from typing import Any

from agent_kernel_otel import semconv
from agent_kernel_otel.current import Aside, come_back, context_of, set_current
from agent_kernel_otel.faults import faults
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.driver_views import DriverView, view_in_stream
from agent_kernel_otel.weaver.grant_calls import GrantCall
from agent_kernel_otel.weaver.invocation import InvokeCall
from agent_kernel_otel.weaver.outcomes import (
    classify,
    is_failure,
    is_foreign,
    reason_code_of,
)
from agent_kernel_otel.weaver.reading import argument, mode_of, read, redactions_in
from agent_kernel_otel.weaver.view import View, error_attributes, inner_step


class PolicyView(View):
    """A policy engine during a grant."""

    __slots__ = ()
    _call: GrantCall

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Decide, and tell the decision. The engine is asked exactly once."""
        call, engine = self._call, self._real
        name = type(engine).__name__
        span = call.open_child(
            semconv.POLICY, {semconv.POLICY_ENGINE: name, semconv.POLICY_PHASE: "grant"}
        )
        began = perf_counter_ns()
        try:
            with Aside(context_of(span)):
                decision = engine.evaluate(*args, **kwargs)
        except BaseException as error:
            call.measure_policy(engine, "grant", began, error)
            rule = _denying_rule(engine, error, args, kwargs)
            call.refused(error, name, "grant", reason_code_of(error), rule=rule, span=span)
            raise
        allowed = read(decision, "allowed") is not False
        call.measure_policy(engine, "grant", began, allowed=allowed)
        call.evaluated(decision, engine, span)
        return decision


class TokenProviderView(View):
    """A token provider: during an invocation its check enforces the signed decision."""

    __slots__ = ()
    _call: InvokeCall

    def verify(self, *args: Any, **kwargs: Any) -> Any:
        """Check the token, and tell how that ended."""
        call, provider = self._call, self._real
        span = None
        if is_foreign(type(provider)):
            # The app's own provider may open spans: they belong under this one.
            span = call.open_child(
                semconv.POLICY,
                {semconv.POLICY_ENGINE: type(provider).__name__, semconv.POLICY_PHASE: "enforce"},
            )
        started, began = time_ns(), perf_counter_ns()
        try:
            if span is None:
                # As Aside does it: the kernel's own may have a revocation store of the app's.
                marker = set_current(None)
                try:
                    verified = provider.verify(*args, **kwargs)
                finally:
                    come_back(marker)
            else:
                with Aside(context_of(span)):
                    verified = provider.verify(*args, **kwargs)
        except BaseException as error:
            call.measure_policy(provider, "enforce", began, error)
            call.enforced(error, provider, kwargs, started, span)
            raise
        if call.instrumentation.measured.policy is not None:
            call.measure_policy(provider, "enforce", began)
        if call.recording or call.debug:
            call.enforced(None, provider, kwargs, started, span)
        return verified

    def issue(self, *args: Any, **kwargs: Any) -> Any:
        """Issue a token, in a grant."""
        with Aside():
            return self._real.issue(*args, **kwargs)


class DriversView(View):
    """The kernel's table of drivers: what it gives out tells of its attempts."""

    __slots__ = ()
    _call: InvokeCall

    def get(self, driver_id: Any, default: Any = None) -> Any:
        """The driver to try; looking it up is no attempt yet."""
        driver = self._real.get(driver_id)
        if driver is None:
            return default
        call = self._call
        kind = view_in_stream if call.stream else DriverView
        return kind(call, driver_id, driver)

    def __getitem__(self, driver_id: Any) -> Any:
        driver = self._real[driver_id]
        return self.get(driver_id, driver)

    def __setitem__(self, driver_id: Any, driver: Any) -> None:
        self._real[driver_id] = driver

    def __delitem__(self, driver_id: Any) -> None:
        del self._real[driver_id]

    def __contains__(self, driver_id: object) -> bool:
        return driver_id in self._real

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real)

    def __len__(self) -> int:
        return len(self._real)


class FirewallView(View):
    """A firewall during an invocation."""

    __slots__ = ()
    _call: InvokeCall

    def transform(self, *args: Any, **kwargs: Any) -> Any:
        """Turn a raw result into a frame, and tell what that changed."""
        call, firewall = self._call, self._real
        foreign = is_foreign(type(firewall))
        span = call.open_child(semconv.FIREWALL, {}) if foreign else None
        started, began = time_ns(), perf_counter_ns()
        try:
            if foreign:
                with Aside(context_of(span)):
                    frame = firewall.transform(*args, **kwargs)
            else:
                # The kernel's own runs no code but its own.
                frame = firewall.transform(*args, **kwargs)
        except BaseException as error:
            call.measure_firewall(None, began)
            _tell_firewall(call, None, error, started, span)
            raise
        if call.instrumentation.measured.firewall is not None:
            call.measure_firewall(frame, began)
        _tell_firewall(call, frame, None, started, span)
        return frame

    def apply_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Turn the chunks of a stream into frames: one span for all of them."""
        call, firewall = self._call, self._real
        call.firewall_began()
        if not is_foreign(type(firewall)):
            # The kernel's own firewall needs no step of ours for each chunk.
            return firewall.apply_stream(*args, **kwargs)
        with Aside():
            frames = firewall.apply_stream(*args, **kwargs)
        # What is no stream fails in the kernel, with the error that Python has for this.
        return _aside_at_each_step(frames) if hasattr(frames, "__aiter__") else frames


class RouterView(View):
    """A router during an invocation."""

    __slots__ = ()
    _call: InvokeCall

    def route(self, *args: Any, **kwargs: Any) -> Any:
        """Find the drivers to try."""
        return inner_step(self._call, semconv.ROUTE, self._real.route, args, kwargs, _route_said)


class BudgetView(View):
    """A budget manager during an invocation."""

    __slots__ = ()
    _call: InvokeCall

    def suggested_mode(self, *args: Any, **kwargs: Any) -> Any:
        """Suggest a response mode, and tell where it is stricter than asked."""
        with Aside():
            suggestion = self._real.suggested_mode(*args, **kwargs)
        try:
            self._call.suggested(argument(args, kwargs, 0, "requested"), suggestion)
        except Exception:
            faults.swallow("reading the budget's suggestion")
        return suggestion

    def allocate(self, *args: Any, **kwargs: Any) -> Any:
        """Reserve tokens."""
        reserving = self._aside(self._real.allocate, args, kwargs)
        return _allocate(self._call, reserving) if self._call.debug else reserving

    def record_usage(self, *args: Any, **kwargs: Any) -> Any:
        """Turn a reservation into use."""
        return self._aside(self._real.record_usage, args, kwargs)

    def release(self, *args: Any, **kwargs: Any) -> Any:
        """Give a reservation back."""
        return self._aside(self._real.release, args, kwargs)

    def _aside(self, method: Any, args: Any, kwargs: Any) -> Any:
        # The kernel's own manager looks at no kernel, and needs no coroutine of ours around it.
        if not is_foreign(type(self._real)):
            return method(*args, **kwargs)
        return _awaited_aside(method, args, kwargs)

    def count_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Count tokens; the counter can be the app's own code."""
        with Aside():
            return self._real.count_tokens(*args, **kwargs)


async def _awaited_aside(method: Any, args: Any, kwargs: Any) -> Any:
    with Aside():
        return await method(*args, **kwargs)


async def _allocate(call: InvokeCall, reserving: Any) -> Any:
    span = call.open_child(semconv.BUDGET, {})
    try:
        granted = await reserving
    except BaseException as error:
        call.close_child(span, error_attributes(error), failed=is_failure(error))
        raise
    known = isinstance(granted, int)
    call.close_child(span, {semconv.BUDGET_GRANTED: granted} if known else {})
    return granted


async def _aside_at_each_step(frames: Any) -> Any:
    """Run each step of the app's own firewall aside, and nothing of that while it is paused."""
    iterator = aiter(frames)
    try:
        while True:
            with Aside():
                try:
                    frame = await anext(iterator)
                except StopAsyncIteration:
                    return
            yield frame
    except GeneratorExit:
        if isasyncgen(iterator):
            with Aside():
                await iterator.aclose()
        raise


def _tell_firewall(
    call: InvokeCall, frame: Any, error: BaseException | None, started: int, span: Any
) -> None:
    try:
        attributes: dict[str, Any] = {}
        if error is not None:
            attributes = error_attributes(error)
        else:
            attributes[semconv.RESPONSE_MODE] = mode_of(frame.response_mode) or ""
            attributes[semconv.REDACTIONS] = redactions_in(frame)
        failed = error is not None and is_failure(error)
        if span is None:
            call.tell_child(semconv.FIREWALL, started, attributes, failed=failed)
        else:
            call.close_child(span, attributes, failed=failed)
    except Exception:
        faults.swallow("telling what the firewall did")


def _route_said(plan: Any) -> dict[str, Any]:
    return {semconv.ROUTE_DRIVERS: len(plan.driver_ids)}


def _denying_rule(engine: Any, error: BaseException, args: Any, kwargs: Any) -> str | None:
    """Name of the rule that denied, where asking for it has no side effect.

    Only the kernel's own declarative engine qualifies, of that very class: its ``explain``
    matches the same rules again and keeps no state. Any other engine is asked nothing.
    """
    if type(engine).__name__ != "DeclarativePolicyEngine" or is_foreign(type(engine)):
        return None
    if classify(error).status != "denied" or "evaluate" in getattr(engine, "__dict__", ()):
        return None
    try:
        explanation = engine.explain(*args, **kwargs)
        conditions = explanation.failed_conditions
        # Otherwise the name is that of an allow rule which did not match.
        if conditions and conditions[0].condition == "denied_by_rule":
            return identifier(explanation.rule_name)
    except Exception:
        faults.swallow("asking the declarative policy engine for its rule")
    return None


def drivers_view(call: InvokeCall, drivers: Any) -> Any:
    """A view; that the kernel wants one tells that it has got as far as the drivers."""
    call.reached_drivers = True
    return DriversView(call, drivers)


def token_provider_view(call: KernelCall, provider: Any) -> Any:
    """A view where the token's check is told or measured, or where the provider is the app's."""
    wanted = call.recording or call.debug or call.instrumentation.measured.policy is not None
    if isinstance(call, GrantCall):
        wanted = False
    return TokenProviderView(call, provider) if wanted or is_foreign(type(provider)) else provider


def router_view(call: InvokeCall, router: Any) -> Any:
    """A view where its span is wanted, or where the router is the app's own code.

    That the kernel asks for one tells that it has accepted the token.
    """
    call.token_accepted = True
    return RouterView(call, router) if call.debug or is_foreign(type(router)) else router


def firewall_view(call: InvokeCall, firewall: Any) -> Any:
    """A view where its work is told or measured, or where the firewall is the app's own code."""
    wanted = call.recording or call.instrumentation.measured.firewall is not None
    return FirewallView(call, firewall) if wanted or is_foreign(type(firewall)) else firewall
