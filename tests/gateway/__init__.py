# SPDX-License-Identifier: Apache-2.0
"""Tests of ``collector-config`` on the real Collectors, which ``make gateway-test`` runs."""
