# SPDX-License-Identifier: Apache-2.0
"""Every name this package emits: spans, attributes, log events and metrics, and what each one means.

The constants are what the code uses; the registries :data:`SPANS`, :data:`ATTRIBUTES`,
:data:`EVENTS` and :data:`METRICS` are what the reference pages (``docs/tracing.md``,
``docs/metrics.md``) and the conformance tests read. A name that is not here is never emitted.

``gen_ai.*``, ``error.type``, ``exception.*`` and ``security_rule.name`` follow the OpenTelemetry
semantic conventions (GenAI ones as of November 2026, status Development); all others are ours.
Nothing here needs OpenTelemetry to be installed.
"""

from agent_kernel_otel.semconv.attributes import *  # noqa: F403
from agent_kernel_otel.semconv.definitions import *  # noqa: F403
from agent_kernel_otel.semconv.events import *  # noqa: F403
from agent_kernel_otel.semconv.metrics import *  # noqa: F403
from agent_kernel_otel.semconv.spans import *  # noqa: F403
from agent_kernel_otel.semconv.values import *  # noqa: F403
