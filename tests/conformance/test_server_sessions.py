"""Protocol: the server's side of packages, answers, multi-message packages and persistence, seen by the server."""

from __future__ import annotations

import json

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.session import EndReason
from dom0_agent.omadm.status import ProtocolError
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.conformance.dm_bytes import CODECS, Desk, Element, codes, header_status, message, metinf, texts, to_octets
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import DEVICE, SERVER_URI, Application, LeafTree, Pair

GET_X = c.Get(items=(c.Item("./X"),))
NEXT = "<Alert><CmdID>50</CmdID><Data>1222</Data></Alert>"


def status(root: Element, name: str, code: int, index: int = 0, target: str = "") -> str:
    """The device's Status for the command ``name`` that the server just sent."""
    ref = texts(root, f"SyncBody//{name}/CmdID")[index]
    target_ref = f"<TargetRef>{target}</TargetRef>" if target else ""
    msg_ref = texts(root, "SyncHdr/MsgID")[0]
    return (
        f"<Status><CmdID>2</CmdID><MsgRef>{msg_ref}</MsgRef><CmdRef>{ref}</CmdRef><Cmd>{name}</Cmd>{target_ref}"
        f"<Data>{code}</Data></Status>"
    )


def results(root: Element, name: str, uri: str, data: str, index: int = 0) -> str:
    ref = texts(root, f"SyncBody//{name}/CmdID")[index]
    msg_ref = texts(root, "SyncHdr/MsgID")[0]
    return (
        f"<Results><CmdID>3</CmdID><MsgRef>{msg_ref}</MsgRef><CmdRef>{ref}</CmdRef>"
        f"<Item><Source><LocURI>{uri}</LocURI></Source><Data>{data}</Data></Item></Results>"
    )


# ---- package 2 ---------------------------------------------------------------------------------------------------


@rule("Protocol: package 2", "a Status for SyncHdr, the Alert and the Replace, then commands, then Final")
def test_package_2(syntax: str) -> None:
    root = Desk(syntax, Application([GET_X])).open()
    body = root.find("SyncBody")
    assert body is not None
    assert [element.tag for element in body] == ["Status", "Status", "Status", "Get", "Final"]
    assert codes(root) == [("SyncHdr", "200"), ("Alert", "200"), ("Replace", "200")]


@rule("Protocol: package 2", "DevInfo reaches the application")
def test_device_info(syntax: str) -> None:
    desk = Desk(syntax)
    desk.open()
    assert desk.application.info == {"./DevInfo/DevId": DEVICE}


@rule("Protocol: package 2", "every package of the device is answered, also when there is nothing to do")
def test_answer_without_commands(syntax: str) -> None:
    desk = Desk(syntax)
    root = desk.open()
    assert root.find("SyncBody/Final") is not None
    assert desk.session.is_over
    assert desk.session.ended is not None
    assert desk.session.ended.ok


@cases(
    "Protocol: header of the server",
    "path,value",
    [
        ("Target is the device", "Target/LocURI", DEVICE),
        ("Source is the server", "Source/LocURI", SERVER_URI),
        ("SessionID is the device's", "SessionID", "1F"),
        ("MsgID begins at 1", "MsgID", "1"),
        ("MaxMsgSize is announced", "Meta/MaxMsgSize", "65536"),
        ("MaxObjSize is announced", "Meta/MaxObjSize", "1048576"),
    ],
)
def test_header(path: str, value: str, syntax: str) -> None:
    assert texts(Desk(syntax).open(), f"SyncHdr/{path}") == [value]


@rule("Protocol: header of the server", "MsgID grows by one, whatever the device's MsgID is")
def test_msg_id(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X], [GET_X]))
    root = desk.open(msg_id=3)
    root = desk.say(header_status(1) + status(root, "Get", 404), msg_id=7)
    assert texts(root, "SyncHdr/MsgID") == ["2"]
    assert texts(root, "SyncBody/Status[Cmd='SyncHdr']/MsgRef") == ["7"]


@rule("Protocol: header of the server", "a device that speaks DM/1.3 is answered in DM/1.3")
def test_version_1_3(syntax: str) -> None:
    assert texts(Desk(syntax).open(ver_proto="DM/1.3"), "SyncHdr/VerProto") == ["DM/1.3"]


