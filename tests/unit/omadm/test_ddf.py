"""DDF documents of all objects that are shipped: valid, complete, and the same tables that the tree works by."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from lxml import etree

import dom0_agent.mo
from dom0_agent.mo.catalogue import CATALOGUE
from dom0_agent.omadm.ddf import ddf_document
from dom0_agent.omadm.mo import Path
from dom0_agent.omadm.node import Command, Format, NodeDef, Scope
from tests.unit.omadm.ddf_rules import violations
from tests.unit.omadm.tree_objects import DEFINITION


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_shipped_object_has_a_valid_ddf(name: str) -> None:
    """R-170."""
    mount, definition = CATALOGUE[name]()
    assert mount[-1] == definition.name == name
    document = ddf_document([(mount, definition)], man="Maker & Co", mod="<Board>")
    assert violations(document) == []
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE MgmtTree PUBLIC')


@pytest.mark.parametrize("name", CATALOGUE)
def test_ddf_says_what_the_definition_says(name: str) -> None:
    mount, definition = CATALOGUE[name]()
    root = etree.fromstring(ddf_document([(mount, definition)]).encode())
    (node,) = root.findall("Node")
    assert node.findtext("Path") == "/".join((".", *mount[:-1]))
    compare(node, definition)


def compare(node: etree._Element, definition: NodeDef) -> None:
    assert (node.findtext("NodeName") or "*") == definition.name
    access = node.find("DFProperties/AccessType")
    assert access is not None
    assert {child.tag for child in access} == {command.value for command in definition.access}
    (format_,) = node.findall("DFProperties/DFFormat/*")
    assert format_.tag == definition.format.value
    (occurrence,) = node.findall("DFProperties/Occurrence/*")
    assert (f"{occurrence.tag}:{occurrence.text}" if occurrence.text else occurrence.tag) == definition.occurrence
    (scope,) = node.findall("DFProperties/Scope/*")
    assert scope.tag == definition.scope.value
    assert (node.findtext("DFProperties/DefaultValue") or "") == definition.default
    assert (node.findtext("DFProperties/Description") or "") == definition.description
    children = node.findall("Node")
    assert len(children) == len(definition.children)
    for child, child_definition in zip(children, definition.children, strict=True):
        compare(child, child_definition)


def test_limits_paths_and_types() -> None:
    definition = NodeDef("X", Format.NODE, types=("urn:x",), children=(NodeDef("*", occurrence="OneOrN:7"),))
    document = ddf_document([(("Vendor", "X"), definition), (("Machines",), DEFINITION)])
    assert violations(document) == []
    root = etree.fromstring(document.encode())
    assert [node.findtext("Path") for node in root.findall("Node")] == ["./Vendor", "."]
    assert root.findtext("Node/Node/DFProperties/Occurrence/OneOrN") == "7"
    assert root.findtext("Node/DFProperties/DFType/DDFName") == "urn:x"
    assert [mime.text for mime in root.iterfind(".//Node[NodeName='Note']/DFProperties/DFType/MIME")] == [
        "text/plain",
        "text/html",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<Get/>", "<Get/><Add/>"),
        ("<Occurrence>", "<Occurrence><One/>"),
        ("<DFFormat><node/></DFFormat>", ""),
        ("<NodeName>", "<Path>.</Path><NodeName>"),
        ("<OneOrN>7</OneOrN>", "<OneOrN>1</OneOrN>"),
        ("<DDFName>urn:x</DDFName>", "<MIME>urn:x</MIME>"),
    ],
)
def test_the_checker_sees_violations(old: str, new: str) -> None:
    definition = NodeDef("X", Format.NODE, types=("urn:x",), children=(NodeDef("*", occurrence="OneOrN:7"),))
    document = ddf_document([(("X",), definition)])
    assert old in document
    assert violations(document.replace(old, new)) != []


# -- what the standards demand of the shipped tables -------------------------------------------------------------------

#: path below ./VirMO, occurrence, format, minimum access (requirement register section 4.1)
_VIRMO = """
. One node Get
<x> ZeroOrMore node Get
<x>/VMID One chr Get
<x>/Description One chr Get
<x>/State One int Get
<x>/CreateParams One chr Get
<x>/Resources One node Get
<x>/Resources/CurrentConfig One chr Get
<x>/Resources/NewConfig ZeroOrOne chr Add
<x>/Operations One node Get
<x>/Operations/Create One null Exec
<x>/Operations/Delete One null Exec
<x>/Operations/Suspend One null Exec
<x>/Operations/Resume One null Exec
<x>/Operations/PowerOn One null Exec
<x>/Operations/PowerOff One null Exec
Operations One node Get
Operations/ApplyChanges One null Exec
DeviceResources One chr Get
"""
_VMIMGMO = """
. One node Get
<x> ZeroOrMore node Get
<x>/ImgID One chr Get
<x>/Name One chr Get
<x>/Description ZeroOrOne chr Get
<x>/DownloadURI One chr Get
<x>/DownloadedLocation ZeroOrOne chr Get
<x>/State One int Get
<x>/MediaType One chr Get
<x>/Operations One node Get
<x>/Operations/Download One null Get
<x>/Operations/Delete One null Get
"""
_DMACC = """
<x> OneOrMore node Get
<x>/AppID One chr Get
<x>/ServerID One chr Get
<x>/Name ZeroOrOne chr Get
<x>/PrefConRef ZeroOrOne chr Get
<x>/ToConRef ZeroOrOne node Get
<x>/ToConRef/<x> OneOrMore node Get
<x>/ToConRef/<x>/ConRef One chr Get
<x>/AppAddr One node Get
<x>/AppAddr/<x> OneOrMore node Get
<x>/AppAddr/<x>/Addr One chr Get
<x>/AppAddr/<x>/AddrType One chr Get
<x>/AppAddr/<x>/Port ZeroOrOne node Get
<x>/AppAddr/<x>/Port/<x> OneOrMore node Get
<x>/AppAddr/<x>/Port/<x>/PortNbr One chr Get
<x>/AAuthPref ZeroOrOne chr Get
<x>/AppAuth ZeroOrOne node Get
<x>/AppAuth/<x>/AAuthLevel One chr Get
<x>/AppAuth/<x>/AAuthType One chr Get
<x>/AppAuth/<x>/AAuthName ZeroOrOne chr Get
<x>/AppAuth/<x>/AAuthSecret ZeroOrOne chr -
<x>/AppAuth/<x>/AAuthData ZeroOrOne bin -
<x>/Ext ZeroOrOne node Get
"""


def find(definition: NodeDef, path: Path) -> NodeDef:
    for name in path:
        wanted = "*" if name == "<x>" else name
        (definition,) = [child for child in definition.children if child.name == wanted]
    return definition


@pytest.mark.parametrize(
    ("object_name", "line"),
    [
        (name, line)
        for name, table in (("VirMO", _VIRMO), ("VMImgMO", _VMIMGMO), ("DMAcc", _DMACC))
        for line in table.strip().splitlines()
    ],
)
def test_shipped_tables_match_the_standards(object_name: str, line: str) -> None:
    """R-170, VirMO-T-002-M: names, occurrence and format as printed, access at least as printed."""
    path, occurrence, format_, access = line.split()
    _, root = CATALOGUE[object_name]()
    definition = find(root, () if path == "." else tuple(path.split("/")))
    assert (definition.occurrence, definition.format.value) == (occurrence, format_)
    if access == "-":
        assert Command.GET not in definition.access
    else:
        assert Command(access) in definition.access


@pytest.mark.parametrize("path", ["<x>/VMID", "<x>/State", "<x>/Resources/CurrentConfig"])
def test_no_replace_nodes(path: str) -> None:
    """4.1 "No Replace"."""
    _, root = CATALOGUE["VirMO"]()
    assert Command.REPLACE not in find(root, tuple(path.split("/"))).access


def test_standard_objects_are_permanent_and_read_only() -> None:
    for name in ("DevInfo", "DevDetail"):
        _, root = CATALOGUE[name]()
        pending = [root]
        while pending:
            definition = pending.pop()
            assert (definition.scope, definition.access) == (Scope.PERMANENT, frozenset({Command.GET}))
            pending.extend(definition.children)


def test_every_object_that_has_a_moid_is_in_the_catalogue() -> None:
    """R-170: nobody can ship an object and forget its DDF."""
    modules = (
        importlib.import_module(found.name) for found in pkgutil.walk_packages(dom0_agent.mo.__path__, "dom0_agent.mo.")
    )
    shipped = {moid for module in modules if isinstance(moid := getattr(module, "MOID", None), str)}
    assert len(shipped) >= 6
    roots = [CATALOGUE[name]()[1] for name in CATALOGUE]
    described = {type_ for root in roots for node in (root, *root.children) for type_ in node.types}
    assert shipped - described == set()
