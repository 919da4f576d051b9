"""TNDS documents to data and back: XML, WBXML, tolerance, caps (digest 8)."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.omadm.node import Format
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tnds import (
    MAX_DEPTH,
    MAX_NODES,
    SELECTABLE,
    TndsNode,
    decode_tnds,
    encode_tnds,
    encode_tnds_wbxml,
    is_tnds,
    selection,
)
from tests.unit.omadm.ddf_rules import violations

EXAMPLE = """<?xml version="1.0"?>
<MgmtTree xmlns="syncml:dmddf1.2">
  <VerDTD>1.2</VerDTD>
  <Node>
    <NodeName>E-Mail</NodeName>
    <Path>./Vendor/X</Path>
    <RTProperties>
      <ACL>Get=*&amp;Replace=a</ACL>
      <Format><node/></Format>
      <Title>mail</Title>
      <Type><DDFName>urn:x:mail</DDFName></Type>
    </RTProperties>
    <Node>
      <NodeName>Server</NodeName>
      <RTProperties><Format><chr/></Format><Type><MIME>text/plain</MIME></Type></RTProperties>
      <Value> mail.example.com </Value>
    </Node>
    <Node>
      <NodeName>Key</NodeName>
      <RTProperties><Format><bin/></Format><Type><MIME>application/octet-stream</MIME></Type></RTProperties>
      <Value>AP8=</Value>
    </Node>
    <Node><NodeName>Empty</NodeName><RTProperties><Format><chr/></Format><Type><MIME/></Type></RTProperties><Value/></Node>
    <Node>
      <NodeName>Doc</NodeName>
      <RTProperties><Format><xml/></Format><Type><MIME>text/xml</MIME></Type></RTProperties>
      <Value><![CDATA[<a b="c"/>]]></Value>
    </Node>
  </Node>