@cases(
    "Protocol: versions",
    "options,code,known",
    [
        ("an unknown VerProto: 513 and the versions known", {"ver_proto": "DM/9.9"}, "513", ["DM/1.2", "DM/1.3"]),
        ("an unknown VerDTD: 505 and the version known", {"ver_dtd": "9.9"}, "505", ["1.2"]),
    ],
)
def test_unknown_versions(options: dict[str, str], code: str, known: list[str], syntax: str) -> None:
    desk = Desk(syntax)
    root = desk.open(**options)
    assert codes(root) == [("SyncHdr", code)]
    assert texts(root, "SyncBody/Status/Item/Data") == known
    assert desk.session.is_over
    assert desk.application.info == {}


@rule("Protocol: RespURI", "the server names the address where it wants the following messages")
def test_resp_uri(syntax: str) -> None:
    root = Desk(syntax, resp_uri="https://s/dm?session=1").open()
    assert texts(root, "SyncHdr/RespURI") == ["https://s/dm?session=1"]


# ---- what a device may not do ------------------------------------------------------------------------------------


@cases(
    "Protocol: commands of a device",
    "name,code",
    [
        *((f"{name} of a device: 405", name, "405") for name in ("Add", "Copy", "Delete", "Exec", "Get")),
        *((f"{name} of a device: 405", name, "405") for name in ("Atomic", "Sequence")),
        ("an unknown command of a device: 501", "Put", "501"),
    ],
)
def test_commands_of_a_device(name: str, code: str, syntax: str) -> None:
    root = Desk(syntax).open(f"<{name}><CmdID>9</CmdID></{name}>")
    assert texts(root, "SyncBody/Status[CmdRef='9']/Data") == [code]


# ---- answers of the device ---------------------------------------------------------------------------------------


@rule("Protocol: answers", "Status and Results are matched to their command by MsgRef and CmdRef")
def test_matching(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X, c.Get(items=(c.Item("./Y"),))]))
    root = desk.open()
    desk.say(
        header_status(1)
        + status(root, "Get", 200, 1)
        + results(root, "Get", "./Y", "y", 1)
        + status(root, "Get", 200, 0)
        + results(root, "Get", "./X", "x", 0)
    )
    assert {ref: [item.data for item in outcome.results] for ref, outcome in desk.application.outcomes.items()} == {
        "r1": ["x"],
        "r2": ["y"],
    }


@rule("Protocol: answers", "one Status may cover all Items of a command")
def test_one_status_for_all(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Delete(items=(c.Item("./X"), c.Item("./Y")))]))
    root = desk.open()
    desk.say(header_status(1) + status(root, "Delete", 200))
    assert desk.application.codes == {"r1": 200}


@rule("Protocol: answers", "each Item may have a Status of its own; the first error is the command's")
def test_status_per_item(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Delete(items=(c.Item("./X"), c.Item("./Y")))]))
    root = desk.open()
    desk.say(header_status(1) + status(root, "Delete", 200, target="./X") + status(root, "Delete", 404, target="./Y"))
    outcome = desk.application.outcomes["r1"]
    assert outcome.status == 404
    assert [(found.target_refs, found.code) for found in outcome.statuses] == [(("./X",), 200), (("./Y",), 404)]
    assert not outcome.ok


@rule("Protocol: answers", "members of Atomic and Sequence have outcomes of their own")
def test_members(syntax: str) -> None:
    desk = Desk(
        syntax, Application([c.Sequence(commands=(GET_X, c.Atomic(commands=(c.Delete(items=(c.Item("./Y"),)),))))])
    )
    root = desk.open()
    desk.say(
        header_status(1)
        + status(root, "Sequence", 200)
        + status(root, "Get", 200)
        + results(root, "Get", "./X", "x")
        + status(root, "Atomic", 507)
        + status(root, "Delete", 404)
    )
    outcome = desk.application.outcomes["r1"]
    assert outcome.status == 200
    assert outcome.members[0].results[0].data == "x"
    assert (outcome.members[1].status, outcome.members[1].members[0].status) == (507, 404)


@rule("Protocol: answers", "members of containers are numbered, each number once")
def test_member_numbers(syntax: str) -> None:
    root = Desk(syntax, Application([c.Sequence(commands=(GET_X, c.Sequence(commands=(GET_X,)))), GET_X])).open()
    ids = texts(root, "SyncBody//CmdID")
    assert len(ids) == len(set(ids))
    assert "" not in ids


@rule("Protocol: answers", "a Status for a command that was never sent is ignored")
def test_stray_status(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X]))
    root = desk.open()
    stray = "<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>99</CmdRef><Cmd>Get</Cmd><Data>200</Data></Status>"
    desk.say(header_status(1) + stray + status(root, "Get", 404))
    assert desk.application.codes == {"r1": 404}


