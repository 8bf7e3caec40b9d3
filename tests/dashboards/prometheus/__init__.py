# SPDX-License-Identifier: Apache-2.0
"""What the panels show on a real Prometheus, Debian's own: ``make prometheus-test``."""
