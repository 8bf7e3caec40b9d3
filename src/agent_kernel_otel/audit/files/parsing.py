# SPDX-License-Identifier: Apache-2.0
"""JSON of a record, and what is wrong with it in words that repeat nothing of it."""

from __future__ import annotations

import json
from typing import Any, Final

LARGEST: Final = 16 * 1024 * 1024
"""Longest record that is read, in bytes: what is longer is no audit record of the kernel's."""
TOO_LONG: Final = "it is longer than 16 MiB"
CUT_OFF: Final = "it is cut off: the file ends in the midst of it"

NO_OBJECT: Final = "it is no JSON object"


class NoRecordError(ValueError):
    """Something is no record; the message says why."""


def parse_json(raw: bytes) -> Any:
    """Parse JSON.

    Raises:
        NoRecordError: It is none.
    """
    if len(raw) > LARGEST:
        raise NoRecordError(TOO_LONG)
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"its line {error.lineno}, "
        problem = f"it is not valid JSON ({line}column {error.colno})"
    except ValueError:
        problem = "it holds a number of too many digits"
    except RecursionError:
        problem = "it is nested too deeply"
    raise NoRecordError(problem)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        NoRecordError: It is none.
    """
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise NoRecordError(NO_OBJECT)
    return value
