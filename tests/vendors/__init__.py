# SPDX-License-Identifier: Apache-2.0
"""Other vendors' distros, the real ones, installed beside ours."""
