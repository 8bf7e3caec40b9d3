# SPDX-License-Identifier: Apache-2.0
"""Text and ids that leave: cut, scrubbed, encodable, and at a bounded cost."""

from __future__ import annotations

import json
import secrets
import string
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weaver_kernel.firewall.redaction import redact

from agent_kernel_otel.scrub import (
    CONTENT_LIMIT,
    IDENTIFIER_LIMIT,
    MASK,
    TEXT_LIMIT,
    PrincipalRedactor,
    identifier,
    scrub_content,
    scrub_text,
)
from tests.support.hostile import HostileObject, HostileText


def kernels(text: str) -> str:
    return str(redact(text)[0])


def letters(count: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(count))


SECRETS = {
    "bearer": lambda s: f"Authorization: Bearer {s}",
    "basic": lambda s: f"authorization=Basic {s}==",
    "openai": lambda s: f"key sk-proj-{s} refused",
    "stripe": lambda s: f"rk_live_{s}",
    "github": lambda s: f"ghp_{s}",
    "github fine": lambda s: f"github_pat_{s}",
    "gitlab": lambda s: f"glpat-{s}",
    "slack": lambda s: f"xoxb-{s}",
    "aws": lambda s: f"AKIA{s.upper()[:16]}",
    "google": lambda s: f"AIza{s}",
    "npm": lambda s: f"npm_{s}",
    "hugging face": lambda s: f"hf_{s}",
    "jwt": lambda s: f"eyJhbGciOi.eyJ{s}.{s}",
    "pem": lambda s: f"-----BEGIN RSA PRIVATE KEY-----\n{s}\n-----END RSA PRIVATE KEY-----",
    "url password": lambda s: f"https://user:{s}@host/path",
    "redis": lambda s: f"redis://:{s}@host:6379",
    "query": lambda s: f"GET https://h/?a=1&access_token={s}&b=2",
    "token": lambda s: f"token={s}",
    "password": lambda s: f"password: {s}",
    "json": lambda s: f'{{"client_secret": "{s}", "a": 1}}',
    "repr": lambda s: f"{{'api_key': '{s}'}}",
    "cookie": lambda s: f"cookie: sid={s}",
    "mail": lambda s: f"{s}@example.com",
    "environment": lambda s: f"DATABASE_PASSWORD={s}",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "failed: {} while calling", "x" * 200 + " {} " + "y " * 400]
)
@pytest.mark.parametrize("redaction", [None, kernels])
def test_secrets_of_many_vendors_are_gone(kind: str, around: str, redaction: Any) -> None:
    secret = letters(36)
    shown = scrub_text(around.format(SECRETS[kind](secret)), redaction)
    assert secret not in shown
    assert secret.upper()[:16] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "the driver 'billing' timed out after 2.5 s",
        "Handler for operation='list_invoices' raised: no rows in table tasks",
        "connection refused: https://api.example.com/v1/items (status 503)",
        "a token was refused", "the secretary signed", "the basics passed", "3 of 10 rows",
        "expected int, got str", "2026-11-21T10:00:00Z",
    ],
)  # fmt: skip
def test_ordinary_text_is_kept(text: str) -> None:
    assert scrub_text(text) == text


