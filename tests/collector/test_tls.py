# SPDX-License-Identifier: Apache-2.0
"""TLS and credentials, against the OpenTelemetry Collector itself with an authority of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import trustme

from tests.collector.running import Collector
from tests.distro.zero_code import KERNEL_APP, environment, run
from tests.support.otlp_records import Item

PROTOCOLS = ("grpc", "http/protobuf")
SIGNALS = ("traces", "logs", "metrics")
TOKEN = secrets.token_hex()
WRONG_TOKEN = secrets.token_hex()
ACCEPTED = ("authority", "authority-beside-a-bundle", "client-certificate", "token")
TURNED_AWAY = ("unknown-authority", "no-client-certificate", "wrong-token", "no-token")
both = pytest.mark.parametrize("protocol", PROTOCOLS)


@dataclass(frozen=True)
class Result:
    """What came of a run of the app.

    Attributes:
        process: What it wrote, and its exit code.
        received: What the Collector wrote down, by signal.
        books: What the process says became of its telemetry, by signal.
    """

    process: CompletedProcess[str]
    received: dict[str, list[Item]]
    books: dict[str, dict[str, Any]]


class Certificates:
    """Those of a Collector and of a client of its, in files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        self.other_authority = folder / "other_authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        trustme.CA().cert_pem.write_to_path(str(self.other_authority))
        self.server = self._issue(authority, folder / "server", "127.0.0.1")
        self.client = self._issue(authority, folder / "client", "client.example")

    @staticmethod
    def _issue(authority: trustme.CA, folder: Path, name: str) -> tuple[Path, Path]:
        folder.mkdir()
        issued = authority.issue_cert(name)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key

    def server_settings(self, *, client: bool = False) -> dict[str, Any]:
        """The Collector's ``tls``, which demands a certificate of clients or does not."""
        certificate, key = self.server
        demanded = {"client_ca_file": str(self.authority)} if client else {}
        return {"tls": {"cert_file": str(certificate), "key_file": str(key), **demanded}}

    def client_variables(self) -> dict[str, str]:
        certificate, key = self.client
        return {
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(key),
        }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def results(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[tuple[str, str], Result]]:
    """Each way to present oneself, over each protocol, to a Collector of its own."""
    tls = certificates.server_settings()
    mutual = certificates.server_settings(client=True)
    guarded = {**tls, "auth": {"authenticator": "bearertokenauth"}}
    ways: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "authority": (tls, {}),
        "authority-beside-a-bundle": (tls, _bundles(certificates.other_authority)),
        "unknown-authority": (
            tls,
            {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.other_authority)},
        ),
        "client-certificate": (mutual, certificates.client_variables()),
        "no-client-certificate": (mutual, {}),
        "token": (guarded, _bearer(TOKEN)),
        "wrong-token": (guarded, _bearer(WRONG_TOKEN)),
        "no-token": (guarded, {}),
    }

    def result(case: tuple[str, str]) -> Result:
        way, protocol = case
        server, variables = ways[way]
        folder = tmp_path_factory.mktemp("collector")
        guards = {"bearertokenauth": {"token": TOKEN}} if "auth" in server else {}
        with Collector(folder, server, guards) as collector:
            process = run(
                str(KERNEL_APP),
                env=environment(
                    ORDERS_NONCE="of no importance here",
                    OTEL_LOG_LEVEL="debug",
                    AGENT_KERNEL_OTEL_REPORT=str(folder / "report"),
                    **{
                        **_bundles(""),
                        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{collector.port(protocol)}",
                        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.authority),
                        **variables,
                    },
                ),
            )
            collector.stop()
            (report,) = folder.glob("report.*")
            return Result(
                process,
                {signal: collector.received(signal) for signal in SIGNALS},
                json.loads(report.read_text())["telemetry"],
            )

    cases = [(way, protocol) for way in ways for protocol in PROTOCOLS]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(3))
        yield dict(zip(cases, pool.map(result, cases), strict=True))


def _bundles(path: object) -> dict[str, str]:
    """The authorities that the HTTP client trusts without a word from OpenTelemetry."""
    return dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(path))


def _bearer(token: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token}"}


@both
@pytest.mark.parametrize("way", ACCEPTED)
def test_all_signals_arrive(
    way: str, protocol: str, results: Mapping[tuple[str, str], Result]
) -> None:
    result = results[way, protocol]
    assert "agent_kernel.invoke" in [span.name for span in result.received["traces"]]
    for signal in ("traces", "logs"):
        assert len(result.received[signal]) == result.books[signal]["sent"] > 0
    assert result.received["metrics"]
    for signal in SIGNALS:
        assert result.books[signal]["sent"] == result.books[signal]["ended"]


@both
@pytest.mark.parametrize("way", TURNED_AWAY)
def test_who_is_not_known_sends_nothing_and_the_app_runs(
    way: str, protocol: str, results: Mapping[tuple[str, str], Result]
) -> None:
    result = results[way, protocol]
    assert result.received == {signal: [] for signal in SIGNALS}
    assert "invoke_success" in result.process.stdout
    assert "Traceback" not in result.process.stderr
    for signal in SIGNALS:
        books = result.books[signal]
        assert books["sent"] == 0
        assert books["refused"] + sum(books["dropped"].values()) == books["ended"] > 0


@both
@pytest.mark.parametrize("way", ["wrong-token", "no-token"])
def test_a_token_that_is_refused_is_counted_as_refused(
    way: str, protocol: str, results: Mapping[tuple[str, str], Result]
) -> None:
    for signal in SIGNALS:
        books = results[way, protocol].books[signal]
        assert books["refused"] == books["ended"], books


@both
@pytest.mark.parametrize("way", [*ACCEPTED, *TURNED_AWAY])
def test_no_secret_is_printed_even_where_debugging_is_asked_for(
    way: str,
    protocol: str,
    results: Mapping[tuple[str, str], Result],
    certificates: Certificates,
) -> None:
    process = results[way, protocol].process
    printed = process.stdout + process.stderr
    assert "effective configuration" in process.stderr
    key = certificates.client[1].read_text().splitlines()[1:-1]
    assert key
    assert [secret for secret in (TOKEN, WRONG_TOKEN, *key) if secret in printed] == []
