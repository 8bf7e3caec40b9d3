# SPDX-License-Identifier: Apache-2.0
"""The audit bridge: the kernel's ``ActionTrace`` records as spans, live and long after.

:mod:`~agent_kernel_otel.audit.records` reads a record, :mod:`~agent_kernel_otel.audit.replay` says
what its span is, :mod:`~agent_kernel_otel.audit.exporter` exports records in hand,
:mod:`~agent_kernel_otel.audit.store` exports them as they are written, and
:mod:`~agent_kernel_otel.audit.files` reads audit files.
"""
