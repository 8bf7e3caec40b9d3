# SPDX-License-Identifier: Apache-2.0
"""What is patched, for which kernels and by which settings, whether or not anything is exported.

:class:`.instrumentor.KernelInstrumentor` switches it for all kernels, and is what OpenTelemetry
looks for; this needs nothing of OpenTelemetry.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

import wrapt

from agent_kernel_otel.config import ConfigurationError, InstrumentationConfig
from agent_kernel_otel.config_file import Declared
from agent_kernel_otel.faults import faults
from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.weaver.activation import activation
from agent_kernel_otel.weaver.builtin import BuiltinCoexistence
from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
from agent_kernel_otel.weaver.patching import KernelPatches, missing_requests, missing_seams
from agent_kernel_otel.weaver.propagation import warn_without_effect
from agent_kernel_otel.weaver.reading import kernel_class_of
from agent_kernel_otel.weaver.targets import QUIET_VIEWS, VIEWS, VIEWS_AFTER_STREAMS, senders_for

_logger = logging.getLogger(__name__)

_LOADER_KEYWORDS: Final = frozenset({"skip_dep_check", "raise_exception_on_conflict"})
"""What OpenTelemetry's loader passes besides our settings."""


class Switch:
    """Keeps what is patched in step with what is active.

    The kernel is never imported here, because that costs a tenth of a second and more: where it
    is not imported yet, hooks wait for it. A hook cannot be taken back, so that it looks whether
    anything is active when it runs.
    """

    def __init__(self) -> None:
        self.lock = SafeLock()
        self._patches: dict[type, KernelPatches] = {}
        self._coexistence: dict[str, BuiltinCoexistence] = {}
        self._waiting = False

    def add(self, kernel_class: type) -> None:
        """Have a kernel class patched from now on, while anything is active."""
        if kernel_class not in self._patches:
            self._patches[kernel_class] = KernelPatches(kernel_class)

    def update(self) -> None:
        """Patch or put back, by what is active."""
        if activation.is_needed():
            if activation.everywhere is not None and not self._waiting:
                self._waiting = True
                for name in IMPORT_NAMES:
                    wrapt.register_post_import_hook(self._imported, f"{name}.kernel")
                    wrapt.register_post_import_hook(self._imported, f"{name}.otel")
            self._install()
        else:
            self._remove()

    def patched(self) -> dict[str, list[str]]:
        """The patched attributes of each class, by its full name."""
        return {
            f"{kernel_class.__module__}.{kernel_class.__qualname__}": patches.installed()
            for kernel_class, patches in list(self._patches.items())
            if patches.installed()
        }

    def _imported(self, module: Any) -> None:
        try:
            with self.lock:
                if activation.is_needed():
                    self._install()
        except Exception:
            # An import of the app's must not fail over us.
            faults.swallow(f"patching {module.__name__}")

    def _install(self) -> None:
        for name in IMPORT_NAMES:
            kernel_class = getattr(sys.modules.get(f"{name}.kernel"), "Kernel", None)
            if kernel_class is not None:
                self.add(kernel_class)
        for patches in self._patches.values():
            patches.install(activation.propagated())
        for name in IMPORT_NAMES:
            module = sys.modules.get(f"{name}.otel")
            if module is not None:
                self._coexistence.setdefault(name, BuiltinCoexistence(module)).install()

    def _remove(self) -> None:
        for coexistence in self._coexistence.values():
            coexistence.remove()
        for patches in self._patches.values():
            patches.remove()


switch: Final = Switch()


def instrument_kernel(kernel: Any, **settings: Any) -> None:
    """Trace one kernel, whether or not all are traced.

    Calling it again, or under ``KernelInstrumentor``, does not give two spans for a call.

    Args:
        kernel: A ``weaver_kernel.Kernel``, or a subclass's instance.
        **settings: As for ``KernelInstrumentor.instrument()``; given under a global
            instrumentation they hold for this kernel alone.

    Raises:
        TypeError: It is no Weaver kernel.
        ConfigurationError: A setting is unknown or its value cannot be read.
    """
    kernel_class = kernel_class_of(kernel)
    with switch.lock:
        if settings or not activation.chosen(kernel):
            if settings or activation.everywhere is None:
                activation.choose(kernel, configured(settings))
            else:
                activation.forget(kernel)
        switch.add(kernel_class)
        switch.update()


def uninstrument_kernel(kernel: Any) -> None:
    """Stop tracing one kernel; under a global instrumentation it is opted out.

    Args:
        kernel: A ``weaver_kernel.Kernel``, or a subclass's instance.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    kernel_class_of(kernel)
    with switch.lock:
        if activation.everywhere is None:
            activation.forget(kernel)
        else:
            activation.choose(kernel, None)
        switch.update()


def patched_targets() -> dict[str, list[str]]:
    """What is patched at this moment: the attributes of each kernel class, by its full name."""
    return switch.patched()


def kernels_met() -> int:
    """How many kernels have made a call that is traced, by what is switched on for all kernels."""
    return 0 if activation.everywhere is None else activation.everywhere.kernels.met


def configured(settings: Mapping[str, Any]) -> WeaverInstrumentation:
    """What traces kernels by these settings.

    Args:
        settings: As for ``KernelInstrumentor.instrument()``.

    Raises:
        ConfigurationError: A setting is unknown or its value cannot be read.
    """
    settings = {name: value for name, value in settings.items() if name not in _LOADER_KEYWORDS}
    tracer_provider = settings.pop("tracer_provider", None)
    logger_provider = settings.pop("logger_provider", None)
    meter_provider = settings.pop("meter_provider", None)
    config = settings.pop("config", None)
    declared = settings.pop("declared", None)
    block = Declared.as_block(declared) if declared is not None else None
    if config is not None and not isinstance(config, InstrumentationConfig):
        raise ConfigurationError(
            f"config is a {type(config).__name__}; expected an InstrumentationConfig"
        )
    if config is None or settings:
        config = InstrumentationConfig.resolve({**_fields(config), **settings}, block=block)
    paths = config.propagate_context
    return WeaverInstrumentation(
        config,
        VIEWS,
        VIEWS_AFTER_STREAMS,
        QUIET_VIEWS,
        senders_for(paths),
        lambda kernel: _warn_of_what_is_missing(kernel, paths),
        tracer_provider=tracer_provider,
        logger_provider=logger_provider,
        meter_provider=meter_provider,
    )


def _fields(config: InstrumentationConfig | None) -> dict[str, Any]:
    if config is None:
        return {}
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def _warn_of_what_is_missing(kernel: Any, paths: frozenset[str]) -> None:
    missing = [name for name in missing_seams(kernel) if name not in _warned_of]
    if missing:
        _warned_of.update(missing)
        _logger.warning(
            "this release of the kernel has no %s; some spans will be missing", ", ".join(missing)
        )
    for path, name in missing_requests(kernel_class_of(kernel), paths) if paths else ():
        warn_without_effect(path, f"this release of the kernel has no {name}")


_warned_of: set[str] = set()
