# SPDX-License-Identifier: Apache-2.0
"""What ``opentelemetry-instrument`` finds: our defaults, and the SDK set up by them.

:mod:`.defaults` decides, and touches nothing but the mapping it is given; :mod:`.distro` and
:mod:`.configurator` are the two entry points that apply it to the process; :mod:`.handlers` sees
to the handlers that export the app's logs.
"""
