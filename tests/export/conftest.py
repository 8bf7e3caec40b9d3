# SPDX-License-Identifier: Apache-2.0
"""A receiver for all tests of a module, a shell for each, and sinks that are closed at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.export.harness import Receiver, Shell
from tests.export.sinks import Opened


@pytest.fixture(scope="module")
def _receiver_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path_factory.mktemp("receiver"))
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def receiver(_receiver_of_module: Receiver) -> Receiver:
    """One that takes everything, and has taken nothing yet."""
    _receiver_of_module.forget()
    return _receiver_of_module


@pytest.fixture
def shell(tmp_path: Path, receiver: Receiver) -> Shell:
    """A shell in which the command sends to that receiver."""
    return Shell(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens sinks that send OTLP."""
    with ExitStack() as stack:
        yield Opened(monkeypatch, stack)
