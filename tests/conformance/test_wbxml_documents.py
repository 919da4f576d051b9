"""WBXML: headers, tokens, code pages and content rules, octet by octet; libwbxml agrees on every token."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.tokens import DDF, METINF, SYNCML
from dom0_agent.omadm.wbxml import WbxmlCodec, parse_untrusted
from dom0_agent.omadm.wbxml_writer import number_octets
from tests.conformance.dm_bytes import converted
from tests.conformance.rules import cases, rule

CODEC = WbxmlCodec()
HEAD = "02A4016A00"
#: a message with one Get; its LocURI's content is put in
BEFORE = "6D6C 650331460001 5B03310001 6E570373000101 675703640001 01 01 6B534B033200 01546E57"
AFTER = "01010101 12 01 01"
TABLE = "2E2F58006162632F00"  # "./X", "abc/"
ADD = c.Add("1", (c.Item("./x", data="v"),))
HEADER = c.SyncHdr("1F", 1, "s", "d")


def octets(content: str, head: str = HEAD) -> bytes:
    return bytes.fromhex(head + BEFORE + content + AFTER)


def uri(document: bytes) -> str | None:
    get = CODEC.decode(document).body[0]
    assert isinstance(get, c.Get)
    return get.items[0].target


@cases(
    "WBXML: header",
    "head",
    [
        ("version 1.0", "00A4016A00"),
        ("version 1.1", "01A4016A00"),
        ("version 1.2", "02A4016A00"),
        ("version 1.3", "03A4016A00"),
        ("numeric public id of SyncML 1.1", "029F536A00"),
        ("numeric public id of SyncML 1.0", "029F516A00"),
        ("unknown public id 01", "02016A00"),
        ("textual public id in the string table", "0200006A1E" + b"-//SYNCML//DTD SyncML 1.2//EN\0".hex()),
        ("textual public id behind other strings", "0200056A23" + b"abc\0\0-//SYNCML//DTD SyncML 1.2//EN\0".hex()),
        ("charset 0, not given", "02A4010000"),
        ("charset 3, US-ASCII", "02A4010300"),
        ("a page switch before the document element", "02A4016A000000"),
    ],
)
def test_headers_that_are_read(head: str) -> None:
    assert uri(octets("032E2F5800", head)) == "./X"


@cases(
    "WBXML: header",
    "head",
    [
        ("version 2.0 is refused", "10A4016A00"),
        ("a foreign public id is refused", "02046A00"),
        ("a foreign textual public id is refused", "0200006A04" + b"WML\0".hex()),
        ("UTF-16 is refused", "02A40187F700"),
        ("a string table longer than the document is refused", "02A4016A8F7F"),
        ("a textual public id outside the table is refused", "0200096A04" + b"WML\0".hex()),
    ],
)
def test_headers_that_are_refused(head: str) -> None:
    with pytest.raises(ProtocolError):
        uri(octets("032E2F5800", head))


@cases(
    "WBXML: content",
    "content,expected",
    [
        ("STR_I, an inline string", "032E2F5900", "./Y"),
        ("STR_T, a string of the table", "8300", "./X"),
        ("STR_T in the middle of a string of the table", "8302", "X"),
        ("OPAQUE octets for text", "C3032E2F5A", "./Z"),
        ("ENTITY, one character", "02 8144", "\u00c4"),
        ("ENTITY beyond the basic plane", "02 87EC00", "\U0001f600"),
        ("several pieces", "032E2F00 8304 C30164 0265", "./abc/de"),
        ("an empty inline string", "0300", ""),
        ("UTF-8 text", "03C3A400", "\u00e4"),
    ],
)
def test_content(content: str, expected: str) -> None:
    assert uri(octets(content, "02A4016A09" + TABLE)) == expected


@cases(
    "WBXML: malformed content",
    "content",
    [
        ("an inline string without end", "03414243"),
        ("a table offset outside the table", "8309"),
        ("OPAQUE longer than the document", "C37F41"),
        ("ENTITY of a surrogate", "0283B000"),
        ("ENTITY 0", "0200"),
        ("text that is not UTF-8", "03FF00"),
        ("a tag that is not in the table", "7D"),
        ("a reserved tag", "30"),
        ("a tag with attributes", "D4"),
        ("LITERAL", "0400"),
        ("EXT_0", "C0"),
        ("PI", "43"),
        ("a code page that SyncML does not have", "0003"),
        ("a number of six octets", "C3808080808001"),
    ],
)
def test_malformed_content(content: str) -> None:
    with pytest.raises(ProtocolError):
        uri(octets(content))


@cases(
    "WBXML: code pages",
    "document",
    [
        ("back to page 0 after the closing tag of Meta", "5A0001 4C0335300001 01 01 0000 6B"),
        ("back to page 0 before the closing tag of Meta", "5A0001 4C0335300001 0000 01 01 6B"),
        ("the page is kept after END until the next switch", "5A0001 4C0335300001 01 01 0001 0000 6B"),
        ("a switch to the same page changes nothing", "5A0001 0001 4C0335300001 01 01 0000 0000 6B"),
        ("a MetInf element inside Meta", "5A0001 4E 4C0335300001 01 01 01 0000 6B"),
    ],
)
def test_page_switches(document: str) -> None:
    head = "02A4016A00 6D6C650331460001 5B03310001 6E5703730001 01 67570364000101"
    found = CODEC.decode(bytes.fromhex(head + document + "12 01 01"))
    assert found.header.meta == c.Meta(max_msg_size=50)


@rule("WBXML: code pages", "every tag of page 0 has the code that libwbxml gives it")
def test_tokens_of_page_0() -> None:
    for name, code in SYNCML.items():
        if name == "SyncML":
            continue
        xml = f'<SyncML xmlns="SYNCML:SYNCML1.2"><{name}/></SyncML>'
        assert converted("xml2wbxml", xml.encode(), "-n", "-v", "1.2") == bytes.fromhex(HEAD) + bytes([0x6D, code, 1])


@rule("WBXML: code pages", "every tag of page 1 has the code that libwbxml gives it")
def test_tokens_of_page_1() -> None:
    for name, code in METINF.items():
        xml = f'<SyncML xmlns="SYNCML:SYNCML1.2"><Meta><{name} xmlns="syncml:metinf"/></Meta></SyncML>'
        expected = bytes.fromhex(HEAD) + bytes([0x6D, 0x5A, 0, 1, code, 1, 1])
        assert converted("xml2wbxml", xml.encode(), "-n", "-v", "1.2") == expected


@rule("WBXML: code pages", "every tag of page 2 has the code that libwbxml gives it")
def test_tokens_of_page_2() -> None:
    for name, code in DDF.items():
        if name == "MgmtTree":
            continue
        xml = (
            '<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/dm_ddf-v1_2.dtd">'
            f'<MgmtTree xmlns="syncml:dmddf1.2"><{name}/></MgmtTree>'
        )
        found = converted("xml2wbxml", xml.encode(), "-n", "-v", "1.2")
        assert found.endswith(bytes([0x60, code, 1])), name


@rule("WBXML: encoding", "version 1.2, numeric public id, UTF-8, no string table")
def test_prefix() -> None:
    assert CODEC.encode(c.Message(HEADER, (ADD,)))[:5] == bytes.fromhex(HEAD)


@rule("WBXML: encoding", "elements without content are bare codes")
def test_empty_elements() -> None:
    encoded = CODEC.encode(c.Message(HEADER, (c.Add("1", (c.Item("./x", data="", meta=c.Meta("node")),)),)))
    assert b"\x0f\x01\x01" in encoded
    assert encoded.endswith(b"\x12\x01\x01")


@rule("WBXML: encoding", "text is STR_I, octets are OPAQUE with their length")
def test_text_and_octets() -> None:
    assert b"\x4f\x03v\x00\x01" in CODEC.encode(c.Message(HEADER, (ADD,)))
    raw = c.Add("1", (c.Item("./x", meta=c.Meta("bin"), data=bytes(200)),))
    assert b"\x4f\xc3\x81\x48" + bytes(200) + b"\x01" in CODEC.encode(c.Message(HEADER, (raw,)))


@rule("WBXML: encoding", "text with NUL is OPAQUE, because STR_I would end there")
def test_nul() -> None:
    assert b"\x4f\xc3\x03a\x00b\x01" in CODEC.encode(c.Message(HEADER, (c.Add("1", (c.Item("./x", data="a\0b"),)),)))


@rule("WBXML: encoding", "a page is switched to only where its tags are, and left again")
def test_written_switches() -> None:
    message = c.Message(HEADER, (c.Add("1", (c.Item("./x", meta=c.Meta("int"), data="1"),)),))
    assert b"\x5a\x00\x01\x47\x03int\x00\x01\x00\x00\x01" in CODEC.encode(message)


@cases(
    "WBXML: numbers",
    "value,text",
    [
        ("below 128 in one octet", 106, "6A"),
        ("most significant octet first, with the continuation bit", 0x1201, "A401"),
        ("the largest of 32 bits in five octets", 0xFFFFFFFF, "8FFFFFFF7F"),
        ("zero", 0, "00"),
    ],
)
def test_numbers(value: int, text: str) -> None:
    assert number_octets(value).hex().upper() == text


@rule("WBXML: embedded documents", "a DDF or TNDS document stands alone with its own header and page 2")
def test_tnds_document() -> None:
    xml = (
        '<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/dm_ddf-v1_2.dtd">'
        "<MgmtTree xmlns='syncml:dmddf1.2'><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName></Node></MgmtTree>"
    )
    root = parse_untrusted(converted("xml2wbxml", xml.encode(), "-n", "-v", "1.2"))
    assert root.tag == "{syncml:dmddf1.2}MgmtTree"
    assert [child.tag.partition("}")[2] for child in root] == ["VerDTD", "Node"]


@rule("WBXML: embedded documents", "TNDS tags of page 2 directly inside Data become the value's text")
def test_nested_page_2() -> None:
    nested = "4F 0002 60 7703312E320001 64 66036100 01 01 01 0000 01"
    head = HEAD + "6D6C 650331460001 5B03310001 6E570373000101 675703640001 01 01"
    document = head + "6B 454B03310001 546E57032E2F5800 0101" + nested + "01 01 12 01 01"
    add = CODEC.decode(bytes.fromhex(document)).body[0]
    assert isinstance(add, c.Add)
    assert add.items[0].data == (
        '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName></Node></MgmtTree>'
    )


@rule("WBXML: embedded documents", "inside OPAQUE of Data they reach the receiver unchanged")
def test_embedded_document() -> None:
    tnds = bytes.fromhex("0200006A1B") + b"-//OMA//DTD-DM-DDF 1.2//EN\0" + bytes.fromhex("0002 60 7703312E32000101")
    item = c.Item("./Inbox", meta=c.Meta("bin", "application/vnd.syncml.dmtnds+wbxml"), data=tnds)
    message = c.Message(HEADER, (c.Add("1", (item,)),))
    assert CODEC.decode(CODEC.encode(message)) == message
