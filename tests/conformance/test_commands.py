"""Protocol and TND: each command on the real management tree, success and every failure the tree knows."""

from __future__ import annotations

import pytest

from dom0_agent.omadm.mo import ExecOutcome
from dom0_agent.omadm.node import Format
from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.omadm.tree_access import ItemValue
from tests.conformance.dm_bytes import Board, code_of, codes, command, metinf, texts
from tests.conformance.rules import cases, rule
from tests.unit.omadm.tree_objects import MOID, SERVER, Machines, make_tree

M = "./Machines/m"
NODE = metinf(Format="node")
TNDS = metinf(Format="xml", Type="application/vnd.syncml.dmtnds+xml")
LONG = "./" + "x" * 2000
DEEP = "./" + "/".join("x" * 40)


def tnds(leaf: str) -> str:
    """A document with the interior node ``t`` and one leaf, escaped for Data."""
    node = (
        "<Node><NodeName>{0}</NodeName><RTProperties><Format><{1}/></Format><Type>{2}</Type></RTProperties>{3}</Node>"
    )
    inner = node.format(leaf, "chr", "<MIME>text/plain</MIME>", "<Value>hello</Value>")
    tree = node.format("t", "node", "<DDFName/>", inner)
    document = f"<MgmtTree xmlns='syncml:dmddf1.2'><VerDTD>1.2</VerDTD>{tree}</MgmtTree>"
    return document.replace("<", "&lt;")


class Bench:
    """A board with the machines' tree; the session's server is ``virmo-server``."""

    def __init__(self, syntax: str) -> None:
        self.tree: ManagementTree
        self.machines: Machines
        self.tree, self.machines, self.clock = make_tree()
        self.board = Board(syntax, self.tree)
        self.board.start()

    def code(self, body: str, cmd_ref: str = "5") -> str:
        return code_of(self.board.ask(body), cmd_ref)


@pytest.fixture
def bench(syntax: str) -> Bench:
    return Bench(syntax)


# ---- Get ---------------------------------------------------------------------------------------------------------


@rule("Protocol: Get", "of a leaf: 200 and Results with its value")
def test_get_leaf(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}/Price"))
    assert code_of(answer, "5") == "200"
    assert texts(answer, "SyncBody/Results/Item/Data") == ["0"]
    assert texts(answer, "SyncBody/Results/Item/Meta/Format") == ["int"]


@rule("Protocol: Get", "the default Format chr and Type text/plain need not be said")
def test_get_default_meta(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}/Label"))
    assert texts(answer, "SyncBody/Results/Item/Data") == ["none"]
    assert answer.find("SyncBody/Results/Item/Meta") is None


