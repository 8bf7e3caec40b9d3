# SPDX-License-Identifier: Apache-2.0
"""The SDK set up from the file of OpenTelemetry's declarative configuration.

OpenTelemetry does it, as the file says. Ours are the resource attributes that the file does not
give, and :class:`~agent_kernel_otel.weaver.logs.KernelLogProcessor` in front of what exports.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.resources import SERVICE_NAME

from agent_kernel_otel.config_file import BLOCK
from agent_kernel_otel.distro import defaults
from agent_kernel_otel.distro.handlers import process_config
from agent_kernel_otel.distro.service import INHERITED
from agent_kernel_otel.weaver.logs import KernelLogProcessor

_logger = logging.getLogger(__name__)

_UNNAMED: Final = "unknown_service"


def configure_from(model: Any, further_attributes: Mapping[str, str]) -> None:
    """Set up the SDK as a file says.

    Args:
        model: What OpenTelemetry read from the file; it is not changed.
        further_attributes: What the resource says besides, where the file does not.
    """
    # Costly to import, and there only with the extra.
    from opentelemetry.configuration import configure_sdk  # noqa: PLC0415

    model = copy.copy(model)
    if not model.disabled:
        model.resource = _resource(model.resource, further_attributes)
    model.instrumentation_development = _without_ours(model.instrumentation_development)
    if not scrub_kernel_records(LoggerProvider(shutdown_on_exit=False)):
        _logger.error(
            "log records are not exported: this release of the SDK has no place in front of the "
            "exporters where the kernel's own could be scrubbed"
        )
        model.logger_provider = None
    try:
        configure_sdk(model)
    finally:
        if model.logger_provider is not None:
            scrub_kernel_records(get_logger_provider())


def is_scraped(model: Any) -> bool:
    """Whether a file asks for a page of metrics for Prometheus."""
    readers = getattr(model.meter_provider, "readers", None) or ()
    return any(reader.pull is not None for reader in readers)


def scrub_kernel_records(provider: Any) -> bool:
    """Have a provider scrub the kernel's log records before any of its processors sees them.

    Returns:
        Whether it does; a provider that is not the SDK's is left alone.
    """
    # The SDK can add a processor at the end only, when the others have exported already.
    processors: Any = getattr(provider, "_multi_log_record_processor", None)
    present = getattr(processors, "_log_record_processors", None)
    if not isinstance(present, tuple):
        return False
    if not (present and isinstance(present[0], KernelLogProcessor)):
        ours: tuple[LogRecordProcessor, ...] = (KernelLogProcessor(process_config()),)
        processors._log_record_processors = ours + present
    return True


def _resource(given: Any, further_attributes: Mapping[str, str]) -> Any:
    """The file's resource with our attributes where it has none."""
    from opentelemetry.configuration.file import create_resource  # noqa: PLC0415
    from opentelemetry.configuration.models import AttributeNameValue, Resource  # noqa: PLC0415

    # Detectors run here, and not again: what they found goes on as if it were written down.
    detected = create_resource(given)
    attributes: dict[str, Any] = dict(detected.attributes)
    if str(attributes[SERVICE_NAME]).startswith(_UNNAMED):
        del attributes[SERVICE_NAME]
    # The environment's attributes do not count where there is a file.
    parent = {INHERITED: os.environ.get(INHERITED, "")}
    ours = defaults.resource_attributes(parent, sys.orig_argv)
    if SERVICE_NAME in ours and SERVICE_NAME not in attributes:
        os.environ[INHERITED] = ours[SERVICE_NAME]
    attributes = {**further_attributes, **ours, **attributes}
    return Resource(
        attributes=[
            AttributeNameValue(name=name, value=value) for name, value in attributes.items()
        ],
        schema_url=detected.schema_url or None,
    )


def _without_ours(instrumentation: Any) -> Any:
    """What is left for OpenTelemetry to activate; ours is activated by the loader, once."""
    if instrumentation is None or not instrumentation.python:
        return instrumentation
    rest = copy.copy(instrumentation)
    rest.python = {name: value for name, value in instrumentation.python.items() if name != BLOCK}
    return rest
