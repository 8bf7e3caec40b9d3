# SPDX-License-Identifier: Apache-2.0
"""Small apps with a kernel, for the doctor to watch: ``python apps.py NAME``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

GRANTS = 3
EXIT_CODE = 7


def grant() -> None:
    """Call a kernel."""
    import weaver_kernel as wk
    from weaver_kernel.models import CapabilityRequest

    os.environ.setdefault("WEAVER_KERNEL_SECRET", "a secret of this example")
    registry = wk.CapabilityRegistry()
    registry.register(wk.Capability("orders.list", "List", "List orders", wk.SafetyClass.READ))
    kernel = wk.Kernel(registry, router=wk.StaticRouter())
    agent = wk.Principal("agent", roles=["reader"])
    for _ in range(GRANTS):
        kernel.grant_capability(
            CapabilityRequest("orders.list", goal="see"), agent, justification="for a test"
        )


def crash() -> None:
    """Call a kernel and raise."""
    grant()
    raise RuntimeError("the app failed")


def leave() -> None:
    """End with a code of its own."""
    grant()
    sys.exit(EXIT_CODE)


def vanish() -> None:
    """End without any of Python's own ending."""
    grant()
    os._exit(EXIT_CODE)


def killed() -> None:
    """Be killed."""
    grant()
    os.kill(os.getpid(), signal.SIGKILL)


def fork() -> None:
    """Call a kernel in this process and in a forked child."""
    grant()
    child = os.fork()
    grant()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)


def idle() -> None:
    """Import no kernel."""


def importing() -> None:
    """Import a kernel and call none."""
    import weaver_kernel  # noqa: F401


def working() -> None:
    """Print on stdout."""
    grant()
    asyncio.run(asyncio.sleep(0))
    print("the app's own words")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
