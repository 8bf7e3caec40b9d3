# SPDX-License-Identifier: Apache-2.0
"""Patches on the ``Kernel`` class and beside it, and their exact undoing."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import wrapt

from agent_kernel_otel.current import current_operation
from agent_kernel_otel.weaver.targets import (
    CONSTRUCTOR,
    OPERATIONS,
    OWN_DRIVERS,
    OWN_FUNCTIONS,
    SEAMS,
)

_logger = logging.getLogger(__name__)


class SeamDescriptor:
    """A private collaborator attribute of the kernel, which its own code sees through a view.

    The value stays where it always was, in the kernel's ``__dict__``, which a data descriptor
    outranks: kernels made before are covered, and nothing is left behind on them.

    Args:
        name: The attribute's name.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, kernel: Any, owner: type | None = None) -> Any:
        name = self._name
        if kernel is None:
            raise AttributeError(f"type object {_name_of(owner)!r} has no attribute {name!r}")
        try:
            real = kernel.__dict__[name]
        except KeyError:
            message = f"{type(kernel).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=kernel) from None
        if real is None:
            return None
        operation = current_operation()
        if operation is None:
            return real
        if operation.kernel is not kernel and not operation.has_ended_on(kernel):
            return real
        view = operation.views.get(name)
        return real if view is None else view(operation, real)

    def __set__(self, kernel: Any, value: Any) -> None:
        kernel.__dict__[self._name] = value

    def __delete__(self, kernel: Any) -> None:
        try:
            del kernel.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None


def _name_of(owner: type | None) -> str:
    return "Kernel" if owner is None else owner.__name__


class OperationWrapper(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """An operation of the class, also where it is called as a function taken from its ``__dict__``.

    wrapt binds on attribute access only, and would then take the kernel for an argument.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Bind to the first argument, as a function does with its ``self``."""
        if not args:
            return self.__wrapped__(**kwargs)
        return self.__get__(args[0], type(args[0]))(*args[1:], **kwargs)


class _Wrapper(NamedTuple):
    """A wrapper of ours on a method or a function.

    Attributes:
        owner: The class or the module.
        wrapper: What was put there.
        original: What was there before.
        switch: Emptied to switch the wrapper off for good. wrapt asks for its truth at each
            call, which for a list costs nothing.
    """

    owner: Any
    wrapper: Any
    original: Any
    switch: list[bool]


class KernelPatches:
    """All patches on one ``Kernel`` class, and beside it.

    Args:
        kernel_class: The class, not a subclass of it.
    """

    def __init__(self, kernel_class: type) -> None:
        self.kernel_class = kernel_class
        self._wrappers: dict[str, _Wrapper] = {}
        self._descriptors: dict[str, SeamDescriptor] = {}
        self._warned_of: set[str] = set()

    def install(self, propagated: frozenset[str] = frozenset()) -> None:
        """Patch what is there; what a release lacks means fewer spans, and one warning.

        Args:
            propagated: Into which requests the trace context is to be written.
        """
        module = sys.modules.get(self.kernel_class.__module__)
        for function in OWN_FUNCTIONS:
            if function.path in propagated and module is not None:
                self._wrap(module, function.name, wrapt.FunctionWrapper, function.wrapper)
        missing = [*self._wrap_operations(), *self._describe_seams()]
        news = [name for name in missing if name not in self._warned_of]
        if news:
            self._warned_of.update(news)
            _logger.warning(
                "this release of the kernel lacks or redefines %s; some spans will be missing",
                ", ".join(news),
            )

    def installed(self) -> list[str]:
        """The attributes of the class on which something of ours is, and is switched on."""
        wrapped = [name for name, ours in list(self._wrappers.items()) if ours.switch]
        return [*wrapped, *list(self._descriptors)]

    def remove(self) -> None:
        """Put every original back, the very objects.

        A wrapper that somebody else has wrapped since stays where it is and lets calls through:
        taking it out would take theirs along.
        """
        for name, ours in list(self._wrappers.items()):
            if vars(ours.owner).get(name) is ours.wrapper:
                setattr(ours.owner, name, ours.original)
                del self._wrappers[name]
        for name, descriptor in list(self._descriptors.items()):
            if self.kernel_class.__dict__.get(name) is descriptor:
                delattr(self.kernel_class, name)
            del self._descriptors[name]

    def _wrap_operations(self) -> list[str]:
        missing = []
        self._wrap(self.kernel_class, CONSTRUCTOR.method, OperationWrapper, CONSTRUCTOR.wrapper)
        for target in OPERATIONS:
            there = self._wrap(self.kernel_class, target.method, OperationWrapper, target.wrapper)
            if not there and target.in_all_releases:
                missing.append(target.method)
        return missing

    def _wrap(self, owner: Any, name: str, kind: Any, make: Callable[[Any], Any]) -> bool:
        """Wrap a method or a function, unless that is done; whether there is one at all."""
        original = vars(owner).get(name)
        if original is None:
            return False
        ours = self._wrappers.get(name)
        if ours is not None:
            if _is_within(ours.wrapper, original):
                return True
            # Whoever wrapped it hides what is below: ours may be there, or may be gone. The
            # new one goes on top, and the old one must not open a second span.
            ours.switch.clear()
        switch: Any = [True]
        wrapper = kind(original, make(original), enabled=switch)
        setattr(owner, name, wrapper)
        self._wrappers[name] = _Wrapper(owner, wrapper, original, switch)
        return True

    def _describe_seams(self) -> list[str]:
        taken = []
        for seam in SEAMS:
            if seam.attribute in self._descriptors:
                continue
            if inspect.getattr_static(self.kernel_class, seam.attribute, None) is not None:
                taken.append(seam.attribute)
                continue
            descriptor = SeamDescriptor(seam.attribute)
            setattr(self.kernel_class, seam.attribute, descriptor)
            self._descriptors[seam.attribute] = descriptor
        return taken


def missing_seams(kernel: Any) -> list[str]:
    """The collaborator attributes that every known release has and this kernel lacks."""
    return [
        seam.attribute
        for seam in SEAMS
        if seam.in_all_releases and seam.attribute not in vars(kernel)
    ]


def missing_requests(kernel_class: type, paths: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Of the requests that are to carry the trace context, those that a release does not make.

    Yields:
        The value of ``propagate_context``, and the name of what would make them.
    """
    module = kernel_class.__module__
    package = sys.modules.get(module.partition(".")[0])
    for driver in OWN_DRIVERS:
        if driver.path in paths and not hasattr(package, driver.name):
            yield driver.path, driver.name
    for function in OWN_FUNCTIONS:
        if function.path in paths and not hasattr(sys.modules.get(module), function.name):
            yield function.path, function.name


def _is_within(wrapper: Any, method: Any) -> bool:
    """Whether a wrapper is somewhere in a method's chain of wrappers."""
    layer = method
    while layer is not None:
        if layer is wrapper:
            return True
        layer = getattr(layer, "__wrapped__", None)
    return False
