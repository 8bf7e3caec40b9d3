# SPDX-License-Identifier: Apache-2.0
"""``agent-kernel-otel export``: audit files as spans, over OTLP or to a file.

:mod:`.run` reads records, has their spans made, and hands them in batches to a :mod:`.sink`:
:mod:`.sending` is the one that sends OTLP, encoded by :mod:`.otlp`, over a :mod:`.connection`;
:mod:`.to_file` the one that writes a file, encoded by :mod:`.json_lines`.
"""
