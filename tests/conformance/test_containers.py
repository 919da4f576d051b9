"""Protocol: Atomic (failure matrix, roll back) and Sequence (order, end by the user)."""

from __future__ import annotations

from dom0_agent.omadm.interaction import Answer, Outcome, Question
from dom0_agent.omadm.status import DMError, Status
from tests.conformance.dm_bytes import Board, code_of, codes, command, metinf
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import LeafTree
from tests.unit.omadm.tree_objects import make_tree, snapshot

INT = metinf(Format="int")
CONFIRM = "<Alert><CmdID>{0}</CmdID><Data>1101</Data><Item><Data></Data></Item><Item><Data>Sure?</Data></Item></Alert>"
DISPLAY = "<Alert><CmdID>{0}</CmdID><Data>1100</Data><Item><Data></Data></Item><Item><Data>Hello</Data></Item></Alert>"


class User:
    """Answers every question with the next of its outcomes."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.asked: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return Answer(self._outcomes.pop(0) if self._outcomes else Outcome.ANSWERED)


def atomic(*members: str) -> str:
    return f"<Atomic><CmdID>5</CmdID>{''.join(members)}</Atomic>"


def sequence(*members: str) -> str:
    return f"<Sequence><CmdID>5</CmdID>{''.join(members)}</Sequence>"


def leaves(**values: str) -> LeafTree:
    return LeafTree({f"./{name}": value for name, value in values.items()})


# ---- Atomic ------------------------------------------------------------------------------------------------------


@rule("Protocol: Atomic", "all members done: 200 for the Atomic and for each member")
def test_atomic_success(syntax: str) -> None:
    tree = leaves(a="1")
    answer = Board(syntax, tree).ask(
        atomic(
            command("Replace", "6", "./a", data="2"),
            command("Add", "7", "./b", data="x"),
            command("Delete", "8", "./a"),
        )
    )
    assert codes(answer)[1:] == [("Atomic", "200"), ("Replace", "200"), ("Add", "200"), ("Delete", "200")]
    assert set(tree.leaves) == {"./b"}


@rule("Protocol: Atomic", "a member fails: 507, members before 216, the member its own code, members after 215")
def test_atomic_matrix(syntax: str) -> None:
    tree = leaves(a="1", c="1")
    answer = Board(syntax, tree).ask(
        atomic(
            command("Replace", "6", "./a", data="2"),
            command("Add", "7", "./b", data="x"),
            command("Delete", "8", "./missing"),
            command("Delete", "9", "./c"),
        )
    )
    assert codes(answer)[1:] == [
        ("Atomic", "507"),
        ("Replace", "216"),
        ("Add", "216"),
        ("Delete", "404"),
        ("Delete", "215"),
    ]
    assert {uri: value.data for uri, value in tree.leaves.items()} == {"./a": "1", "./c": "1"}


@rule("Protocol: Atomic", "an undo that fails: 516 for that member, 216 for the others")
def test_atomic_undo_fails(syntax: str) -> None:
    tree = leaves(a="1", b="1")
    tree.undo_failures.add("./a")
    answer = Board(syntax, tree).ask(
        atomic(
            command("Replace", "6", "./a", data="2"),
            command("Replace", "7", "./b", data="2"),
            command("Delete", "8", "./missing"),
        )
    )
    assert codes(answer)[1:] == [("Atomic", "507"), ("Replace", "516"), ("Replace", "216"), ("Delete", "404")]


@rule("Protocol: Atomic", "it cannot be made durable: 507, every member 216, or 516 where its undo failed")
def test_atomic_commit_fails(syntax: str) -> None:
    tree = leaves(a="1", b="1")
    tree.commit_failure = Status.DATA_STORE_FAILURE
    tree.undo_failures.add("./b")
    answer = Board(syntax, tree).ask(
        atomic(command("Replace", "6", "./a", data="2"), command("Replace", "7", "./b", data="2"))
    )
    assert codes(answer)[1:] == [("Atomic", "507"), ("Replace", "216"), ("Replace", "516")]
    assert tree.leaves["./a"].data == "1"


@cases(
    "Protocol: Atomic",
    "member",
    [
        ("Get inside: 500, the Atomic 507", command("Get", "7", "./a")),
        ("Exec inside: 500, the Atomic 507", command("Exec", "7", "./a")),
        ("Atomic inside: 500, the Atomic 507", "<Atomic><CmdID>7</CmdID></Atomic>"),
        ("Sequence inside: 500, the Atomic 507", "<Sequence><CmdID>7</CmdID></Sequence>"),
    ],
)
def test_illegal_members(member: str, syntax: str) -> None:
    tree = leaves(a="1")
    answer = Board(syntax, tree).ask(atomic(command("Delete", "6", "./a"), member))
    assert code_of(answer, "5") == "507"
    assert code_of(answer, "6") == "215"
    assert code_of(answer, "7") == "500"
    assert tree.calls == [], "nothing may be executed before the look at the members"


@rule("Protocol: Atomic", "an unknown command inside: 500, the Atomic 507")
def test_unknown_member(syntax: str) -> None:
    answer = Board(syntax).ask(atomic("<Put><CmdID>6</CmdID></Put>"))
    assert codes(answer)[1:] == [("Atomic", "507"), ("Put", "500")]


@rule("Protocol: Atomic", "members are executed in their order: Add then Replace of the same node works")
def test_add_then_replace(syntax: str) -> None:
    tree = leaves()
    answer = Board(syntax, tree).ask(
        atomic(command("Add", "6", "./n", data="1"), command("Replace", "7", "./n", data="2"))
    )
    assert code_of(answer, "5") == "200"
    assert tree.leaves["./n"].data == "2"


@rule("Protocol: Atomic", "a member with several Items: those done before the failure 216, those after 215")
def test_items_of_a_member(syntax: str) -> None:
    tree = leaves(a="1", b="1")
    answer = Board(syntax, tree).ask(atomic(command("Delete", "6", "./a", "./missing", "./b")))
    assert [code_of(answer, "6", uri) for uri in ("./a", "./missing", "./b")] == ["216", "404", "215"]
    assert set(tree.leaves) == {"./a", "./b"}


@rule("Protocol: Atomic", "a member without CmdID: 400, roll back")
def test_member_without_cmd_id(syntax: str) -> None:
    tree = leaves(a="1")
    answer = Board(syntax, tree).ask(
        atomic(command("Delete", "6", "./a"), "<Delete><Item><Target><LocURI>./b</LocURI></Target></Item></Delete>")
    )
    assert codes(answer)[1:] == [("Atomic", "507"), ("Delete", "216"), ("Delete", "400")]


@rule("Protocol: Atomic", "an empty one: 200")
def test_empty_atomic(syntax: str) -> None:
    assert codes(Board(syntax).ask(atomic()))[1:] == [("Atomic", "200")]


@rule("Protocol: Atomic", "the user says no to 1101: 304 for the Alert, roll back")
def test_user_refuses_in_atomic(syntax: str) -> None:
    tree = leaves(a="1", b="1")
    board = Board(syntax, tree, ui=User(Outcome.REJECTED))
    answer = board.ask(atomic(command("Delete", "6", "./a"), CONFIRM.format(7), command("Delete", "8", "./b")))
    assert codes(answer)[1:] == [("Atomic", "507"), ("Delete", "216"), ("Alert", "304"), ("Delete", "215")]
    assert set(tree.leaves) == {"./a", "./b"}


@rule("Protocol: Atomic", "the user says yes to 1101: the Atomic goes on")
def test_user_agrees_in_atomic(syntax: str) -> None:
    board = Board(syntax, leaves(a="1"), ui=User(Outcome.ANSWERED))
    answer = board.ask(atomic(CONFIRM.format(6), command("Delete", "7", "./a")))
    assert codes(answer)[1:] == [("Atomic", "200"), ("Alert", "200"), ("Delete", "200")]


@rule("Protocol: Atomic", "a generic failure of the last of many members leaves the whole tree as it was")
def test_roll_back_on_the_real_tree(syntax: str) -> None:
    tree, machines, _ = make_tree()
    before = snapshot(tree)
    members = [
        command("Add", "6", "./Machines/n", data="", meta=metinf(Format="node")),
        command("Add", "7", "./Machines/n/Note", data="x"),
        command("Replace", "8", "./Machines/m/Price", data="9", meta=INT),
        command("Replace", "9", "./Machines/m?prop=ACL", data="Get=*&amp;Replace=*"),
        command("Replace", "10", "./Machines/m?prop=Name", data="renamed"),
        command("Delete", "11", "./Machines/n"),
        command("Delete", "12", "./Machines/nothing"),
    ]
    answer = Board(syntax, tree).ask(atomic(*members))
    assert [code for _, code in codes(answer)[1:]] == ["507"] + ["216"] * 6 + ["404"]
    assert snapshot(tree) == before
    assert machines.told == []


@rule("Protocol: Atomic", "what a management object had accepted is taken back from it")
def test_mo_is_undone(syntax: str) -> None:
    tree, machines, _ = make_tree()
    machines.veto["Machines", "m", "Label"] = DMError(Status.FORBIDDEN, "no")
    answer = Board(syntax, tree).ask(
        atomic(
            command("Replace", "6", "./Machines/m/Price", data="9", meta=INT),
            command("Replace", "7", "./Machines/m/Label", data="x"),
        )
    )
    assert codes(answer)[1:] == [("Atomic", "507"), ("Replace", "216"), ("Replace", "403")]
    assert [change.path[-1] for change in machines.undone] == ["Price"]


# ---- Sequence ----------------------------------------------------------------------------------------------------


@rule("Protocol: Sequence", "200 as soon as it begins, and a failing member does not end it")
def test_sequence_goes_on(syntax: str) -> None:
    tree = leaves(a="1")
    answer = Board(syntax, tree).ask(sequence(command("Delete", "6", "./missing"), command("Delete", "7", "./a")))
    assert codes(answer)[1:] == [("Sequence", "200"), ("Delete", "404"), ("Delete", "200")]


@rule("Protocol: Sequence", "members are executed in their order")
def test_sequence_order(syntax: str) -> None:
    tree = leaves(a="1")
    Board(syntax, tree).ask(sequence(*(command("Get", str(6 + n), f"./{n}") for n in range(20))))
    assert tree.calls == [("Get", f"./{n}") for n in range(20)]


@rule("Protocol: Sequence", "Get and Exec inside are allowed, Results follow their Status")
def test_get_in_sequence(syntax: str) -> None:
    answer = Board(syntax, leaves(a="1")).ask(sequence(command("Get", "6", "./a"), command("Exec", "7", "./op")))
    body = answer.find("SyncBody")
    assert body is not None
    assert [element.tag for element in body] == ["Status", "Status", "Status", "Results", "Status", "Final"]


@rule("Protocol: Sequence", "Atomic inside is allowed")
def test_atomic_in_sequence(syntax: str) -> None:
    inner = f"<Atomic><CmdID>6</CmdID>{command('Delete', '7', './a')}</Atomic>"
    answer = Board(syntax, leaves(a="1")).ask(sequence(inner))
    assert codes(answer)[1:] == [("Sequence", "200"), ("Atomic", "200"), ("Delete", "200")]


@rule("Protocol: Sequence", "an empty one: 200")
def test_empty_sequence(syntax: str) -> None:
    assert codes(Board(syntax).ask(sequence()))[1:] == [("Sequence", "200")]


@rule("Protocol: Sequence", "the user says no to 1101: 304, the later members 215, the rest of the message goes on")
def test_user_refuses_in_sequence(syntax: str) -> None:
    tree = leaves(a="1", b="1")
    board = Board(syntax, tree, ui=User(Outcome.REJECTED))
    answer = board.ask(sequence(CONFIRM.format(6), command("Delete", "7", "./a")) + command("Delete", "8", "./b"))
    assert codes(answer)[1:] == [("Sequence", "200"), ("Alert", "304"), ("Delete", "215"), ("Delete", "200")]
    assert set(tree.leaves) == {"./a"}


@cases(
    "Protocol: Sequence",
    "outcome,code",
    [
        ("the user cancels: 214, everything after it in the message 215", Outcome.CANCELLED, "214"),
        ("the user does not answer in time: 408, everything after it in the message 215", Outcome.TIMED_OUT, "408"),
    ],
)
def test_user_stops_the_message(outcome: Outcome, code: str, syntax: str) -> None:
    tree = leaves(a="1", b="1")
    board = Board(syntax, tree, ui=User(outcome))
    answer = board.ask(
        sequence(CONFIRM.format(6), command("Delete", "7", "./a"))
        + atomic(command("Delete", "8", "./b")).replace("5<", "9<", 1)
    )
    assert codes(answer)[1:] == [
        ("Sequence", "200"),
        ("Alert", code),
        ("Delete", "215"),
        ("Atomic", "215"),
        ("Delete", "215"),
    ]
    assert set(tree.leaves) == {"./a", "./b"}


@rule("Protocol: Sequence", "an abort by the user ends with its message: the next one is executed")
def test_next_message_after_cancel(syntax: str) -> None:
    tree = leaves(a="1")
    board = Board(syntax, tree, ui=User(Outcome.CANCELLED))
    board.ask(CONFIRM.format(6))
    assert code_of(board.ask(command("Delete", "7", "./a")), "7") == "200"


@rule("Protocol: Sequence", "nesting beyond reason is refused as malformed")
def test_deep_nesting(syntax: str) -> None:
    board = Board("xml")
    board.start()
    nested = "<Sequence><CmdID>5</CmdID>" * 50 + "</Sequence>" * 50
    assert board.say(nested) is None
    assert board.session.outcome is not None


@rule(
    "Protocol: user interaction in SyncBody", "no to 1101 outside Sequence and Atomic has no effect on other commands"
)
def test_confirm_alone(syntax: str) -> None:
    board = Board(syntax, leaves(a="1"), ui=User(Outcome.REJECTED))
    answer = board.ask(CONFIRM.format(6) + command("Delete", "7", "./a"))
    assert codes(answer)[1:] == [("Alert", "304"), ("Delete", "200")]


@rule("Protocol: user interaction in SyncBody", "a display in a Sequence does not end it")
def test_display_in_sequence(syntax: str) -> None:
    board = Board(syntax, leaves(a="1"), ui=User())
    answer = board.ask(sequence(DISPLAY.format(6), command("Delete", "7", "./a")))
    assert codes(answer)[1:] == [("Sequence", "200"), ("Alert", "200"), ("Delete", "200")]
