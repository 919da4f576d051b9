"""URLs: what is followed, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0_agent.images.errors import LoaderError
from dom0_agent.images.urls import BadUrl, Url, parse_url, redirect, resolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h/a", Url("http", "h", 80, "/a")),
        ("HTTPS://H", Url("https", "h", 443, "/")),
        ("http://h:8080/a?b=c#d", Url("http", "h", 8080, "/a?b=c")),
        ("http://u%40x:p%3Aw@h/", Url("http", "h", 80, "/", "u@x", "p:w")),
        ("http://[::1]:81/x", Url("http", "::1", 81, "/x")),
        ("http://bücher.example/ä", Url("http", "xn--bcher-kva.example", 80, "/%C3%A4")),
        ("http://h/%41%2f", Url("http", "h", 80, "/%41%2f")),
        ("http://h?q", Url("http", "h", 80, "/?q")),
    ],
)
def test_valid(text: str, expected: Url) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "h/a", "/a", "//h/a", "file:///a", "ftp://h", "javascript:x", "http:", "http://", "http://:80/"),
        *("http://h:x/", "http://h:99999/", "http://h:0/", "http://a b", "http://h/a\r\nX: y", "http://h/\x00"),
        *("http://[::1", "http://" + "a" * 70, "http://h/" + "a" * 9000),
    ],
)
def test_invalid(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_url(text)


def test_shown_without_secrets() -> None:
    url = parse_url("https://user:hunter2@h:444/a/b?token=hunter3#hunter4")
    assert str(url) == "https://h:444/a/b?…"
    assert "hunter" not in str(url) and "hunter2" not in url.text
    assert parse_url(url.full) == url
    assert str(parse_url("http://[::1]:81/x")) == "http://[::1]:81/x"


def test_redirects() -> None:
    base = parse_url("https://h/a/b")
    assert str(redirect(base, "../c")) == "https://h/c"
    assert str(redirect(base, "//other:8443/x")) == "https://other:8443/x"
    for location in (None, "", "http://h/plain", "file:///x", "http://["):
        with pytest.raises(LoaderError):
            redirect(base, location)
    assert str(resolve(parse_url("http://h/d/x.dd"), "y.img")) == "http://h/d/y.img"


@given(st.text(max_size=60) | st.from_regex(r"http://[\x00-\xff]{1,30}", fullmatch=True))
def test_any_text(text: str) -> None:
    """A URL whose request line is one line of ASCII, or the package's own error."""
    try:
        url = parse_url(text)
    except BadUrl:
        return
    for part in (url.target, url.host, url.text):
        assert part.isascii() and part.isprintable() and " " not in part
