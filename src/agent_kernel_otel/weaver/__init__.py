# SPDX-License-Identifier: Apache-2.0
"""The Weaver kernel (``weaver_kernel``, before 0.10 ``agent_kernel``).

Where to look: :mod:`.targets` says what is patched, :mod:`.operations` and :mod:`.streams` wrap
the kernel's methods, :mod:`.views` and :mod:`.driver_views` show it its collaborators,
:mod:`.calls` and :mod:`.invocation` know what is told of a call.
"""
