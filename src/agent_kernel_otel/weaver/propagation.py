# SPDX-License-Identifier: Apache-2.0
"""The current trace context, written into the requests that the kernel's own code makes.

No driver, session or dict is changed for it. The kernel's own driver runs on a view of itself, in
which the headers or the ``_meta`` of its request have the context added; everything else in that
view is the driver's. A driver that makes its request by code of the app's runs as it is.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import FunctionType
from typing import Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.current import current_operation
from agent_kernel_otel.faults import faults
from agent_kernel_otel.opentelemetry_api import get_global_textmap, inject
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES

_logger = logging.getLogger(__name__)

_BAGGAGE: Final = "baggage"


@cache
def warn_without_effect(path: str, because: str) -> None:
    """Say that a value of ``propagate_context`` does nothing; once for each reason."""
    _logger.warning("propagate_context=%s: no trace context is written, because %s", path, because)


def _context_beside(*taken: Iterable[Any] | None) -> dict[str, str]:
    """What the propagators write for the current context, where nothing of it is there already.

    Whoever set one field of the trace context means a trace of their own, which the other fields
    must not be mixed into. Baggage is apart from that.
    """
    carrier: dict[str, str] = {}
    inject(carrier)
    there = {_name(name) for names in taken for name in names or ()}
    own_trace = there.intersection(map(str.lower, get_global_textmap().fields)) - {_BAGGAGE}
    return {
        name: value
        for name, value in carrier.items()
        if name.lower() not in there and (name.lower() == _BAGGAGE or not own_trace)
    }


def _name(header: Any) -> str:
    return (header.decode("latin-1") if isinstance(header, bytes) else str(header)).lower()


# Drivers --------------------------------------------------------------------------------------


class DriverSelf:
    """One of the kernel's own drivers as its own ``execute`` sees it.

    Args:
        driver: The driver.
        execute: The kernel's function.
    """

    # Nothing here may have the name of an attribute of a driver.
    __slots__ = ("_kernels_execute", "_reached", "_viewed")

    path = ""
    request = ""

    def __init__(self, driver: Any, execute: Callable[..., Any]) -> None:
        keep = object.__setattr__
        keep(self, "_viewed", driver)
        keep(self, "_kernels_execute", execute)
        keep(self, "_reached", False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._viewed, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The driver's class, which ``isinstance()`` and ``super()`` go by."""
        return type(self._viewed)

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel's function on this view."""
        result = await self._kernels_execute(self, *args, **kwargs)
        if not self._reached:
            warn_without_effect(self.path, f"this release makes no {self.request} known to us")
        return result

    def _add(self, own: Any, *also: Any) -> Any:
        """The app's names and values with the context beside them; the very dict if it has none."""
        object.__setattr__(self, "_reached", True)
        try:
            if not isinstance(own, dict):
                return own
            added = _context_beside(own, *also)
        except Exception:
            faults.swallow("writing the trace context into a request")
            return own
        return {**own, **added} if added else own


class _Part:
    """A part of a driver, as the driver's own code sees it.

    Args:
        of: The view of the driver.
        real: The part.
    """

    __slots__ = ("_of", "_real")

    def __init__(self, of: Any, real: Any) -> None:
        self._of = of
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class HTTPDriverSelf(DriverSelf):
    """The HTTP driver: the headers of its endpoints have the context added."""

    __slots__ = ("_seen_client",)

    path = "http"
    request = "HTTP request"

    @property
    def _endpoints(self) -> Any:
        return _Endpoints(self, self._viewed._endpoints)

    def _get_client(self, *args: Any, **kwargs: Any) -> Any:
        client = self._viewed._get_client(*args, **kwargs)
        object.__setattr__(self, "_seen_client", client)
        return client

    def _add_to_headers(self, headers: Any) -> Any:
        client = getattr(self, "_seen_client", None)
        base = getattr(self._viewed, "_base_headers", None)
        return self._add(headers, base, getattr(client, "headers", None))


