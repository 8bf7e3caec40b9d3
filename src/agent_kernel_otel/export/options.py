# SPDX-License-Identifier: Apache-2.0
"""What ``agent-kernel-otel export`` can be asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from agent_kernel_otel.export.selection import Selection


@dataclass(frozen=True)
class ExportOptions:
    """What to export, from where and to where.

    Attributes:
        files: The audit files in order, ``-`` for standard input.
        format: ``jsonl``, ``sqlite`` or ``envelope``; ``None`` to find out.
        selection: Which records.
        endpoint: Where to send; ``None`` for what the environment says.
        output: The file to write instead.
        service_name: Name of the service whose spans these are; ``None`` for what the environment
            says.
        verify_chain: Whether nothing is to be exported unless the hash chain holds.
        links: Files that say which live spans to link to.
        chain_key_file: Where the key of the chain is; ``None`` for the environment.
        dry_run: Whether to count only.
        checkpoint: Where to keep for good what has been exported; ``None`` to keep it only until
            the export is finished.
        restart: Whether to begin anew, whatever the checkpoint says.
        patience: Seconds to wait for a receiver that does not answer.
        json: Whether the summary is to be JSON, on stdout.
        progress: Whether a terminal is shown how far it is.
    """

    files: tuple[str, ...]
    format: str | None
    selection: Selection
    endpoint: str | None
    output: str | None
    service_name: str | None
    links: tuple[str, ...]
    verify_chain: bool
    chain_key_file: str | None
    dry_run: bool
    checkpoint: str | None
    restart: bool
    patience: float
    json: bool
    progress: bool
