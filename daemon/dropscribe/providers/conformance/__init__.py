"""Conformance checks for providers, for the tests of any package.

A test runs each of :data:`CHECKS`, and of :data:`JOB_CHECKS` for a provider with jobs, with a
:class:`StandIn`, a real HTTP server; docs/design/adding-a-provider.md has an example.
Nothing here needs pytest, and the daemon imports none of it. A promise that is not kept is a :class:`Broken`.
"""

from dropscribe.providers.conformance.checks import CHECKS, JOB_CHECKS, Broken
from dropscribe.providers.conformance.stand_in import KEY, Fault, Request, StandIn

__all__ = ["CHECKS", "JOB_CHECKS", "KEY", "Broken", "Fault", "Request", "StandIn"]
