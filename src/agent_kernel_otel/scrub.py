# SPDX-License-Identifier: Apache-2.0
"""What text may leave the process, and in which form."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from typing import Any, Final

IDENTIFIER_LIMIT: Final = 256
"""Longest id that leaves, in characters."""
TEXT_LIMIT: Final = 512
"""Longest free text that leaves, in characters. The kernel's own redaction, which sees the text
last, takes quadratic time on unbroken runs, so that it must never be given more."""
CONTENT_LIMIT: Final = 4096
"""Longest captured content that leaves, in characters of JSON."""

MASK: Final = "[REDACTED]"

_SECRET_NAME = (
    r"(?:[\w.-]*(?:token|passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|"
    r"private[_-]?key|authorization|cookie|credential|signature|session[_-]?id)[\w-]*|auth|pwd)"
)
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        (r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY.*", MASK),
        (r"\b([a-z][a-z0-9+.-]{0,20}://)[^/\s@]{0,512}@", rf"\1{MASK}@"),
        (r"\b(Bearer|Basic|Digest|Negotiate|ApiKey)\s+[\w.~+/=:-]{4,}", rf"\1 {MASK}"),
        (r"\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)?", MASK),
        (
            (
                r"\b(?:sk|pk|rk)[-_][\w-]{8,}|\bgh[pousr]_\w{8,}|\bgithub_pat_\w{8,}"
                r"|\bglpat-[\w-]{8,}|\bxox[a-z]-[\w-]{6,}|\b(?:AKIA|ASIA)[0-9A-Z]{8,}"
                r"|\bAIza[\w-]{20,}|\bnpm_\w{10,}|\bhf_\w{10,}|\bya29\.[\w-]{8,}"
            ),
            MASK,
        ),
        (
            rf"(?<![\w.-])(['\"]?{_SECRET_NAME}['\"]?\s*[=:]\s*)(['\"]?)[^\s'\",;&}}\)]+",
            rf"\1\2{MASK}",
        ),
        (r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b", MASK),
        (r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?\b", MASK),
    )
)
_SECRET_KEY: Final = re.compile(
    rf"{_SECRET_NAME}|e?-?mail|phone|ssn|social_security_number|card_number|credit_card|cvv|iban",
    re.IGNORECASE,
)

Redact = Callable[[str], str]


def identifier(value: object) -> str | None:
    """An id as text that can be exported.

    Args:
        value: What a caller or a kernel gave as an id; anything.

    Returns:
        The text itself, cut at :data:`IDENTIFIER_LIMIT` characters; the plain text of a
        ``str`` enum; the type's name where it is no text; ``None`` for ``None``.
    """
    if type(value) is not str:
        if value is None:
            return None
        if not isinstance(value, str):
            return type(value).__name__
        # The plain text: a str enum's own __str__ would give "Class.MEMBER".
        value = str.__str__(value)
    if len(value) > IDENTIFIER_LIMIT:
        value = value[:IDENTIFIER_LIMIT]
    if value.isascii():
        return value
    # A lone surrogate cannot be encoded, and one would cost the whole export batch.
    return value.encode("utf-8", "replace").decode("utf-8")


_PROCESS_KEY: Final = secrets.token_bytes(32)
"""Key of the principal hashes where none is set: one for the process, so that its spans and logs
agree."""


class PrincipalRedactor:
    """Principal ids in the form in which they may leave.

    Args:
        form: ``raw``, ``hash`` or ``off``.
        key: Key of the hash; None for one of this process.
    """

    _REMEMBERED = 1024

    def __init__(self, form: str, key: str | None = None) -> None:
        self._form = form
        # A key from the environment can hold bytes that are no UTF-8, as lone surrogates.
        self._key = _PROCESS_KEY if key is None else key.encode("utf-8", "surrogatepass")
        self._hashes: dict[str, str] = {}

    def __call__(self, principal_id: object) -> str | None:
        """The id to export, or ``None`` where none may leave."""
        if self._form == "off" or principal_id is None:
            return None
        text = identifier(principal_id)
        if self._form == "raw" or text is None:
            return text
        known = self._hashes.get(text)
        if known is None:
            if len(self._hashes) >= self._REMEMBERED:
                self._hashes.clear()
            known = hmac.new(self._key, text.encode(), sha256).hexdigest()[:16]
            self._hashes[text] = known
        return known


def scrub_text(text: str, redact: Redact | None = None, limit: int = TEXT_LIMIT) -> str:
    """Free text, cut and without what looks like a secret or a person.

    Our own patterns come first, then the kernel's redaction.

    Args:
        text: Any text, of any length.
        redact: The kernel's own redaction of a text; given at most :data:`TEXT_LIMIT` characters.
        limit: Most characters of the text to use, at most :data:`TEXT_LIMIT`.
    """
    limit = min(limit, TEXT_LIMIT)
    # A secret that the cut splits could lose the part by which it is known, so that the run of
    # characters at the cut goes as a whole.
    shown = text if len(text) <= limit else re.sub(r"\S*\Z", "", text[:limit]) + "…"
    shown = shown.encode("utf-8", "replace").decode("utf-8")
    for pattern, replacement in _PATTERNS:
        shown = pattern.sub(replacement, shown)
    if redact is not None:
        shown = redact(shown[:TEXT_LIMIT])
    # A mask can be longer than what it hides.
    return shown if len(shown) <= TEXT_LIMIT else shown[: TEXT_LIMIT - 1] + "…"


def scrub_content(content: object, redact: Redact | None = None) -> str:
    """Structured content as scrubbed JSON text.

    Args:
        content: Arguments or results, of any shape.
        redact: The kernel's own redaction of a text.

    Returns:
        JSON of at most :data:`CONTENT_LIMIT` characters; past that it is cut, and is then no
        longer valid JSON, which the ellipsis at its end shows.
    """
    try:
        shown = json.dumps(
            _Scrubber(redact).scrub(content, depth=0), ensure_ascii=False, default=str
        )
    except Exception:  # content is the app's: its keys, mappings and numbers can raise
        return f"<{type(content).__name__}>"
    return shown if len(shown) <= CONTENT_LIMIT else shown[: CONTENT_LIMIT - 1] + "…"


class _Scrubber:
    """Scrubs one content, as much of it as can be shown: the rest is not even looked at.

    Args:
        redact: The kernel's own redaction of a text.
    """

    _DEPTH: Final = 6
    _BREADTH: Final = 50

    def __init__(self, redact: Redact | None) -> None:
        self._redact = redact
        self._room = CONTENT_LIMIT

    def scrub(self, value: object, depth: int) -> Any:
        """A value as what JSON can say of it."""
        self._room -= 2  # its punctuation at least
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value), TEXT_LIMIT)
        if depth >= self._DEPTH or self._room <= 0:
            return "…"
        if isinstance(value, Mapping):
            return {
                self._text(str(key), 64): (
                    MASK if _SECRET_KEY.fullmatch(str(key)[:64]) else self.scrub(item, depth + 1)
                )
                for key, item in self._some(value.items())
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.scrub(item, depth + 1) for item in self._some(value)]
        # Another object's text is its author's choice, and may hold anything.
        return f"<{type(value).__name__}>"

    def _text(self, text: str, limit: int) -> str:
        shown = scrub_text(text, self._redact, limit)
        self._room -= len(shown)
        return shown

    def _some(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in islice(items, self._BREADTH):
            if self._room <= 0:
                return
            yield item
