"""The node table of the VM Image MO (OMA-ER-VirMO 9), from which the tree checks and the DDF is printed."""

from __future__ import annotations

from functools import cache

from dom0_agent.mo.virmo_nodes import ENTRY, GET, SET
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope, Source

MOID = "urn:oma:mo:oma-vmimgmo:1.0"  #: R-080

#: printed minimum is Get, although the nodes are there to be executed (A-04)
EXEC_AND_GET = frozenset({Command.EXEC, Command.GET})


def _server_leaf(name: str, description: str) -> NodeDef:
    return NodeDef(name, Format.CHR, SET, settable_default=True, description=description)


@cache
def vmimgmo_definition() -> NodeDef:
    """The MO's root with all descendants."""
    return NodeDef(
        "VMImgMO",
        Format.NODE,
        GET,
        scope=Scope.PERMANENT,
        types=(MOID,),
        title="VM Image MO",
        description="The VM images of this device.",
        children=(
            NodeDef(
                "*",
                Format.NODE,
                ENTRY,
                "ZeroOrMore",
                types=(),
                description="One VM image; its children are made with it.",
                children=_IMAGE_CHILDREN,
            ),
        ),
    )


_IMAGE_CHILDREN = (
    NodeDef("ImgID", Format.CHR, GET, description="Unique id of the image, assigned by the client (R-081)."),
    _server_leaf("Name", "Set by the server (R-083)."),
    NodeDef(
        "Description",
        Format.CHR,
        frozenset({Command.GET, Command.ADD, Command.REPLACE, Command.DELETE}),
        "ZeroOrOne",
        description="For people.",
    ),
    _server_leaf("DownloadURI", "Where the image is, for HTTP GET or DLOTA (R-084)."),
    NodeDef(
        "DownloadedLocation",
        Format.CHR,
        GET,
        "ZeroOrOne",
        source=Source.LIVE,
        description="Local path of the image; exists only in State 2 (R-085, R-086, A-37).",
    ),
    NodeDef(
        "State",
        Format.INT,
        GET,
        source=Source.LIVE,
        description="0 Not Downloaded, 1 Downloading, 2 Downloaded, 3 Download Failed (R-088).",
    ),
    _server_leaf("MediaType", "MIME type of what DownloadURI gives (R-089, R-090)."),
    NodeDef(
        "Operations",
        Format.NODE,
        GET,
        types=(),
        children=(
            NodeDef("Download", Format.NULL, EXEC_AND_GET, types=(), description="Downloads from DownloadURI (R-091)."),
            NodeDef(
                "Delete", Format.NULL, EXEC_AND_GET, types=(), description="Deletes data and sub-tree (R-094, R-095)."
            ),
        ),
    ),
    NodeDef(
        "Ext",
        Format.NODE,
        GET,
        types=(),
        description="What this implementation tells beyond the specification.",
        children=(
            NodeDef(
                "Progress",
                Format.INT,
                GET,
                source=Source.LIVE,
                description="Percent of the running download, 0 to 100.",
            ),
            NodeDef(
                "LastError",
                Format.CHR,
                GET,
                "ZeroOrOne",
                source=Source.LIVE,
                description="Why the last download failed.",
            ),
        ),
    ),
)
