# SPDX-License-Identifier: Apache-2.0
"""The way of spans, log records and metrics out of the process.

:mod:`.batching` and :mod:`.metric_reader` take them; each has a thread (:mod:`.worker`) and an
exporter with its books (:mod:`.delivery`, :mod:`.ledger`), whose requests are watched (:mod:`.wire`).
:mod:`.lifecycle` sees to all of them when the process forks, is asked to end, and ends;
:mod:`.notices` and :mod:`.own_metrics` tell what was lost. None of it knows a kernel, or who sets
the SDK up.
"""
