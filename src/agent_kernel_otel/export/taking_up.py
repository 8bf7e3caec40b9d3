# SPDX-License-Identifier: Apache-2.0
"""Where to go on in each file. Files are renamed, so that a place is known by what stands there."""

from __future__ import annotations

from agent_kernel_otel.audit.files.entries import AuditFileError, ChangedFileError, Position
from agent_kernel_otel.export.checkpoint import CheckpointError
from agent_kernel_otel.export.sources import Source, Sources


def take_up(sources: Sources, positions: dict[str, Position]) -> list[str]:
    """See to it that each position is in the file that it was taken in.

    The position of a file that was rotated goes over to the one that has its content now, if that
    is among the sources, and the file itself is read from its beginning.

    Args:
        sources: The files; those that cannot be read are taken out.
        positions: By path, as they were kept.

    Returns:
        What is wrong with each file that was taken out.

    Raises:
        CheckpointError: A file has changed, and none has its content.
    """
    problems: list[str] = []
    changed: dict[str, ChangedFileError] = {}
    for source in list(sources.all):
        path = source.path or ""
        if path not in positions:
            continue
        try:
            _go_to(source, positions[path])
        except ChangedFileError as error:
            changed[path] = error
        except AuditFileError as error:
            problems.append(str(error))
            sources.all.remove(source)
    holders = {
        path: [each for each in sources.all if each.path != path and _holds(each, positions[path])]
        for path in changed
    }
    found = {
        each.path or "": positions[path]
        for path, those in holders.items()
        for each in those
        if each.path not in positions or each.path in changed
    }
    for path, change in changed.items():
        if not holders[path] and path not in found:
            raise CheckpointError(
                f"{change}; if it was rotated, name the older files too, as in audit.jsonl.1 "
                "audit.jsonl; otherwise begin anew with --restart"
            )
    for path in changed:
        del positions[path]
    positions.update(found)
    return problems


def _go_to(source: Source, position: Position) -> None:
    next(iter(source.file.entries(position)), None)


def _holds(source: Source, position: Position) -> bool:
    try:
        _go_to(source, position)
    except AuditFileError:
        return False
    return True
