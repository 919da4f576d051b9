"""Protocol: packages, identifiers, order of Status, multi-message packages and limits, seen by the device."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode
from dom0_agent.omadm.client import ClientSession, PendingAlert
from dom0_agent.omadm.session import EndReason, SessionLimits, session_id_text
from tests.conformance.dm_bytes import (
    CODECS,
    Board,
    codes,
    command,
    header_status,
    message,
    metinf,
    texts,
    to_octets,
)
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import DEVICE, DEVICE_INFO, SERVER_URI, LeafTree, Pair

NEXT = "<Alert><CmdID>50</CmdID><Data>1222</Data></Alert>"
ABORT = "<Alert><CmdID>50</CmdID><Data>1223</Data></Alert>"


def names(root: object, path: str = "SyncBody") -> list[str]:
    body = root.find(path)  # type: ignore[attr-defined]
    return [element.tag for element in body]


# ---- package 1 ---------------------------------------------------------------------------------------------------


@rule("Protocol: package 1", "begins with exactly one Alert 1201 when the client initiates the session")
def test_package_1_alert(syntax: str) -> None:
    assert texts(Board(syntax).start(), "SyncBody/Alert/Data") == ["1201"]


@rule("Protocol: package 1", "has Alert 1200 when a notification initiates the session")
def test_package_1_server_initiated() -> None:
    pair = Pair()
    session = pair.client("1F")
    session._opening = AlertCode.SERVER_INITIATED
    first = pair.codec.decode(session.start()).body[0]
    assert isinstance(first, c.Alert)
    assert first.code == 1200


@rule("Protocol: package 1", "has a Replace with one Item for each leaf of DevInfo, named by Source")
def test_package_1_device_info(syntax: str) -> None:
    root = Board(syntax).start()
    assert (
        dict(
            zip(
                texts(root, "SyncBody/Replace/Item/Source/LocURI"),
                texts(root, "SyncBody/Replace/Item/Data"),
                strict=True,
            )
        )
        == DEVICE_INFO
    )
    assert root.findall("SyncBody/Replace/Item/Target") == []


@rule("Protocol: package 1", "carries the generic alerts that wait")
def test_package_1_alerts(syntax: str) -> None:
    board = Board(syntax, alerts=[PendingAlert("a", c.Alert(code=1226, items=(c.Item(source="./x", data=""),)))])
    assert texts(board.start(), "SyncBody/Alert/Data") == ["1201", "1226"]


@rule("Protocol: package 1", "ends with Final")
def test_package_1_is_final(syntax: str) -> None:
    assert names(Board(syntax).start())[-1] == "Final"


@cases(
    "Protocol: header",
    "path,value",
    [
        ("VerDTD is 1.2", "VerDTD", "1.2"),
        ("VerProto is DM/1.2", "VerProto", "DM/1.2"),
        ("Target is the server's address", "Target/LocURI", SERVER_URI),
        ("Source is the device id", "Source/LocURI", DEVICE),
        ("MaxMsgSize is announced", "Meta/MaxMsgSize", "65536"),
        ("MaxObjSize is announced", "Meta/MaxObjSize", "1048576"),
        ("MsgID of the first message is 1", "MsgID", "1"),
        ("SessionID is the one of the session", "SessionID", "1F"),
    ],
)
def test_header(path: str, value: str, syntax: str) -> None:
    assert texts(Board(syntax).start(), f"SyncHdr/{path}") == [value]


@rule("Protocol: header", "VerProto DM/1.3 is spoken when configured")
def test_version_1_3() -> None:
    pair = Pair()
    session = ClientSession(
        account=pair.account,
        device_id=DEVICE,
        tree=pair.tree,
        nonces=pair.client_nonces,
        random_bytes=pair.random,
        codec=pair.codec,
        session_id="1",
        device_info=dict,
        ver_proto="DM/1.3",
    )
    assert pair.codec.decode(session.start()).header.ver_proto == "DM/1.3"


# ---- identifiers -------------------------------------------------------------------------------------------------


@cases(
    "Protocol: SessionID",
    "number,text",
    [
        ("is upper-case hexadecimal", 0xABCD, "ABCD"),
        ("has no leading zeros", 0x1F, "1F"),
        ("has at most four digits", 0xFFFF, "FFFF"),
        ("begins at 1", 1, "1"),
    ],
)
def test_session_id_form(number: int, text: str) -> None:
    assert session_id_text(number) == text


@cases("Protocol: SessionID", "number", [("0 is no session id", 0), ("more than 16 bits are no session id", 0x10000)])
def test_session_id_range(number: int) -> None:
    with pytest.raises(ValueError, match="session id"):
        session_id_text(number)


@rule("Protocol: SessionID", "is the same in all messages of a session")
def test_session_id_stays(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert texts(board.ask(command("Get", "5", "./X")), "SyncHdr/SessionID") == ["1F"]


@rule("Protocol: SessionID", "a message with another one ends the session")
def test_foreign_session_id(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.say(command("Get", "5", "./X"), session_id="20") is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.PROTOCOL


@rule("Protocol: MsgID", "grows by one with each message of a sender")
def test_msg_id_grows(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    found = [texts(board.ask(command("Get", "5", "./X")), "SyncHdr/MsgID") for _ in range(3)]
    assert found == [["2"], ["3"], ["4"]]


@rule("Protocol: MsgID", "a server's MsgID that goes back ends the session")
def test_msg_id_goes_back(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    board.ask(command("Get", "5", "./X"), msg_id=3)
    assert board.say(command("Get", "5", "./X"), msg_id=2) is None
    assert board.session.outcome is not None
    assert "MsgID" in board.session.outcome.sentence


@rule("Protocol: MsgID", "a message that the transport repeats gets the same answer and is not executed again")
def test_repeated_message(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree)
    board.start()
    octets = to_octets(message(header_status(1) + command("Delete", "5", "./X"), msg_id=1), syntax)
    first = board.session.receive(octets)
    assert board.session.receive(octets) == first
    assert tree.calls == [("Delete", "./X")]


@rule("Protocol: CmdID", "is unique in a message and never 0")
def test_cmd_ids_are_unique(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    sequence = f"<Sequence><CmdID>7</CmdID>{command('Get', '8', './X')}</Sequence>"
    ids = texts(board.ask(command("Get", "5", "./X") + sequence), "SyncBody/*/CmdID")
    assert len(ids) == len(set(ids))
    assert "0" not in ids


@rule("Protocol: CmdID", "begins again at 1 in each message")
def test_cmd_ids_begin_again(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    for _ in range(2):
        assert texts(board.ask(command("Get", "5", "./X")), "SyncBody/*/CmdID")[0] == "1"


@rule("Protocol: MsgRef and CmdRef", "name the message and the command that are answered")
def test_refs(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    answer = board.ask(command("Get", "17", "./X"), msg_id=3)
    assert texts(answer, "SyncBody/Status/MsgRef") == ["3", "3"]
    assert texts(answer, "SyncBody/Status/CmdRef") == ["0", "17"]
    assert texts(answer, "SyncBody/Results/MsgRef") == ["3"]
    assert texts(answer, "SyncBody/Results/CmdRef") == ["17"]


@rule("Protocol: MsgRef and CmdRef", "a CmdID that is no number is echoed as it is")
def test_textual_cmd_id(syntax: str) -> None:
    answer = Board(syntax).ask(command("Get", "7f3c-aa", "./X"))
    assert texts(answer, "SyncBody/Status/CmdRef")[1:] == ["7f3c-aa"]


@rule("Protocol: MsgRef and CmdRef", "a Status of SyncHdr without CmdRef is understood")
def test_missing_cmd_ref(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    status = "<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><Cmd>SyncHdr</Cmd><Data>404</Data></Status>"
    assert board.say(status, accept=False) is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.REFUSED


@rule("Protocol: MsgRef and CmdRef", "a Status for a message that was never sent is ignored")
def test_status_for_nothing(syntax: str) -> None:
    board = Board(syntax, alerts=[PendingAlert("a", c.Alert(code=1226, items=(c.Item(source="./x", data=""),)))])
    board.start()
    board.say("<Status><CmdID>1</CmdID><MsgRef>9</MsgRef><CmdRef>2</CmdRef><Cmd>Alert</Cmd><Data>200</Data></Status>")
    assert board.session.acknowledged == []


@rule("Protocol: TargetRef and SourceRef", "a Status names the answered Item's Target and Source")
def test_target_and_source_ref(syntax: str) -> None:
    item = "<Item><Target><LocURI>./a</LocURI></Target><Source><LocURI>./X</LocURI></Source></Item>"
    copy = f"<Copy><CmdID>5</CmdID>{item}</Copy>"
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(copy)
    assert texts(answer, "SyncBody/Status[Cmd='Copy']/TargetRef") == ["./a"]
    assert texts(answer, "SyncBody/Status[Cmd='Copy']/SourceRef") == ["./X"]


@rule("Protocol: TargetRef and SourceRef", "the Status of SyncHdr names Target and Source of the answered header")
def test_refs_of_the_header(syntax: str) -> None:
    answer = Board(syntax).ask(command("Get", "5", "./X"))
    assert texts(answer, "SyncBody/Status[Cmd='SyncHdr']/TargetRef") == [DEVICE]
    assert texts(answer, "SyncBody/Status[Cmd='SyncHdr']/SourceRef") == [SERVER_URI]


# ---- package 3 ---------------------------------------------------------------------------------------------------


@rule("Protocol: order of Status", "the first Status is the one of SyncHdr, the others follow the order of commands")
def test_order_of_status(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    answer = Board(syntax, tree).ask(
        command("Get", "5", "./X") + command("Delete", "6", "./Y") + command("Add", "7", "./Z", data="")
    )
    assert [name for name, _ in codes(answer)] == ["SyncHdr", "Get", "Delete", "Add"]


@rule("Protocol: order of Status", "Results follow the Status of their Get")
def test_results_after_status(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(command("Get", "5", "./X") + command("Get", "6", "./X"))
    assert names(answer) == ["Status", "Status", "Results", "Status", "Results", "Final"]


@rule("Protocol: order of Status", "a container's Status precedes those of its members")
def test_container_first(syntax: str) -> None:
    sequence = f"<Sequence><CmdID>5</CmdID>{command('Get', '6', './X')}{command('Delete', '7', './X')}</Sequence>"
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(sequence)
    assert [name for name, _ in codes(answer)] == ["SyncHdr", "Sequence", "Get", "Delete"]


@rule("Protocol: commands with several Items", "one Status covers Items that got the same code")
def test_one_status_for_equal_items(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1", "./Y": "2"})).ask(command("Delete", "5", "./X", "./Y"))
    assert codes(answer)[1:] == [("Delete", "200")]
    assert texts(answer, "SyncBody/Status[Cmd='Delete']/TargetRef") == ["./X", "./Y"]


@rule("Protocol: commands with several Items", "each Item has a Status of its own when the codes differ")
def test_status_per_item(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(command("Delete", "5", "./X", "./Y"))
    assert codes(answer)[1:] == [("Delete", "200"), ("Delete", "404")]
    assert texts(answer, "SyncBody/Status[Cmd='Delete']/TargetRef") == ["./X", "./Y"]


@rule("Protocol: commands with several Items", "there are Results for those Items of a Get that succeeded")
def test_results_of_good_items(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(command("Get", "5", "./Y", "./X"))
    assert texts(answer, "SyncBody/Results/Item/Source/LocURI") == ["./X"]


@rule("Protocol: commands with several Items", "a command without Items is answered 412")
def test_no_items(syntax: str) -> None:
    assert codes(Board(syntax).ask("<Get><CmdID>5</CmdID></Get>"))[1:] == [("Get", "412")]


@rule("Protocol: commands with several Items", "an Item without Target is answered 412")
def test_no_target(syntax: str) -> None:
    answer = Board(syntax).ask("<Get><CmdID>5</CmdID><Item><Data>1</Data></Item></Get>")
    assert codes(answer)[1:] == [("Get", "412")]


@rule("Protocol: Results", "name their node in Source, not in Target")
def test_results_name_source(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(command("Get", "5", "./X"))
    assert texts(answer, "SyncBody/Results/Item/Source/LocURI") == ["./X"]
    assert answer.findall("SyncBody/Results/Item/Target") == []


@rule("Protocol: Results", "there are none for a Get that failed")
def test_no_results_for_failures(syntax: str) -> None:
    answer = Board(syntax).ask(command("Get", "5", "./X"))
    assert answer.findall("SyncBody/Results") == []


@rule("Protocol: Results", "octets are carried as base64 in XML and as they are in WBXML")
def test_octets() -> None:
    pair = Pair(LeafTree({"./X": b"\x00\x01"}))
    get = c.Get("5", (c.Item("./X"),))
    for name, data, format_ in (("xml", "AAE=", "b64"), ("wbxml", b"\x00\x01", "bin")):
        pair.codec = CODECS[name]
        from dom0_agent.omadm.execute import Executor

        results = Executor(pair.tree, "s", CODECS[name].carry).execute(get, 1)[1]
        assert isinstance(results, c.Results)
        assert results.items[0].data == data
        assert results.items[0].meta is not None
        assert results.items[0].meta.format == format_


@rule("Protocol: Status", "no Status answers a Status, none answers Results")
def test_no_status_for_status(syntax: str) -> None:
    answer = Board(syntax).ask(
        "<Status><CmdID>8</CmdID><MsgRef>1</MsgRef><CmdRef>1</CmdRef><Cmd>Alert</Cmd><Data>200</Data></Status>" + NEXT
    )
    assert codes(answer) == [("SyncHdr", "200"), ("Alert", "200")]


# ---- the end -----------------------------------------------------------------------------------------------------


@rule(
    "Protocol: end of session", "a package without commands, alerts and challenge is not answered: the session is over"
)
def test_silent_end(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    statuses = "".join(
        f"<Status><CmdID>{n}</CmdID><MsgRef>1</MsgRef><CmdRef>{n}</CmdRef><Cmd>{cmd}</Cmd><Data>200</Data></Status>"
        for n, cmd in ((1, "Alert"), (2, "Replace"))
    )
    assert board.say(statuses) is None
    assert board.session.outcome is not None
    assert board.session.outcome.ok


@rule("Protocol: end of session", "nothing is answered after the end")
def test_nothing_after_the_end(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.say("") is None
    assert board.say(command("Get", "5", "./X")) is None


@rule("Protocol: end of session", "a client with new alerts goes on instead of ending")
def test_alerts_keep_the_session(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    board.session.add_alert(PendingAlert("b", c.Alert(code=1226, items=(c.Item(source="./y", data=""),))))
    answer = board.say("")
    assert answer is not None
    assert texts(answer, "SyncBody/Alert/Data") == ["1226"]


@rule("Protocol: session abort", "Alert 1223 of the server ends the session without an answer")
def test_abort_by_server(syntax: str) -> None:
    tree = LeafTree({"./X": "1"})
    board = Board(syntax, tree)
    board.start()
    assert board.say(ABORT + command("Delete", "51", "./X")) is None
    assert tree.calls == []
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.ABORTED_BY_PEER


@rule("Protocol: session abort", "the client aborts with Alert 1223 and Final")
def test_abort_by_client(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    octets = board.session.abort()
    assert octets is not None
    sent = CODECS[syntax].decode(octets)
    assert [command.code for command in sent.body if isinstance(command, c.Alert)] == [1223]
    assert sent.final
    assert board.session.receive(b"") is None


@rule("Protocol: header", "an error Status for our SyncHdr ends the session")
def test_header_refused(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.say(header_status(1, 513), accept=False) is None
    assert board.session.outcome is not None
    assert "513" in board.session.outcome.sentence


@cases(
    "Protocol: header",
    "version",
    [("an answer in DM/1.1 ends the session", "DM/1.1"), ("an answer in SyncML DS ends the session", "SyncML/1.2")],
)
def test_wrong_version(version: str, syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.say("", ver_proto=version) is None
    assert board.session.outcome is not None
    assert version in board.session.outcome.sentence


@rule("Protocol: header", "an answer in DM/1.3 is understood")
def test_answer_in_1_3(syntax: str) -> None:
    assert codes(Board(syntax).ask(command("Get", "5", "./X"), ver_proto="DM/1.3"))[0] == ("SyncHdr", "200")


@rule("Protocol: malformed messages", "octets that are no message end the session with a reason")
def test_garbage_ends_the_session(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.session.receive(b"<html>502 Bad Gateway</html>") is None
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.PROTOCOL


# ---- RespURI -----------------------------------------------------------------------------------------------------


@rule("Protocol: RespURI", "all following messages go there")
def test_resp_uri(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    assert board.session.target_uri == SERVER_URI
    board.ask(command("Get", "5", "./X"), header="<RespURI>https://other/dm?s=1&amp;t=2</RespURI>")
    assert board.session.target_uri == "https://other/dm?s=1&t=2"
    board.ask(command("Get", "5", "./X"))
    assert board.session.target_uri == "https://other/dm?s=1&t=2"


# ---- packages of several messages --------------------------------------------------------------------------------


@rule(
    "Protocol: multi-message packages", "a server message without Final is answered with Alert 1222 and without Final"
)
def test_next_message_is_asked_for(syntax: str) -> None:
    answer = Board(syntax, LeafTree({"./X": "1"})).ask(command("Get", "5", "./X"), final=False)
    assert texts(answer, "SyncBody/Alert/Data") == ["1222"]
    assert answer.find("SyncBody/Final") is None
    assert texts(answer, "SyncBody/Results/Item/Data") == ["1"]


@rule(
    "Protocol: multi-message packages",
    "Alert 1222 of the server without Final asks for our rest, whose last part has Final",
)
def test_final_after_1222(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "1"}))
    board.ask(command("Get", "5", "./X"))
    answer = board.ask(NEXT, final=False)
    assert answer.find("SyncBody/Final") is not None
    assert answer.find("SyncBody/Alert") is None


@rule("Protocol: multi-message packages", "an empty server message without Final is answered with Alert 1222")
def test_empty_unfinished_message(syntax: str) -> None:
    assert texts(Board(syntax).ask("", final=False), "SyncBody/Alert/Data") == ["1222"]


@rule("Protocol: multi-message packages", "an answer above the server's MaxMsgSize is split, the last part has Final")
def test_answers_are_split(syntax: str) -> None:
    leaves = {f"./leaf{n}": "x" * 50 for n in range(30)}
    board = Board(syntax, LeafTree(leaves))
    answer = board.ask(
        "".join(command("Get", str(n + 2), uri) for n, uri in enumerate(leaves)), header=metinf(MaxMsgSize="1500")
    )
    found: list[str] = []
    parts = 0
    while True:
        parts += 1
        assert len(board.last) <= 1500
        found += texts(answer, "SyncBody/Results/Item/Source/LocURI")
        if answer.find("SyncBody/Final") is not None:
            break
        answer = board.ask(NEXT)
        assert codes(answer)[:2] == [("SyncHdr", "200"), ("Alert", "200")]
    assert parts > 2
    assert found == list(leaves)


@rule("Protocol: multi-message packages", "one Results with many Items is split between Items")
def test_results_are_split(syntax: str) -> None:
    leaves = {f"./leaf{n:02}": "x" * 50 for n in range(40)}
    board = Board(syntax, LeafTree(leaves))
    answer = board.ask(command("Get", "5", ".?list=StructData"), header=metinf(MaxMsgSize="1200"))
    found = texts(answer, "SyncBody/Results/Item/Source/LocURI")
    while answer.find("SyncBody/Final") is None:
        assert len(board.last) <= 1200
        answer = board.ask(NEXT)
        found += texts(answer, "SyncBody/Results/Item/Source/LocURI")
    assert found == list(leaves)


@rule("Protocol: multi-message packages", "a server that asks for more for ever is cut off with Alert 1223")
def test_endless_1222(syntax: str) -> None:
    board = Board(syntax)
    board.start()
    for _ in range(30):
        answer = board.say(NEXT)
        if answer is None:
            break
    assert board.session.outcome is not None
    assert board.session.outcome.reason is EndReason.ABORTED
    last = CODECS[syntax].decode(board.last)
    assert [command.code for command in last.body if isinstance(command, c.Alert)] == [1223]


@rule("Protocol: MaxObjSize", "an object above the server's MaxObjSize is answered 413, without Results")
def test_max_obj_size(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "x" * 101, "./Y": "y" * 100}))
    answer = board.ask(command("Get", "5", "./X") + command("Get", "6", "./Y"), header=metinf(MaxObjSize="100"))
    assert codes(answer)[1:] == [("Get", "413"), ("Get", "200")]
    assert texts(answer, "SyncBody/Results/Item/Source/LocURI") == ["./Y"]


@rule("Protocol: MaxObjSize", "holds until the server names another")
def test_max_obj_size_stays(syntax: str) -> None:
    board = Board(syntax, LeafTree({"./X": "x" * 101}))
    board.ask(command("Get", "5", "./X"), header=metinf(MaxObjSize="100"))
    assert codes(board.ask(command("Get", "5", "./X")))[1:] == [("Get", "413")]
    assert codes(board.ask(command("Get", "5", "./X"), header=metinf(MaxObjSize="200")))[1:] == [("Get", "200")]


@rule("Protocol: MaxMsgSize", "our own limits are those that were configured")
def test_own_limits(syntax: str) -> None:
    root = Board(syntax, limits=SessionLimits(5000, 9000)).start()
    assert texts(root, "SyncHdr/Meta/MaxMsgSize") == ["5000"]
    assert texts(root, "SyncHdr/Meta/MaxObjSize") == ["9000"]
