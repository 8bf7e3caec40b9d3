# SPDX-License-Identifier: Apache-2.0
"""Grafana's builders need Python 3.11; what they built is tested on all."""

from __future__ import annotations

import sys

collect_ignore = [] if sys.version_info >= (3, 11) else ["test_build.py"]
