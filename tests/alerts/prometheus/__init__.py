# SPDX-License-Identifier: Apache-2.0
"""The alert rules on the real promtool, Prometheus and Alertmanager: ``make alerts-test``."""
