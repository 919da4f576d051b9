"""FUMO in the guest, for guests that update themselves: the integrator's executable ``handlers/fumo/update``.

It is given the package that dom0 brought. Where there is none, hello says so, and dom0 replaces the VM's system.

Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os

from guest_shim.dispatch import Answer, Request, ShimError, failure
from guest_shim.places import Places, run

MOID = "urn:oma:mo:oma-fumo:1.0"
CAPABILITY = "updater"
SUCCESS, UPDATE_FAILED = 200, 410
#: Seconds that an update has.
DEADLINE = 840.0


class GuestUpdate:
    """The executable, and the package."""

    def __init__(self, places: Places) -> None:
        self._handler = places.handlers / "fumo" / "update"
        self._packages = places.state / "packages"

    def is_there(self) -> bool:
        """Whether this guest updates itself."""
        return self._handler.is_file() and os.access(self._handler, os.X_OK)

    def execute(self, node: str, request: Request) -> Answer:
        """``Update``: run the executable with the package's path; exit status 0 is success. The package goes."""
        identifier = request.fields.get("package")
        if node != "Update" or not isinstance(identifier, str) or not identifier.isalnum():
            raise ShimError(406, f"{node} is not an operation of FUMO here")
        package = self._packages / identifier
        if not package.is_file():
            raise ShimError(404, "the package has not arrived")
        try:
            result = run([str(self._handler), str(package)], deadline=DEADLINE)
        finally:
            package.unlink(missing_ok=True)
        if result.code:
            return failure(UPDATE_FAILED, f"the guest's updater failed ({result.code}): {result.words}")
        return Answer(SUCCESS, {"message": result.words})
