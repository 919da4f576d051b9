"""ACL values: syntax, grants, the automatic ACL of added nodes (digest 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.omadm.acl import COMMANDS, MAX_LENGTH, Acl, AclSyntaxError, automatic_acl, parse_acl
from dom0_agent.omadm.node import Command


def test_grants() -> None:
    acl = parse_acl("Get=*&Replace=a+b&Add=a")
    assert acl.grants(Command.GET, "anybody")
    assert acl.grants(Command.REPLACE, "b")
    assert not acl.grants(Command.REPLACE, "c")
    assert not acl.grants(Command.DELETE, "a")
    assert not parse_acl("").grants(Command.GET, "a")


def test_star_overrides_other_ids() -> None:
    assert parse_acl("Get=a+*") == parse_acl("Get=*")
    assert str(parse_acl("Get=a+*")) == "Get=*"


@pytest.mark.parametrize(
    "text",
    [
        "Get",
        "Get=",
        "Get=a+",
        "Get=+a",
        "Get=a&",
        "&Get=a",
        "Copy=a",
        "get=a",
        "Get=a&Get=b",
        "Get=a b",
        "Get= a",
        "Get=a=b",
        "Get=a*",
        "Get=a\n",
        "x" * (MAX_LENGTH + 1),
    ],
)
def test_bad_syntax(text: str) -> None:
    with pytest.raises(AclSyntaxError):
        parse_acl(text)


def test_automatic_acl_keeps_what_the_parent_grants() -> None:
    """The trap of 7.4: an own value ends inheritance, so Get (and Exec) are copied."""
    acl = automatic_acl("srv", parse_acl("Add=*&Get=*&Exec=a"))
    assert str(acl) == "Add=srv&Delete=srv&Exec=a&Get=*&Replace=srv"
    assert str(automatic_acl("srv", parse_acl("Add=*"))) == "Add=srv&Delete=srv&Replace=srv"


def test_without_a_server() -> None:
    assert str(parse_acl("Add=a&Get=a+b&Replace=*").without("a")) == "Get=b&Replace=*"


_ids = st.text(st.characters(codec="utf-8", exclude_characters="=&*+ "), min_size=1, max_size=6).filter(str.isprintable)
_acls = st.dictionaries(st.sampled_from(COMMANDS), st.frozensets(st.one_of(_ids, st.just("*")), max_size=4))


@given(_acls)
def test_text_round_trip(entries: dict[Command, frozenset[str]]) -> None:
    acl = Acl(entries)
    assert parse_acl(str(acl)) == acl
    assert hash(parse_acl(str(acl))) == hash(acl)


@given(st.text(max_size=60))
def test_only_syntax_errors_escape(text: str) -> None:
    try:
        acl = parse_acl(text)
    except AclSyntaxError:
        return
    assert parse_acl(str(acl)) == acl
