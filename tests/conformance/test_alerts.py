"""Alerts: user interaction with all options and outcomes, generic alerts, client events, reserved codes."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.alerts import AlertCode, normal_alert_type
from dom0_agent.omadm.client import PendingAlert
from dom0_agent.omadm.interaction import MAX_CHOICES, Answer, InputType, Outcome, Question, question_from
from dom0_agent.omadm.status import DMError, Status
from tests.conformance.dm_bytes import Board, Desk, codes, header_status, texts
from tests.conformance.rules import cases, rule
from tests.unit.omadm.dm_pair import Application


class User:
    """Gives one answer to everything, and remembers the question."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Question] = []

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return self.answer


def ui_alert(code: int, *items: str, cmd_id: str = "5") -> str:
    inner = "".join(f"<Item><Data>{data}</Data></Item>" for data in items)
    return f"<Alert><CmdID>{cmd_id}</CmdID><Data>{code}</Data>{inner}</Alert>"


def question(code: int, *texts_: str) -> Question:
    return question_from(c.Alert("1", code, tuple(c.Item(data=text) for text in texts_)))


# ---- options -----------------------------------------------------------------------------------------------------


@cases(
    "Alerts: options",
    "code,options,field,value",
    [
        ("MINDT is seconds of display", 1100, "MINDT=10", "min_display", 10),
        ("MAXDT is seconds to wait", 1101, "MAXDT=20", "max_display", 20),
        ("several options are joined by ampersands", 1101, "MINDT=1&MAXDT=20", "max_display", 20),
        ("DR is the default of a confirmation", 1101, "DR=1", "default", "1"),
        ("DR is the default text of an input", 1102, "DR=John+Doe", "default", "John Doe"),
        ("DR is the default of a choice", 1103, "DR=2", "default_choices", (2,)),
        ("DR of a multiple choice is separated by minus", 1104, "DR=1-2", "default_choices", (1, 2)),
        ("DR of a choice that does not exist is skipped", 1104, "DR=2-9", "default_choices", (2,)),
        ("DR is ignored for a display", 1100, "DR=1", "default", None),
        ("MAXLEN limits a text input", 1102, "MAXLEN=30", "max_length", 30),
        ("MAXLEN is ignored elsewhere", 1101, "MAXLEN=30", "max_length", None),
        ("IT=A is alphanumeric", 1102, "IT=A", "input_type", InputType.ALPHANUMERIC),
        ("IT=N is numeric", 1102, "IT=N", "input_type", InputType.NUMERIC),
        ("IT=D is a date", 1102, "IT=D", "input_type", InputType.DATE),
        ("IT=T is a time", 1102, "IT=T", "input_type", InputType.TIME),
        ("IT=P is a phone number", 1102, "IT=P", "input_type", InputType.PHONE),
        ("IT=I is an IP address", 1102, "IT=I", "input_type", InputType.IP_ADDRESS),
        ("IT missing is alphanumeric", 1102, "", "input_type", InputType.ALPHANUMERIC),
        ("IT unknown is alphanumeric", 1102, "IT=Z", "input_type", InputType.ALPHANUMERIC),
        ("ET=P masks the input", 1102, "ET=P", "masked", True),
        ("ET=T shows the input", 1102, "ET=T", "masked", False),
        ("ET missing shows the input", 1102, "", "masked", False),
        ("ET is ignored elsewhere", 1101, "ET=P", "masked", False),
        ("an unknown option is skipped", 1101, "XX=1&MAXDT=5", "max_display", 5),
        ("an option without a value is skipped", 1101, "MINDT&MAXDT=5", "max_display", 5),
        ("a number that is none is skipped", 1101, "MAXDT=soon", "max_display", None),
        ("zero seconds are skipped", 1101, "MAXDT=0", "max_display", None),
        ("percent-encoding is decoded", 1102, "DR=a%26b%3Dc", "default", "a&b=c"),
        ("an hour is the longest wait", 1101, "MAXDT=999999", "max_display", 3600),
    ],
)
def test_options(code: int, options: str, field: str, value: object) -> None:
    assert getattr(question(code, options, "text", "one", "two"), field) == value


@rule("Alerts: options", "the options' Item may be empty")
def test_empty_options_item(syntax: str) -> None:
    user = User(Answer(Outcome.ANSWERED))
    Board(syntax, ui=user).ask("<Alert><CmdID>5</CmdID><Data>1100</Data><Item/><Item><Data>Hi</Data></Item></Alert>")
    assert user.asked == [Question(AlertCode.DISPLAY, "Hi")]


# ---- outcomes ----------------------------------------------------------------------------------------------------


