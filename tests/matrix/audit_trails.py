# SPDX-License-Identifier: Apache-2.0
"""Where the kernel under test keeps its audit records, and the files that hold them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tests.matrix.world import kernels, lib, options_of_all

SECRET = "matrix"


class MemoryTrail:
    """The kernel's own store in memory, of which a team dumps what it holds."""

    name = "memory"
    is_chained = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._before = len(kernels)
        options_of_all.pop("trace_store", None)

    def records(self) -> list[Any]:
        """The records of all kernels since."""
        return [
            record
            for kernel in kernels[self._before :]
            for record in kernel._trace_store.list_all()
        ]

    def files(self) -> list[Path]:
        """Files of the records, in each form that there is for them."""
        bare = self._directory / "bare.jsonl"
        lines = [json.dumps(dataclasses.asdict(each), default=str) for each in self.records()]
        bare.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files = [bare]
        if hasattr(lib, "export_action_traces"):
            envelope = self._directory / "envelope.json"
            envelope.write_text(json.dumps(lib.export_action_traces(self.records())))
            files.append(envelope)
        return files

    def verify(self) -> list[str]:
        """What is wrong with the hash chain: there is none."""
        return []


class ChainedTrail:
    """One of the kernel's stores that keep a hash-chained file.

    Args:
        name: Its class.
        path: Its file.
    """

    is_chained = True

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._store = getattr(lib, name)(path, secret=SECRET)
        options_of_all["trace_store"] = self._store

    def records(self) -> list[Any]:
        """The records of all kernels since."""
        records: list[Any] = self._store.list_all()
        return records

    def files(self) -> list[Path]:
        """The file."""
        return [self._path]

    def verify(self) -> list[str]:
        """What the kernel finds wrong with the hash chain, in a store of its own."""
        result = getattr(lib, self.name)(self._path, secret=SECRET).verify_chain()
        right = result.ok and result.records_checked == len(self.records())
        return [] if right else [f"the chain does not verify: {result.detail}"]


Trail = MemoryTrail | ChainedTrail


def trails(directory: Path) -> list[Any]:
    """How to begin each kind of trail that the release has, one after the other."""
    kinds: list[Any] = [lambda: MemoryTrail(directory)]
    for name, file in (("JsonlTraceStore", "chained.jsonl"), ("SQLiteTraceStore", "audit.db")):
        if hasattr(lib, name):
            kinds.append(lambda name=name, file=file: ChainedTrail(name, directory / file))
    return kinds
