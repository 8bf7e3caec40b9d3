# SPDX-License-Identifier: Apache-2.0
"""The files of ``collector-config`` are accepted, alone and together, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.collector.build import BUILDERS, collector, load_balancer
from tests.gateway.tiers import CONFIG

ALONE = ("agent.yaml", "gateway.yaml")
SETS = (
    *((name,) for name in ALONE),
    ("gateway.yaml", "tls.yaml"),
    ("gateway.yaml", "tls.yaml", "token.yaml"),
    ("gateway.yaml", "kafka-in.yaml"),
    ("agent.yaml", "kafka-out.yaml"),
)
LOAD_BALANCING = (
    ("loadbalancer.yaml",),
    ("loadbalancer.yaml", "tls.yaml"),
    ("loadbalancer.yaml", "tls.yaml", "loadbalancer-token.yaml"),
    ("loadbalancer.yaml", "loadbalancer-dns.yaml"),
)


def _files(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--config", str(CONFIG / name))]


@pytest.mark.parametrize("names", [*SETS, *LOAD_BALANCING], ids="+".join)
def test_it_is_valid(names: tuple[str, ...], tmp_path: Path) -> None:
    program = load_balancer() if names in LOAD_BALANCING else collector()
    # What has no default: without these it must not start.
    needed = {"GATEWAY_TOKEN": "a token", "SERVER_CERT_FILE": "a", "SERVER_KEY_FILE": "b"}
    done = subprocess.run(
        [str(program), "validate", *_files(names)],
        env={**os.environ, **needed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_token_that_is_not_set_is_an_error() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GATEWAY_TOKEN"}
    done = subprocess.run(
        [str(collector()), "validate", *_files(("gateway.yaml", "token.yaml"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no bearer token provided" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("agent", "gateway", "kafka-in", "kafka-out"),
        *("loadbalancer", "loadbalancer-dns", "loadbalancer-token", "tls", "token"),
    ],
)
def test_it_says_on_what_it_was_proven(name: str) -> None:
    said = re.findall(
        r"(?:Proven|Validated) on the Collector ([\d.]+)", (CONFIG / f"{name}.yaml").read_text()
    )
    manifest = "loadbalancer" if name.startswith("loadbalancer") else "collector"
    built = re.findall(
        r"^  version: (.*)", (BUILDERS / f"{manifest}.yaml").read_text(), re.MULTILINE
    )
    assert said == built != []


@pytest.mark.parametrize("name", ["agent.yaml", "gateway.yaml", "loadbalancer.yaml"])
def test_by_default_it_listens_on_loopback_only(name: str) -> None:
    text = (CONFIG / name).read_text()
    addresses = re.findall(
        r"^\s*(?:endpoint|host): (?!\$\{env:GATEWAY_ENDPOINT)\$\{env:\w+:-([^}]*)\}",
        text,
        re.MULTILINE,
    )
    assert len(addresses) >= 4
    assert {address.partition(":")[0] for address in addresses} == {"127.0.0.1"}