@cases(
    "Alerts: outcomes",
    "code,answer,status,data",
    [
        ("1100 shown: 200", 1100, Answer(Outcome.ANSWERED), "200", []),
        ("1101 yes: 200", 1101, Answer(Outcome.ANSWERED), "200", []),
        ("1101 no: 304", 1101, Answer(Outcome.REJECTED), "304", []),
        ("1102 answered: 200 and the text in an Item", 1102, Answer(Outcome.ANSWERED, text="abc"), "200", ["abc"]),
        ("1102 answered with nothing: 200 and an empty Item", 1102, Answer(Outcome.ANSWERED), "200", [""]),
        ("1103 answered: 200 and the index from 1", 1103, Answer(Outcome.ANSWERED, selected=(2,)), "200", ["2"]),
        (
            "1104 answered: 200 and an Item per index",
            1104,
            Answer(Outcome.ANSWERED, selected=(1, 2)),
            "200",
            ["1", "2"],
        ),
        ("1104 answered with nothing: 200, no Items", 1104, Answer(Outcome.ANSWERED), "200", []),
        ("cancelled: 214, no Items", 1102, Answer(Outcome.CANCELLED, text="abc"), "214", []),
        ("no answer in time: 408, no Items", 1103, Answer(Outcome.TIMED_OUT, selected=(1,)), "408", []),
        ("cannot be displayed: 416", 1103, Answer(Outcome.NOT_DISPLAYABLE), "416", []),
    ],
)
def test_outcomes(code: int, answer: Answer, status: str, data: list[str], syntax: str) -> None:
    root = Board(syntax, ui=User(answer)).ask(ui_alert(code, "", "text", "one", "two"))
    assert codes(root)[1:] == [("Alert", status)]
    assert texts(root, "SyncBody/Status[Cmd='Alert']/Item/Data") == data


@cases(
    "Alerts: malformed questions",
    "code,items,status",
    [
        ("no Items: 412", 1101, (), Status.INCOMPLETE),
        ("options without a text: 412", 1101, ("",), Status.INCOMPLETE),
        ("a choice without choices: 412", 1103, ("", "text"), Status.INCOMPLETE),
        ("a multiple choice without choices: 412", 1104, ("", "text"), Status.INCOMPLETE),
        ("too many choices: 416", 1103, ("", "text", *["x"] * (MAX_CHOICES + 1)), Status.SIZE_TOO_BIG),
        ("a text too long to show: 416", 1100, ("", "x" * 5000), Status.SIZE_TOO_BIG),
    ],
)
def test_malformed_questions(code: int, items: tuple[str, ...], status: int) -> None:
    with pytest.raises(DMError) as caught:
        question(code, *items)
    assert caught.value.status == status


@rule("Alerts: user interaction", "without a user interface: 406")
def test_no_user_interface(syntax: str) -> None:
    """A-44."""
    assert codes(Board(syntax).ask(ui_alert(1100, "", "text")))[1:] == [("Alert", "406")]


@rule("Alerts: user interaction", "the choices are shown in their order")
def test_choices(syntax: str) -> None:
    user = User(Answer(Outcome.ANSWERED, selected=(1,)))
    Board(syntax, ui=user).ask(ui_alert(1103, "", "Which?", "one", "two", "three"))
    assert user.asked == [Question(AlertCode.SINGLE_CHOICE, "Which?", ("one", "two", "three"))]


@cases(
    "Alerts: codes",
    "code",
    [
        (f"{code} from a server is answered 406: {why}", code)
        for code, why in (
            (1105, "reserved"),
            (1199, "reserved"),
            (1202, "reserved"),
            (1226, "client to server only"),
            (1999, "not defined"),
        )
    ],
)
def test_unsupported_codes(code: int, syntax: str) -> None:
    assert codes(Board(syntax).ask(ui_alert(code)))[1:] == [("Alert", "406")]


@cases(
    "Alerts: codes",
    "data",
    [
        ("an Alert without Data is answered 412", ""),
        ("an Alert whose Data is no number is answered 412", "<Data>soon</Data>"),
    ],
)
def test_alert_without_code(data: str, syntax: str) -> None:
    assert codes(Board(syntax).ask(f"<Alert><CmdID>5</CmdID>{data}</Alert>"))[1:] == [("Alert", "412")]


@rule("Alerts: codes", "1223 and 1222 are not answered as user interaction")
def test_1222_is_ok(syntax: str) -> None:
    assert codes(Board(syntax).ask(ui_alert(1222)))[1:] == [("Alert", "200")]


# ---- generic alerts ----------------------------------------------------------------------------------------------

READY = c.Alert(
    code=1226,
    correlator="abc",
    items=(
        c.Item(
            source="./VMImgMO/a/Operations/Download",
            meta=c.Meta("xml", "urn:oma:at:oma-virmo:imageready:1.0", "informational"),
            data="",
        ),
    ),
)