class _Endpoints(_Part):
    __slots__ = ()

    def get(self, *args: Any, **kwargs: Any) -> Any:
        endpoint = self._real.get(*args, **kwargs)
        return endpoint if endpoint is None else _Endpoint(self._of, endpoint)

    def __getitem__(self, operation: Any) -> Any:
        return _Endpoint(self._of, self._real[operation])

    def __contains__(self, operation: object) -> bool:
        return operation in self._real


class _Endpoint(_Part):
    __slots__ = ()

    @property
    def headers(self) -> Any:
        return self._of._add_to_headers(self._real.headers)


class MCPDriverSelf(DriverSelf):
    """The MCP driver: the ``_meta`` of its ``tools/call`` has the context added."""

    __slots__ = ()

    path = "mcp"
    request = "MCP request"

    def _run_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        action = kwargs.get("action")
        if callable(action):
            kwargs["action"] = lambda session: action(_Session(self, session))
        return self._viewed._run_with_retry(*args, **kwargs)

    def _with_meta(self, call_tool: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if not _takes(call_tool, "meta"):
            object.__setattr__(self, "_reached", True)
            warn_without_effect(self.path, "call_tool() of the MCP session takes no meta")
            return kwargs
        given = kwargs.get("meta")
        meta = self._add({} if given is None else given)
        return {**kwargs, "meta": meta} if meta else kwargs


class _Session(_Part):
    __slots__ = ()

    def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        call_tool = self._real.call_tool
        return call_tool(*args, **self._of._with_meta(call_tool, kwargs))


def _takes(function: Any, parameter: str) -> bool:
    try:
        return parameter in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def run_as(driver: Any, selves: Mapping[str, type[DriverSelf]]) -> Any:
    """What to call ``execute`` on: a view where that is the kernel's own function, else the driver.

    Args:
        driver: The driver that the kernel is about to run.
        selves: Views by the name of the kernel's class.
    """
    try:
        for owner in type(driver).__mro__:
            execute = vars(owner).get("execute")
            if execute is None:
                continue
            view = selves.get(owner.__name__)
            if view is None or not _is_kernels_own(owner, execute) or _overrides(driver):
                return driver
            return view(driver, execute)
    except Exception:
        faults.swallow("preparing a driver for the trace context")
    return driver


def _is_kernels_own(owner: type, function: Any) -> bool:
    """Whether the kernel's class still has the kernel's function; another may have replaced it."""
    return (
        owner.__module__.partition(".")[0] in IMPORT_NAMES
        and isinstance(function, FunctionType)
        and function.__globals__.get("__name__") == owner.__module__
    )


def _overrides(driver: Any) -> bool:
    return "execute" in getattr(driver, "__dict__", ())


# Federation -----------------------------------------------------------------------------------


def discover_peers(
    original: Callable[..., Any],
) -> Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]:
    """Wrapper of the function behind ``Kernel.discover_peers``.

    That function takes a client, which the kernel leaves it to make: it gets one that has the
    context among its headers.
    """
    takes_client = _takes(original, "client")

    def wrapper(
        wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = current_operation()
        if (
            call is None
            or not call.telling
            or call.name != semconv.DISCOVER
            or "federation" not in call.telemetry.config.propagate_context
            or kwargs.get("client") is not None
        ):
            return wrapped(*args, **kwargs)
        if not takes_client:
            warn_without_effect("federation", "this release takes no HTTP client for it")
            return wrapped(*args, **kwargs)
        return _discover_by_own_client(wrapped, args, kwargs)

    return wrapper


async def _discover_by_own_client(
    wrapped: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    client = _client()
    if client is None:
        return await wrapped(*args, **kwargs)
    async with client:
        return await wrapped(*args, **{**kwargs, "client": client})


def _client() -> Any:
    """A client as the kernel makes it, with the context; ``None`` where there is none to write."""
    try:
        headers = _context_beside()
        if not headers:
            return None
        make = importlib.import_module("httpx").AsyncClient
    except Exception:
        faults.swallow("writing the trace context into a request")
        return None
    try:
        return make(headers=headers)
    except Exception:  # such as a proxy that cannot be: the kernel will meet the same
        return None
