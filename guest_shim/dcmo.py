"""DCMO in the guest: it is told which devices it may have. dom0 has attached or detached them; here people hear of it.

The handler ``dcmo/changed`` runs once for each device that was switched, also when that was while the guest was off.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from guest_shim.dispatch import ServedObject
from guest_shim.places import Places, handle

logger = logging.getLogger(__name__)

MOID = "urn:oma:mo:oma-dcmo:1.0"
SERVED = ServedObject(MOID)
#: What was told last: name → "true" or "false".
FILE = "dcmo/enabled.json"


class Dcmo:
    """What was told, and the handler."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def configure(self, nodes: Mapping[str, str]) -> None:
        """``<name>/Enabled``, ``<name>/Property`` and ``<name>/DCMOConfig/NotifyUser`` of all devices."""
        known = self._places.load(FILE, {})
        before = known if isinstance(known, dict) else {}
        after = {path.rpartition("/")[0]: value for path, value in nodes.items() if path.endswith("/Enabled")}
        if after == before:
            return
        self._places.store(FILE, after)
        for name, enabled in sorted(after.items()):
            if before.get(name, "true") != enabled:
                quiet = ("quiet",) if nodes.get(f"{name}/DCMOConfig/NotifyUser", "false") != "true" else ()
                word = "enabled" if enabled == "true" else "disabled"
                result = handle(self._places, "dcmo", "changed", name, word, nodes.get(f"{name}/Property", ""), *quiet)
                if result.code:
                    logger.warning("the handler dcmo/changed failed (%d): %s", result.code, result.words)