def test_a_secret_at_the_cut_goes_as_a_whole() -> None:
    secret = letters(60)
    for offset in range(TEXT_LIMIT - 70, TEXT_LIMIT + 10, 7):
        shown = scrub_text("x " * (offset // 2) + "ghp_" + secret + " after")
        assert secret[:8] not in shown


ANY_TEXT = st.text(st.characters(codec=None), max_size=2_000)


@given(ANY_TEXT, st.booleans())
@settings(deadline=None)
def test_any_text_comes_out_short_and_encodable(text: str, by_kernel: bool) -> None:
    shown = scrub_text(text, kernels if by_kernel else None)
    assert len(shown) <= TEXT_LIMIT
    shown.encode("utf-8")


@given(
    st.lists(
        st.sampled_from([" ", "=", ":", "token", "Bearer ", "://", "@", "a.b", "sk-", MASK, "'"])
        | st.text(string.ascii_letters + string.digits, max_size=12),
        max_size=30,
    )
)
@settings(deadline=None)
def test_scrubbing_again_finds_no_more_secrets(parts: list[str]) -> None:
    once = scrub_text("".join(parts))
    twice = scrub_text(once)
    # Masks may merge; nothing that was hidden comes back, and nothing grows.
    words = set(twice.replace(MASK, " ").split())
    assert len(twice) <= max(len(once) + len(MASK), TEXT_LIMIT)
    assert all(word in once for word in words)


def cost(text: str) -> float:
    def once() -> float:
        started = perf_counter()
        scrub_text(text, kernels)
        return perf_counter() - started

    return min(once() for _ in range(5))


@pytest.mark.parametrize("character", ["a", "@", ".", " ", "=", ":", "a.", "a@", "sk-", "-"])
def test_a_long_text_costs_no_more_than_a_short_one(character: str) -> None:
    short, long = character * 1_000, character * (100_000 // len(character))
    assert cost(long) < 20 * cost(short[:1_000]) + 0.001


@given(st.none() | st.integers() | st.floats() | st.binary() | ANY_TEXT | st.lists(st.text()))
def test_any_id_comes_out_short_and_encodable(value: object) -> None:
    shown = identifier(value)
    if value is None:
        assert shown is None
        return
    assert shown is not None
    assert type(shown) is str
    assert len(shown) <= IDENTIFIER_LIMIT
    shown.encode("utf-8")


def test_odd_ids_are_named_by_their_type_or_taken_as_text() -> None:
    assert identifier(HostileObject()) == "HostileObject"
    assert identifier(HostileText("quiet")) == "quiet"
    assert identifier(7) == "int"
    token = str(uuid4())
    assert identifier(token) == token


def test_a_principal_leaves_in_the_form_that_is_set() -> None:
    assert PrincipalRedactor("raw")("alice") == "alice"
    assert PrincipalRedactor("off")("alice") is None
    assert PrincipalRedactor("hash")(None) is None
    hashed = PrincipalRedactor("hash", "k")("alice")
    assert hashed == PrincipalRedactor("hash", "k")("alice")
    assert hashed != PrincipalRedactor("hash", "l")("alice")
    assert hashed is not None
    assert len(hashed) == 16
    assert PrincipalRedactor("hash", "\udcff\ud800")("alice") != hashed


def test_remembered_hashes_are_bounded() -> None:
    redactor = PrincipalRedactor("hash")
    for number in range(5_000):
        redactor(f"p{number}")
    assert len(redactor._hashes) <= 1024


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=20,
)


@given(JSON)
@settings(deadline=None)
def test_any_content_comes_out_short_and_encodable(content: object) -> None:
    shown = scrub_content(content, kernels)
    assert len(shown) <= CONTENT_LIMIT
    shown.encode("utf-8")


def test_content_is_scrubbed_in_values_keys_and_by_the_keys_name() -> None:
    secret = letters(36)
    content = {
        "password": secret, "nested": [{"Api_Key": secret}], f"ghp_{secret}": 1,
        "text": f"Bearer {secret}", "set": {f"token={secret}"}, "object": HostileObject(),
    }  # fmt: skip
    shown = scrub_content(content)
    assert secret not in shown
    assert json.loads(shown)["password"] == MASK
    assert json.loads(shown)["object"] == "<HostileObject>"


@pytest.mark.parametrize(
    "content",
    [HostileObject(), {HostileObject(): 1}, {HostileText("k"): HostileText("v")}, 10**5000,
     {1: {2: {3: {4: {5: {6: {7: 8}}}}}}}, b"\x00", float("nan"), object],
    ids=["object", "key", "text", "number", "deep", "bytes", "nan", "class"],
)  # fmt: skip
def test_content_that_refuses_to_be_read_comes_out_as_something(content: object) -> None:
    assert scrub_content(content)


def test_content_that_holds_itself_comes_to_an_end() -> None:
    content: dict[str, Any] = {}
    content["again"] = [content, content]
    assert len(scrub_content(content)) < CONTENT_LIMIT


def test_wide_and_deep_content_costs_no_more_than_what_is_shown() -> None:
    class Counting(list[Any]):
        looked = 0

        def __iter__(self) -> Any:
            for item in super().__iter__():
                type(self).looked += 1
                yield item

    content: Any = 1
    for _ in range(6):
        content = Counting([content] * 50)
    scrub_content(content)
    assert Counting.looked < CONTENT_LIMIT
