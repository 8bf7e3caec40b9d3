# SPDX-License-Identifier: Apache-2.0
"""The configurator: the SDK's own, with our resource and our log privacy."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from opentelemetry._logs import get_logger_provider
from opentelemetry.environment_variables import (
    OTEL_PYTHON_METER_PROVIDER,
    OTEL_PYTHON_TRACER_PROVIDER,
)
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.environment_variables import (
    OTEL_CONFIG_FILE,
    OTEL_EXPERIMENTAL_RESOURCE_DETECTORS,
    OTEL_LOG_LEVEL,
)
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.trace import get_tracer_provider
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points

from agent_kernel_otel.distro import defaults
from agent_kernel_otel.distro.assembly import our_pipelines
from agent_kernel_otel.distro.handlers import attend_exporting_handlers, process_config
from agent_kernel_otel.weaver.logs import KernelLogProcessor

_logger = logging.getLogger(__name__)

_API: Final = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
_UNNAMED: Final = "unknown_service"


class AgentKernelConfigurator(_OTelSDKConfigurator):
    """Sets up the SDK from ``OTEL_*``, as OpenTelemetry itself would, and adds to it.

    It adds a name for the service where the user has given none, the distro's name and version,
    and :class:`~agent_kernel_otel.weaver.logs.KernelLogProcessor` in front of the exporters. It
    does nothing where ``OTEL_SDK_DISABLED`` is true or where the app has set up providers of its
    own before, and gives way to the configurator of a distro that ``OTEL_PYTHON_DISTRO`` names.
    """

    def _configure(self, **kwargs: Any) -> None:
        if defaults.is_disabled(os.environ):
            _logger.debug("OTEL_SDK_DISABLED is true: nothing is configured")
            return
        chosen = _configurator_of(defaults.other_distro(os.environ))
        if chosen is not None:
            chosen.load()().configure(**kwargs)
            return
        if _app_has_providers():
            _logger.info("the app has set up OpenTelemetry itself: nothing is configured")
            return
        _log_effective_configuration()
        if not defaults.is_set(os.environ, OTEL_CONFIG_FILE):
            kwargs = _with_ours(kwargs)
        with our_pipelines(process_config().exit_timeout):
            super()._configure(**kwargs)  # type: ignore[no-untyped-call]
        attend_exporting_handlers()


def _with_ours(given: dict[str, Any]) -> dict[str, Any]:
    attributes = defaults.resource_attributes(os.environ, sys.orig_argv)
    # The user's detectors may know the name, and attributes given here would win over them.
    if defaults.is_set(os.environ, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS):
        detected = str(Resource.create().attributes.get(SERVICE_NAME, _UNNAMED))
        if not detected.startswith(_UNNAMED):
            attributes.pop(SERVICE_NAME, None)
    return {
        **given,
        "resource_attributes": {**attributes, **(given.get("resource_attributes") or {})},
        "log_record_processors": [
            KernelLogProcessor(process_config()),
            *(given.get("log_record_processors") or ()),
        ],
    }


def _app_has_providers() -> bool:
    # The API's stand-ins are private classes; that they are part of the API is what tells them.
    # Where a variable names a provider, asking for it would set it.
    return any(
        not type(provider()).__module__.startswith(_API)
        for provider, variable in (
            (get_tracer_provider, OTEL_PYTHON_TRACER_PROVIDER),
            (get_meter_provider, OTEL_PYTHON_METER_PROVIDER),
            (get_logger_provider, "OTEL_PYTHON_LOGGER_PROVIDER"),
        )
        if variable not in os.environ
    )


def _configurator_of(distro: str | None) -> EntryPoint | None:
    """The configurator that comes with a distro."""
    if distro is None:
        return None
    for named in entry_points(group="opentelemetry_distro", name=distro):
        for configurator in entry_points(group="opentelemetry_configurator"):
            if named.dist and configurator.dist and named.dist.name == configurator.dist.name:
                return configurator
    return None


def _log_effective_configuration() -> None:
    handler = logging.StreamHandler()
    level = _logger.level
    # This early no app has set up logging: where debugging is asked for by the variable, the
    # line would be lost without a handler.
    asked = os.environ.get(OTEL_LOG_LEVEL, "").strip().lower() == "debug"
    if asked:
        _logger.setLevel(logging.DEBUG)
        _logger.addHandler(handler)
    if _logger.isEnabledFor(logging.DEBUG):
        variables = defaults.effective_configuration(os.environ)
        _logger.debug("effective configuration: %s; %s", variables, process_config())
    if asked:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
