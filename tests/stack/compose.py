# SPDX-License-Identifier: Apache-2.0
"""The services of ``compose.yaml``, as programs of this machine.

What Docker makes of a service is made of its image, the command and the environment: names of services
become ports of the loopback interface, mounted files and volumes paths of this machine.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from tests.support.ports import HOST, free_port

FOLDER: Final = Path(__file__).parents[2] / "collector-config" / "stack"
FILE: Final = FOLDER / "compose.yaml"

_VARIABLE: Final = re.compile(r"\$\{(\w+):-([^}]*)\}")
_ANYWHERE: Final = "0.0.0.0"


def read(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file, with its variables filled in as Compose does.

    Args:
        variables: Instead of those of the environment.
    """
    values = os.environ if variables is None else variables
    text = _VARIABLE.sub(lambda found: values.get(found[1]) or found[2], FILE.read_text())
    found: dict[str, Any] = yaml.safe_load(text)
    return found


class Composition:
    """Where the services of the file are on this machine.

    Args:
        folder: Where their volumes and what is made of their files are put.
        variables: What ``.env`` would say, instead of the environment.
        replaced: Texts to be replaced in files of configuration, such as intervals.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        replaced: Mapping[str, str] | None = None,
    ) -> None:
        self._services = read(variables)["services"]
        self._folder = folder
        self._replaced = replaced or {}
        self._published = {
            (name, int(published.split(":")[2])): int(published.split(":")[1])
            for name, service in self._services.items()
            for published in service.get("ports", ())
        }
        self._ports: dict[tuple[str, int], int] = {}
        names = "|".join(self._services)
        self._address = re.compile(rf"(?<![\w.-])({names}|{re.escape(_ANYWHERE)}):(\d+)\b")

    def address(self, service: str, port: int) -> str:
        """Where a port of a service is; one that is not published is a free one."""
        return f"{HOST}:{self._port(service, port)}"

    def command(self, service: str) -> list[str]:
        """The arguments of its program."""
        return [self._local(service, word) for word in self._services[service]["command"]]

    def environment(self, service: str) -> dict[str, str]:
        """What the file adds to its environment."""
        found: dict[str, Any] = self._services[service].get("environment", {})
        values = {name: self._local(service, str(value)) for name, value in found.items()}
        for name in [name for name in values if name.endswith("_HOST")]:
            port = name.removesuffix("_HOST") + "_PORT"
            values[name] = HOST
            values[port] = str(self._port(service, int(values[port])))
        return values

    def volume(self, name: str) -> Path:
        """Where a named volume is."""
        path = self._folder / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _port(self, service: str, port: int) -> int:
        place = service, port
        if place not in self._ports:
            wanted = self._published.get(place)
            self._ports[place] = _available(wanted, port) if wanted else free_port()
        return self._ports[place]

    def _local(self, service: str, text: str) -> str:
        """What a text within a service means here."""
        text = self._address.sub(
            lambda found: self.address(
                service if found[1] == _ANYWHERE else found[1], int(found[2])
            ),
            text,
        )
        sources = self._mounted(service)
        if not sources:
            return text
        # At once, so that no path is looked for in what another has become.
        targets = "|".join(re.escape(target) for target in sources)
        return re.sub(
            rf"(?<![\w./-])({targets})(?![\w-])",
            lambda found: str(self._path(service, sources[found[1]])),
            text,
        )

    def _mounted(self, service: str) -> dict[str, str]:
        """The sources of what is mounted by their targets, the deepest first."""
        mounts = [mount.split(":") for mount in self._services[service].get("volumes", ())]
        return {mount[1]: mount[0] for mount in sorted(mounts, key=lambda m: -len(m[1]))}

    def _path(self, service: str, source: str) -> Path:
        if not source.startswith("."):
            return self.volume(source)
        path = (FOLDER / source).resolve()
        # Those of the stack name other services; those beside it ask the environment.
        return (
            self._translated(service, path) if path.is_file() and FOLDER in path.parents else path
        )

    def _translated(self, service: str, path: Path) -> Path:
        made = self._folder / path.name
        if not made.exists():
            text = path.read_text()
            for old, new in self._replaced.items():
                text = text.replace(old, new)
            made.write_text(self._local(service, text))
        return made


def _available(port: int, inside: int) -> int:
    """The port at which one of a service is published.

    Raises:
        RuntimeError: Somebody else listens on it.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            (variable,) = re.findall(rf"\$\{{(\w+_PORT):-\d+\}}:{inside}$", FILE.read_text(), re.M)
            raise RuntimeError(
                f"port {port} is taken: choose another one with {variable}=..."
            ) from error
    return port
