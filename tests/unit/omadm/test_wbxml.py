"""The WBXML codec: the digest's samples, every decoding form, and libwbxml as an independent judge (wbxml digest)."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.element import markup
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.wbxml import WbxmlCodec, parse_untrusted
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.messages import MESSAGES, textual

CODEC = WbxmlCodec()

#: the annotated sample of the digest, section 7
SAMPLE = bytes.fromhex(
    "02A4016A00 6D 6C 7103312E320001 7203444D2F312E320001 650331460001 5B03310001"
    "6E5703687474703A2F2F732F646D000101 6757036465763A31000101 5A00014C03353030300001 01 01"
    "00006B 464B033100014F0331323031000101 534B03320001546E57032E2F5669724D4F0001010101 12 01 01"
)


def body(*pieces: str) -> bytes:
    """A message whose Get has these octets (hex) in place of its LocURI's content."""
    head = "02A4016A00" if not pieces[0].startswith("h") else pieces[0][1:]
    rest = pieces[1:] if pieces[0].startswith("h") else pieces
    return bytes.fromhex(
        head + "6D6C650331460001" + "5B03310001" + "6E5703730001 01" + "6757036400 0101 01"
        "6B 534B03320001 546E57" + "".join(rest) + "01 01 01 01 12 01 01"
    )


def get_uri(octets: bytes) -> str | None:
    get = CODEC.decode(octets).body[0]
    assert isinstance(get, c.Get)
    return get.items[0].target


def test_the_annotated_sample_decodes_and_encodes_to_the_same_octets() -> None:
    message = CODEC.decode(SAMPLE)

    assert message.header == c.SyncHdr("1F", 1, "http://s/dm", "dev:1", meta=c.Meta(max_msg_size=5000))
    assert message.body == (c.Alert("1", 1201), c.Get("2", (c.Item("./VirMO"),)))
    assert message.final
    assert len(SAMPLE) == 119
    encoded = CODEC.encode(message)
    assert len(encoded) == 119
    assert CODEC.decode(encoded) == message


@pytest.mark.parametrize("version", ["00", "01", "02", "03"])
def test_every_version_1_x_is_accepted(version: str) -> None:
    assert CODEC.decode(bytes.fromhex(version) + SAMPLE[1:]) == CODEC.decode(SAMPLE)


def test_textual_and_unknown_public_ids_are_accepted() -> None:
    textual = bytes.fromhex("0200006A1E") + b"-//SYNCML//DTD SyncML 1.2//EN\0"
    assert CODEC.decode(textual + SAMPLE[5:]) == CODEC.decode(SAMPLE)
    assert CODEC.decode(bytes.fromhex("02016A00") + SAMPLE[5:]) == CODEC.decode(SAMPLE)


def test_content_may_be_any_mix_of_inline_string_table_reference_opaque_and_entity() -> None:
    table = "2E2F5800" + "6162632F00"  # "./X", "abc/"
    head = "h02A4016A09" + table
    assert get_uri(body("032E2F5900")) == "./Y"
    assert get_uri(body(head, "8300")) == "./X"
    assert get_uri(body(head, "8304", "0364656600")) == "abc/def"
    assert get_uri(body(head, "C3032E2F5A")) == "./Z"
    assert get_uri(body(head, "032E2F00", "0281 64".replace(" ", ""), "C30142")) == "./\u00e4B"


def test_both_page_switch_styles_decode_to_the_same_message() -> None:
    late = SAMPLE.replace(bytes.fromhex("0001 01 01 00006B"), bytes.fromhex("0001 01 01 00006B"))
    early = SAMPLE.replace(bytes.fromhex("0001 01 01 00006B"), bytes.fromhex("0001 0000 01 01 6B"))
    assert early != late
    assert CODEC.decode(early) == CODEC.decode(late)


