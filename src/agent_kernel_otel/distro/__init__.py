# SPDX-License-Identifier: Apache-2.0
"""What ``opentelemetry-instrument`` finds: who configures, and the SDK set up for production.

:mod:`.selection` decides who configures, :mod:`.defaults` what is set where the user has set nothing,
and :mod:`.checks` what of it can be read; all three over an environment that is handed in.
:mod:`.distro` and :mod:`.configurator` are the entry points that apply it to the process;
:mod:`.assembly` has the SDK built with our pipelines, from the environment or, by :mod:`.declarative`,
from a file. :mod:`.handlers` sees to the handlers that export the app's logs, :mod:`.hints` to what
the user is told, and :mod:`.report` to what a process tells of itself.
"""
