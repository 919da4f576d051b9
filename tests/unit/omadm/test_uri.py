"""URIs of nodes: syntax, limits, queries, names (digest 7.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.omadm.status import DMError, Status
from dom0_agent.omadm.uri import DmUri, UriLimits, check_name, format_path, parse_path, parse_uri


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (".", ()),
        ("A", ("A",)),
        ("./A", ("A",)),
        ("./A/B", ("A", "B")),
        ("A/B", ("A", "B")),
        ("./A/b%20c", ("A", "b c")),
        ("./A/%C3%BC", ("A", "ü")),
        ("./A/ü", ("A", "ü")),
        ("./a.b-c_d~e/x@y:z&u=v+w$,", ("a.b-c_d~e", "x@y:z&u=v+w$,")),
        ("./A/ends.", ("A", "ends.")),
        ("./A/...", ("A", "...")),
        ("./A/%41", ("A", "A")),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "./",
        "/A",
        "./A/",
        "A//B",
        "./A/../B",
        "..",
        "./.",
        "././A",
        "A/./B",
        "./A/*",
        "*",
        "A B",
        "A\\B",
        "A#B",
        "A%2",
        "A%zz",
        "A%2FB",
        "A%00",
        "A\x00",
        "A\nB",
        "A/%2E%2E/B",
        "A/%2A",
        "A%ff",
        "A?B?prop=ACL/..",
        "A\x85",
    ],
)
def test_bad_syntax_is_404_or_406(text: str) -> None:
    with pytest.raises(DMError) as caught:
        parse_path(text)
    assert caught.value.status in (Status.NOT_FOUND, Status.NOT_SUPPORTED)
    assert (caught.value.status == Status.NOT_SUPPORTED) == ("?" in text)


def test_queries() -> None:
    assert parse_uri("./A?prop=ACL") == DmUri(("A",), prop="ACL")
    assert parse_uri(".?list=Struct") == DmUri((), list="Struct")
    assert parse_uri("A?list=TNDS+Value+ACL") == DmUri(("A",), list="TNDS+Value+ACL")
    for bad in ("A?", "A?prop", "A?prop=", "A?list=", "A?other=1"):
        with pytest.raises(DMError) as caught:
            parse_uri(bad)
        assert caught.value.status == Status.NOT_SUPPORTED
    with pytest.raises(DMError) as caught:
        parse_path("A?prop=ACL")
    assert caught.value.status == Status.NOT_FOUND


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("./a/b/c", True),
        ("./a/b/c/d", False),
        ("./12345/x", True),
        ("./123456/x", False),
        ("./üüüüü", True),  # characters, not octets
        ("./%C3%BC", True),
        ("./a?prop=1234567890", True),
        ("./a?prop=12345678901", False),  # total length includes the query
    ],
)
def test_limits_are_414(text: str, fits: bool) -> None:
    limits = UriLimits(max_depth=3, max_total_length=19, max_segment_length=5)
    if fits:
        assert parse_uri(text, limits).path
    else:
        with pytest.raises(DMError) as caught:
            parse_uri(text, limits)
        assert caught.value.status == Status.URI_TOO_LONG


def test_zero_is_no_limit() -> None:
    long = "/".join(["x" * 300] * 40)
    assert len(parse_path(long, UriLimits(0, 0, 0))) == 40


@pytest.mark.parametrize("name", ["", ".", "..", "*", "a/b", "a\x00", "\n", "a\x9f"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(DMError) as caught:
        check_name(name)
    assert caught.value.status == Status.NOT_ALLOWED


def test_name_too_long() -> None:
    with pytest.raises(DMError) as caught:
        check_name("x" * 6, UriLimits(max_segment_length=5))
    assert caught.value.status == Status.URI_TOO_LONG


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_what_is_formatted_is_parsed_back(names: list[str]) -> None:
    path = tuple(names)
    try:
        for name in path:
            check_name(name)
            name.encode()
    except (DMError, UnicodeEncodeError):
        return
    assert parse_path(format_path(path)) == path
    assert format_path(path).isascii()


@given(st.text(max_size=40))
def test_only_dm_errors_escape_and_paths_are_stable(text: str) -> None:
    try:
        path = parse_uri(text).path
    except DMError:
        return
    if text.isascii():
        assert parse_path(format_path(path)) == path
