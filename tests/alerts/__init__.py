# SPDX-License-Identifier: Apache-2.0
"""The alert rules: what they name, and, in ``prometheus``, what the real programs make of them."""
