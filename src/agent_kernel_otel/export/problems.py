# SPDX-License-Identifier: Apache-2.0
"""Records that could not be read, told with their places, and never with their content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

TOLD: Final = 20
"""How many of them are told of one by one."""


class Problems:
    """Tells of the first few.

    Args:
        notice: Writes a line.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._number = 0

    def tell(self, name: str, place: str, problem: str) -> None:
        """Tell of one, if there were not many.

        Args:
            name: The file.
            place: Where in it.
            problem: What is wrong.
        """
        self._number += 1
        if self._number <= TOLD:
            self._notice(f"{name}: {place}: {problem}")

    def end(self) -> None:
        """Tell how many there were besides."""
        if self._number > TOLD:
            self._notice(f"and {self._number - TOLD:,} more like these")
