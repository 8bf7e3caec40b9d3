# SPDX-License-Identifier: Apache-2.0
"""Builds the OpenTelemetry Collectors of ``collector-config/builders`` from their source, once.

``python -m tests.collector.build`` prints where the binaries are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.go_programs import Workshop, built

BUILDERS: Final = Path(__file__).parents[2] / "collector-config" / "builders"
_BUILDER: Final = "go.opentelemetry.io/collector/cmd/builder@v0.152.0"
# Its own next step would ask for the test dependencies of all dependencies.
_GENERATE_ONLY: Final = ("--skip-get-modules", "--skip-compilation", "--skip-strict-versioning")


def collector() -> Path:
    """The Collector's binary, built if it is missing.

    Raises:
        SystemExit: Go is missing, or the build failed; the message says what to do.
    """
    return _built("otelcol", BUILDERS / "collector.yaml")


def load_balancer() -> Path:
    """The binary of the Collector that balances load, as :func:`collector` has that of the other."""
    return _built("otelcol-loadbalancer", BUILDERS / "loadbalancer.yaml")


def _built(name: str, manifest: Path) -> Path:
    def generate(workshop: Workshop) -> Path:
        workshop.go("install", _BUILDER, GOBIN=str(workshop.folder))
        workshop.run(str(workshop.folder / "builder"), "--config", str(manifest), *_GENERATE_ONLY)
        return workshop.folder / "source"

    # A build takes long enough not to be done again for a comment.
    lines = manifest.read_text().splitlines()
    said = [line for line in lines if line and not line.lstrip().startswith("#")]
    recipe = "\n".join([_BUILDER, *said]).encode()
    # Generated without checksums, which Go adds as its checksum database vouches for them.
    return built(name, recipe, generate, "-mod=mod")


if __name__ == "__main__":
    print(collector())
    print(load_balancer())