@rule("Protocol: Get", "of an interior node: Format node and the children's names joined by /")
def test_get_interior(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", M))
    assert texts(answer, "SyncBody/Results/Item/Meta/Format") == ["node"]
    names = texts(answer, "SyncBody/Results/Item/Data")[0].split("/")
    assert set(names) == {"Ext", "Id", "Label", "Price", "Run", "Slots", "Stock"}


@rule("Protocol: Get", "of an interior node without children: empty Data")
def test_get_empty_interior(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}/Ext"))
    assert texts(answer, "SyncBody/Results/Item/Data") == [""]


@rule("Protocol: Get", "of a live leaf asks the management object each time")
def test_get_live(bench: Bench) -> None:
    for stock in (3, 4):
        bench.machines.stock["m"] = stock
        answer = bench.board.ask(command("Get", "5", f"{M}/Stock"))
        assert texts(answer, "SyncBody/Results/Item/Data") == [str(stock)]


@cases(
    "Protocol: Get",
    "uri,code",
    [
        ("of a missing node: 404", "./Machines/x", "404"),
        ("of a child of a leaf: 404", f"{M}/Price/x", "404"),
        ("of a node without Get in its AccessType: 405", f"{M}/Run", "405"),
        ("of an unknown property: 406", f"{M}?prop=Colour", "406"),
        ("of an unknown list attribute: 406", f"{M}?list=Everything", "406"),
        ("of an unknown query: 406", f"{M}?x=y", "406"),
        ("of a URI above MaxTotLen: 414", LONG, "414"),
        ("of a segment above MaxSegLen: 414", "./" + "x" * 200, "414"),
        ("of a path above MaxDepth: 414", DEEP, "414"),
        ("of the root: 200", ".", "200"),
        ("of an absolute URI: 404", "/Machines", "404"),
        ("of a URI with a trailing slash: 404", "./Machines/", "404"),
        ("of a URI with ../: 404", "./Machines/../Machines", "404"),
        ("of ./A and A: the same node", "Machines", "200"),
        ("names are compared case-sensitively", "./machines", "404"),
        ("percent-encoded names are decoded", "./%4Dachines", "200"),
    ],
)
def test_get_codes(uri: str, code: str, bench: Bench) -> None:
    assert bench.code(command("Get", "5", uri)) == code


# ---- Get with attributes -----------------------------------------------------------------------------------------


@rule("Protocol: Get ?list=Struct", "one Item per node of the sub-tree, Format, no Data")
def test_list_struct(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}?list=Struct"))
    uris = texts(answer, "SyncBody/Results/Item/Source/LocURI")
    assert uris == [M, *(f"{M}/{name}" for name in ("Ext", "Id", "Label", "Price", "Slots", "Stock"))]
    assert answer.find("SyncBody/Results/Item/Data") is None


@rule("Protocol: Get ?list=StructData", "the same with the leaves' Data")
def test_list_struct_data(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}?list=StructData"))
    items = {i.findtext("Source/LocURI"): i.findtext("Data") for i in answer.findall("SyncBody/Results/Item")}
    assert items[f"{M}/Price"] == "0"
    assert items[M] is None


@rule("Protocol: Get ?list=Struct", "the Type of an MO's root is its MOID, by which servers find it")
def test_list_struct_moid(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", ".?list=Struct"))
    items = {i.findtext("Source/LocURI"): i.findtext("Meta/Type") for i in answer.findall("SyncBody/Results/Item")}
    assert items["./Machines"] == MOID


@rule("Protocol: Get ?list=TNDS", "one Item with the document, Format xml, Type dmtnds+xml")
def test_list_tnds(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}?list=TNDS"))
    assert texts(answer, "SyncBody/Results/Item/Meta/Format") == ["xml"]
    assert texts(answer, "SyncBody/Results/Item/Source/LocURI") == [M]
    document = texts(answer, "SyncBody/Results/Item/Data")[0]
    assert document.startswith("<MgmtTree")
    assert "<NodeName>m</NodeName>" in document


@rule("Protocol: Get ?list=TNDS", "+ lists the properties that are wanted")
def test_list_tnds_plus(bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", f"{M}?list=TNDS+Value"))
    document = texts(answer, "SyncBody/Results/Item/Data")[0]
    assert "<Value>none</Value>" in document
    assert "<ACL>" not in document


@rule("Protocol: Get ?list=TNDS", "- lists the properties that are not wanted")
def test_list_tnds_minus(bench: Bench) -> None:
    document = texts(bench.board.ask(command("Get", "5", f"{M}?list=TNDS-Value")), "SyncBody/Results/Item/Data")[0]
    assert "<Value>none</Value>" not in document
    assert "<Format>" in document


@rule("Protocol: Get ?list=TNDS", "+ and - may not be mixed: 406")
def test_list_tnds_mixed(bench: Bench) -> None:
    assert bench.code(command("Get", "5", f"{M}?list=TNDS+Value-ACL")) == "406"


@rule("Protocol: Get ?list=Struct", "nodes that may not be read are left out, without an error")
def test_list_leaves_out(bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines", "m", "Label"), "Get=other")
    answer = bench.board.ask(command("Get", "5", f"{M}?list=Struct"))
    assert code_of(answer, "5") == "200"
    assert f"{M}/Label" not in texts(answer, "SyncBody/Results/Item/Source/LocURI")


# ---- properties --------------------------------------------------------------------------------------------------


@cases(
    "TND: properties",
    "uri,value",
    [
        ("ACL: the node's own value, empty when inherited", f"{M}?prop=ACL", ""),
        ("ACL of the root", ".?prop=ACL", "Add=*&Delete=*&Exec=*&Get=*&Replace=*"),
        ("Format of an interior node", f"{M}?prop=Format", "node"),
        ("Format of a leaf", f"{M}/Price?prop=Format", "int"),
        ("Name is the last segment", f"{M}/Price?prop=Name", "Price"),
        ("Type of a leaf is its media type", f"{M}/Label?prop=Type", "text/plain"),
        ("Type of an MO's root is the MOID", "./Machines?prop=Type", MOID),
        ("Size is the value's octets", f"{M}/Label?prop=Size", "4"),
        ("TStamp is the time of the last change", f"{M}/Label?prop=TStamp", "20260801T120000Z"),
        ("VerNo of a new node is 0", f"{M}/Label?prop=VerNo", "0"),
        ("Title comes from the definition or is empty", f"{M}/Label?prop=Title", ""),
    ],
)
def test_properties(uri: str, value: str, bench: Bench) -> None:
    answer = bench.board.ask(command("Get", "5", uri))
    assert code_of(answer, "5") == "200"
    assert texts(answer, "SyncBody/Results/Item/Data") == [value]


@cases(
    "TND: properties",
    "name,uri,data,code",
    [
        ("Replace of ACL: 200", "Replace", f"{M}?prop=ACL", "Get=*", "200"),
        ("Replace of ACL with bad syntax: 500", "Replace", f"{M}?prop=ACL", "Fly=*", "500"),
        ("Replace of the root's ACL with nothing: 405", "Replace", ".?prop=ACL", "", "405"),
        ("Replace of Title: 200", "Replace", f"{M}?prop=Title", "my machine", "200"),
        ("Replace of Name renames: 200", "Replace", f"{M}?prop=Name", "n", "200"),
        ("Replace of a permanent node's Name: 405", "Replace", "./Machines?prop=Name", "n", "405"),
        ("Replace of Format: 405", "Replace", f"{M}/Label?prop=Format", "int", "405"),
        ("Replace of Type: 405", "Replace", f"{M}/Label?prop=Type", "x/y", "405"),
        ("Replace of Size: 405", "Replace", f"{M}/Label?prop=Size", "1", "405"),
        ("Replace of TStamp: 405", "Replace", f"{M}/Label?prop=TStamp", "20200101T000000Z", "405"),
        ("Replace of VerNo: 405", "Replace", f"{M}/Label?prop=VerNo", "1", "405"),
        ("Replace of an unknown property: 406", "Replace", f"{M}?prop=Colour", "x", "406"),
        ("Add of a property: 405", "Add", f"{M}?prop=Title", "x", "405"),
        ("Delete of a property: 405", "Delete", f"{M}?prop=Title", None, "405"),
        ("Exec of a property: 405", "Exec", f"{M}/Run?prop=Title", None, "405"),
    ],
)
def test_commands_on_properties(name: str, uri: str, data: str | None, code: str, bench: Bench) -> None:
    assert bench.code(command(name, "5", uri, data=data)) == code


@rule("TND: properties", "a rename to a sibling's name: 418")
def test_rename_clash(bench: Bench) -> None:
    bench.tree.add(SERVER, "./Machines/n", ItemValue(format=Format.NODE))
    assert bench.code(command("Replace", "5", f"{M}?prop=Name", data="n")) == "418"


@rule("TND: properties", "a write raises VerNo")
def test_ver_no_grows(bench: Bench) -> None:
    bench.board.ask(command("Replace", "5", f"{M}/Price", data="5", meta=metinf(Format="int")))
    answer = bench.board.ask(command("Get", "5", f"{M}/Price?prop=VerNo"))
    assert texts(answer, "SyncBody/Results/Item/Data") == ["1"]


# ---- Add ---------------------------------------------------------------------------------------------------------


@cases(
    "Protocol: Add",
    "uri,data,meta,code",
    [
        ("of an interior node: 200", "./Machines/n", "", NODE, "200"),
        ("of a leaf: 200", f"{M}/Note", "hi", "", "200"),
        ("creates missing parents: 200", "./Machines/k/Note", "hi", "", "200"),
        ("on an existing node: 418", M, "", NODE, "418"),
        ("below a leaf: 405", f"{M}/Price/x", "1", "", "405"),
        ("of a name that the definition does not have: 405", f"{M}/Wings", "1", "", "405"),
        ("of a node without Add in its AccessType: 405", "./Machines/Operations/New", "", "", "405"),
        ("of a permanent node's reserved name: 405", "./Machines/Operations/Reset2", "", "", "405"),
        ("of a leaf with a wrong Format: 415", f"{M}/Note", "1", metinf(Format="int"), "415"),
        ("of a leaf with a wrong Type: 415", f"{M}/Note", "1", metinf(Type="image/png"), "415"),
        ("of a leaf with an accepted Type: 200", f"{M}/Note", "1", metinf(Type="text/html"), "200"),
        ("with a URI above the limit: 414", LONG, "1", "", "414"),
        ("above the node's size: 413", f"{M}/Ext/x", "x" * 1001, "", "413"),
    ],
)
def test_add(uri: str, data: str, meta: str, code: str, bench: Bench) -> None:
    assert bench.code(command("Add", "5", uri, data=data, meta=meta)) == code


@rule("Protocol: Add", "of TNDS: the whole sub-tree, one Status")
def test_add_tnds(bench: Bench) -> None:
    answer = bench.board.ask(command("Add", "5", "./Machines", data=tnds("Note"), meta=TNDS))
    assert codes(answer)[1:] == [("Add", "200")]
    assert bench.tree.value(("Machines", "t", "Note")) == "hello"


@rule("Protocol: Add", "of TNDS with one bad node: its status, and the tree unchanged")
def test_add_bad_tnds(bench: Bench) -> None:
    assert bench.code(command("Add", "5", "./Machines", data=tnds("Wings"), meta=TNDS)) == "405"
    assert not bench.tree.exists(("Machines", "t"))


@rule("TND: formats", "a bin node takes base64 with Format b64")
def test_add_bin(bench: Bench) -> None:
    assert bench.code(command("Add", "5", f"{M}/Secret", data="AAEC", meta=metinf(Format="b64"))) == "200"
    node = bench.tree.node(("Machines", "m", "Secret"))
    assert node is not None
    assert node.data == b"\x00\x01\x02"


@rule("TND: formats", "base64 that is none: 415")
def test_add_bad_base64(bench: Bench) -> None:
    assert bench.code(command("Add", "5", f"{M}/Secret", data="!!!", meta=metinf(Format="b64"))) == "415"


# ---- Replace -----------------------------------------------------------------------------------------------------


@cases(
    "Protocol: Replace",
    "uri,data,meta,code",
    [
        ("of a leaf: 200", f"{M}/Price", "12", metinf(Format="int"), "200"),
        ("of a leaf without Meta: 200", f"{M}/Price", "12", "", "200"),
        ("of a missing node: 404", f"{M}/Note", "1", "", "404"),
        ("of an interior node: 405", M, "1", "", "405"),
        ("of a node without Replace in its AccessType: 405", f"{M}/Id", "1", "", "405"),
        ("with another Format than the node's: 415", f"{M}/Price", "12", metinf(Format="bool"), "415"),
        ("with text that is no int: 415", f"{M}/Price", "twelve", metinf(Format="int"), "415"),
        ("with an int beyond 32 bits: 415", f"{M}/Price", "4294967296", metinf(Format="int"), "415"),
        ("above the node's size: 413", f"{M}/Label", "x" * 101, "", "413"),
        ("of the root's value: 405", ".", "1", "", "405"),
    ],
)
def test_replace(uri: str, data: str, meta: str, code: str, bench: Bench) -> None:
    assert bench.code(command("Replace", "5", uri, data=data, meta=meta)) == code


@rule("Protocol: Replace", "a management object's veto is the status, and nothing has changed")
def test_replace_veto(bench: Bench) -> None:
    bench.machines.veto["Machines", "m", "Price"] = DMError(Status.FORBIDDEN, "no")
    assert bench.code(command("Replace", "5", f"{M}/Price", data="12", meta=metinf(Format="int"))) == "403"
    assert bench.tree.value(("Machines", "m", "Price")) == "0"


# ---- Delete ------------------------------------------------------------------------------------------------------


@cases(
    "Protocol: Delete",
    "uri,code",
    [
        ("of an interior node: 200", M, "200"),
        ("of a missing node: 404", "./Machines/x", "404"),
        ("of a permanent node: 405", "./Machines/Operations", "405"),
        ("of the root: 405", ".", "405"),
        ("of a node without Delete in its AccessType: 405", f"{M}/Price", "405"),
    ],
)
def test_delete(uri: str, code: str, bench: Bench) -> None:
    assert bench.code(command("Delete", "5", uri)) == code


@rule("Protocol: Delete", "everything below goes, too, protected or not")
def test_delete_subtree(bench: Bench) -> None:
    bench.board.ask(command("Delete", "5", M))
    assert not bench.tree.exists(("Machines", "m", "Price"))


# ---- Copy --------------------------------------------------------------------------------------------------------


@cases(
    "Protocol: Copy",
    "source,target,code",
    [
        ("leaf to existing leaf: 200, overwritten", f"{M}/Label", f"{M}/Ext/a", "200"),
        ("leaf to new leaf: 200", f"{M}/Label", f"{M}/Ext/b", "200"),
        ("of a missing source: 404", f"{M}/Note", f"{M}/Ext/b", "404"),
        ("of an interior node: 405", M, f"{M}/Ext/b", "405"),
    ],
)
def test_copy(source: str, target: str, code: str, bench: Bench) -> None:
    bench.tree.add(SERVER, f"{M}/Ext/a", ItemValue("old"))
    item = f"<Item><Target><LocURI>{target}</LocURI></Target><Source><LocURI>{source}</LocURI></Source></Item>"
    assert bench.code(f"<Copy><CmdID>5</CmdID>{item}</Copy>") == code
    if code == "200":
        assert bench.tree.value(("Machines", "m", "Ext", target[-1])) == "none"


@rule("Protocol: Copy", "without Source: 412")
def test_copy_without_source(bench: Bench) -> None:
    assert bench.code(command("Copy", "5", f"{M}/Ext/a")) == "412"


# ---- Exec --------------------------------------------------------------------------------------------------------


@rule("Protocol: Exec", "runs the operation with Data and Correlator; its status is the answer")
def test_exec(bench: Bench) -> None:
    item = f"<Item><Target><LocURI>{M}/Run</LocURI></Target><Data>fast</Data></Item>"
    assert bench.code(f"<Exec><CmdID>5</CmdID><Correlator>abc</Correlator>{item}</Exec>") == "200"
    request = bench.machines.executed[0]
    assert (request.uri, request.data, request.correlator) == (f"{M}/Run", "fast", "abc")
    assert request.server_id == "virmo-server"


@rule("Protocol: Exec", "an asynchronous operation is answered 202")
def test_exec_async(bench: Bench) -> None:
    bench.machines.outcome = ExecOutcome(Status.ACCEPTED)
    assert bench.code(command("Exec", "5", f"{M}/Run")) == "202"


@rule("Protocol: Exec", "an MO's own result code travels as it is")
def test_exec_mo_code(bench: Bench) -> None:
    bench.machines.outcome = ExecOutcome(1404)
    assert bench.code(command("Exec", "5", f"{M}/Run")) == "1404"


@cases(
    "Protocol: Exec",
    "uri,code",
    [
        ("of a missing node: 404", f"{M}/Fly", "404"),
        ("of a node that is no operation: 405", f"{M}/Price", "405"),
    ],
)
def test_exec_codes(uri: str, code: str, bench: Bench) -> None:
    assert bench.code(command("Exec", "5", uri)) == code


# ---- ACL ---------------------------------------------------------------------------------------------------------


@cases(
    "TND: ACL",
    "name,uri,data,acl",
    [
        ("Get needs Get on the node", "Get", f"{M}/Price", None, "Replace=virmo-server"),
        ("Replace needs Replace on the node", "Replace", f"{M}/Price", "1", "Get=*"),
        ("Delete needs Delete on the node", "Delete", f"{M}", None, "Get=*"),
        ("Exec needs Exec on the node", "Exec", f"{M}/Run", None, "Get=*"),
        ("Add needs Add on the parent", "Add", f"{M}/Note", "1", "Get=*"),
        ("Replace of Title needs Replace on the node", "Replace", f"{M}?prop=Title", "x", "Get=*"),
        ("an id that only begins like ours grants nothing", "Get", f"{M}/Price", None, "Get=virmo-server2"),
    ],
)
def test_acl_refuses(name: str, uri: str, data: str | None, acl: str, bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines", "m"), acl)
    assert bench.code(command(name, "5", uri, data=data)) == "425"


@rule("TND: ACL", "a node's own ACL ends inheritance, it is not merged")
def test_acl_is_not_merged(bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines", "m", "Price"), "Replace=virmo-server")
    assert bench.code(command("Get", "5", f"{M}/Price")) == "425"


@rule("TND: ACL", "ServerID of the account counts, and * stands for any")
def test_acl_grants(bench: Bench) -> None:
    for acl in ("Get=virmo-server", "Get=other+virmo-server", "Get=*"):
        bench.tree.device_set_acl(("Machines", "m"), acl)
        assert bench.code(command("Get", "5", f"{M}/Price")) == "200"


@rule("TND: ACL", "of a leaf: only who has Replace on the parent may replace it")
def test_acl_of_leaf(bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines", "m"), "Get=*")
    bench.tree.device_set_acl(("Machines", "m", "Price"), "Replace=virmo-server&Get=*")
    assert bench.code(command("Replace", "5", f"{M}/Price?prop=ACL", data="Get=*")) == "425"


@rule("TND: ACL", "of an interior node: who has Replace on it or on the parent may replace it")
def test_acl_of_interior(bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines",), "Get=*&Add=*")
    bench.tree.device_set_acl(("Machines", "m"), "Replace=virmo-server&Get=*")
    assert bench.code(command("Replace", "5", f"{M}?prop=ACL", data="Get=*")) == "200"


@rule("TND: ACL", "an interior node added without Replace on the parent gives its creator Add, Delete and Replace")
def test_acl_of_added_node(bench: Bench) -> None:
    bench.tree.device_set_acl(("Machines",), "Add=*&Get=*")
    bench.board.ask(command("Add", "5", "./Machines/mine", data="", meta=NODE))
    answer = bench.board.ask(command("Get", "5", "./Machines/mine?prop=ACL"))
    acl = texts(answer, "SyncBody/Results/Item/Data")[0].split("&")
    assert {"Add=virmo-server", "Delete=virmo-server", "Replace=virmo-server"} <= set(acl)


# ---- the order of checks -----------------------------------------------------------------------------------------


@cases(
    "Protocol: order of checks",
    "uri,name,data,code",
    [
        ("length (414) before existence (404)", LONG, "Get", None, "414"),
        ("property (406) before existence (404)", "./Machines/x?prop=Colour", "Get", None, "406"),
        ("existence (404) before ACL (425)", "./Machines/secret/x", "Get", None, "404"),
        ("ACL (425) before AccessType (405)", "./Machines/secret/Id", "Replace", "1", "425"),
        ("ACL (425) before Format (415)", "./Machines/secret/Price", "Replace", "x", "425"),
        ("AccessType (405) before Format (415)", f"{M}/Id", "Replace", "x", "405"),
    ],
)
def test_order_of_checks(uri: str, name: str, data: str | None, code: str, bench: Bench) -> None:
    bench.tree.add(SERVER, "./Machines/secret", ItemValue(format=Format.NODE))
    bench.tree.device_set_acl(("Machines", "secret"), "Get=other")
    assert bench.code(command(name, "5", uri, data=data)) == code