def test_an_embedded_tnds_document_is_opaque_to_us_and_readable() -> None:
    """Wbxml digest 7: complete document inside OPAQUE, textual public id, page 2."""
    tnds = (
        bytes.fromhex("0200006A1B")
        + b"-//OMA//DTD-DM-DDF 1.2//EN\0"
        + bytes.fromhex(
            "000260 7703312E320001 6466 03452D4D61696C0001 6F5C25017551 0374657874000101 01 01 01".replace(" ", "")
        )
    )
    message = c.Message(
        c.SyncHdr("1", 1, "s", "d"),
        (c.Add("1", (c.Item("./Inbox", meta=c.Meta("bin", "application/vnd.syncml.dmtnds+wbxml"), data=tnds),)),),
    )

    again = CODEC.decode(CODEC.encode(message))

    assert again == message
    root = parse_untrusted(tnds)
    assert root.tag.endswith("}MgmtTree")
    assert markup(root) == (
        '<VerDTD xmlns="syncml:dmddf1.2">1.2</VerDTD><Node xmlns="syncml:dmddf1.2"><NodeName>E-Mail</NodeName>'
        "<RTProperties><Format><node/></Format><Type><DDFName>text</DDFName></Type></RTProperties></Node>"
    )


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "ends too early"),
        (b"\x04" + SAMPLE[1:], "version"),
        (SAMPLE[:60], "has no end"),
        (SAMPLE[:-2], "ends too early"),
        (bytes.fromhex("02A4010400") + SAMPLE[5:], "charset"),
        (bytes.fromhex("02A5016A00") + SAMPLE[5:], "public id"),
        (bytes.fromhex("028080808080016A00"), "5 octets"),
        (bytes.fromhex("02A4016A8FFFFFFF7F"), "names"),
        (body("8309"), "outside the table"),
        (body("C3FF7F41"), "names"),
        (body("0283B000"), "no character"),
        (body("40"), "not defined"),
        (body("84 01".replace(" ", "")), "not defined"),
        (body("0009"), "code page"),
        (body("03FF00"), "UTF-8"),
        (b"\x02\xa4\x01\x6a\x00\x6d" + b"\x54" * 5000, "nested deeper"),
        (b"\x02\xa4\x01\x6a\x00\x6d" + b"\x0f" * 200_000, "more than"),
    ],
)
def test_malformed_documents_are_refused(octets: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        CODEC.decode(octets)


def test_endless_string_table_references_are_refused_before_they_cost_memory() -> None:
    table = b"x" * 60_000 + b"\0"
    octets = b"\x02\xa4\x01\x6a" + bytes.fromhex("83D461") + table + b"\x6d\x6c\x65" + b"\x83\x00" * 900_000
    with pytest.raises(ProtocolError, match="add up"):
        CODEC.decode(octets)


def test_text_in_very_many_pieces_takes_linear_time() -> None:
    pieces = "0361 00".replace(" ", "") * 300_000
    assert get_uri(body(pieces)) == "a" * 300_000


# ---- libwbxml, an independent judge ------------------------------------------------------------------------------


def convert(tool: str, octets: bytes, tmp_path: Path, *options: str) -> bytes:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(octets)
    done = subprocess.run([tool, *options, "-o", target, source], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


def plain(message: c.Message) -> str:
    """A message without what libwbxml does not keep: blanks around texts, XML or WBXML in a TNDS type."""
    return re.sub(r"dmtnds\+w?b?xml", "dmtnds", repr(message))


@pytest.mark.parametrize("name", MESSAGES)
def test_libwbxml_reads_what_we_write(name: str, tmp_path: Path) -> None:
    message = MESSAGES[name]
    xml = convert("wbxml2xml", CODEC.encode(message), tmp_path, "-k")
    assert plain(XmlCodec().decode(xml)) == plain(message)


@pytest.mark.parametrize("options", [(), ("-n",)], ids=["string table", "no string table"])
@pytest.mark.parametrize("name", MESSAGES)
def test_we_read_what_libwbxml_writes(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    message = MESSAGES[name]
    wbxml = convert("xml2wbxml", XmlCodec().encode(message), tmp_path, "-k", "-v", "1.2", *options)
    assert plain(textual(CODEC.decode(wbxml))) == plain(message)


def metas(octets: bytes) -> list[c.Meta | None]:
    (add,) = CODEC.decode(octets).body
    assert isinstance(add, c.Add)
    return [item.meta for item in add.items]


def add_with_meta(content: str, table: str = "00") -> bytes:
    """An Add with two Items whose Meta have this content (hex, from inside Meta to its END)."""
    item = f"54 6E 57 03610001 01 5A {content} 4F 03760001 01"
    return bytes.fromhex(
        f"02A4016A{table} 6D6C650331460001 5B03310001 6E5703730001 01 6757036400 0101 01"
        f"6B 45 4B03320001 {item}{item} 01 12 01 01"
    )


@pytest.mark.parametrize(
    "content",
    [
        "0001 47 0363687200 01 53 03612F6200 01 0000 01",  # the usual pair, as we write it
        "0001 47 0363687200 01 53 03612F6200 01 01 0000",  # libwbxml's: the page is switched behind the END
        "0001 47 C303636872 01 53 C303612F62 01 0000 01",  # OPAQUE
        "0001 4E 47 0363687200 01 53 03612F6200 01 01 0000 01",  # inside MetInf
    ],
)
def test_metas_that_are_known_by_their_octets_are_read_like_new_ones(content: str) -> None:
    assert metas(add_with_meta(content)) == [c.Meta("chr", "a/b")] * 2


def test_a_meta_with_string_table_references_is_read_with_its_own_documents_table() -> None:
    content = "0001 47 8300 01 53 03612F6200 01 0000 01"
    assert metas(add_with_meta(content, "04 63687200")) == [c.Meta("chr", "a/b")] * 2
    assert metas(add_with_meta(content, "04 62696E00")) == [c.Meta("bin", "a/b")] * 2
    with pytest.raises(ProtocolError):
        metas(add_with_meta(content))


def test_what_looks_like_the_end_of_a_meta_may_be_inside_an_opaque_value() -> None:
    inner = "0001 46 C306 000100000131 01 47 0363687200 01 0000 01"  # EMI of octets that end a Meta
    assert [meta and meta.format for meta in metas(add_with_meta(inner))] == ["chr", "chr"]
    assert [meta and len(meta.emi) for meta in metas(add_with_meta(inner))] == [1, 1]


def test_a_known_meta_counts_as_elements() -> None:
    many = bytes.fromhex("02A4016A00 6D 6B") + bytes.fromhex("5A 0001 47 03787900 01 53 037A00 01 000001") * 60_000
    with pytest.raises(ProtocolError, match="elements"):
        parse_untrusted(many)


def test_metas_within_metas_cost_no_more_than_other_elements() -> None:
    """A hundred octets must not keep the server busy for minutes: each level was once read twice."""
    nested = body("5A" * 40 + "4F 03 61 00 01 00 00 01" + "01" * 40)
    began = time.thread_time()
    assert CODEC.decode(nested).body  # Metas where none belongs are passed over
    assert time.thread_time() - began < 1.0
