# SPDX-License-Identifier: Apache-2.0
"""The embedded console: receives OTLP on loopback and shows what an agent did.

Data flows one way: :mod:`.receiver` takes requests in, :mod:`.store` keeps a bounded number of
them, :mod:`.feed` tells what is new and finished, and an output (:mod:`.terminal`,
:mod:`.json_output`) shows it. :mod:`.app` puts the four together.
"""

from __future__ import annotations
