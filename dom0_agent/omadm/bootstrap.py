"""Bootstrap by a DM profile message: who sent it, and what it puts into the tree (OMA-TS-DM-Bootstrap; digest 11).

The message is ordinary, always WBXML, and never answered. Reading files and HTTP is a transport's business; the keys
and the tree are passed in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import Enum

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE, normal_media_type
from dom0_agent.omadm.execute import Executor
from dom0_agent.omadm.frozen import frozen
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tree_access import TreeAccess
from dom0_agent.omadm.wbxml import WbxmlCodec

#: Wrong PINs until a bootstrap is refused for good: a PIN has few digits.
MAX_PIN_ATTEMPTS = 3

_PARAMETER = re.compile(r';\s*([A-Za-z]+)\s*=\s*"?([A-Za-z0-9_]+)"?')


class Security(Enum):
    """Value of ``SEC``: what the key of the MAC is."""

    NETWORKID = "NETWORKID"  #: a secret that the network and the device share
    USERPIN = "USERPIN"  #: digits that the user types
    USERPIN_NETWORKID = "USERPIN_NETWORKID"  #: both, as ``PIN:secret``


@frozen
class Profile:
    """A bootstrap message and how it is protected. ``security`` and ``mac`` are ``None`` when it is not."""

    untrusted_body: bytes
    security: Security | None = None
    mac: str | None = None


@frozen
class BootstrapOutcome:
    """What became of each command, in order: name, first target, status."""

    results: tuple[tuple[str, str, int], ...]

    @property
    def ok(self) -> bool:
        """Whether everything was done."""
        return bool(self.results) and all(200 <= status < 300 for _, _, status in self.results)


def profile_from(untrusted_content_type: str, untrusted_body: bytes) -> Profile:
    """A profile from its HTTP form; raises :class:`ProtocolError` for a wrong media type or half a protection."""
    if normal_media_type(untrusted_content_type) != WBXML_MEDIA_TYPE:
        raise ProtocolError(f"a bootstrap message is {WBXML_MEDIA_TYPE}, not {untrusted_content_type[:80]!r}")
    parameters = {key.upper(): value for key, value in _PARAMETER.findall(untrusted_content_type)}
    named, mac = parameters.get("SEC"), parameters.get("MAC")
    if named is None and mac is None:
        return Profile(untrusted_body)
    if named is None or mac is None or named not in Security.__members__:
        raise ProtocolError("the bootstrap message needs both SEC (NETWORKID, USERPIN, USERPIN_NETWORKID) and MAC")
    return Profile(untrusted_body, Security[named], mac)


def mac_of(body: bytes, security: Security, *, network_id: bytes = b"", pin: str = "") -> str:
    """The MAC of a profile: upper-case hexadecimal HMAC-SHA1 over exactly these octets."""
    keys = {
        Security.NETWORKID: network_id,
        Security.USERPIN: pin.encode(),
        Security.USERPIN_NETWORKID: pin.encode() + b":" + network_id,
    }
    return hmac.new(keys[security], body, hashlib.sha1).hexdigest().upper()


class ProfileCheck:
    """Checks the MAC of one profile; after three wrong PINs it says no whatever is typed."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._failures = 0

    @property
    def locked(self) -> bool:
        """Whether there have been too many wrong PINs."""
        return self._failures >= MAX_PIN_ATTEMPTS

    def accepts(self, *, network_id: bytes = b"", pin: str = "") -> bool:
        """Whether the profile was made with these keys; an unprotected profile never is."""
        profile = self._profile
        if profile.security is None or profile.mac is None or self.locked:
            return False
        expected = mac_of(profile.untrusted_body, profile.security, network_id=network_id, pin=pin)
        good = hmac.compare_digest(expected.encode(), profile.mac.upper().encode())
        self._failures += not good
        return good


def apply_profile(profile: Profile, tree: TreeAccess, server_id: str) -> BootstrapOutcome:
    """Execute a profile that has been accepted, on behalf of ``server_id``; raises :class:`ProtocolError`.

    Usually one Add of TNDS to ``./Inbox``; the tree puts what it finds there in place.
    """
    codec = WbxmlCodec()
    message = codec.decode(profile.untrusted_body)
    executor = Executor(tree, server_id, codec.carry)
    results: list[tuple[str, str, int]] = []
    for command in message.body:
        for answer in executor.execute(command, message.header.msg_id):
            if isinstance(answer, c.Status):
                results.append((answer.cmd, answer.target_refs[0] if answer.target_refs else "", answer.code))
    return BootstrapOutcome(tuple(results))
