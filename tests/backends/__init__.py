# SPDX-License-Identifier: Apache-2.0
"""Tests of the gateway with each of its backends, which ``make backends-test`` runs."""
