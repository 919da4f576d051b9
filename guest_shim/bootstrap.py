"""Hands a bootstrap profile from dom0 to the guest's own DM client (OMA-ER-VirMO 11.1.3).

The profile lies in ``/etc/virmo/bootstrap``; the integrator's executable ``handlers/bootstrap/apply`` is told its path
once for each new profile. Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import os

from guest_shim.dispatch import Answer, Request, failure
from guest_shim.places import Places, run

FILE = "bootstrap"


class Bootstrap:
    """The verb ``bootstrap``."""

    def __init__(self, places: Places) -> None:
        self._file = places.settings / FILE
        self._handler = places.handlers / "bootstrap" / "apply"

    def receive(self, request: Request) -> Answer:
        """``bootstrap``: the payload is the profile as dom0's server gave it. 200 also when it was there already."""
        try:
            if self._file.read_bytes() == request.payload:
                return Answer()
        except FileNotFoundError:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        building = self._file.with_name(f".{FILE}.new")
        building.touch(mode=0o600)
        building.write_bytes(request.payload)
        if self._handler.is_file() and os.access(self._handler, os.X_OK):
            result = run([str(self._handler), str(building)])
            if result.code:
                building.unlink()
                return failure(500, f"the DM client did not take the profile ({result.code}): {result.words}")
        building.replace(self._file)
        return Answer()