@rule("Protocol: answers", "a command that a complete package leaves unanswered is reported as such")
def test_no_answer(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X]))
    desk.open()
    desk.say(header_status(1))
    assert desk.application.codes == {"r1": None}


@rule("Protocol: answers", "an answer to a choice comes with the Status")
def test_choice(syntax: str) -> None:
    alert = c.Alert(code=1103, items=(c.Item(data=""), c.Item(data="?"), c.Item(data="a"), c.Item(data="b")))
    desk = Desk(syntax, Application([alert]))
    root = desk.open()
    answered = status(root, "Alert", 200).replace("</Status>", "<Item><Data>2</Data></Item></Status>")
    desk.say(header_status(1) + answered)
    assert [item.data for item in desk.application.outcomes["r1"].statuses[0].items] == ["2"]


@rule("Protocol: answers", "202 is success that a generic alert will complete")
def test_accepted(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Exec(items=(c.Item("./op"),), correlator="abc")]))
    root = desk.open()
    assert texts(root, "SyncBody/Exec/Correlator") == ["abc"]
    desk.say(header_status(1) + status(root, "Exec", 202))
    assert desk.application.outcomes["r1"].ok


@rule("Protocol: packages", "new commands are sent only when the ones before are answered")
def test_packages_in_turn(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X], [c.Delete(items=(c.Item("./Y"),))]))
    first = desk.open()
    assert first.find("SyncBody/Delete") is None
    second = desk.say(header_status(1) + status(first, "Get", 404))
    assert second.find("SyncBody/Delete") is not None
    third = desk.say(header_status(2) + status(second, "Delete", 200))
    assert codes(third) == [("SyncHdr", "200")]
    assert desk.session.is_over


# ---- several messages --------------------------------------------------------------------------------------------


@rule(
    "Protocol: multi-message packages",
    "a device's message without Final: its Status, Alert 1222, no commands, no Final",
)
def test_unfinished_package(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X], [GET_X]))
    first = desk.open()
    root = desk.say(header_status(1) + status(first, "Get", 200), final=False)
    body = root.find("SyncBody")
    assert body is not None
    assert [element.tag for element in body] == ["Status", "Alert"]
    assert texts(root, "SyncBody/Alert/Data") == ["1222"]
    root = desk.say(header_status(2) + results(first, "Get", "./X", "x"))
    assert desk.application.outcomes["r1"].results[0].data == "x"
    assert root.find("SyncBody/Get") is not None
    assert root.find("SyncBody/Final") is not None


@rule("Protocol: multi-message packages", "package 1 may come in several messages")
def test_unfinished_package_1(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X]))
    root = desk.say("<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>", final=False)
    assert texts(root, "SyncBody/Alert/Data") == ["1222"]
    item = "<Item><Source><LocURI>./DevInfo/Man</LocURI></Source><Data>ACME</Data></Item>"
    root = desk.say(header_status(1) + f"<Replace><CmdID>2</CmdID>{item}</Replace>")
    assert root.find("SyncBody/Get") is not None
    assert desk.application.info == {"./DevInfo/Man": "ACME"}


@rule("Protocol: MaxMsgSize", "commands above the device's MaxMsgSize go into further messages, the last has Final")
def test_commands_are_split(syntax: str) -> None:
    commands = [c.Get(items=(c.Item(f"./leaf{n:03}"),)) for n in range(40)]
    desk = Desk(syntax, Application(commands))
    root = desk.open(header=metinf(MaxMsgSize="1500"))
    found: list[str] = []
    while True:
        assert len(desk.last) <= 1500
        uris = texts(root, "SyncBody/Get/Item/Target/LocURI")
        found += uris
        answers = "".join(status(root, "Get", 404, index) for index in range(len(uris)))
        msg_id = int(texts(root, "SyncHdr/MsgID")[0])
        if root.find("SyncBody/Final") is not None:
            break
        root = desk.say(header_status(msg_id) + answers + NEXT, final=False)
    desk.say(header_status(msg_id) + answers)
    assert found == [f"./leaf{n:03}" for n in range(40)]
    assert set(desk.application.codes.values()) == {404}
    assert len(desk.application.codes) == 40


