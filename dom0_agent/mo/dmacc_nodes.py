"""The node table of the DM Account MO, 1.2 layout (OMA-TS-DM-StdObj 5.3.3, our digest 9).

Minimum access is the specification's. A server may change its own address, name and credentials (Replace); it can
never read a secret, and an account is added by bootstrap or by the device only: who could add one could hand the
device to somebody else.
"""

from __future__ import annotations

from dom0_agent.omadm.node import Command, Format, NodeDef, Scope

MOID = "urn:oma:mo:oma-dm-dmacc:1.0"

_GET = frozenset({Command.GET})
_CHANGE = frozenset({Command.GET, Command.REPLACE})
_SECRET = frozenset({Command.REPLACE})


def _leaf(
    name: str,
    description: str,
    access: frozenset[Command] = _GET,
    occurrence: str = "One",
    *,
    default: str = "",
    format_: Format = Format.CHR,
) -> NodeDef:
    return NodeDef(name, format_, access, occurrence, default=default, description=description, max_size=4096)


def _node(name: str, occurrence: str, *children: NodeDef, description: str = "") -> NodeDef:
    return NodeDef(name, Format.NODE, _GET, occurrence, types=(), children=children, description=description)


_ACCOUNT = (
    _leaf("AppID", "Always w7.", default="w7"),
    _leaf("ServerID", "Identity of the server in ACLs."),
    _leaf("Name", "For people.", _CHANGE, "ZeroOrOne"),
    _leaf("PrefConRef", "Preferred connectivity.", _CHANGE, "ZeroOrOne"),
    _node("ToConRef", "ZeroOrOne", _node("*", "OneOrMore", _leaf("ConRef", "Connectivity.", _CHANGE))),
    _node(
        "AppAddr",
        "One",
        _node(
            "*",
            "OneOrMore",
            _leaf("Addr", "URL of the server.", _CHANGE),
            _leaf("AddrType", "URI, IPv4 or IPv6.", default="URI"),
            _node(
                "Port",
                "ZeroOrOne",
                _node("*", "OneOrMore", _leaf("PortNbr", "Port, decimal.", _CHANGE)),
            ),
        ),
        description="Addresses of the server.",
    ),
    _leaf("AAuthPref", "Scheme to use unasked.", _CHANGE, "ZeroOrOne"),
    _node(
        "AppAuth",
        "ZeroOrOne",
        _node(
            "*",
            "OneOrMore",
            _leaf("AAuthLevel", "CLCRED (client to server) or SRVCRED (server to client)."),
            _leaf("AAuthType", "BASIC, DIGEST, HMAC or TRANSPORT."),
            _leaf("AAuthName", "User name.", _CHANGE, "ZeroOrOne"),
            _leaf("AAuthSecret", "Password; cannot be read.", _SECRET, "ZeroOrOne"),
            _leaf("AAuthData", "Nonce; cannot be read.", _SECRET, "ZeroOrOne", format_=Format.BIN),
        ),
        description="Credentials, one entry per direction.",
    ),
    NodeDef("Ext", Format.NODE, _GET, "ZeroOrOne", types=(), open=True),
)

DEFINITION = NodeDef(
    "DMAcc",
    Format.NODE,
    _GET,
    scope=Scope.PERMANENT,
    types=(),
    title="DM accounts",
    description="The servers that may manage this device.",
    children=(
        NodeDef(
            "*",
            Format.NODE,
            frozenset({Command.GET, Command.DELETE}),
            "OneOrMore",
            types=(MOID,),
            description="One account.",
            children=_ACCOUNT,
        ),
    ),
)
