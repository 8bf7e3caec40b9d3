# SPDX-License-Identifier: Apache-2.0
"""Tests against a real Prometheus, which ``make prometheus-test`` runs."""
