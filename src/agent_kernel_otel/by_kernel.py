# SPDX-License-Identifier: Apache-2.0
"""A table of something for each kernel, which forgets the kernels that are no more."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

Value = TypeVar("Value")


class ByKernel(dict[int, Value]):
    """Values by the ``id()`` of a kernel, each kept while its kernel lives.

    By id and not by the kernel itself, because a subclass of it may be unhashable, or equal to
    another. Look up with ``get(id(kernel))``, add with :meth:`put`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[int, weakref.ref[Any]] = {}

    def put(self, kernel: Any, value: Value) -> None:
        """Keep a value for a kernel, as long as that lives."""
        key = id(kernel)
        self.owners[key] = weakref.ref(kernel, lambda _: self.drop(key))
        self[key] = value

    def drop(self, key: int) -> None:
        """Forget a kernel's value, if there is one."""
        self.pop(key, None)
        self.owners.pop(key, None)
