# SPDX-License-Identifier: Apache-2.0
"""Reading the kernel's objects without trusting them, and without running the host's code.

Callers can pass anything; a wrong object must fail in the kernel, with the kernel's own error,
and not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import Attributes
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES

_RAW_MODE_NOTICES = ("raw mode requires", "raw output (")


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    """An argument that may come by position or by keyword; ``None`` where it was not given."""
    return args[position] if len(args) > position else kwargs.get(name)


def read(owner: object, name: str) -> Any:
    """An attribute of any object; ``None`` where it has none, or raises when asked for it."""
    try:
        return getattr(owner, name, None)
    except Exception:  # the object is the app's, and so is its fault
        return None


def read_id(owner: object, name: str) -> str | None:
    """An id attribute of any object, as text that can be exported; ``None`` where it has none."""
    return identifier(read(owner, name))


def registered(kernel: Any, capability_id: object) -> Any:
    """A capability that the kernel's registry holds already, else ``None``.

    ``registry.get()`` can run a deferred namespace loader, which is the host's code
    (weaver-kernel 0.9 on): the table behind it is read instead.
    """
    store: Any = getattr(kernel.__dict__.get("_registry"), "_store", None)
    if type(capability_id) is not str and isinstance(capability_id, str):
        # A subclass can have any hash and any equality, and either can raise.
        capability_id = str.__str__(capability_id)
    if type(capability_id) is not str or not isinstance(store, dict):
        return None
    return store.get(capability_id)


def describe_capability(capability: Any, attributes: Attributes) -> None:
    """Add a capability's safety class and sensitivity, where it is known."""
    if capability is None:
        return
    safety_class = read_id(capability, "safety_class")
    if safety_class is not None:
        attributes[semconv.SAFETY_CLASS] = safety_class
    sensitivity = read_id(capability, "sensitivity")
    if sensitivity is not None:
        attributes[semconv.SENSITIVITY] = sensitivity


def kernel_class_of(kernel: Any) -> type:
    """The ``Kernel`` class that a kernel is of, itself or by a subclass.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    for kind in type(kernel).__mro__:
        if kind.__name__ == "Kernel" and kind.__module__.partition(".")[0] in IMPORT_NAMES:
            return kind
    raise TypeError(
        f"expected a weaver_kernel.Kernel, got {type(kernel).__module__}."
        f"{type(kernel).__qualname__}; pass the kernel itself"
    )


def redactions_in(frame: Any) -> int:
    """The frame's warnings less the notices about raw mode, which tell of no redaction."""
    warnings = frame.warnings
    if not warnings:
        return 0
    return sum(not str(warning).startswith(_RAW_MODE_NOTICES) for warning in warnings)


def mode_of(value: object) -> str | None:
    """A response mode as text."""
    return identifier(value)