</MgmtTree>"""

PARSED = TndsNode(
    "E-Mail",
    Format.NODE,
    "urn:x:mail",
    acl="Get=*&Replace=a",
    title="mail",
    path=("Vendor", "X"),
    children=(
        TndsNode("Server", Format.CHR, "text/plain", " mail.example.com "),
        TndsNode("Key", Format.BIN, "application/octet-stream", b"\x00\xff"),
        TndsNode("Empty", Format.CHR, "", ""),
        TndsNode("Doc", Format.XML, "text/xml", '<a b="c"/>'),
    ),
)


def test_document_to_data() -> None:
    assert decode_tnds(EXAMPLE) == (PARSED,)
    assert decode_tnds(EXAMPLE.encode()) == (PARSED,)


@pytest.mark.parametrize("xmlns", ["", ' xmlns="SYNCML:SYNCML1.2"', ' xmlns="something:else"'])
def test_namespaces_do_not_matter(xmlns: str) -> None:
    assert decode_tnds(EXAMPLE.replace(' xmlns="syncml:dmddf1.2"', xmlns)) == (PARSED,)
    prefixed = EXAMPLE.replace("<", "<t:").replace("<t:/", "</t:").replace("xmlns=", "xmlns:t=")
    prefixed = prefixed.replace("<t:?", "<?").replace("<t:!", "<!").replace("<t:a", "<a")
    assert decode_tnds(prefixed) == (PARSED,)


def test_written_documents_are_valid_and_read_back() -> None:
    document = encode_tnds([PARSED])
    assert violations(document) == []
    assert decode_tnds(document) == (PARSED,)


def test_silent_documents() -> None:
    """Without Format the kind follows from what is there."""
    nodes = decode_tnds(
        "<MgmtTree><Node><NodeName>a</NodeName><Node><NodeName>b</NodeName><Value>1</Value></Node>"
        "<Node><NodeName/></Node></Node></MgmtTree>"
    )
    assert nodes == (TndsNode("a", children=(TndsNode("b", value="1"), TndsNode(""))),)
    assert [node.is_interior for node in (nodes[0], *nodes[0].children)] == [True, False, True]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "not xml",
        "<MgmtTree>",
        "<Other/>",
        "<MgmtTree><VerDTD>1.2</VerDTD></MgmtTree>",
        "<MgmtTree><Node><NodeName>a</NodeName><Wrong/></Node></MgmtTree>",
        "<MgmtTree><Node><RTProperties><Format><strange/></Format></RTProperties></Node></MgmtTree>",
        "<MgmtTree><Node><RTProperties><Format><bin/></Format></RTProperties><Value>!</Value></Node></MgmtTree>",
        "<MgmtTree><Node><NodeName>a</NodeName><Node/><Value>x</Value></Node></MgmtTree>",
        '<!DOCTYPE a [<!ENTITY b "c">]><MgmtTree><Node><NodeName>&b;</NodeName></Node></MgmtTree>',
        "<MgmtTree>" + "<Node>" * (MAX_DEPTH + 1) + "</Node>" * (MAX_DEPTH + 1) + "</MgmtTree>",
        "<MgmtTree>" + "<Node/>" * (MAX_NODES + 1) + "</MgmtTree>",
        "\ud800",
        b"\x02\x00\x00\x6a",
        b"\x00" * 20,
    ],
)
def test_what_is_no_document(document: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_tnds(document)


def test_wbxml_made_by_somebody_else(tmp_path: Path) -> None:
    doctype = (
        '<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" '
        '"http://www.openmobilealliance.org/tech/DTD/dm_ddf-v1_2.dtd">\n'
    )
    source, target = tmp_path / "a.xml", tmp_path / "a.wbxml"
    source.write_text(EXAMPLE.replace("?>\n", "?>\n" + doctype))
    subprocess.run(["xml2wbxml", "-o", str(target), str(source)], check=True, capture_output=True, timeout=20)
    (node,) = decode_tnds(target.read_bytes())
    assert [child.name for child in node.children] == ["Server", "Key", "Empty", "Doc"]
    assert (node.acl, node.type, node.children[0].value) == (
        "Get=*&Replace=a",
        "urn:x:mail",
        "mail.example.com",
    )


def test_wbxml_read_by_somebody_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a.wbxml", tmp_path / "a.xml"
    node = TndsNode(
        "E-Mail", Format.NODE, "urn:x", acl="Get=*", children=(TndsNode("Server", Format.CHR, "a/b", "x y"),)
    )
    source.write_bytes(encode_tnds_wbxml([node]))
    subprocess.run(["wbxml2xml", "-o", str(target), str(source)], check=True, capture_output=True, timeout=20)
    assert decode_tnds(target.read_bytes()) == (node,)


def test_wbxml_by_hand() -> None:
    """The octets of the WBXML digest, section 7, with a bin value in OPAQUE."""
    document = (
        b"\x02\x00\x00\x6a\x1b-//OMA//DTD-DM-DDF 1.2//EN\x00"
        b"\x00\x02\x60\x77\x031.2\x00\x01"  # MgmtTree, VerDTD
        b"\x64\x66\x03E-Mail\x00\x01"  # Node, NodeName
        b"\x6f\x5c\x25\x01\x75\x51\x03urn:x\x00\x01\x01\x01"  # RTProperties, Format/node, Type/DDFName
        b"\x64\x66\x03Key\x00\x01\x6f\x5c\x09\x01\x75\x61\x03a/b\x00\x01\x01\x01"  # Node, Format/bin, Type/MIME
        b"\x76\xc3\x02\x00\xff\x01"  # Value
        b"\x01\x01\x01"
    )
    assert decode_tnds(document) == (
        TndsNode("E-Mail", Format.NODE, "urn:x", children=(TndsNode("Key", Format.BIN, "a/b", b"\x00\xff"),)),
    )


def test_media_types() -> None:
    assert is_tnds("application/vnd.syncml.dmtnds+xml")
    assert is_tnds(" Application/vnd.syncml.dmtnds+WBXML; charset=utf-8")
    assert not is_tnds("text/xml")
    assert not is_tnds(None)


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ("TNDS", SELECTABLE),
        ("TNDS+Value+ACL", {"Value", "ACL"}),
        ("TNDS-Format", SELECTABLE - {"Format"}),
        ("TNDS-Format-Value", SELECTABLE - {"Format", "Value"}),
        ("TNDS+Value-ACL", None),
        ("TNDS-Value+ACL", None),
        ("TNDS+Size", None),
        ("TNDS+", None),
        ("TNDS-", None),
        ("TNDSx", None),
        ("Struct", None),
    ],
)
def test_selection(attribute: str, wanted: set[str] | None) -> None:
    """6.2: + and - are not mixed, unknown names are not supported."""
    assert selection(attribute) == wanted


_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
_name = _text.map(str.strip).filter(lambda name: name != "")
_leaf = st.one_of(
    st.builds(
        TndsNode,
        _name,
        st.sampled_from((Format.CHR, Format.INT, Format.XML, Format.B64)),
        _text.map(str.strip),
        _text,
        title=_text.map(str.strip),
    ),
    st.builds(TndsNode, _name, st.just(Format.BIN), _text.map(str.strip), st.binary()),
)
_trees = st.recursive(
    _leaf,
    lambda children: st.builds(
        TndsNode,
        _name,
        st.just(Format.NODE),
        _text.map(str.strip),
        acl=_text.map(str.strip),
        children=st.lists(children, max_size=4).map(tuple),
    ),
    max_leaves=12,
)


@given(st.lists(_trees, min_size=1, max_size=3))
def test_any_tree_survives_the_round_trip(nodes: list[TndsNode]) -> None:
    document = encode_tnds(nodes)
    assert decode_tnds(document) == tuple(nodes)
    assert violations(document) == []
    assert decode_tnds(encode_tnds_wbxml(nodes)) == tuple(nodes)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_only_protocol_errors_escape(junk: str | bytes) -> None:
    for document in (junk, f"<MgmtTree><Node>{junk!r}</Node></MgmtTree>"):
        with contextlib.suppress(ProtocolError):
            decode_tnds(document)
