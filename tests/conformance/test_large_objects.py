"""Protocol: large objects in both directions (MoreData, Size, 213, 411, 413, 424, Alert 1225)."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.session import SessionLimits
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.conformance.dm_bytes import CODECS, Board, Desk, code_of, codes, command, header_status, metinf, texts
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import Application, LeafTree, Pair

NEXT = "<Alert><CmdID>50</CmdID><Data>1222</Data></Alert>"


def chunk(data: str, *, size: int | None = None, more: bool = True, uri: str = "./big", name: str = "Add") -> str:
    meta = metinf(Format="chr", Size=str(size)) if size is not None else metinf(Format="chr")
    return (
        f"<{name}><CmdID>5</CmdID><Item><Target><LocURI>{uri}</LocURI></Target>{meta}<Data>{data}</Data>"
        f"{'<MoreData/>' if more else ''}</Item></{name}>"
    )


# ---- to the device -----------------------------------------------------------------------------------------------


@rule("Large objects: receiver", "each chunk but the last: 213 and Alert 1222, nothing is executed yet")
def test_213_and_1222(syntax: str) -> None:
    tree = LeafTree()
    answer = Board(syntax, tree).ask(chunk("aaaa", size=10), final=False)
    assert codes(answer)[1:] == [("Add", "213")]
    assert texts(answer, "SyncBody/Alert/Data") == ["1222"]
    assert tree.calls == []


@rule("Large objects: receiver", "the last chunk: the object is whole and executed once, its status is the answer")
def test_reassembly(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("aaaa", size=10), final=False)
    board.ask(chunk("bbbb"), final=False)
    answer = board.ask(chunk("cc", more=False))
    assert codes(answer)[1:] == [("Add", "200")]
    assert tree.leaves["./big"].data == "aaaabbbbcc"
    assert tree.calls == [("Add", "./big")]


@rule("Large objects: receiver", "Meta of the first chunk holds for the object")
def test_meta_of_first_chunk(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    first = chunk("1", size=2).replace(">chr<", ">int<")
    board.ask(first, final=False)
    board.ask(chunk("2", more=False).replace(metinf(Format="chr"), ""))
    assert (tree.leaves["./big"].data, tree.leaves["./big"].format) == ("12", "int")


@rule("Large objects: receiver", "later chunks need not repeat LocURI")
def test_loc_uri_not_repeated(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=4), final=False)
    board.ask("<Add><CmdID>6</CmdID><Item><Data>bb</Data></Item></Add>")
    assert tree.leaves["./big"].data == "aabb"


@rule("Large objects: receiver", "the failure of the whole object is the answer to its last chunk")
def test_failure_of_the_whole(syntax: str) -> None:
    tree = LeafTree()
    tree.failures["./big"] = 420
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=4), final=False)
    assert code_of(board.ask(chunk("bb", more=False)), "5") == "420"


@cases(
    "Large objects: receiver",
    "last",
    [
        ("fewer octets than Size: 424, nothing is executed", "b"),
        ("more octets than Size: 424, nothing is executed", "bbbbbb"),
    ],
)
def test_size_mismatch(last: str, syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=5), final=False)
    assert code_of(board.ask(chunk(last, more=False)), "5") == "424"
    assert tree.calls == []


@rule("Large objects: receiver", "Size counts octets, not characters")
def test_size_counts_octets(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("\u00e4\u00e4", size=6), final=False)
    assert code_of(board.ask(chunk("bb", more=False)), "5") == "200"


@rule("Large objects: receiver", "a first chunk without Size: 411")
def test_no_size(syntax: str) -> None:
    assert code_of(Board(syntax).ask(chunk("aa"), final=False), "5") == "411"


@rule("Large objects: receiver", "Size above our MaxObjSize: 413 at the first chunk")
def test_too_large(syntax: str) -> None:
    board = Board(syntax, limits=SessionLimits(65536, 1000))
    assert code_of(board.ask(chunk("aa", size=1001), final=False), "5") == "413"


@rule(
    "Large objects: receiver",
    "another command before the last chunk: Alert 1225 with the broken Item, the command is executed",
)
def test_no_end_of_data(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=4), final=False)
    answer = board.ask(command("Get", "6", "./X"))
    assert texts(answer, "SyncBody/Alert/Data") == ["1225"]
    assert texts(answer, "SyncBody/Alert/Item/Target/LocURI") == ["./big"]
    assert code_of(answer, "6") == "200"
    assert tree.calls == [("Get", "./X")]


@cases(
    "Large objects: receiver",
    "other",
    [
        ("a chunk of another node breaks the object off", chunk("bb", size=4, uri="./other")),
        ("a chunk of another command breaks the object off", chunk("bb", size=4, name="Replace")),
        ("a new Size begins the object again", chunk("bb", size=4)),
    ],
)
def test_another_object(other: str, syntax: str) -> None:
    board = Board(syntax)
    board.ask(chunk("aa", size=4), final=False)
    answer = board.ask(other, final=False)
    assert "1225" in texts(answer, "SyncBody/Alert/Data")
    assert code_of(answer, "5") == "213"


@rule("Large objects: receiver", "Alert 1222 between chunks is no other command")
def test_1222_between_chunks(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=4), final=False)
    board.ask(NEXT, final=False)
    board.ask(chunk("bb", more=False))
    assert tree.leaves["./big"].data == "aabb"


@rule("Large objects: receiver", "a chunked Exec argument is executed when it is whole")
def test_chunked_exec(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("aa", size=4, name="Exec", uri="./op"), final=False)
    board.ask(chunk("bb", more=False, name="Exec", uri="./op"))
    assert tree.calls == [("Exec", "./op", "aabb", "")]


@rule("Large objects: receiver", "base64 is joined as text and decoded once")
def test_chunked_base64(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree)
    board.ask(chunk("AAE", size=8).replace(">chr<", ">b64<"), final=False)
    board.ask(chunk("CAwQF", more=False).replace(">chr<", ">b64<"))
    assert tree.leaves["./big"].data == "AAECAwQF"


# ---- from the device ---------------------------------------------------------------------------------------------


@rule(
    "Large objects: sender",
    "a value that does not fit is cut: Size once, MoreData on all but the last, no Final before the end",
)
def test_chunked_results(syntax: str) -> None:
    value = "".join(chr(0x61 + n % 26) for n in range(5000))
    board = Board(syntax, LeafTree({"./big": value}))
    answer = board.ask(command("Get", "5", "./big"), header=metinf(MaxMsgSize="1500"))
    found, sizes, more = "", [], []
    for _ in range(20):
        assert len(board.last) <= 1500
        for item in answer.findall("SyncBody/Results/Item"):
            found += item.findtext("Data") or ""
            sizes.append(item.findtext("Meta/Size"))
            more.append(item.find("MoreData") is not None)
        if answer.find("SyncBody/Final") is not None:
            break
        results = texts(answer, "SyncBody/Results/CmdID")
        status = "".join(
            f"<Status><CmdID>2</CmdID><MsgRef>{board.session._msg_id}</MsgRef><CmdRef>{ref}</CmdRef><Cmd>Results</Cmd>"
            "<Data>213</Data></Status>"
            for ref in results
        )
        answer = board.ask(status + NEXT)
    assert found == value
    assert sizes[0] == "5000"
    assert not any(sizes[1:])
    assert more == [True] * (len(more) - 1) + [False]


@rule("Large objects: sender", "an object that fits into one message is not cut")
def test_no_more_data_when_it_fits(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./big": "x" * 500})).ask(
        command("Get", "5", "./big"), header=metinf(MaxMsgSize="5000")
    )
    assert answer.find("SyncBody/Results/Item/MoreData") is None
    assert answer.find("SyncBody/Results/Item/Meta/Size") is None


@rule("Large objects: sender", "the receiver's error for a chunk ends the object")
def test_receiver_refuses_chunk(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./big": "x" * 5000}))
    answer = board.ask(command("Get", "5", "./big"), header=metinf(MaxMsgSize="1500"))
    while not texts(answer, "SyncBody/Results/CmdID"):
        answer = board.ask(NEXT)
    refused = (
        f"<Status><CmdID>2</CmdID><MsgRef>{board.session._msg_id}</MsgRef>"
        f"<CmdRef>{texts(answer, 'SyncBody/Results/CmdID')[0]}</CmdRef><Cmd>Results</Cmd><Data>413</Data></Status>"
    )
    answer = board.ask(refused + NEXT)
    assert answer.find("SyncBody/Results") is None
    assert answer.find("SyncBody/Final") is not None


@rule("Large objects: sender", "a refusal of other Results does not end the object that is being sent")
def test_refusal_of_other_results(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./small": "x", "./big": "x" * 5000}))
    answer = board.ask(command("Get", "5", "./small") + command("Get", "6", "./big"), header=metinf(MaxMsgSize="1800"))
    other = board.session._msg_id, texts(answer, "SyncBody/Results/CmdID")[0]
    refused = (
        f"<Status><CmdID>2</CmdID><MsgRef>{other[0]}</MsgRef><CmdRef>{other[1]}</CmdRef><Cmd>Results</Cmd>"
        "<Data>424</Data></Status>"
    )
    while not texts(answer, "SyncBody/Results/Item/Meta/Size"):
        answer = board.ask(NEXT)
    answer = board.ask(refused + NEXT)
    assert texts(answer, "SyncBody/Results/Item/Source/LocURI") == ["./big"]


@rule("Large objects: sender", "after Alert 1225 the object is sent again from its first octet")
def test_restart_after_1225(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./big": "x" * 5000}))
    answer = board.ask(command("Get", "5", "./big"), header=metinf(MaxMsgSize="1500"))
    while not texts(answer, "SyncBody/Results/Item/Meta/Size"):
        answer = board.ask(NEXT)
    answer = board.ask("<Alert><CmdID>51</CmdID><Data>1225</Data></Alert>" + NEXT)
    assert texts(answer, "SyncBody/Results/Item/Meta/Size") == ["5000"]


@rule("Large objects: MaxObjSize", "a larger object in one message is refused with 413, its smaller neighbour is not")
def test_max_obj_size_without_chunks(syntax: str) -> None:
    tree = LeafTree()
    board = Board(syntax, tree, limits=SessionLimits(max_obj_size=1000))
    items = "".join(
        f"<Item><Target><LocURI>./{name}</LocURI></Target><Data>{value}</Data></Item>"
        for name, value in (("fits", "ä" * 500), ("not", "ä" * 500 + "x"))
    )
    root = board.ask(f"<Add><CmdID>5</CmdID>{items}</Add>")
    assert codes(root)[-2:] == [("Add", "200"), ("Add", "413")]
    assert list(tree.leaves) == ["./fits"]


@rule("Large objects: MaxObjSize", "the server's limit counts octets, not characters")
def test_max_obj_size_counts_octets(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./fits": "ä" * 500, "./not": "ä" * 501}))
    header = metinf(MaxObjSize="1000")
    assert code_of(board.ask(command("Get", "5", "./fits"), header=header), "5") == "200"
    assert code_of(board.ask(command("Get", "5", "./not"), header=header), "5") == "413"


# ---- the server --------------------------------------------------------------------------------------------------


@rule("Large objects: server as receiver", "a chunk of Results: 213, then the whole is the command's result")
def test_server_reassembles(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./big"),))]))
    root = desk.open()
    ref = f"<MsgRef>1</MsgRef><CmdRef>{texts(root, 'SyncBody/Get/CmdID')[0]}</CmdRef>"
    item = "<Item><Source><LocURI>./big</LocURI></Source>{0}<Data>{1}</Data>{2}</Item>"
    first = item.format(metinf(Size="6"), "aaaa", "<MoreData/>")
    status = f"<Status><CmdID>2</CmdID>{ref}<Cmd>Get</Cmd><Data>200</Data></Status>"
    root = desk.say(header_status(1) + status + f"<Results><CmdID>3</CmdID>{ref}{first}</Results>", final=False)
    assert ("Results", "213") in codes(root)
    assert texts(root, "SyncBody/Alert/Data") == ["1222"]
    assert root.find("SyncBody/Final") is None
    desk.say(header_status(2) + f"<Results><CmdID>3</CmdID>{ref}{item.format('', 'bb', '')}</Results>")
    assert [found.data for found in desk.application.outcomes["r1"].results] == ["aaaabb"]


@pytest.mark.parametrize("codec", [XmlCodec(), WbxmlCodec()], ids=["xml", "wbxml"])
@rule("Large objects: both roles", "octets, base64 and text of 100 kB go both ways through messages of 4 kB")
def test_round_trip(codec: Codec) -> None:
    octets = bytes(range(256)) * 400
    text = "<\u00e4&\u4e2d>" * 9000
    limits = SessionLimits(4096, 1_000_000)
    pair = Pair(LeafTree({"./octets": octets}), codec=codec, client_limits=limits, server_limits=limits)
    meta = c.Meta("chr", "text/plain")
    application = Application(
        [c.Get(items=(c.Item("./octets"),)), c.Add(items=(c.Item("./text", meta=meta, data=text),))],
        [c.Get(items=(c.Item("./text"),))],
    )
    client = pair.run(application, most=150)
    assert client.outcome is not None
    assert client.outcome.ok
    assert all(len(body) <= 4096 for body in pair.bodies)
    assert application.codes == {"r1": 200, "r2": 200, "r3": 200}
    assert application.outcomes["r3"].results[0].data == text
    found = application.outcomes["r1"].results[0].data
    import base64

    assert (base64.b64decode(found) if isinstance(found, str) else found) == octets


@rule("Large objects: server as sender", "the Status of an earlier command does not end the object that is being sent")
def test_status_of_another_command(syntax: str) -> None:
    big = c.Replace(items=(c.Item("./big", data="x" * 4000),))
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./a"),)), big]))
    root = desk.open(header=metinf(MaxMsgSize="2000"))
    get = texts(root, "SyncBody/Get/CmdID")[0]
    while root.find("SyncBody/Replace") is None:
        root = desk.say(header_status(desk.session._msg_id) + NEXT, final=False)
    late = f"<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>{get}</CmdRef><Cmd>Get</Cmd><Data>404</Data></Status>"
    root = desk.say(header_status(desk.session._msg_id) + late + NEXT, final=False)
    assert texts(root, "SyncBody/Replace/Item/Target/LocURI") == ["./big"]


@rule(
    "Large objects: server as sender", "an object above the device's MaxObjSize is not sent: the command ends with 413"
)
def test_server_respects_max_obj_size(syntax: str) -> None:
    add = c.Add(items=(c.Item("./big", data="x" * 2000),))
    desk = Desk(syntax, Application([add, c.Get(items=(c.Item("./X"),))]))
    root = desk.open(header=metinf(MaxObjSize="1000"))
    assert root.find("SyncBody/Add") is None
    assert root.find("SyncBody/Get") is not None
    desk.say(
        header_status(1)
        + "<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>4</CmdRef><Cmd>Get</Cmd><Data>404</Data></Status>"
    )
    assert desk.application.codes["r1"] == 413


@rule("Large objects: server as sender", "a device that refuses a chunk gets no more of it, its status is the outcome")
def test_server_stops_refused_object() -> None:
    pair = Pair(client_limits=SessionLimits(4096, 1_000_000))
    pair.tree.failures["./big"] = 420
    big = c.Add(items=(c.Item("./big", meta=c.Meta("chr"), data="x" * 9000),))
    application = Application([big])
    pair.run(application)
    assert application.codes == {"r1": 420}
    pair = Pair(client_limits=SessionLimits(4096, 5000))
    application = Application([big])
    pair.run(application)
    assert application.codes == {"r1": 413}
    assert CODECS
