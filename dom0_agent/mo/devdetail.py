"""DevDetail: what the device is made of, and the limits of its management tree (OMA-TS-DM-StdObj 5.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from dom0_agent.mo.read_only import ReadOnlyObject
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source, Value
from dom0_agent.omadm.uri import UriLimits

MOID = "urn:oma:mo:oma-dm-devdetail:1.0"
MOUNT: Path = ("DevDetail",)


@dataclass(frozen=True, slots=True)
class DeviceDetail:
    """Values of DevDetail. Unknown versions are empty strings."""

    device_type: str
    oem: str = ""
    firmware_version: str = ""
    software_version: str = ""
    hardware_version: str = ""
    large_objects: bool = True  #: the client takes and sends objects in chunks


def devdetail(detail: DeviceDetail, limits: UriLimits) -> ReadOnlyObject:
    """The management object for ``./DevDetail``; ``limits`` must be those of the tree."""
    values = {
        ("URI", "MaxDepth"): Value(str(limits.max_depth)),
        ("URI", "MaxTotLen"): Value(str(limits.max_total_length)),
        ("URI", "MaxSegLen"): Value(str(limits.max_segment_length)),
        ("DevTyp",): Value(detail.device_type),
        ("OEM",): Value(detail.oem),
        ("FwV",): Value(detail.firmware_version),
        ("SwV",): Value(detail.software_version),
        ("HwV",): Value(detail.hardware_version),
        ("LrgObj",): Value("true" if detail.large_objects else "false", Format.BOOL),
    }
    return ReadOnlyObject(MOID, MOUNT, DEFINITION, values)


def _leaf(name: str, description: str, format_: Format = Format.CHR) -> NodeDef:
    return NodeDef(name, format_, scope=Scope.PERMANENT, source=Source.LIVE, description=description)


DEFINITION = NodeDef(
    "DevDetail",
    Format.NODE,
    frozenset({Command.GET}),
    scope=Scope.PERMANENT,
    types=(MOID,),
    title="Device details",
    description="What the device is made of.",
    children=(
        NodeDef(
            "URI",
            Format.NODE,
            scope=Scope.PERMANENT,
            types=(),
            description="Limits of URIs in characters; 0 is no limit.",
            children=(
                _leaf("MaxDepth", "Largest number of segments."),
                _leaf("MaxTotLen", "Largest total length."),
                _leaf("MaxSegLen", "Largest length of one segment."),
            ),
        ),
        _leaf("DevTyp", "Type of the device."),
        _leaf("OEM", "Original equipment manufacturer."),
        _leaf("FwV", "Version of the firmware."),
        _leaf("SwV", "Version of the agent."),
        _leaf("HwV", "Version of the hardware."),
        _leaf("LrgObj", "Whether large objects (MoreData) are supported.", Format.BOOL),
    ),
)
