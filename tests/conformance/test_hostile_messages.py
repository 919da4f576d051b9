"""Robustness: messages made to cost time or memory are refused within a second and 50 MB (beyond their own octets)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.conformance.dm_bytes import CODECS, message, to_octets
from tests.conformance.rules import cases, rule

REPOSITORY = Path(__file__).resolve().parents[2]

#: decodes what an expression makes and says how it ended, how long it took and how much memory it needed
PROBE = """
import json, resource, sys, time
from dom0_agent.omadm.codec import codec_for
from dom0_agent.omadm.status import ProtocolError
codec = codec_for(sys.argv[1])
octets = eval(sys.argv[2])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, began = peak(), time.process_time()
try:
    codec.decode(octets)
    refused = ""
except ProtocolError as error:
    refused = str(error)
took = time.process_time() - began
print(json.dumps({"refused": refused, "seconds": took, "kilobytes": peak() - before}))
"""

XML, WBXML = "application/vnd.syncml.dm+xml", "application/vnd.syncml.dm+wbxml"
_HEAD = "b'<SyncML><SyncHdr/><SyncBody>'"


@cases(
    "Robustness: limits of time and memory",
    "media_type,expression",
    [
        (
            "an entity bomb (billion laughs)",
            XML,
            "b'<!DOCTYPE a [<!ENTITY a0 \"lol\">' + b''.join(b'<!ENTITY a%d \"%s\">' % (n, b'&a%d;' % (n-1) * 10)"
            " for n in range(1, 30)) + b']><SyncML>&a29;</SyncML>'",
        ),
        (
            "an entity bomb of one large entity",
            XML,
            "b'<!DOCTYPE a [<!ENTITY x \"' + b'x' * 1000000 + b'\">]><SyncML>' + b'&x;' * 100000",
        ),
        ("an external entity", XML, "b'<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><SyncML>&x;</SyncML>'"),
        (
            "an entity in UTF-16, where a search for markup is blind",
            XML,
            "'<!DOCTYPE a [<!ENTITY x \"y\">]><SyncML>&x;</SyncML>'.encode('utf-16')",
        ),
        (
            "an entity behind a UTF-7 declaration",
            XML,
            'b\'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a+AD4-<SyncML/>\'',
        ),
        (
            "10 000 elements inside each other",
            XML,
            f"{_HEAD} + b'<a>' * 10000 + b'</a>' * 10000 + b'</SyncBody></SyncML>'",
        ),
        ("70 000 elements inside each other, unclosed", XML, f"{_HEAD} + b'<a>' * 70000"),
        ("10 000 Sequences inside each other", XML, f"{_HEAD} + b'<Sequence>' * 10000 + b'</Sequence>' * 10000"),
        ("a text of 100 MB", XML, f"{_HEAD} + b'x' * 100_000_000"),
        ("a CDATA section of 100 MB", XML, f"{_HEAD} + b'<![CDATA[' + b'x' * 100_000_000 + b']]>'"),
        ("a comment of 100 MB", XML, "b'<!--' + b'x' * 100_000_000 + b'-->'"),
        ("a million attributes", XML, "b'<SyncML ' + b' '.join(b'a%d=\"\"' % n for n in range(200000)) + b'/>'"),
        ("a million empty elements", XML, f"{_HEAD} + b'<a/>' * 500000"),
        ("a prolog of comments only", XML, "b'<!---->' * 250000"),
        ("an XML declaration without end", XML, "b'<?xml ' + b' ' * 2000000"),
        ("a document type without end", XML, "b'<!DOCTYPE a PUBLIC \"' + b'x' * 2000000"),
        (
            "a number of a million digits",
            XML,
            "b'<SyncML><SyncHdr><MsgID>' + b'1' * 1000000 + b'</MsgID></SyncHdr></SyncML>'",
        ),
        ("WBXML of 100 MB", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x00\\x6d' + b'\\x0f' * 100_000_000"),
        ("10 000 WBXML elements inside each other", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x00\\x6d' + b'\\x64' * 10000"),
        ("a million WBXML elements", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x00\\x6d' + b'\\x0f' * 1_000_000"),
        ("a string table that claims 4 GB", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x8f\\xff\\xff\\xff\\x7f'"),
        (
            "endless references to one long string",
            WBXML,
            "b'\\x02\\xa4\\x01\\x6a\\x83\\xd4\\x61' + b'x' * 60000 + b'\\0'"
            " + b'\\x6d\\x6c\\x65' + b'\\x83\\x00' * 900000",
        ),
        ("OPAQUE that claims 4 GB", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x00\\x6d\\xc3\\x8f\\xff\\xff\\xff\\x7f'"),
        ("a number without end", WBXML, "b'\\x02' + b'\\x80' * 1_000_000"),
        ("page switches without end", WBXML, "b'\\x02\\xa4\\x01\\x6a\\x00' + b'\\x00\\x00' * 1_000_000"),
    ],
)
def test_refused_within_a_second_and_50_mb(media_type: str, expression: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, media_type, expression],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["refused"], "it was accepted"
    assert found["seconds"] < 1.0
    assert found["kilobytes"] < 50 * 1024


@pytest.mark.parametrize("tag", ["Format", "Type", "Mark", "NextNonce", "EMI"])
@rule("Robustness: texts in Meta", "a text in Meta of more than 1024 characters is refused; they are remembered")
def test_long_texts_in_meta(tag: str, syntax: str) -> None:
    def alert(text: str) -> bytes:
        meta = f'<Meta><{tag} xmlns="syncml:metinf">{text}</{tag}></Meta>'
        return to_octets(message(f"<Add><CmdID>1</CmdID><Item>{meta}<Data>x</Data></Item></Add>"), syntax)

    assert CODECS[syntax].decode(alert("b" * 1024)).body
    with pytest.raises(ProtocolError, match="1025 characters"):
        CODECS[syntax].decode(alert("b" * 1025))


@cases(
    "Robustness: reading in linear time",
    "octets",
    [
        ("a command with 20 000 Items", message("<Get><CmdID>1</CmdID>" + "<Item/>" * 20_000 + "</Get>")),
        ("a Status with 20 000 TargetRefs", message("<Status>" + "<TargetRef>x</TargetRef>" * 20_000 + "</Status>")),
        ("a text in 20 000 CDATA sections", message("<Status><Cmd>" + "<![CDATA[x]]>" * 20_000 + "</Cmd></Status>")),
        ("a Meta with 20 000 EMI", message("<Get><Meta>" + "<EMI>x</EMI>" * 20_000 + "</Meta></Get>")),
        ("nested markup in Data", message("<Add><Item><Data>" + "<a>x</a>" * 20_000 + "</Data></Item></Add>")),
    ],
)
@pytest.mark.timeout(5)
def test_large_but_legal(octets: str) -> None:
    assert len(XmlCodec().decode(octets.encode()).body) == 1


@rule("Robustness: nested markup", "markup inside Data deeper than any TNDS is refused")
def test_deep_markup_in_data() -> None:
    nested = "<a>" * 120 + "</a>" * 120
    assert XmlCodec().decode(message(f"<Add><Item><Data>{nested}</Data></Item></Add>").encode())
    nested = "<a>" * 140 + "</a>" * 140
    with pytest.raises(ProtocolError, match="deeper"):
        XmlCodec().decode(message(f"<Add><Item><Data>{nested}</Data></Item></Add>").encode())


@rule("Robustness: text that XML cannot carry", "control characters travel as base64, not as broken XML")
def test_control_characters() -> None:
    results = c.Results("1", 1, "1", (c.Item(source="./x", data="a\x00b\x0b"),))
    sent = c.Message(c.SyncHdr("1", 1, "t", "s"), (results,))
    received = XmlCodec().decode(XmlCodec().encode(sent)).body[0]
    assert isinstance(received, c.Results)
    assert received.items[0] == c.Item(source="./x", meta=c.Meta("b64"), data="YQBiCw==")
    assert WbxmlCodec().decode(WbxmlCodec().encode(sent)).body[0] == c.Results(
        "1", 1, "1", (c.Item(source="./x", data=b"a\x00b\x0b"),)
    )


@rule("Robustness: text that XML cannot carry", "control characters elsewhere are replaced, the message stays readable")
def test_control_characters_in_a_uri() -> None:
    sent = c.Message(c.SyncHdr("1", 1, "t", "s"), (c.Status("1", 1, "1", "Get", 404, ("./a\x01b",)),))
    for codec in (XmlCodec(), WbxmlCodec()):
        assert codec.decode(codec.encode(sent)).body
    received = XmlCodec().decode(XmlCodec().encode(sent)).body[0]
    assert isinstance(received, c.Status)
    assert received.target_refs == ("./a\ufffdb",)


@rule("Robustness: text that XML cannot carry", "carriage returns survive XML")
def test_carriage_returns() -> None:
    sent = c.Message(c.SyncHdr("1", 1, "t", "s"), (c.Add("1", (c.Item("./x", data="a\r\nb\rc"),)),))
    assert XmlCodec().decode(XmlCodec().encode(sent)) == sent
