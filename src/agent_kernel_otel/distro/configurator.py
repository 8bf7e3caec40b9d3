# SPDX-License-Identifier: Apache-2.0
"""The configurator: the SDK's own, with our resource and our log privacy."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import get_logger_provider
from opentelemetry.environment_variables import (
    OTEL_METRICS_EXPORTER,
    OTEL_PYTHON_METER_PROVIDER,
    OTEL_PYTHON_TRACER_PROVIDER,
)
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
from opentelemetry.sdk.environment_variables import (
    OTEL_CONFIG_FILE,
    OTEL_EXPERIMENTAL_RESOURCE_DETECTORS,
)
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.trace import get_tracer_provider

from agent_kernel_otel.config_file import ConfigFile, config_file, explain, tell_of_problem
from agent_kernel_otel.distro import checks, defaults
from agent_kernel_otel.distro.assembly import our_pipelines
from agent_kernel_otel.distro.declarative import configure_from, is_scraped
from agent_kernel_otel.distro.handlers import attend_exporting_handlers, process_config
from agent_kernel_otel.distro.hints import (
    do_not_claim_to_have_configured,
    explain_refused_providers,
)
from agent_kernel_otel.distro.selection import select
from agent_kernel_otel.distro.service import INHERITED, is_helper
from agent_kernel_otel.doctor.at_start import log_diagnosis
from agent_kernel_otel.weaver.logs import KernelLogProcessor

_logger = logging.getLogger(__name__)

_API: Final = ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
_UNNAMED: Final = "unknown_service"
_AUTO_VERSION: Final = "telemetry.auto.version"


class AgentKernelConfigurator(_OTelSDKConfigurator):
    """Sets up the SDK as OpenTelemetry itself would, and adds to it.

    It does so from the file that ``OTEL_CONFIG_FILE`` names, or else from ``OTEL_*``. It adds a
    name for the service where the user has given none, the distro's name and version, and
    :class:`~agent_kernel_otel.weaver.logs.KernelLogProcessor` in front of the exporters. It does
    nothing where ``OTEL_SDK_DISABLED`` is true or where the app has set up providers of its own
    before, and gives way to the configurator that :func:`.selection.select` names.
    """

    def _configure(self, **kwargs: Any) -> None:
        selection = select(os.environ)
        chosen = selection.configurator
        if selection.configures is None:
            _logger.debug("nothing is configured: %s", selection.reason)
            return
        if chosen is not None and not selection.ours:
            do_not_claim_to_have_configured()
            chosen.load()().configure(**kwargs)
            return
        if is_helper(sys.orig_argv):
            return
        if _app_has_providers():
            _logger.info("the app has set up OpenTelemetry itself: nothing is configured")
            return
        log_diagnosis()
        file = config_file(os.environ)
        if file is None:
            self._configure_from_environment(kwargs)
        else:
            _configure_from_file(file, kwargs)
        attend_exporting_handlers()
        explain_refused_providers()

    def _configure_from_environment(self, kwargs: dict[str, Any]) -> None:
        checks.repair(os.environ)
        try:
            with our_pipelines(process_config().exit_timeout, is_scraped=_is_scraped(os.environ)):
                super()._configure(**_with_ours(kwargs))  # type: ignore[no-untyped-call]
        except Exception as error:
            _say_that_it_failed("the environment", error)


def _is_scraped(environ: Mapping[str, str]) -> bool:
    names = environ.get(OTEL_METRICS_EXPORTER, "").split(",")
    return "prometheus" in map(str.strip, names)


def _configure_from_file(file: ConfigFile, kwargs: Mapping[str, Any]) -> None:
    if file.problem is not None:
        # Nothing at all, rather than data that goes where the user has not said.
        tell_of_problem(file, "OpenTelemetry is not set up, and the app runs without it")
        return
    if file.unknown:
        _logger.warning(
            "%s=%s: unknown and ignored: %s", OTEL_CONFIG_FILE, file.path, ", ".join(file.unknown)
        )
    version = kwargs.get("auto_instrumentation_version")
    try:
        with our_pipelines(process_config().exit_timeout, is_scraped=is_scraped(file.model)):
            configure_from(file.model, {_AUTO_VERSION: version} if version else {})
    except Exception as error:
        _say_that_it_failed(f"{OTEL_CONFIG_FILE}={file.path}", error)


def _say_that_it_failed(source: str, error: Exception) -> None:
    _logger.error(
        "%s cannot be used: %s; OpenTelemetry is %s set up, and the app goes on",
        source,
        explain(error),
        "in part only" if _app_has_providers() else "not",
    )


def _with_ours(given: dict[str, Any]) -> dict[str, Any]:
    attributes = defaults.resource_attributes(os.environ, sys.orig_argv)
    # The user's detectors may know the name, and attributes given here would win over them.
    if defaults.is_set(os.environ, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS):
        detected = str(Resource.create().attributes.get(SERVICE_NAME, _UNNAMED))
        if not detected.startswith(_UNNAMED):
            attributes.pop(SERVICE_NAME, None)
    if SERVICE_NAME in attributes:
        os.environ[INHERITED] = attributes[SERVICE_NAME]
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
