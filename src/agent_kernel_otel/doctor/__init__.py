# SPDX-License-Identifier: Apache-2.0
"""``agent-kernel-otel doctor``: why nothing shows up, and what to do.

:mod:`.facts` gathers what is so, without any network; :mod:`.probing` asks each endpoint with a
real OTLP request, and :mod:`.peer` finds out why one failed; :mod:`.findings` and its kin say what
is wrong, as pure functions of the facts; :mod:`.rendering` shows it. With ``-- COMMAND``,
:mod:`.observation` runs it and reads what its processes reported of themselves.
"""
