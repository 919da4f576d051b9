"""Properties of both codecs: what is encoded is decoded, encoding is stable, only ProtocolError escapes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.largeobject import Assembler
from dom0_agent.omadm.outbox import Outbox
from dom0_agent.omadm.status import ProtocolError, Status
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.message_strategies import MESSAGES, VALUES

CODECS = [pytest.param(XmlCodec(), id="xml"), pytest.param(WbxmlCodec(), id="wbxml")]
EXAMPLES = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize("codec", CODECS)
@EXAMPLES
@given(message=MESSAGES)
def test_what_is_encoded_is_decoded(codec: Codec, message: c.Message) -> None:
    octets = codec.encode(message)
    assert codec.decode(octets) == message
    assert codec.encode(codec.decode(octets)) == octets


@EXAMPLES
@given(message=MESSAGES)
def test_both_syntaxes_say_the_same(message: c.Message) -> None:
    xml, wbxml = XmlCodec(), WbxmlCodec()
    assert wbxml.decode(wbxml.encode(message)) == xml.decode(xml.encode(message))


@EXAMPLES
@given(data=st.binary(max_size=300))
def test_octets_survive_both_syntaxes(data: bytes) -> None:
    for codec in (XmlCodec(), WbxmlCodec()):
        sent = c.Message(c.SyncHdr("1", 1, "t", "s"), (c.Add("1", (c.Item("./x", meta=c.Meta("bin"), data=data),)),))
        add = codec.decode(codec.encode(sent)).body[0]
        assert isinstance(add, c.Add)
        found = add.items[0].data
        assert (base64.b64decode(found) if isinstance(found, str) else found) == data


@EXAMPLES
@given(text=st.text(max_size=200))
def test_any_text_can_be_sent_in_both_syntaxes(text: str) -> None:
    """Control characters and surrogates included: they must not break the message."""
    for codec in (XmlCodec(), WbxmlCodec()):
        sent = c.Message(c.SyncHdr("1", 1, text, text), (c.Status("1", 1, "1", "Get", 404, (text,)),))
        assert len(codec.decode(codec.encode(sent)).body) == 1


@pytest.mark.parametrize("codec", CODECS)
@EXAMPLES
@given(octets=st.binary(max_size=400))
@example(b"\x02\xa4\x01\x6a\x00")
@example(b"<SyncML>")
def test_only_protocol_error_escapes(codec: Codec, octets: bytes) -> None:
    try:
        codec.decode(octets)
    except ProtocolError:
        return


@pytest.mark.parametrize("codec", CODECS)
@EXAMPLES
@given(message=MESSAGES, at=st.integers(0, 10_000), octets=st.binary(min_size=1, max_size=3))
def test_damaged_messages_raise_protocol_error_only(codec: Codec, message: c.Message, at: int, octets: bytes) -> None:
    good = codec.encode(message)
    at %= len(good)
    try:
        codec.decode(good[:at] + octets + good[at + len(octets) :])
    except ProtocolError:
        return


@pytest.mark.parametrize("codec", CODECS)
@EXAMPLES
@given(uris=st.lists(st.text("abc", max_size=60), max_size=30), limit=st.integers(900, 3000))
def test_an_outbox_keeps_order_and_limit(codec: Codec, uris: list[str], limit: int) -> None:
    """Everything goes out once and in order, no message is too large, the last one alone has Final."""
    outbox = Outbox(codec)
    gets = [c.Get(items=(c.Item(uri),)) for uri in uris]
    for get in gets:
        outbox.add_with_ref(get, "ref")
    header = c.SyncHdr("1", 1, "t", "s")
    sent: list[c.BodyElement] = []
    final = False
    while not final:
        packed = outbox.pack(header, limit=limit)
        message = codec.decode(packed.body)
        assert len(packed.body) <= limit
        assert [numbered.cmd_id for numbered in packed.numbered] == [command.cmd_id for command in message.body]
        sent += [numbered.element for numbered in packed.numbered]
        final = message.final
    assert sent == gets
    assert len(outbox) == 0


@pytest.mark.parametrize("codec", CODECS)
@EXAMPLES
@given(text=VALUES.map(lambda text: text * 200), limit=st.integers(900, 3000))
def test_chunks_make_the_object_again(codec: Codec, text: str, limit: int) -> None:
    if not text:
        return
    outbox = Outbox(codec)
    outbox.add([c.Add(items=(c.Item("./x", meta=c.Meta("chr"), data=text),))])
    assembler = Assembler(10_000_000)
    header = c.SyncHdr("1", 1, "t", "s")
    while len(outbox):
        packed = outbox.pack(header, limit=limit)
        assert len(packed.body) <= limit
        add = codec.decode(packed.body).body[0]
        taken = assembler.take(add)
        assert taken.broken is None
        if taken.command is None:
            assert taken.status == Status.CHUNK_ACCEPTED
    assert isinstance(taken.command, c.Add)
    assert taken.command.items[0].data == text
    assert not assembler.is_open
