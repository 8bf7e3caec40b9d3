# SPDX-License-Identifier: Apache-2.0
"""The file of links: where the exporter ``agent_kernel_links`` writes, and whether it can."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent_kernel_otel.config import variable_of
from agent_kernel_otel.doctor.destinations import Destination
from agent_kernel_otel.doctor.masking import shown_value

EXPORTER: Final = "agent_kernel_links"
VARIABLE: Final = variable_of("links_file")


def with_links_file(
    destinations: Iterable[Destination], links_file: str
) -> tuple[Destination, ...]:
    """The destinations, those that write links with their file.

    Args:
        destinations: Every exporter of every signal.
        links_file: The setting ``links_file`` in force.
    """
    path = Path(links_file).absolute()
    shown, why = shown_value(VARIABLE, str(path)), unwritable(path)
    return tuple(
        replace(one, endpoint=shown, unwritable=why) if one.exporter == EXPORTER else one
        for one in destinations
    )


def unwritable(path: Path) -> str:
    """Why a file cannot be written; empty where it can. Nothing is made or changed."""
    if os.path.isdir(path):  # noqa: PTH112 - Path's own raises where it may not look
        return "it is a folder"
    if os.path.lexists(path):
        return "" if os.access(path, os.R_OK | os.W_OK) else "it may not be read and written"
    if not os.path.isdir(path.parent):  # noqa: PTH112 - likewise
        return "its folder is not there"
    may_make = os.access(path.parent, os.W_OK | os.X_OK)
    return "" if may_make else "its folder may not be written to"
