"""The node tables of OMA-ER-VirMO 8, 9 and 11.2.2, row by row, against what the management objects declare."""

from __future__ import annotations

import pytest

from dom0_agent.mo.virmo_nodes import virmo_definition
from dom0_agent.mo.vmimgmo_nodes import vmimgmo_definition
from dom0_agent.omadm.node import Command, NodeDef

#: path, status, occurrence, format, minimum access; "if …": required when that optional node is there
VIRMO = """
VirMO                               Required  One        node Get
VirMO/*                             Required  ZeroOrMore node Get
VirMO/*/VMID                        Required  One        chr  Get
VirMO/*/Description                 Required  One        chr  Get
VirMO/*/State                       Required  One        int  Get
VirMO/*/CreateParams                Required  One        chr  Get
VirMO/*/DMTree                      Optional  One        node Get
VirMO/*/Resources                   Required  One        node Get
VirMO/*/Resources/CurrentConfig     Required  One        chr  Get
VirMO/*/Resources/NewConfig         Required  ZeroOrOne  chr  Add
VirMO/*/Operations                  Required  One        node Get
VirMO/*/Operations/Create           Required  One        null Exec
VirMO/*/Operations/Delete           Required  One        null Exec
VirMO/*/Operations/Suspend          Required  One        null Exec
VirMO/*/Operations/Resume           Required  One        null Exec
VirMO/*/Operations/PowerOn          Required  One        null Exec
VirMO/*/Operations/PowerOff         Required  One        null Exec
VirMO/*/Operations/ExecUICmd        Optional  One        null Exec
VirMO/*/UI                          Optional  One        node Get
VirMO/*/UI/Command                  ifVirMO/*/UI One     xml  Get
VirMO/*/UI/Result                   ifVirMO/*/UI One     xml  Get
VirMO/*/Ext                         Optional  One        node Get
VirMO/Operations                    Required  One        node Get
VirMO/Operations/ApplyChanges       Required  One        null Exec
VirMO/DeviceResources               Required  One        chr  Get
"""
VMIMGMO = """
VMImgMO                             Required  One        node Get
VMImgMO/*                           Required  ZeroOrMore node Get
VMImgMO/*/ImgID                     Required  One        chr  Get
VMImgMO/*/Name                      Required  One        chr  Get
VMImgMO/*/Description               Required  ZeroOrOne  chr  Get
VMImgMO/*/DownloadURI               Required  One        chr  Get
VMImgMO/*/DownloadedLocation        Required  ZeroOrOne  chr  Get
VMImgMO/*/State                     Required  One        int  Get
VMImgMO/*/MediaType                 Required  One        chr  Get
VMImgMO/*/Operations                Required  One        node Get
VMImgMO/*/Operations/Download       Required  One        null Get
VMImgMO/*/Operations/Delete         Required  One        null Get
VMImgMO/*/Ext                       Optional  One        node Get
"""
#: of which the server cannot set the value: "No Replace" in the tables, and A-05
CLIENTS = {
    *("VirMO/*/VMID", "VirMO/*/State", "VirMO/*/Resources/CurrentConfig", "VirMO/*/UI/Result"),
    *("VirMO/DeviceResources", "VMImgMO/*/ImgID", "VMImgMO/*/DownloadedLocation", "VMImgMO/*/State"),
}
#: what a server must be able to set, although the printed minimum is Get (A-03)
SERVERS = {
    *("VirMO/*/CreateParams", "VirMO/*/Description", "VirMO/*/Resources/NewConfig", "VirMO/*/UI/Command"),
    *("VMImgMO/*/Name", "VMImgMO/*/DownloadURI", "VMImgMO/*/MediaType", "VMImgMO/*/Description"),
}
#: Exec, beside the printed minimum (A-04)
EXECUTED = {"VMImgMO/*/Operations/Download", "VMImgMO/*/Operations/Delete"}
ROWS = [line.split() for line in (VIRMO + VMIMGMO).strip().splitlines() if line]


def declared() -> dict[str, NodeDef]:
    """All nodes of both objects by path."""
    nodes: dict[str, NodeDef] = {}

    def walk(node: NodeDef, above: str) -> None:
        path = f"{above}/{node.name}".lstrip("/")
        nodes[path] = node
        for child in node.children:
            walk(child, path)

    walk(virmo_definition(), "")
    walk(vmimgmo_definition(), "")
    return nodes


@pytest.mark.parametrize(("path", "status", "occurrence", "format_", "access"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_node_tables(path: str, status: str, occurrence: str, format_: str, access: str) -> None:
    """R-030, R-059, A-11, A-50; VirMO-T-002-M, VirMO-T-003-O, VirMO-T-004-M: there, so spelled, with its occurrence,
    format and access."""
    nodes = declared()
    needed = status == "Required" or status.removeprefix("if") in nodes
    if path not in nodes:
        assert not needed, f"{path} is missing"
        return
    node = nodes[path]
    assert (node.occurrence, node.format.value) in {(occurrence, format_), ("ZeroOrOne", format_)}
    if needed:
        assert node.occurrence == occurrence
    assert Command(access) in node.access
    if path in CLIENTS:
        assert not node.access & {Command.REPLACE, Command.DELETE}
    if path in SERVERS:
        assert {Command.ADD, Command.REPLACE} <= node.access
    if path in EXECUTED:
        assert Command.EXEC in node.access


def test_optional_nodes_come_together() -> None:
    """A-48, VirMO-T-004-M: ExecUICmd and UI, both or none; every optional node's own required children are there."""
    nodes = declared()
    assert ("VirMO/*/UI" in nodes) == ("VirMO/*/Operations/ExecUICmd" in nodes)


def test_there_are_no_nodes_beside_the_tables_but_below_ext() -> None:
    """R-068, A-01, VirMO-T-003-O: ours alone is what is below Ext; below DMTree are the VM's own objects."""
    known = {row[0] for row in ROWS}
    others = [path for path in declared() if path not in known and not {"Ext", "DMTree"} & set(path.split("/"))]
    assert others == []
