"""The content models of DDF 1.2 (and TNDS) as a DTD, typed from the table of our digest (section 8)."""

from __future__ import annotations

from io import StringIO

from lxml import etree

DTD = """
<!ELEMENT MgmtTree (VerDTD, Man?, Mod?, Node+)>
<!ATTLIST MgmtTree xmlns CDATA #IMPLIED>
<!ELEMENT VerDTD (#PCDATA)>
<!ELEMENT Man (#PCDATA)>
<!ELEMENT Mod (#PCDATA)>
<!ELEMENT Node (NodeName, Path?, RTProperties?, DFProperties?, (Node* | Value?))>
<!ELEMENT NodeName (#PCDATA)>
<!ELEMENT Path (#PCDATA)>
<!ELEMENT Value (#PCDATA)>
<!ELEMENT RTProperties (ACL?, Format?, Name?, Size?, Title?, TStamp?, Type, VerNo?)>
<!ELEMENT ACL (#PCDATA)>
<!ELEMENT Format (b64 | bin | bool | chr | int | node | null | xml | date | time | float)>
<!ELEMENT Name (#PCDATA)>
<!ELEMENT Size (#PCDATA)>
<!ELEMENT Title (#PCDATA)>
<!ELEMENT TStamp (#PCDATA)>
<!ELEMENT Type (MIME | DDFName)>
<!ELEMENT VerNo (#PCDATA)>
<!ELEMENT b64 EMPTY> <!ELEMENT bin EMPTY> <!ELEMENT bool EMPTY> <!ELEMENT chr EMPTY> <!ELEMENT int EMPTY>
<!ELEMENT node EMPTY> <!ELEMENT null EMPTY> <!ELEMENT xml EMPTY> <!ELEMENT date EMPTY> <!ELEMENT time EMPTY>
<!ELEMENT float EMPTY>
<!ELEMENT MIME (#PCDATA)>
<!ELEMENT DDFName (#PCDATA)>
<!ELEMENT DFProperties (AccessType, DefaultValue?, Description?, DFFormat, Occurrence?, Scope?, DFTitle?, DFType,
                        CaseSense?)>
<!ELEMENT AccessType (Add?, Copy?, Delete?, Exec?, Get?, Replace?)>
<!ELEMENT Add EMPTY> <!ELEMENT Copy EMPTY> <!ELEMENT Delete EMPTY> <!ELEMENT Exec EMPTY> <!ELEMENT Get EMPTY>
<!ELEMENT Replace EMPTY>
<!ELEMENT DefaultValue (#PCDATA)>
<!ELEMENT Description (#PCDATA)>
<!ELEMENT DFFormat (b64 | bin | bool | chr | int | node | null | xml | date | time | float)>
<!ELEMENT Occurrence (One | ZeroOrOne | ZeroOrMore | OneOrMore | ZeroOrN | OneOrN)>
<!ELEMENT One EMPTY> <!ELEMENT ZeroOrOne EMPTY> <!ELEMENT ZeroOrMore EMPTY> <!ELEMENT OneOrMore EMPTY>
<!ELEMENT ZeroOrN (#PCDATA)>
<!ELEMENT OneOrN (#PCDATA)>
<!ELEMENT Scope (Permanent | Dynamic)>
<!ELEMENT Permanent EMPTY> <!ELEMENT Dynamic EMPTY>
<!ELEMENT DFTitle (#PCDATA)>
<!ELEMENT DFType (MIME+ | DDFName)>
<!ELEMENT CaseSense (CS | CIS)>
<!ELEMENT CS EMPTY> <!ELEMENT CIS EMPTY>
"""

_RULES = etree.DTD(StringIO(DTD))


def violations(document: str) -> list[str]:
    """What of the DTD, and of the rules that a DTD cannot say, the document breaks."""
    root = etree.fromstring(document.encode())
    for element in root.iter("*"):
        element.tag = element.tag.rpartition("}")[2]
    etree.cleanup_namespaces(root)
    found = [] if _RULES.validate(root) else [str(_RULES.error_log)]
    for node in root.iter("Node"):
        name = node.findtext("NodeName")
        if node.find("Path") is not None and node.getparent() is not root:
            found.append(f"{name}: Path is for children of MgmtTree only")
        interior = (
            node.find("DFProperties/DFFormat/node") is not None or node.find("RTProperties/Format/node") is not None
        )
        if interior and (node.find("DFProperties/DFType/MIME") is not None or node.find("Value") is not None):
            found.append(f"{name}: an interior node has a DDFName and no Value")
        if not interior and (node.find("DFProperties/DFType/DDFName") is not None or node.find("Node") is not None):
            found.append(f"{name}: a leaf has MIME types and no Nodes")
        for limited in (
            *node.findall("DFProperties/Occurrence/ZeroOrN"),
            *node.findall("DFProperties/Occurrence/OneOrN"),
        ):
            if not 2 <= int(limited.text or "0") <= 65536:
                found.append(f"{name}: N is 2 to 65536")
    return found
