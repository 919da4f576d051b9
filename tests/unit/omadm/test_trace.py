"""Messages as lines for people."""

from __future__ import annotations

import pytest

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.trace import lines_of, trace_lines
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.dm_pair import Application, LeafTree, Pair
from tests.unit.omadm.messages import MESSAGES


def body_lines(*body: c.BodyElement) -> list[str]:
    return list(lines_of(c.Message(c.SyncHdr("1F", 2, "t", "s"), body)))[1:]


def test_the_heading_names_session_message_and_ends() -> None:
    message = c.Message(c.SyncHdr("1F", 2, "https://s", "urn:d", meta=c.Meta(max_msg_size=5000)), (), final=False)
    assert list(lines_of(message)) == ["session 1F message 2  urn:d -> https://s  max 5000  more follows"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (c.Get("4", (c.Item("./VirMO"),)), "  #4   Get      ./VirMO"),
        (
            c.Exec("4", (c.Item("./op", data="fast"),), correlator="abc"),
            "  #4   Exec     ./op = 'fast'  correlator abc",
        ),
        (c.Copy("4", (c.Item("./b", "./a"),)), "  #4   Copy     ./a -> ./b"),
        (c.Add("4", (c.Item("./n", meta=c.Meta("node"), data=""),)), "  #4   Add      ./n <node> = ''"),
        (c.Add("4", (c.Item("./n", data=b"12345"),)), "  #4   Add      ./n = 5 octets"),
        (c.Alert("4", 1201), "  #4   Alert    1201 CLIENT_INITIATED"),
        (c.Alert("4", 1999), "  #4   Alert    1999 ?"),
        (c.Status("4", 2, "5", "Get", 404, ("./x",)), "  #4   Status   404 NOT_FOUND  for Get 2/5  ./x"),
        (c.Status("4", 2, "5", "Exec", 1404), "  #4   Status   1404   for Exec 2/5"),
        (c.Results("4", 2, "5", (c.Item(source="./x", data="1"),)), "  #4   Results  for 2/5  ./x = '1'"),
        (c.UnknownCommand("4", "Put"), "  #4   Put"),
        (c.Get("", ()), "  #?   Get"),
    ],
)
def test_a_line_per_command(command: c.BodyElement, line: str) -> None:
    assert body_lines(command) == [line]


def test_members_are_indented_below_their_container() -> None:
    lines = body_lines(
        c.Sequence("4", (c.Get("5", (c.Item("./a"),)), c.Atomic("6", (c.Delete("7", (c.Item("./b"),)),))))
    )
    assert lines == ["  #4   Sequence", "      #5   Get      ./a", "      #6   Atomic", "          #7   Delete   ./b"]


def test_secrets_never_appear() -> None:
    pair = Pair(LeafTree({"./X": "1"}))
    pair.run(Application([c.Add(items=(c.Item("./DMAcc/a/AppAuth/c/AAuthSecret", data="hunter2"),))]))
    text = "\n".join(line for body in pair.bodies for line in trace_lines(pair.codec, body))
    assert "credentials md5" in text
    assert "asks for md5" in text
    assert "AAuthSecret = ***" in text
    for secret in ("hunter2", "nonce000", "OhBehave"):
        assert secret not in text


def test_long_values_are_cut_and_control_characters_cannot_move_a_cursor() -> None:
    [line] = body_lines(c.Add("4", (c.Item("./n\x1b[2J", data="x" * 500),)))
    assert len(line) < 140
    assert "\x1b" not in line


def test_what_is_no_message_is_said_to_be_so() -> None:
    [line] = trace_lines(XmlCodec(), b"<html/>")
    assert line.startswith("7 octets that are no message")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_can_be_shown(name: str) -> None:
    message = MESSAGES[name]
    assert len(list(lines_of(message))) == 1 + len(list(c.walk(message.body)))
