"""DevInfo: who the device is, sent to the server in package 1 of every session (OMA-TS-DM-StdObj 5.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from dom0_agent.mo.read_only import ReadOnlyObject
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source, Value

MOID = "urn:oma:mo:oma-dm-devinfo:1.0"
MOUNT: Path = ("DevInfo",)


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Values of DevInfo. ``dev_id`` is a URN, unique in the fleet; ``lang`` as in RFC 1766."""

    dev_id: str
    man: str
    mod: str
    dm_version: str = "1.2"
    lang: str = "en"


def devinfo(identity: DeviceIdentity) -> ReadOnlyObject:
    """The management object for ``./DevInfo``."""
    values = {
        ("DevId",): identity.dev_id,
        ("Man",): identity.man,
        ("Mod",): identity.mod,
        ("DmV",): identity.dm_version,
        ("Lang",): identity.lang,
    }
    return ReadOnlyObject(MOID, MOUNT, DEFINITION, {path: Value(text) for path, text in values.items()})


def _leaf(name: str, description: str) -> NodeDef:
    return NodeDef(name, scope=Scope.PERMANENT, source=Source.LIVE, description=description)


DEFINITION = NodeDef(
    "DevInfo",
    Format.NODE,
    frozenset({Command.GET}),
    scope=Scope.PERMANENT,
    types=(MOID,),
    title="Device information",
    description="Who the device is.",
    children=(
        _leaf("DevId", "Unique identifier of the device, a URN."),
        _leaf("Man", "Manufacturer."),
        _leaf("Mod", "Model."),
        _leaf("DmV", "Version of the OMA DM client."),
        _leaf("Lang", "Current language, RFC 1766."),
    ),
)
