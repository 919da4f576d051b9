"""Bootstrap profiles: a new board's account as a DM message that its agent takes from a file (OMA-TS-DM-Bootstrap).

Protected by a PIN that is told apart from the file (SEC=USERPIN): who has only one of them has nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.bootstrap import Security, mac_of
from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.tnds import XML_TYPE, TndsNode, encode_tnds
from dom0_agent.omadm.wbxml import WbxmlCodec

DMACC_MOID = "urn:oma:mo:oma-dm-dmacc:1.0"
PIN_DIGITS = 10
#: Scheme of a device → AAuthType of DMAcc.
_TYPES = {"md5": "DIGEST", "hmac": "HMAC", "basic": "BASIC"}


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of authentication, in clear; ``nonce`` is base64."""

    name: str
    secret: str
    nonce: str


@dataclass(frozen=True, slots=True)
class BootstrapProfile:
    """The message, the Content-Type that carries its protection, and the PIN that it was protected with."""

    body: bytes
    content_type: str
    pin: str


def make_profile(*, server_id: str, address: str, auth: str, client: Side, server: Side) -> BootstrapProfile:
    """The profile with the account that a registration made; ``address`` is the DM endpoint's."""
    account = _interior(
        server_id,
        _leaf("AppID", "w7"),
        _leaf("ServerID", server_id),
        _interior("AppAddr", _interior("1", _leaf("Addr", address))),
        _interior("AppAuth", _credentials("CLCRED", auth, client), _credentials("SRVCRED", auth, server)),
        type_=DMACC_MOID,
    )
    item = c.Item("./Inbox", meta=c.Meta("xml", XML_TYPE), data=encode_tnds([account]))
    header = c.SyncHdr("1", 1, "device", server_id)
    body = WbxmlCodec().encode(c.Message(header, (c.Add("1", (item,)),)))
    pin = f"{secrets.randbelow(10**PIN_DIGITS):0{PIN_DIGITS}}"
    mac = mac_of(body, Security.USERPIN, pin=pin)
    return BootstrapProfile(body, f"{WBXML_MEDIA_TYPE}; SEC={Security.USERPIN.value}; MAC={mac}", pin)


def _credentials(level: str, auth: str, side: Side) -> TndsNode:
    return _interior(
        level,
        _leaf("AAuthLevel", level),
        _leaf("AAuthType", _TYPES[auth]),
        _leaf("AAuthName", side.name),
        _leaf("AAuthSecret", side.secret),
        TndsNode("AAuthData", Format.B64, "text/plain", side.nonce),
    )


def _interior(name: str, *children: TndsNode, type_: str = "") -> TndsNode:
    return TndsNode(name, Format.NODE, type_, children=children)


def _leaf(name: str, value: str) -> TndsNode:
    return TndsNode(name, Format.CHR, "text/plain", value)
