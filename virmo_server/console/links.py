"""Paths of the console's pages. Every name that goes into one is quoted here."""

from __future__ import annotations

from urllib.parse import quote, urlencode

PREFIX = "/console"
HOME = f"{PREFIX}/devices"
LOGIN = f"{PREFIX}/login"


def url(*segments: object, **query: object) -> str:
    """``url("devices", "a b", uri="./X")`` → ``/console/devices/a%20b?uri=.%2FX``; empty query values are left out."""
    path = "/".join([PREFIX, *(quote(str(segment), safe="") for segment in segments)])
    asked = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(asked)}" if asked else path


def own_path(untrusted_path: str) -> str:
    """The path if it leads into the console, its first page otherwise: a log-in sends nobody to another site."""
    is_ours = untrusted_path.startswith(f"{PREFIX}/") and not untrusted_path.startswith(LOGIN)
    return untrusted_path if is_ours and untrusted_path.isascii() and "\\" not in untrusted_path else HOME
