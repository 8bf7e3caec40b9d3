# SPDX-License-Identifier: Apache-2.0
"""The ``Kernel`` class as it was before anything was instrumented."""

from __future__ import annotations

import copy
from typing import Any

from weaver_kernel import Kernel

from tests.support.kernels import make_kernel

# Copying an instance caches __slotnames__ on the class, which is nobody's doing but Python's.
copy.copy(make_kernel())

UNTOUCHED: dict[str, Any] = dict(vars(Kernel))


def assert_untouched() -> None:
    """Fail unless the class has the same attributes, the very objects."""
    now = dict(vars(Kernel))
    assert now.keys() == UNTOUCHED.keys()
    assert [name for name in now if now[name] is not UNTOUCHED[name]] == []
