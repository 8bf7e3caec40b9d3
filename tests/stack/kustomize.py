# SPDX-License-Identifier: Apache-2.0
"""Builds Kustomize, which ``kubectl apply -k`` has in it, from its source, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.matrix.environments import CommandFailedError
from tests.support.go_programs import Workshop, built

_MODULE: Final = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
_CHECKSUM: Final = "h1:Pgsg5psubpVEy7Nf6S89PARg5VmmWUC1l9dC6Dl4PG0="
"""The module's, as in a ``go.sum``; its own ``go.sum`` has those of all that it is built of."""


def kustomize() -> Path:
    """The binary of Kustomize, built if it is missing.

    Raises:
        SystemExit: Go is missing, or the build failed; the message says what to do.
    """
    return built("kustomize", f"{_MODULE} {_CHECKSUM}".encode(), _download, "-mod=readonly")


def _download(workshop: Workshop) -> Path:
    module = json.loads(workshop.go("mod", "download", "-json", _MODULE))
    if module["Sum"] != _CHECKSUM:
        raise CommandFailedError(f"{_MODULE} is {module['Sum']} and not {_CHECKSUM}")
    return Path(module["Dir"])


if __name__ == "__main__":
    print(kustomize())
