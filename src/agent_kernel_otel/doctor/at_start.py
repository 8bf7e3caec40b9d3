# SPDX-License-Identifier: Apache-2.0
"""What every start logs once at debug: the doctor's text, with no endpoint asked."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Final

_LOG_LEVEL: Final = "OTEL_LOG_LEVEL"
_LINE: Final = "effective configuration, as agent-kernel-otel doctor --offline shows it:\n%s"
_logger: Final = logging.getLogger(__name__)


def log_diagnosis() -> None:
    """Log what the doctor would say of this process; cheap where nobody listens, never raises.

    Nothing goes over the network.
    """
    with suppress(Exception):
        # This early no app has set up logging: where debugging is asked for by the variable, the
        # text would be lost without a handler.
        asked = os.environ.get(_LOG_LEVEL, "").strip().lower() == "debug"
        if not asked:
            if _logger.isEnabledFor(logging.DEBUG):
                _logger.debug(_LINE, _text())
            return
        handler, level = logging.StreamHandler(), _logger.level
        _logger.setLevel(logging.DEBUG)
        _logger.addHandler(handler)
        try:
            _logger.debug(_LINE, _text())
        finally:
            _logger.removeHandler(handler)
            _logger.setLevel(level)


def _text() -> str:
    from agent_kernel_otel.doctor.diagnosis import diagnose
    from agent_kernel_otel.doctor.facts import gather
    from agent_kernel_otel.doctor.rendering import text_of
    from agent_kernel_otel.doctor.settings import without_ours

    return text_of(diagnose(gather(without_ours(os.environ), sys.orig_argv)))
