# SPDX-License-Identifier: Apache-2.0
"""``OTEL_METRICS_EXPORTER=prometheus``: a page that Prometheus scrapes, alone or beside OTLP.

OpenTelemetry's own exporter makes it. Ours are the server, and what is on the page:

* what OpenTelemetry measures, and nothing of ``prometheus_client``'s default registry, so that it
  is the same as by OTLP, and cannot clash with a page of the app's own;
* no labels for name and version of the scope: the latter would renew every series at an upgrade;
* ``target_info`` with the resource's attributes, as OpenTelemetry specifies, and no exemplars,
  which the exporter does not write.

A collection is made for each scrape, cumulative whatever OTLP is sent, and bounded by the same
limit to series. Where it cannot listen, that is said in one line, and everything else goes on.

**Several processes.** One process listens, the first that is set up, and it shows what it has
counted itself. A forked child closes its copy of the socket and keeps no numbers for the page; a
process that is started anew, as by ``multiprocessing`` with ``spawn``, finds the port taken. Either
is said once by a warning. So of a server with several processes, such as gunicorn (with
``--preload`` or without) and uvicorn with ``--workers``, the page shows the one that has started
the others, and none that serves requests: there, send metrics by OTLP. The same is true of a
program that puts itself into the background, whose first process ends.

Imported only where it is asked for: it needs the extra ``prometheus``, and takes its time.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_PROMETHEUS_HOST,
    OTEL_EXPORTER_PROMETHEUS_PORT,
)
from prometheus_client import CollectorRegistry, make_wsgi_app

from agent_kernel_otel.distro.defaults import is_set
from agent_kernel_otel.distro.metrics_page import MetricsPage, address_of
from agent_kernel_otel.faults import faults

_logger = logging.getLogger(__name__)

EXPORTER: Final = "opentelemetry.exporter.prometheus"
"""The module whose names ours stand in for while the SDK is set up."""

SERVED: Final = "AGENT_KERNEL_OTEL_METRICS_PAGE"
"""Tells processes that this one starts where its page is, and whose it is."""

_DEFAULT_HOST: Final = "localhost"
_DEFAULT_PORT: Final = "9464"


class ScrapedMetricReader(PrometheusMetricReader):
    """Shows metrics on a page.

    Takes the place of :class:`opentelemetry.exporter.prometheus.PrometheusMetricReader` and its
    arguments, those that the release of the exporter knows.

    Attributes:
        page: The page; ``None`` where it is not, or could not be, listened for.
    """

    latest: ScrapedMetricReader | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        known = inspect.signature(PrometheusMetricReader.__init__).parameters
        self._shown = CollectorRegistry()
        self.page: MetricsPage | None = None
        ours = {"scope_info_enabled": False, "registry": self._shown, **options}
        super().__init__(*args, **{name: ours[name] for name in ours if name in known})
        ScrapedMetricReader.latest = self

    def listen(self, host: str, port: int, source: str) -> None:
        """Listen for the page, or say why that cannot be.

        Args:
            host: Name or address to listen on.
            port: Where.
            source: What the user has set for it, for the line that says so.
        """
        try:
            self.page = MetricsPage(make_wsgi_app(self._shown), host, port)
        except (OSError, OverflowError) as error:
            _say_why(error, address_of(host, port), source)

    def start(self) -> None:
        """Answer from now on; called when there is something to collect."""
        if self.page is None:
            return
        self.page.start()
        os.environ[SERVED] = f"{self.page.address} {os.getpid()}"
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_parent=_Warning(self.page))

    def retire_from(self, provider: Any) -> None:
        """In a forked child, give up the page, which is the parent's, and the numbers for it."""
        if self.page is not None:
            provider.remove_metric_reader(self)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the base class's
        """Nothing: what is collected unasked would be on the next page a second time."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Show and listen no more."""
        page, self.page = self.page, None
        if page is None:
            return
        if page.is_served:  # in a forked child the registry's lock may be held for ever
            super().shutdown(timeout_millis)
        page.close()


class _FromEnvironment(ScrapedMetricReader):
    """The one that ``OTEL_METRICS_EXPORTER`` names."""

    def __init__(self) -> None:
        super().__init__()
        host = _setting(OTEL_EXPORTER_PROMETHEUS_HOST, _DEFAULT_HOST)
        port = _setting(OTEL_EXPORTER_PROMETHEUS_PORT, _DEFAULT_PORT)
        source = f"{OTEL_EXPORTER_PROMETHEUS_HOST}={host}, {OTEL_EXPORTER_PROMETHEUS_PORT}={port}"
        self.listen(host, int(port), source)


def _setting(variable: str, default: str) -> str:
    return os.environ[variable].strip() if is_set(os.environ, variable) else default


def _listen_for_file(port: int, addr: str = _DEFAULT_HOST, **_: Any) -> None:
    # It is not told whose page it is: OpenTelemetry starts it right after the reader it has made.
    if ScrapedMetricReader.latest is not None:
        ScrapedMetricReader.latest.listen(addr, port, f"host: {addr}, port: {port} in the file")


SUBSTITUTES: Final[Mapping[str, Callable[..., Any]]] = {
    "_AutoPrometheusMetricReader": _FromEnvironment,
    "PrometheusMetricReader": ScrapedMetricReader,
    "start_http_server": _listen_for_file,
}


def _say_why(error: OSError | OverflowError, address: str, source: str) -> None:
    served, _, process = os.environ.get(SERVED, "").partition(" ")
    is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
    if is_taken and address == served:
        _logger.warning(
            "%s shows process %s only, which has started this one, %s: what this one counts is "
            "not there; OTEL_METRICS_EXPORTER=otlp sends all of it",
            address,
            process,
            os.getpid(),
        )
        return
    reason = "another process listens there" if is_taken else getattr(error, "strerror", None)
    _logger.error(
        "%s: %s, so that Prometheus finds no metrics at %s; the app and all other telemetry go on",
        source,
        reason or error,
        address,
    )


class _Warning:
    """Says once that forked children are not on the page."""

    def __init__(self, page: MetricsPage) -> None:
        self._page = page
        self._said = False

    def __call__(self) -> None:
        if self._said or not self._page.is_served:
            return
        self._said = True
        try:
            _logger.warning(
                "%s shows process %s only, and not what the children that it forks count, such as "
                "the workers of a server; OTEL_METRICS_EXPORTER=otlp sends all of it",
                self._page.address,
                os.getpid(),
            )
        except Exception:
            faults.swallow("warning of a fork")
