# SPDX-License-Identifier: Apache-2.0
"""An agent's Collector and a gateway that know each other, or do not."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import trustme

from tests.gateway.load import agents, wait_for
from tests.gateway.tiers import Agent, Gateway, LoadBalancer

TOKEN = secrets.token_hex()
KEEP_ALL = {"SHARE_PERCENT": "100", "LONGEST_CALL": "2s", "WAIT_AFTER_ROOT": "1s"}
TLS: tuple[str, ...] = ("tls.yaml",)
WITH_TOKEN: tuple[str, ...] = ("tls.yaml", "token.yaml")


class Certificates:
    """Those of a gateway and of an agent, and an authority that issued neither; in files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = self._written(folder / "authority.pem", authority.cert_pem)
        self.other = self._written(folder / "other.pem", trustme.CA().cert_pem)
        server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("agent.example")
        self.server = {
            "SERVER_CERT_FILE": self._written(folder / "server.pem", server.cert_chain_pems[0]),
            "SERVER_KEY_FILE": self._written(folder / "server.key", server.private_key_pem),
        }
        self.client = {
            "GATEWAY_CLIENT_CERT_FILE": self._written(
                folder / "client.pem", client.cert_chain_pems[0]
            ),
            "GATEWAY_CLIENT_KEY_FILE": self._written(folder / "client.key", client.private_key_pem),
        }

    @staticmethod
    def _written(path: Path, pem: trustme.Blob) -> str:
        pem.write_to_path(str(path))
        return str(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("way", ["token", "certificate"])
def test_who_is_known_delivers_and_before_that_what_there_is_waits(
    way: str, certificates: Certificates, tmp_path: Path
) -> None:
    secure = {"GATEWAY_INSECURE": "false"}
    right = {**secure, "GATEWAY_CA_FILE": certificates.authority}
    if way == "token":
        over, demanded = WITH_TOKEN, {"GATEWAY_TOKEN": TOKEN}
        right["GATEWAY_TOKEN"] = TOKEN
        wrong = {**right, "GATEWAY_CA_FILE": certificates.other}
    else:
        over, demanded = TLS, {"CLIENT_CA_FILE": certificates.authority}
        wrong = dict(right)
        right |= certificates.client
    with Gateway(
        tmp_path / "gateway", {**KEEP_ALL, **certificates.server, **demanded}, over=over
    ) as gateway:
        port = gateway.port("grpc")
        with Agent(tmp_path, port, wrong) as agent:
            told = agents(tmp_path, agent.port("grpc"), turns=50).end()
            wait_for(lambda: _has_failed(agent))
        assert gateway.received() == []
        with Agent(tmp_path, port, right):
            sent = told.books["traces"]["sent"]
            assert sent > 100
            wait_for(lambda: len({span.span_id for span in gateway.received()}) >= sent)
        assert not any(TOKEN in line for line in (*gateway.logged(), *agent.logged()))


def test_a_wrong_token_is_turned_away(certificates: Certificates, tmp_path: Path) -> None:
    with (
        Gateway(
            tmp_path / "gateway",
            {"GATEWAY_TOKEN": TOKEN, **certificates.server},
            over=WITH_TOKEN,
        ) as gateway,
        Agent(
            tmp_path,
            gateway.port("grpc"),
            {
                "GATEWAY_INSECURE": "false",
                "GATEWAY_CA_FILE": certificates.authority,
                "GATEWAY_TOKEN": "another",
            },
        ) as agent,
    ):
        agents(tmp_path, agent.port("grpc"), turns=50).end()
        wait_for(lambda: _has_failed(agent))
        assert gateway.received() == []


def test_through_both_tiers_with_tls_and_the_token(
    certificates: Certificates, tmp_path: Path
) -> None:
    client = {
        "GATEWAY_INSECURE": "false",
        "GATEWAY_CA_FILE": certificates.authority,
        "GATEWAY_TOKEN": TOKEN,
    }
    server = {"GATEWAY_TOKEN": TOKEN, **certificates.server}
    with (
        Gateway(tmp_path / "gateway", {**KEEP_ALL, **server}, over=WITH_TOKEN) as gateway,
        LoadBalancer(
            tmp_path,
            [gateway.port("grpc")],
            {**client, **server},
            over=("tls.yaml", "loadbalancer-token.yaml"),
        ) as balancer,
        Agent(tmp_path, balancer.port("grpc"), client) as agent,
    ):
        told = agents(tmp_path, agent.port("grpc"), turns=50).end()
        sent = told.books["traces"]["sent"]
        wait_for(lambda: len({span.span_id for span in gateway.received()}) >= sent > 100)
        # The other signals take the same way.
        wait_for(lambda: len(gateway.kept("logs")) >= told.books["logs"]["sent"])
        wait_for(lambda: len(gateway.kept("metrics")) > 0)


def _has_failed(agent: Agent) -> bool:
    return any("Exporting failed" in line for line in agent.logged())
