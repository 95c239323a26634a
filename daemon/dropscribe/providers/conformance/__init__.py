"""Conformance checks for providers, for the tests of any package.

A test needs a :class:`StandIn`, a real HTTP server that answers as the vendor documents, and runs each of
:data:`CHECKS` against it, and each of :data:`JOB_CHECKS` for a provider with jobs::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_the_promises(check, tmp_path):
        async with StandIn(build, documented, tmp_path) as bench:
            await check(bench)

Nothing here needs pytest, and the daemon imports none of it. A promise that is not kept is a :class:`Broken`.
"""

from dropscribe.providers.conformance.checks import CHECKS, JOB_CHECKS, Broken
from dropscribe.providers.conformance.stand_in import KEY, Fault, Request, StandIn

__all__ = ["CHECKS", "JOB_CHECKS", "KEY", "Broken", "Fault", "Request", "StandIn"]
