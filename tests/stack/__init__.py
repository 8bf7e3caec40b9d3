# SPDX-License-Identifier: Apache-2.0
"""The stack of ``collector-config/stack``: run without Docker, and tested: ``make stack``, ``make test-stack``."""
