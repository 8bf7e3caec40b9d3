# SPDX-License-Identifier: Apache-2.0
"""The dashboards that are shipped, how they are built, and what they show of real runs."""
