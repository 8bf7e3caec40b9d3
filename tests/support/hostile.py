# SPDX-License-Identifier: Apache-2.0
"""Values that an application can pass for an id or an object, and that break naive readers."""

from __future__ import annotations

from typing import Any, NoReturn


class Refusing(Exception):  # noqa: N818 - it is what the object says, not what went wrong
    """An object refuses to be looked at."""


class HostileText(str):
    """A string that cannot be printed, formatted, compared with or hashed in another way."""

    __slots__ = ()

    def __str__(self) -> NoReturn:
        raise Refusing

    __repr__ = __str__

    def __format__(self, spec: str) -> NoReturn:
        raise Refusing


class HostileObject:
    """Each property raises, and so does its text."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Refusing(name)

    def __str__(self) -> NoReturn:
        raise Refusing

    __repr__ = __str__

    def __bool__(self) -> NoReturn:
        raise Refusing


def odd_ids() -> dict[str, Any]:
    """By a name for the test's id, what may come as an id."""
    return {
        "none": None,
        "int": 7,
        "huge int": 10**400,
        "float": float("nan"),
        "bytes": b"\xff\x00",
        "empty": "",
        "long": "m" * 3_000,  # the kernel's own redaction is quadratic
        "surrogate": "id-\ud800-end",
        "nul": "a\x00b",
        "astral": "\U0001f984" * 300,
        "hostile text": HostileText("quiet"),
        "hostile object": HostileObject(),
        "list": ["unhashable"],
        "dict": {"a": 1},
        "class": HostileObject,
    }
