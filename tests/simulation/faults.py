# SPDX-License-Identifier: Apache-2.0
"""The faults that can befall an operation, how often they do, and what they raise."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from weaver_kernel import DriverError, PolicyDenied


class SimCrash(BaseException):
    """No exception that an application expects: as if the process were about to die."""


class VendorRefusal(Exception):  # noqa: N818 - it is what the vendor's code says
    """A refusal of the app's own, known only by its reason code."""

    def __init__(self, text: str, reason_code: Any) -> None:
        super().__init__(text)
        self.reason_code = reason_code


FAULTS: Final[dict[str, tuple[float, Callable[[], BaseException]]]] = {
    # Name: how probable it is, and what it raises. The part before the dot is where.
    "policy.crash": (0.04, lambda: RuntimeError("the engine crashed")),
    "policy.denies_custom": (0.05, lambda: PolicyDenied("custom", reason_code="sim_custom")),
    "policy.denies_uncoded": (0.03, lambda: PolicyDenied("no code")),
    "policy.denies_vendor": (0.02, lambda: VendorRefusal("vendor", "vendor_says_no")),
    "policy.dies": (0.005, lambda: SimCrash("policy")),
    "verify.crash": (0.02, lambda: RuntimeError("the key server is down")),
    "verify.denies_vendor": (0.01, lambda: VendorRefusal("vendor", "vendor_token")),
    "issue.crash": (0.02, lambda: RuntimeError("no key to sign with")),
    "route.crash": (0.02, lambda: LookupError("no route")),
    "suggest.crash": (0.01, lambda: ValueError("no suggestion")),
    "allocate.crash": (0.02, lambda: ValueError("no allocation")),
    "count.crash": (0.02, lambda: ValueError("no tokens to count")),
    "store.write": (0.10, lambda: OSError(28, "No space left on device")),
    "store.dies": (0.005, lambda: SimCrash("store")),
    "transform.crash": (0.05, lambda: ValueError("the firewall failed")),
    "transform.denies": (0.02, lambda: VendorRefusal("blocked", "sim_blocked")),
    "transform.empty_code": (0.01, lambda: VendorRefusal("odd", "")),
    "record.write": (0.10, lambda: OSError(28, "No space left on device")),
    "record.dies": (0.005, lambda: SimCrash("record")),
    "expand.crash": (0.05, lambda: OSError(5, "Input/output error")),
}

DRIVER_FAULTS: Final[dict[str, tuple[float, Callable[[], BaseException]]]] = {
    "driver.error": (0.12, lambda: DriverError("upstream said no")),
    "driver.crash": (0.06, lambda: ConnectionError("reset by peer")),
    "driver.timeout": (0.04, lambda: TimeoutError("slow upstream")),
    "driver.refuses": (0.03, lambda: VendorRefusal("not yours", "vendor_driver")),
    "driver.cancels": (0.01, asyncio.CancelledError),
    "driver.dies": (0.01, lambda: SimCrash("driver")),
}

CHANCES: Final = {
    # What is no exception, and may befall an operation as well.
    "transform.stricter": 0.03,
    "driver.hangs": 0.08,
    "driver.hangs_and_complains": 0.02,
    "cancelled": 0.10,
    "wall_clock_jumps": 0.05,
    "unsampled": 0.08,
    "suppressed": 0.04,
    "rootless": 0.05,
    "processor_raises": 0.03,
    "processor_refuses": 0.01,
    "nests": 0.04,
    "forks": 0.002,
    "policy.returns_denied": 0.05,
}


class FaultInjector:
    """Decides which faults befall an operation, and counts them.

    All is decided before anything runs, so that the same seed gives the same faults in whatever
    order operations come to meet them.

    Args:
        rng: Where the decisions come from.
        scale: By how much more or less probable everything is than :data:`FAULTS` says.
    """

    def __init__(self, rng: random.Random, scale: float = 1.0) -> None:
        self._rng = rng
        self._scale = scale
        self.drawn: Counter[str] = Counter()

    def befalls(self, name: str) -> bool:
        """Whether a chance event comes to pass this time."""
        if self._rng.random() >= CHANCES[name] * self._scale:
            return False
        self.drawn[name] += 1
        return True

    def draw(self, places: Iterable[str]) -> dict[str, str]:
        """By place, the fault that waits there; at most one for each."""
        found: dict[str, str] = {}
        for place in places:
            fault = self._one_of(FAULTS, place)
            if fault is not None:
                found[place] = fault
        return found

    def draw_driver(self) -> str | None:
        """The fault of one driver attempt, if it has one."""
        return self._one_of(DRIVER_FAULTS, "driver")

    def _one_of(self, faults: dict[str, Any], place: str) -> str | None:
        roll = self._rng.random()
        for name, (probability, _) in faults.items():
            if name.partition(".")[0] != place:
                continue
            roll -= probability * self._scale
            if roll < 0:
                self.drawn[name] += 1
                return name
        return None


def exception_of(fault: str) -> BaseException:
    """A new exception, as the fault raises it."""
    return (FAULTS.get(fault) or DRIVER_FAULTS[fault])[1]()
