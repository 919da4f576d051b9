"""RepPro and MetaInf: content models, order of elements, tolerance on input."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import XML_MEDIA_TYPE, codec_for
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.xml import XmlCodec
from tests.conformance.dm_bytes import CODECS, Board, Element, command, message, metinf, texts, to_element, to_octets
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import LeafTree
from tests.unit.omadm.messages import MESSAGES, textual

_META = c.Meta("chr", "text/plain", "minor", 5, "Tm9uY2U=", 1000, 2000, ("x",))
_ITEM = c.Item("./t", "./s", _META, "v", True, "tn", "sn")
_CRED = c.Cred(c.Meta("b64", "syncml:auth-basic"), "QQ==")
_FULL = c.Message(
    c.SyncHdr("1F", 1, "t", "s", "tn", "sn", "https://r", _CRED, c.Meta(max_msg_size=5)),
    (
        c.Status(
            "1", 1, "0", "SyncHdr", 401, ("t",), ("s",), _CRED, c.Chal(c.Meta("b64", "syncml:auth-md5")), (_ITEM,)
        ),
        c.Results("2", 1, "3", (_ITEM,), _META, "t", "s"),
        c.Add("3", (_ITEM,), _META),
        c.Replace("4", (_ITEM,), _META),
        c.Copy("5", (_ITEM,), _META),
        c.Delete("6", (_ITEM,), _META),
        c.Get("7", (_ITEM,), _META),
        c.Exec("8", (_ITEM,), _META, "abc"),
        c.Alert("9", 1226, (_ITEM,), "abc"),
        c.Atomic("10", (c.Add("11", (_ITEM,)),), _META),
        c.Sequence("12", (c.Get("13", (_ITEM,)),), _META),
    ),
)


@cases(
    "RepPro: order of elements",
    "path,children",
    [
        ("SyncML is SyncHdr, SyncBody", ".", "SyncHdr SyncBody"),
        (
            "SyncHdr is VerDTD, VerProto, SessionID, MsgID, Target, Source, RespURI, Cred, Meta",
            "SyncHdr",
            "VerDTD VerProto SessionID MsgID Target Source RespURI Cred Meta",
        ),
        (
            "SyncBody is commands in their own order, then Final",
            "SyncBody",
            "Status Results Add Replace Copy Delete Get Exec Alert Atomic Sequence Final",
        ),
        ("Target is LocURI, LocName", "SyncHdr/Target", "LocURI LocName"),
        ("Source is LocURI, LocName", "SyncHdr/Source", "LocURI LocName"),
        ("Cred is Meta, Data", "SyncHdr/Cred", "Meta Data"),
        ("Chal is Meta", "SyncBody/Status/Chal", "Meta"),
        ("Item is Target, Source, Meta, Data, MoreData", "SyncBody/Add/Item", "Target Source Meta Data MoreData"),
        ("Add is CmdID, Meta, Item+", "SyncBody/Add", "CmdID Meta Item"),
        ("Replace is CmdID, Meta, Item+", "SyncBody/Replace", "CmdID Meta Item"),
        ("Copy is CmdID, Meta, Item+", "SyncBody/Copy", "CmdID Meta Item"),
        ("Delete is CmdID, Meta, Item+", "SyncBody/Delete", "CmdID Meta Item"),
        ("Get is CmdID, Meta, Item+", "SyncBody/Get", "CmdID Meta Item"),
        ("Exec is CmdID, Meta, Correlator, Item", "SyncBody/Exec", "CmdID Meta Correlator Item"),
        ("Alert is CmdID, Data, Correlator, Item*", "SyncBody/Alert", "CmdID Data Correlator Item"),
        ("Atomic is CmdID, Meta, commands", "SyncBody/Atomic", "CmdID Meta Add"),
        ("Sequence is CmdID, Meta, commands", "SyncBody/Sequence", "CmdID Meta Get"),
        (
            "Results is CmdID, MsgRef, CmdRef, Meta, TargetRef, SourceRef, Item+",
            "SyncBody/Results",
            "CmdID MsgRef CmdRef Meta TargetRef SourceRef Item",
        ),
        (
            "Status is CmdID, MsgRef, CmdRef, Cmd, TargetRef*, SourceRef*, Cred, Chal, Data, Item*",
            "SyncBody/Status",
            "CmdID MsgRef CmdRef Cmd TargetRef SourceRef Cred Chal Data Item",
        ),
        (
            "Meta is Format, Type, Mark, Size, NextNonce, MaxMsgSize, MaxObjSize, EMI*",
            "SyncBody/Add/Meta",
            "Format Type Mark Size NextNonce MaxMsgSize MaxObjSize EMI",
        ),
    ],
)
def test_elements_are_written_in_the_order_of_the_dtd(path: str, children: str, syntax: str) -> None:
    root = to_element(CODECS[syntax].encode(_FULL), syntax)
    found = root if path == "." else root.find(path)
    assert found is not None
    assert [child.tag for child in found] == children.split()


@cases(
    "RepPro: tolerance",
    "name",
    [
        (f"{name}: children are accepted in any order", name)
        for name in [
            "SyncHdr",
            "Status",
            "Results",
            "Add",
            "Replace",
            "Copy",
            "Delete",
            "Get",
            "Exec",
            "Alert",
            "Atomic",
            "Sequence",
            "Item",
            "Meta",
            "Cred",
        ]
    ],
)
def test_children_are_accepted_in_any_order(name: str, syntax: str) -> None:
    codec = CODECS[syntax]
    root = to_element(CODECS["xml"].encode(_FULL), "xml")
    for element in list(root.iter(name)):
        commands = [child for child in element if child.tag in ("Add", "Get")]
        element[:] = [child for child in reversed(element) if child not in commands] + commands
    assert textual(codec.decode(to_octets(_serialised(root), syntax))) == _FULL


_METINF = {"Format", "Type", "Mark", "Size", "NextNonce", "MaxMsgSize", "MaxObjSize", "EMI"}


def _serialised(element: Element) -> str:
    """XML with the namespaces that ``to_element`` took away."""
    namespace = {"SyncML": ' xmlns="SYNCML:SYNCML1.2"'}.get(element.tag, "")
    if element.tag in _METINF:
        namespace = ' xmlns="syncml:metinf"'
    content = "".join(map(_serialised, element)) or element.text or ""
    return f"<{element.tag}{namespace}>{content}</{element.tag}>"


@cases(
    "RepPro: elements that DM does not use",
    "extra",
    [
        ("NoResp in a command is ignored", "<NoResp/>"),
        ("Lang in Get is ignored", "<Lang>en</Lang>"),
        ("Archive is ignored", "<Archive/>"),
        ("SftDel is ignored", "<SftDel/>"),
        (
            "Cred in a command is ignored",
            "<Cred><Meta><Type xmlns='syncml:metinf'>x</Type></Meta><Data>y</Data></Cred>",
        ),
    ],
)
def test_unused_elements_of_commands_are_ignored(extra: str, syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    get = f"<Get><CmdID>5</CmdID>{extra}<Item><Target><LocURI>./X</LocURI></Target></Item></Get>"
    answer = board.ask(get)
    assert texts(answer, "SyncBody/Results/Item/Data") == ["1"]


@cases(
    "RepPro: elements that DM does not use",
    "extra",
    [
        ("SourceParent in Item is ignored", "<SourceParent><LocURI>./p</LocURI></SourceParent>"),
        ("TargetParent in Item is ignored", "<TargetParent><LocURI>./p</LocURI></TargetParent>"),
    ],
)
def test_unused_elements_of_items_are_ignored(extra: str, syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    get = f"<Get><CmdID>5</CmdID><Item><Target><LocURI>./X</LocURI></Target>{extra}</Item></Get>"
    assert texts(board.ask(get), "SyncBody/Results/Item/Data") == ["1"]


@cases(
    "MetaInf: elements that DM does not use",
    "extra",
    [
        ("Anchor is ignored", "<Anchor xmlns='syncml:metinf'><Next>2</Next></Anchor>"),
        ("Version is ignored", "<Version xmlns='syncml:metinf'>1</Version>"),
        ("Mem is ignored", "<Mem xmlns='syncml:metinf'><FreeMem>1</FreeMem><FreeID>1</FreeID></Mem>"),
        ("FieldLevel is ignored", "<FieldLevel xmlns='syncml:metinf'/>"),
    ],
)
def test_unused_elements_of_meta_are_ignored(extra: str, syntax: str) -> None:
    meta = f"<Meta>{extra}<Format xmlns='syncml:metinf'>int</Format></Meta>"
    decoded = CODECS[syntax].decode(to_octets(message(command("Add", "1", "./X", data="1", meta=meta)), syntax))
    add = decoded.body[0]
    assert isinstance(add, c.Add)
    assert add.items[0].meta == c.Meta("int")


@cases(
    "RepPro: commands that DM does not define",
    "name",
    [
        (f"{name} is answered 501, and the rest of the message is executed", name)
        for name in ("Put", "Search", "Sync", "Map", "Move")
    ],
)
def test_unknown_commands_are_answered_501(name: str, syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    answer = board.ask(f"<{name}><CmdID>5</CmdID></{name}>" + command("Get", "6", "./X"))
    assert texts(answer, "SyncBody/Status[CmdRef='5']/Data") == ["501"]
    assert texts(answer, "SyncBody/Status[CmdRef='5']/Cmd") == [name]
    assert texts(answer, "SyncBody/Results/Item/Data") == ["1"]


@rule("RepPro: commands that DM does not define", "a command of a vendor is answered 501")
def test_vendor_command_is_answered_501() -> None:
    answer = Board("xml").ask("<v:Explode xmlns:v='urn:vendor'><CmdID>5</CmdID></v:Explode>")
    assert texts(answer, "SyncBody/Status[CmdRef='5']/Data") == ["501"]


@rule("RepPro: CmdID", "a command without CmdID is answered 400 and not executed")
def test_a_command_without_cmd_id_is_refused(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    answer = board.ask("<Delete><Item><Target><LocURI>./X</LocURI></Target></Item></Delete>")
    assert texts(answer, "SyncBody/Status[Cmd='Delete']/Data") == ["400"]
    assert "./X" in board.tree.leaves  # type: ignore[attr-defined]


@cases(
    "RepPro: namespaces",
    "document",
    [
        ("a default namespace on SyncML", '<SyncML xmlns="SYNCML:SYNCML1.2">{0}</SyncML>'),
        ("a prefix on every element", '<s:SyncML xmlns:s="SYNCML:SYNCML1.2">{1}</s:SyncML>'),
        ("no namespace at all", "<SyncML>{0}</SyncML>"),
        ("the namespace of SyncML 1.1", '<SyncML xmlns="SYNCML:SYNCML1.1">{0}</SyncML>'),
    ],
)
def test_namespaces_are_tolerated(document: str) -> None:
    plain = message(command("Get", "1", "./X"))
    inner = plain[plain.index("<SyncHdr>") : -len("</SyncML>")]
    prefixed = inner.replace("</", "\0").replace("<", "<s:").replace("\0", "</s:")
    assert CODECS["xml"].decode(document.format(inner, prefixed).encode()) == CODECS["xml"].decode(plain.encode())


@cases(
    "MetaInf: representation",
    "meta",
    [
        ("xmlns on each child of Meta", metinf(Format="int", Type="text/plain")),
        (
            "a MetInf element between",
            "<Meta><MetInf xmlns='syncml:metinf'><Format>int</Format><Type>text/plain</Type></MetInf></Meta>",
        ),
        ("line breaks and blanks around values", metinf(Format="\n int ", Type="\n  text/plain\n")),
        ("children in any order", metinf(Type="text/plain", Format="int")),
    ],
)
def test_forms_of_meta(meta: str, syntax: str) -> None:
    octets = to_octets(message(command("Add", "1", "./X", data="1", meta=meta)), syntax)
    add = CODECS[syntax].decode(octets).body[0]
    assert isinstance(add, c.Add)
    assert add.items[0].meta == c.Meta("int", "text/plain")


@rule("MetaInf: representation", "Meta without the metinf namespace is read")
def test_meta_without_namespace() -> None:
    octets = message(command("Add", "1", "./X", data="1", meta="<Meta><Format>int</Format></Meta>")).encode()
    add = CODECS["xml"].decode(octets).body[0]
    assert isinstance(add, c.Add)
    assert add.items[0].meta == c.Meta("int")


@rule("RepPro: Meta", "Meta of the command holds for Items that have none of their own")
def test_meta_at_command_level(syntax: str) -> None:
    board = Board(syntax)
    board.ask(
        f"<Add><CmdID>5</CmdID>{metinf(Format='int')}<Item><Target><LocURI>./X</LocURI></Target><Data>7</Data></Item></Add>"
    )
    assert board.tree.leaves["./X"].format == "int"  # type: ignore[attr-defined]


@rule("RepPro: Meta", "Meta of the Item wins over Meta of the command, field by field")
def test_meta_at_item_level_wins(syntax: str) -> None:
    board = Board(syntax)
    item = f"<Item><Target><LocURI>./X</LocURI></Target>{metinf(Format='int')}<Data>7</Data></Item>"
    board.ask(f"<Add><CmdID>5</CmdID>{metinf(Format='chr', Type='text/html')}{item}</Add>")
    value = board.tree.leaves["./X"]  # type: ignore[attr-defined]
    assert (value.format, value.type) == ("int", "text/html")


@rule("MetaInf: Format", "a Format that does not exist is answered 415")
def test_unknown_format(syntax: str) -> None:
    answer = Board(syntax).ask(command("Add", "5", "./X", data="1", meta=metinf(Format="wrong")))
    assert texts(answer, "SyncBody/Status[CmdRef='5']/Data") == ["415"]


@cases(
    "RepPro: Data",
    "written,value",
    [
        ("escaped text", "a &lt;b&gt; &amp; c", "a <b> & c"),
        ("a CDATA section", "<![CDATA[a <b> & c]]>", "a <b> & c"),
        ("character references", "&#228;&#x20AC;", "\u00e4\u20ac"),
        ("blanks are part of a value", "  a  b ", "  a  b "),
        ("an empty element is an empty value", "", ""),
        ("other scripts", "\u4e2d\u6587 \U0001f600", "\u4e2d\u6587 \U0001f600"),
    ],
)
def test_forms_of_data(written: str, value: str, syntax: str) -> None:
    board = Board(syntax)
    board.ask(command("Add", "5", "./X", data=written))
    assert board.tree.leaves["./X"].data == value  # type: ignore[attr-defined]


@rule("RepPro: Data", "markup nested in Data is the value's text, with its namespace")
def test_nested_markup_in_data() -> None:
    board = Board("xml")
    board.ask(command("Add", "5", "./X", data="<MgmtTree xmlns='syncml:dmddf1.2'><VerDTD>1.2</VerDTD></MgmtTree>"))
    value = board.tree.leaves["./X"].data  # type: ignore[attr-defined]
    assert value == '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD></MgmtTree>'


@cases(
    "RepPro: Data",
    "written,value",
    [
        ("comments and processing instructions inside a text are no part of it", "a<!-- no -->b<?no?>c", "abc"),
        ("CDATA and text side by side", "a <![CDATA[<b>]]> &amp; c", "a <b> & c"),
    ],
)
def test_forms_of_data_that_only_xml_has(written: str, value: str) -> None:
    board = Board("xml")
    board.ask(command("Add", "5", "./X", data=written))
    assert board.tree.leaves["./X"].data == value  # type: ignore[attr-defined]


@rule("RepPro: LocURI", "blanks around a LocURI are no part of it")
def test_blanks_around_loc_uri(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    assert texts(board.ask(command("Get", "5", "\n  ./X ")), "SyncBody/Results/Item/Data") == ["1"]


@cases(
    "HTTP: charset",
    "octets",
    [
        ("UTF-8 without a declaration", lambda text: text.encode()),
        ("UTF-8 with a declaration", lambda text: b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()),
        ("UTF-8 with a byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode()),
        (
            "US-ASCII",
            lambda text: b'<?xml version="1.0" encoding="us-ascii"?>' + text.encode("ascii", "xmlcharrefreplace"),
        ),
        ("ISO-8859-1", lambda text: b"<?xml version='1.0' encoding='ISO-8859-1'?>" + text.encode("latin-1")),
        (
            "a document type that only names the DTD is skipped",
            lambda text: (
                b'<!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "http://x/SyncML.dtd">' + text.encode()
            ),
        ),
    ],
)
def test_encodings(octets: object) -> None:
    plain = message(command("Add", "1", "./X", data="\u00e4"))
    assert XmlCodec().decode(octets(plain)) == XmlCodec().decode(plain.encode())  # type: ignore[operator]


@cases(
    "RepPro: malformed messages",
    "document",
    [
        ("text that is no XML", b"hello"),
        ("an empty body", b""),
        ("a document that ends too early", message("").encode()[:-5]),
        ("another document element", b"<SyncMM/>"),
        ("no SyncHdr", b"<SyncML><SyncBody/></SyncML>"),
        ("no SyncBody", message("").encode().partition(b"<SyncBody>")[0] + b"</SyncML>"),
        ("no SessionID", message("").encode().replace(b"<SessionID>1F</SessionID>", b"")),
        ("no MsgID", message("").encode().replace(b"<MsgID>1</MsgID>", b"")),
        ("a MsgID that is no number", message("").encode().replace(b"<MsgID>1<", b"<MsgID>one<")),
        ("no Source", message("").encode().replace(b"Source", b"Sorcery")),
        ("no Target", message("").encode().replace(b"Target", b"Tarot")),
        ("octets that are not UTF-8", message("").encode().replace(b"1F", b"\xff\xfe")),
        ("UTF-16", message("").encode("utf-16")),
    ],
)
def test_malformed_messages_are_refused_as_a_whole(document: bytes) -> None:
    with pytest.raises(ProtocolError):
        XmlCodec().decode(document)


@cases(
    "HTTP: media types",
    "content_type,expected",
    [
        ("application/vnd.syncml.dm+xml is XML", "application/vnd.syncml.dm+xml", XML_MEDIA_TYPE),
        (
            "application/vnd.syncml.dm+wbxml is WBXML",
            "application/vnd.syncml.dm+wbxml",
            "application/vnd.syncml.dm+wbxml",
        ),
        ("a charset parameter is accepted", "application/vnd.syncml.dm+xml; charset=utf-8", XML_MEDIA_TYPE),
        ("case does not matter", "Application/VND.syncml.DM+XML", XML_MEDIA_TYPE),
        ("the misspelling without .dm is tolerated", "application/vnd.syncml+xml", XML_MEDIA_TYPE),
    ],
)
def test_media_types(content_type: str, expected: str) -> None:
    assert codec_for(content_type).media_type == expected


@rule("XML: tolerance", "the NUL that C programs write at the end of a text is no part of it")
@pytest.mark.parametrize("written", ["a/b\0", "<![CDATA[a/b\0]]>", "a/b\0\n"])
def test_a_c_string_with_its_end(written: str) -> None:
    octets = message(f"<Results><CmdID>1</CmdID><CmdRef>1</CmdRef><Item><Data>{written}</Data></Item></Results>")
    if written.endswith("\n"):  # anywhere else it stays what it is in XML: an error
        with pytest.raises(ProtocolError):
            XmlCodec().decode(octets.encode())
        return
    (results,) = XmlCodec().decode(octets.encode()).body
    assert isinstance(results, c.Results)
    assert results.items[0].data == "a/b"


@rule("HTTP: media types", "another media type is refused")
def test_foreign_media_type() -> None:
    with pytest.raises(ProtocolError, match="text/html"):
        codec_for("text/html")


@pytest.mark.parametrize("name", MESSAGES)
@rule("RepPro: stability", "what was decoded is encoded to the same octets")
def test_encoding_is_stable(name: str, syntax: str) -> None:
    codec = CODECS[syntax]
    octets = codec.encode(MESSAGES[name])
    assert codec.decode(octets) == MESSAGES[name]
    assert codec.encode(codec.decode(octets)) == octets