@rule("Protocol: MaxMsgSize", "a device that says Final in the middle of our package gets the rest all the same")
def test_hasty_final(syntax: str) -> None:
    commands = [c.Get(items=(c.Item(f"./leaf{n:03}"),)) for n in range(20)]
    desk = Desk(syntax, Application(commands))
    root = desk.open(header=metinf(MaxMsgSize="1500"))
    while root.find("SyncBody/Get") is not None:
        answers = "".join(status(root, "Get", 404, i) for i in range(len(texts(root, "SyncBody/Get/CmdID"))))
        root = desk.say(header_status(int(texts(root, "SyncHdr/MsgID")[0])) + answers)
    assert set(desk.application.codes.values()) == {404}
    assert len(desk.application.codes) == 20


# ---- aborts, repeats, strangers ----------------------------------------------------------------------------------


@rule(
    "Protocol: session abort", "Alert 1223 of the device: Status for header and Alert, no commands, everything reported"
)
def test_abort(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X], [GET_X]))
    desk.open()
    root = desk.say(header_status(1) + "<Alert><CmdID>9</CmdID><Data>1223</Data></Alert>")
    assert codes(root) == [("SyncHdr", "200"), ("Alert", "200")]
    assert root.find("SyncBody/Get") is None
    assert desk.session.ended is not None
    assert desk.session.ended.reason is EndReason.ABORTED_BY_PEER
    assert desk.application.codes == {"r1": None}


@rule("Protocol: MsgID", "a device's message that the transport repeats gets the same answer and has no effect")
def test_repeated_message(syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X]))
    octets = to_octets(
        message("<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>", target=SERVER_URI, source=DEVICE), syntax
    )
    desk.receive(octets)
    first = desk.last
    assert desk.session.repeats(octets)
    desk.receive(octets)
    assert desk.last == first
    assert len(desk.application.alerts) == 1


@cases(
    "Protocol: messages of another session",
    "options",
    [
        ("a MsgID that goes back is refused", {"msg_id": 1}),
        ("another SessionID is refused", {"session_id": "20"}),
        ("another device is refused", {"source": "urn:uuid:other"}),
    ],
)
def test_foreign_messages(options: dict[str, object], syntax: str) -> None:
    desk = Desk(syntax, Application([GET_X], [GET_X]))
    desk.open()
    with pytest.raises(ProtocolError):
        desk.say(header_status(1), **options)  # type: ignore[arg-type]


@rule("Protocol: messages of another session", "a message after the end is refused")
def test_after_the_end(syntax: str) -> None:
    desk = Desk(syntax)
    desk.open()
    with pytest.raises(ProtocolError, match="over"):
        desk.say("")


@cases(
    "Protocol: SessionID at the server",
    "text",
    [("a decimal SessionID (Windows) is kept as it is", "31"), ("a long one is kept as it is", "00a1B2")],
)
def test_odd_session_ids(text: str) -> None:
    pair = Pair()
    session = pair.server(text)
    body = message(
        "<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>", session_id=text, target=SERVER_URI, source=DEVICE
    )
    answer = CODECS["xml"].decode(session.receive(body.encode(), Application()))
    assert answer.header.session_id == text


# ---- persistence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [XmlCodec(), WbxmlCodec()], ids=["xml", "wbxml"])
@rule(
    "Server: sessions between processes", "a session stored between any two messages goes on as if nothing had happened"
)
def test_stored_sessions(codec: Codec) -> None:
    tree = LeafTree({f"./leaf{n}": f"value {n}" for n in range(10)} | {"./octets": bytes(range(256))})
    packages: list[list[c.ManagementCommand | c.Alert]] = [
        [c.Get(items=(c.Item(f"./leaf{n}"), c.Item("./octets"))) for n in range(3)],
        [c.Sequence(commands=(c.Get(items=(c.Item("./leaf1"),)), c.Delete(items=(c.Item("./leaf2"),))))],
    ]
    pair = Pair(tree, codec=codec)
    application = Application(*packages)
    client = pair.run(application)  # stores and takes up the server session after each message
    assert client.outcome is not None
    assert client.outcome.ok
    assert application.codes == {"r1": 200, "r2": 200, "r3": 200, "r4": 200}
    assert [member.status for member in application.outcomes["r4"].members] == [200, 200]


@rule("Server: sessions between processes", "what is stored is JSON and holds no secret of the account")
def test_stored_form() -> None:
    pair = Pair()
    pair.run(Application([GET_X]))
    stored = json.dumps(pair.last_server.to_dict())
    assert "OhBehave" not in stored
    assert "srvpwd" not in stored