@cases(
    "Alerts: generic alert",
    "path,value",
    [
        ("Data is 1226", "Data", "1226"),
        ("the Correlator is the Exec's", "Correlator", "abc"),
        ("Source is the node that it is about", "Item/Source/LocURI", "./VMImgMO/a/Operations/Download"),
        ("Type is in Meta", "Item/Meta/Type", "urn:oma:at:oma-virmo:imageready:1.0"),
        ("Format is in Meta", "Item/Meta/Format", "xml"),
        ("Mark is in Meta", "Item/Meta/Mark", "informational"),
        ("Data is there even when it is empty", "Item/Data", ""),
    ],
)
def test_generic_alert(path: str, value: str, syntax: str) -> None:
    root = Board(syntax, alerts=[PendingAlert("a", READY)]).start()
    assert texts(root, f"SyncBody/Alert[Data='1226']/{path}") == [value]


@cases(
    "Alerts: generic alert",
    "code,acknowledged",
    [
        ("200 of the server: it may be forgotten", 200, ["a"]),
        ("202 of the server: it may be forgotten", 202, ["a"]),
        ("415 of the server: it is kept", 415, []),
        ("500 of the server: it is kept", 500, []),
    ],
)
def test_acknowledgement(code: int, acknowledged: list[str], syntax: str) -> None:
    board = Board(syntax, alerts=[PendingAlert("a", READY)])
    root = board.start()
    cmd_id = texts(root, "SyncBody/Alert[Data='1226']/CmdID")[0]
    board.say(
        f"<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>{cmd_id}</CmdRef><Cmd>Alert</Cmd><Data>{code}</Data></Status>"
    )
    assert board.session.acknowledged == acknowledged
    assert board.session.alert_statuses == {"a": code}


@cases(
    "Alerts: generic alert",
    "text",
    [
        ("Type as a plain URN", "urn:oma:at:oma-virmo:imageready:1.0"),
        ("Type with Reversed-Domain-Name:", "Reversed-Domain-Name: urn:oma:at:oma-virmo:imageready:1.0"),
        ("Type with line breaks", "\n  Reversed-Domain-Name:\n  urn:oma:at:oma-virmo:imageready:1.0 "),
        ("Type in other case", "URN:OMA:at:oma-virmo:ImageReady:1.0"),
    ],
)
def test_alert_types(text: str) -> None:
    assert normal_alert_type(text) == "urn:oma:at:oma-virmo:imageready:1.0"


def _generic(items: str = "<Item><Data>x</Data></Item>", code: int = 1226) -> str:
    return f"<Alert><CmdID>9</CmdID><Data>{code}</Data><Correlator>abc</Correlator>{items}</Alert>"


@cases(
    "Alerts: at the server",
    "code",
    [
        ("1224 client event reaches the application", 1224),
        ("1226 generic alert reaches the application", 1226),
        ("1200 reaches the application", 1200),
    ],
)
def test_server_hears_alerts(code: int, syntax: str) -> None:
    desk = Desk(syntax)
    root = desk.open(_generic(code=code))
    assert [alert.code for alert in desk.application.alerts] == [1201, code]
    assert ("Alert", "200") in codes(root)


@rule("Alerts: at the server", "the application's status is the answer")
def test_server_refuses_alert(syntax: str) -> None:
    application = Application()
    application.alert_status = 415
    root = Desk(syntax, application).open(_generic())
    assert texts(root, "SyncBody/Status[CmdRef='9']/Data") == ["415"]


@rule("Alerts: at the server", "correlator and Items arrive as they were sent")
def test_server_gets_correlator(syntax: str) -> None:
    desk = Desk(syntax)
    desk.open(_generic())
    assert desk.application.alerts[1].correlator == "abc"
    assert desk.application.alerts[1].items[0].data == "x"


@rule("Alerts: at the server", "a user interaction alert from a device is refused and does not reach the application")
def test_server_ignores_user_interaction(syntax: str) -> None:
    desk = Desk(syntax)
    root = desk.open(ui_alert(1101, "", "text", cmd_id="9"))
    assert texts(root, "SyncBody/Status[CmdRef='9']/Data") == ["406"]
    assert [alert.code for alert in desk.application.alerts] == [1201]


@rule("Alerts: at the server", "an alert in package 3 is heard and answered")
def test_alert_in_package_3(syntax: str) -> None:
    desk = Desk(syntax, Application([c.Get(items=(c.Item("./X"),))]))
    desk.open()
    status = "<Status><CmdID>2</CmdID><MsgRef>1</MsgRef><CmdRef>4</CmdRef><Cmd>Get</Cmd><Data>404</Data></Status>"
    root = desk.say(header_status(1) + status + _generic())
    assert texts(root, "SyncBody/Status[CmdRef='9']/Data") == ["200"]
