# SPDX-License-Identifier: Apache-2.0
"""Has gunicorn say when a worker is ready; before that it does not yet listen to signals."""

from __future__ import annotations

import os
from typing import Any


def post_worker_init(worker: Any) -> None:
    os.write(1, b"ready\n")
