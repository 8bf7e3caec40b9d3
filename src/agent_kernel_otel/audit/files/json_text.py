# SPDX-License-Identifier: Apache-2.0
"""JSON values one after the other out of a text of any length, with memory for one of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.audit.files.parsing import (
    CUT_OFF,
    LARGEST,
    TOO_LONG,
    NoRecordError,
    parse_json,
)

if TYPE_CHECKING:
    from typing import BinaryIO

_CHUNK: Final = 256 * 1024
_LARGEST_CHUNK: Final = 4 * 1024 * 1024
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BRACKETS: Final = re.compile(r'["{}\[\],]')
_DEEPEST: Final = 1_000_000
_BOM: Final = "ï»¿"
_NEAR_THE_END: Final = 16
"""Characters before the end of a text that is cut off in which its parser can notice it."""
_raw_decode: Final = json.JSONDecoder().raw_decode


class CutOffError(NoRecordError):
    """The text ends in the midst of a value."""


class LostError(Exception):
    """A value is not JSON, and where it ends cannot be told."""


class JsonReader:
    """Reads a text from left to right.

    The bytes are held as Latin-1, one character each, so that a place in the text is one in the
    file. What JSON itself consists of is ASCII; values that are not are decoded each.

    Args:
        file: The text, in UTF-8.
        offset: Byte at which to begin.
    """

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        if offset:
            file.seek(offset)
        self._read = file.read1 if hasattr(file, "read1") else file.read
        self._text = ""
        self._index = 0
        self._start = offset
        if not offset:
            while len(self._text) < len(_BOM) and self._more():
                pass
            self._index = len(_BOM) if self._text.startswith(_BOM) else 0

    @property
    def offset(self) -> int:
        """The byte that comes next."""
        return self._start + self._index

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._index)
            assert match is not None
            self._index = match.end()
            if self._index < len(self._text):
                return self._text[self._index]
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Go past a character, if it is the next one that is no space."""
        if self.peek() != character:
            return False
        self._index += 1
        return True

    def value(self) -> tuple[Any, bytes]:
        """The next value, and the text of it.

        Raises:
            NoRecordError: It cannot be read; the one after it can.
            CutOffError: The text ends before it does.
            LostError: It cannot be read, and neither can anything after it.
        """
        self.peek()
        extent = _Extent()
        while True:
            try:
                value, end = _raw_decode(self._text, self._index)
            except json.JSONDecodeError as error:
                # Not the error itself, which holds all of the text.
                ends_in_it = self._is_at_the_end(error.msg, error.pos)
            except (ValueError, RecursionError):
                ends_in_it = False
            else:
                # A number at the end could go on.
                if end < len(self._text) or not self._more():
                    return self._parsed(value, end)
                continue
            end = extent.end(self._text, self._index)
            if end >= 0:
                return self._parsed(None, end)
            if len(self._text) - self._index > LARGEST:
                self._skip(extent)
                raise NoRecordError(TOO_LONG)
            if not self._more():
                raise CutOffError(CUT_OFF) if ends_in_it else LostError

    def _parsed(self, value: Any, end: int) -> tuple[Any, bytes]:
        raw = self._text[self._index : end].encode("latin-1")
        self._index = end
        if value is None or not raw.isascii() or len(raw) > LARGEST:
            value = parse_json(raw)
        return value, raw

    def _skip(self, extent: _Extent) -> None:
        end = -1
        while end < 0:
            self._index += extent.seen
            extent.seen = 0
            if not self._more():
                raise CutOffError(TOO_LONG)
            end = extent.end(self._text, self._index)
        self._index = end

    def _is_at_the_end(self, message: str, at: int) -> bool:
        return (
            message.startswith("Unterminated string")
            or at >= len(self._text.rstrip()) - _NEAR_THE_END
        )

    def _more(self) -> bool:
        """Read on, the more the longer the value is that needs it."""
        rest = len(self._text) - self._index
        data = self._read(min(max(_CHUNK, rest), _LARGEST_CHUNK))
        self._start += self._index
        self._text = self._text[self._index :] + data.decode("latin-1")
        self._index = 0
        return bool(data)


class _Extent:
    """Finds where a value ends that does not parse: by its brackets and quotes alone.

    Attributes:
        seen: How much of it need not be looked at again.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._closing: list[str] = []
        self._in_string = False

    def end(self, text: str, start: int) -> int:
        """Where it ends, or -1 where that is after this text.

        Args:
            text: What there is of it, or of what has not been dropped of it.
            start: Where that begins.

        Raises:
            LostError: Its brackets do not fit each other.
        """
        at = start + self.seen
        while True:
            if self._in_string:
                quote = _end_of_string(text, at)
                if quote < 0:
                    # A backslash at the end belongs to what follows.
                    self.seen = len(text.rstrip("\\")) - start
                    return -1
                at = quote + 1
                self._in_string = False
            match = _BRACKETS.search(text, at)
            if match is None:
                self.seen = len(text) - start
                return -1
            at = match.end()
            character = match.group()
            if character == '"':
                self._in_string = True
            elif character in "{[":
                self._closing.append("}" if character == "{" else "]")
                if len(self._closing) > _DEEPEST:
                    raise LostError
            elif not self._closing:
                return at - 1
            elif character != ",":
                if self._closing.pop() != character:
                    raise LostError
                if not self._closing:
                    return at


def _end_of_string(text: str, start: int) -> int:
    """Where the quote is that ends a string, or -1."""
    quote = start - 1
    while True:
        quote = text.find('"', quote + 1)
        if quote < 0:
            return -1
        before = quote
        while before > start and text[before - 1] == "\\":
            before -= 1
        if (quote - before) % 2 == 0:
            return quote
