# SPDX-License-Identifier: Apache-2.0
"""What files and the environment say of an export."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)

from agent_kernel_otel.config import InstrumentationConfig, variable_of
from agent_kernel_otel.doctor.masking import shown_address

DEFAULT_SERVICE_NAME: Final = "agent-kernel-audit"
KEY_VARIABLE: Final = "WEAVER_KERNEL_SECRET"
_CREDENTIAL: Final = re.compile(
    r"auth|key|token|secret|passw|credential|cookie|signature|dsn|x-honeycomb-team"
)
"""Names of headers whose values are secret."""


class ChainKeyError(Exception):
    """The key of the hash chain cannot be had; the message says why, and what to do about it."""


def resource_of(service_name: str | None) -> Resource:
    """Whose spans these are. Nothing of it tells of this process or this machine.

    Args:
        service_name: The service's name, where the environment is not to say it.
    """
    # Resource.create() would add more, and whatever detectors the environment names.
    resource = Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}).merge(OTELResourceDetector().detect())
    return (
        resource if service_name is None else resource.merge(Resource({SERVICE_NAME: service_name}))
    )


def chain_key(file: str | None, environ: Mapping[str, str]) -> str:
    """The key of the hash chain.

    Args:
        file: Where it is; ``None`` for the environment.
        environ: Where to look it up.

    Raises:
        ChainKeyError: There is none.
    """
    if file is None:
        key = environ.get(KEY_VARIABLE, "")
        if not key:
            raise ChainKeyError(
                f"--verify-chain needs the kernel's key: set {KEY_VARIABLE}, or give "
                "--chain-key-file FILE"
            )
        return key
    try:
        key = Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ChainKeyError(f"{file}: the key cannot be read: {error.strerror}") from error
    except ValueError:
        raise ChainKeyError(f"{file}: the key is no UTF-8 text") from None
    # Whatever wrote the file has likely ended the line, which is no part of the key.
    key = key.removesuffix("\n").removesuffix("\r")
    if not key:
        raise ChainKeyError(f"{file}: is empty, and was to hold the key of the chain")
    return key


def settings_of(
    resource: Resource, endpoint: str | None, environ: Mapping[str, str], *, is_sent: bool
) -> dict[str, str]:
    """What else makes an export another one than before, by what to call it; it can hold secrets.

    Credentials in headers do not, nor does a service's version: they are changed now and then.

    Args:
        resource: Whose spans are exported.
        endpoint: Where to, as an option says it.
        environ: The environment.
        is_sent: Whether they are sent at all.
    """
    config = InstrumentationConfig.resolve()
    key = config.principal_hash_key if config.principal_id == "hash" else None
    found = {
        "resource": repr(sorted({**resource.attributes, SERVICE_VERSION: ""}.items())),
        "principal_id, principal_hash_key or span_naming": repr(
            (config.principal_id, key, config.span_naming)
        ),
    }
    if is_sent:
        address = endpoint or _variable(environ, "ENDPOINT")
        found["headers"] = repr(sorted(map(_compared, _variable(environ, "HEADERS").split(","))))
        # Of the rest there are several ways to write the same.
        found["address"] = address if shown_address(address) != address else ""
    return found


def _variable(environ: Mapping[str, str], name: str) -> str:
    prefix = "OTEL_EXPORTER_OTLP_"
    return environ.get(f"{prefix}TRACES_{name}") or environ.get(f"{prefix}{name}") or ""


def _compared(header: str) -> tuple[str, str]:
    name, _, value = header.partition("=")
    name = unquote(name).strip().lower()
    return name, "" if _CREDENTIAL.search(name) else unquote(value).strip()


def tell_of_hashes(notice: Callable[[str], None]) -> None:
    """Say so where principals would be hashed in a way that nothing else can match.

    Raises:
        ConfigurationError: A setting cannot be read, so that more could leave than is wanted.
    """
    config = InstrumentationConfig.resolve(strict=True)
    if config.principal_id == "hash" and config.principal_hash_key is None:
        notice(
            "the hashes of principals will not agree with the app's, nor with those of another "
            f"run: set {variable_of('principal_hash_key')} to the app's key"
        )
