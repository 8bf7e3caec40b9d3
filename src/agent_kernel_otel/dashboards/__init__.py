# SPDX-License-Identifier: Apache-2.0
"""Grafana dashboards for agent kernels, and the command that writes them.

The package has them as JSON, in ``json/``. They are built by :mod:`~agent_kernel_otel.dashboards.build`
from a module or package for each kernel, which declares its panels (``model``, ``panels``) and makes their queries
(``promql``) and links (``explore``) of the names in :mod:`agent_kernel_otel.semconv`; ``grafana``
makes Grafana's JSON of that. So a metric that is renamed is renamed in every panel.
"""
