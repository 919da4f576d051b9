"""Brings a bootstrap profile to a guest that has a DM client of its own (OMA-ER-VirMO 11.1.3, R-137).

The server gives it at Create, as vendor key ``Bootstrap`` of CreateParams: the profile in base64. The shim gets it at
each hello and applies a new one once. Must not know what is in the profile.
"""

from __future__ import annotations

import base64
import binascii
import logging
from uuid import UUID

from dom0_agent.guest.interface import GuestError, GuestRequest
from dom0_agent.mo.dmtree.forwarded import PUSH_DEADLINE, Surroundings

log = logging.getLogger(__name__)

KEY = "Bootstrap"


class Bootstrapping:
    """Called in the tree's thread when a shim has said hello."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings

    def connected(self, vmid: UUID) -> None:
        """Send the profile of that VM, if there is one."""
        record = self._around.vms.get(vmid)
        text = None if record is None else record.vendor.get(KEY)
        if not text:
            return
        try:
            profile = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            log.error("event=bootstrap_unusable vm=%s reason='%s in CreateParams is not base64: %s'", vmid, KEY, error)
            return
        self._around.work.put(vmid, "bootstrap", lambda: self._send(vmid, profile))

    def _send(self, vmid: UUID, profile: bytes) -> None:
        try:
            answer = self._around.guests.request(vmid, GuestRequest("bootstrap", {}, profile), deadline=PUSH_DEADLINE)
        except GuestError as error:
            log.warning("event=bootstrap_waits vm=%s reason=%r", vmid, str(error))
            return
        if answer.status != 200:
            words = " ".join(str(answer.fields.get("error", ""))[:200].split())
            log.error("event=bootstrap_refused vm=%s status=%d reason=%r", vmid, answer.status, words)
