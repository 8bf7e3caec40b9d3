# SPDX-License-Identifier: Apache-2.0
"""How a value is shown: what is secret in it is masked."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from agent_kernel_otel.scrub import MASK, scrub_text

_SECRET: Final = re.compile(r"HEADERS|_KEY$|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_ADDRESS: Final = re.compile(r"ENDPOINT$|PROXY$", re.IGNORECASE)
_FILE: Final = re.compile(r"CERTIFICATE$|CLIENT_KEY$|CONFIG_FILE$")
_NUMBER: Final = re.compile(
    r"OTEL_((BSP|BLRP)_\w+|METRIC_EXPORT_\w+|\w+_LIMIT|EXPORTER_OTLP_(\w+_)?TIMEOUT|\w+_SAMPLER_ARG)"
)
_CHOICE: Final = re.compile(
    r"OTEL_\w*(EXPORTER|PROTOCOL|SAMPLER|COMPRESSION|PREFERENCE|PROPAGATORS|INSECURE|DISABLED"
    r"|EXEMPLAR_FILTER|AGGREGATION|LEVEL|DISTRO|CONFIGURATOR|INSTRUMENTATIONS)"
)
UNREADABLE: Final = "(cannot be read)"
"""Shown in place of what should be a number: nobody knows what it is."""
_TOKEN_LIKE: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~-]{16,}")
_TOKEN_LIKE_WORD: Final = re.compile(r"(?=[\w~-]*\d)(?=[\w~-]*[A-Za-z])[\w~-]{16,}")
_LIMIT: Final = 200
_SHORTEST_SECRET: Final = 4


def shown_value(variable: str, value: str) -> str:
    """The value of a variable as it may be shown.

    Args:
        variable: Its name, which tells what it holds.
        value: Its value.
    """
    if _FILE.search(variable):
        # A path is no secret; the text of a key, put there by mistake, is.
        return value if len(value) < _LIMIT and _exists(value) else MASK
    if _SECRET.search(variable):
        return MASK
    if _ADDRESS.search(variable):
        return shown_address(value)
    if _NUMBER.fullmatch(variable):
        return value.strip() if _is_number(value) else UNREADABLE
    if _CHOICE.fullmatch(variable):
        return shown_choice(value)
    return scrub_text(value, limit=_LIMIT)


def shown_choice(value: str) -> str:
    """What should be a name among few; what looks like a token is none, and is masked."""
    return scrub_text(_TOKEN_LIKE_WORD.sub(MASK, value), limit=_LIMIT)


def shown_address(address: str) -> str:
    """An address without credentials, query, and path segments that look like a token."""
    head, separator, rest = address.partition("://")
    if not separator:
        head, rest = "", address
    rest = re.split(r"[?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    host, *segments = rest.split("/")
    path = [MASK if _TOKEN_LIKE.fullmatch(segment) else segment for segment in segments]
    return scrub_text(head + separator + "/".join([host, *path]), limit=_LIMIT)


def shown_answer(text: str, environ: Mapping[str, str]) -> str:
    """What a server or a library said, without any secret of the environment in it."""
    shown = text
    for secret in sorted(set(_secrets_of(environ)), key=len, reverse=True):
        shown = shown.replace(secret, MASK)
    return scrub_text(" ".join(shown.split()), limit=_LIMIT)


def _secrets_of(environ: Mapping[str, str]) -> Iterator[str]:
    for variable, value in environ.items():
        if _ADDRESS.search(variable):
            with suppress(ValueError):
                parts = urlsplit(value)
                yield from _long(parts.username, parts.password, *parts.query.split("&"))
                yield from _long(*(s for s in parts.path.split("/") if _TOKEN_LIKE.fullmatch(s)))
        elif _SECRET.search(variable) and variable.startswith("OTEL_"):
            for pair in value.split(","):
                secret = pair.partition("=")[2] or pair
                for word in {secret, unquote(secret), *unquote(secret).split()}:
                    yield from _long(word, *_decoded(word))


def _decoded(word: str) -> list[str]:
    # "Basic" credentials: a server that refuses them may name the user.
    with suppress(binascii.Error, UnicodeDecodeError, ValueError):
        text = base64.b64decode(word, validate=True).decode()
        return [text, *text.split(":")]
    return []


def _long(*words: str | None) -> Iterator[str]:
    for word in words:
        if word and len(word.strip()) >= _SHORTEST_SECRET:
            yield word.strip()


def _is_number(value: str) -> bool:
    with suppress(ValueError):
        float(value)
        return True
    return False


def _exists(path: str) -> bool:
    with suppress(OSError, ValueError):
        return "\n" not in path and (Path(path).exists() or path.startswith(("/", "./", "~")))
    return False
