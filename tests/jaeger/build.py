# SPDX-License-Identifier: Apache-2.0
"""Builds Jaeger from its source, once.

``python -m tests.jaeger.build`` prints where the binary is. Its web page is a placeholder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.matrix.environments import CommandFailedError
from tests.support.go_programs import Workshop, built

_MODULE: Final = "github.com/jaegertracing/jaeger@v1.76.0"
_CHECKSUM: Final = "h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g="
"""The module's, as in a ``go.sum``; its own ``go.sum`` has those of all that it is built of."""


def jaeger() -> Path:
    """The binary of Jaeger 2, built if it is missing.

    Raises:
        SystemExit: Go is missing, or the build failed; the message says what to do.
    """
    return built("jaeger", f"{_MODULE} {_CHECKSUM}".encode(), _download, "-mod=readonly")


def _download(workshop: Workshop) -> Path:
    # "go install" would refuse it, since it replaces a dependency of its dependencies.
    module = json.loads(workshop.go("mod", "download", "-json", _MODULE))
    if module["Sum"] != _CHECKSUM:
        raise CommandFailedError(f"{_MODULE} is {module['Sum']} and not {_CHECKSUM}")
    return Path(module["Dir"]) / "cmd" / "jaeger"


if __name__ == "__main__":
    print(jaeger())
