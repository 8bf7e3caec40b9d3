# SPDX-License-Identifier: Apache-2.0
"""Switching the Weaver kernel's instrumentation on and off, for all kernels or for one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from threading import RLock
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS,
)
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined] # fmt: skip

from agent_kernel_otel.config import ConfigurationError, InstrumentationConfig, is_enabled
from agent_kernel_otel.config_file import BLOCK, Declared, config_file
from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver.activation import activation
from agent_kernel_otel.weaver.builtin import BuiltinCoexistence
from agent_kernel_otel.weaver.instrumentation import WeaverInstrumentation
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
from agent_kernel_otel.weaver.patching import KernelPatches, missing_requests, missing_seams
from agent_kernel_otel.weaver.propagation import warn_without_effect
from agent_kernel_otel.weaver.reading import kernel_class_of
from agent_kernel_otel.weaver.targets import VIEWS, senders_for

_logger = logging.getLogger(__name__)

_LOADER_KEYWORDS: Final = frozenset({"skip_dep_check", "raise_exception_on_conflict"})
"""What OpenTelemetry's loader passes besides our settings."""
_AUTOMATIC: Final = frozenset({"skip_dep_check", "declared"})
"""What the loader, and the configuration file, pass and nobody else."""


class KernelInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Traces every Weaver kernel of the process, made before or after.

    Keywords of ``instrument()``: ``tracer_provider``, ``logger_provider`` and ``meter_provider``
    (the global ones by default), ``config`` (an :class:`InstrumentationConfig`), or its settings one by one, which
    win over the configuration file and ``OTEL_AGENT_KERNEL_*``. An unknown keyword or a value that
    cannot be read raises :class:`agent_kernel_otel.ConfigurationError`.
    """

    configuration = Declared

    def instrumentation_dependencies(self) -> Collection[str]:
        """The distribution of both import names, ``weaver_kernel`` and ``agent_kernel``."""
        return ("weaver-kernel >=0.3.0",)

    def instrument(self, **kwargs: Any) -> None:
        """Trace all kernels; for the keywords see the class.

        Where OpenTelemetry's loader or configuration file does it, one of them is enough, either
        can be told not to, and a fault of ours does not stop what they do next.
        """
        if not _AUTOMATIC & kwargs.keys():
            super().instrument(**kwargs)
        elif _is_wanted(kwargs) and not self.is_instrumented_by_opentelemetry:
            try:
                super().instrument(**kwargs)
            except (ConfigurationError, DependencyConflictError):
                raise
            except Exception:
                faults.swallow("switching the instrumentation on")

    def _instrument(self, **kwargs: Any) -> None:
        instrumentation = _configured(kwargs)
        with _switch.lock:
            activation.everywhere = instrumentation
            try:
                _switch.update()
            except BaseException:
                # The base class would refuse to uninstrument what it takes for not instrumented.
                self._uninstrument()
                raise

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base class's signature
        with _switch.lock:
            activation.everywhere = None
            activation.forget_opt_outs()
            _switch.update()


def instrument_kernel(kernel: Any, **settings: Any) -> None:
    """Trace one kernel, whether or not all are traced.

    Calling it again, or under :class:`KernelInstrumentor`, does not give two spans for a call.

    Args:
        kernel: A ``weaver_kernel.Kernel``, or a subclass's instance.
        **settings: As for :meth:`KernelInstrumentor.instrument`; given under a global
            instrumentation they hold for this kernel alone.

    Raises:
        TypeError: It is no Weaver kernel.
        ConfigurationError: A setting is unknown or its value cannot be read.
    """
    kernel_class = kernel_class_of(kernel)
    with _switch.lock:
        if settings or not activation.chosen(kernel):
            if settings or activation.everywhere is None:
                activation.choose(kernel, _configured(settings))
            else:
                activation.forget(kernel)
        _switch.add(kernel_class)
        _switch.update()


def uninstrument_kernel(kernel: Any) -> None:
    """Stop tracing one kernel; under a global instrumentation it is opted out.

    Args:
        kernel: A ``weaver_kernel.Kernel``, or a subclass's instance.

    Raises:
        TypeError: It is no Weaver kernel.
    """
    kernel_class_of(kernel)
    with _switch.lock:
        if activation.everywhere is None:
            activation.forget(kernel)
        else:
            activation.choose(kernel, None)
        _switch.update()


def patched_targets() -> dict[str, list[str]]:
    """What is patched at this moment: the attributes of each kernel class, by its full name."""
    return _switch.patched()


def kernels_met() -> int:
    """How many kernels have made a call that is traced, by what is switched on for all kernels."""
    return 0 if activation.everywhere is None else activation.everywhere.kernels.met


def _is_wanted(kwargs: Mapping[str, Any]) -> bool:
    """Whether what is not said to the one that switches us on does not forbid it."""
    if "declared" in kwargs:
        disabled = os.environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")
        return not {BLOCK, "*"} & {name.strip() for name in disabled}
    file = config_file()
    return file is None or file.block is None or is_enabled(file.block)


def _configured(settings: Mapping[str, Any]) -> WeaverInstrumentation:
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


class _Switch:
    """Keeps what is patched in step with what is active.

    The kernel is never imported here, because that costs a tenth of a second and more: where it
    is not imported yet, hooks wait for it. A hook cannot be taken back, so that it looks whether
    anything is active when it runs.
    """

    def __init__(self) -> None:
        self.lock = RLock()
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


_switch = _Switch()
