"""DownloadURIs: which may be followed, how a redirect resolves, and how one is shown without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from dom0_agent.images.errors import LoaderError

#: longer ones are not refused by any rule of HTTP, but by most servers
MAX_URL = 8000
#: a name (after IDNA, which maps some characters to a space), or an IPv6 address with its zone
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?", re.ASCII)
_PORTS = {"http": 80, "https": 443}


class BadUrl(LoaderError):  # noqa: N818
    """Not an absolute http or https URL (A-39)."""


@dataclass(frozen=True, slots=True)
class Url:
    """An http(s) URL that may be requested."""

    scheme: str  #: http or https
    host: str  #: ASCII, without brackets
    port: int
    target: str  #: path and query, as the request line has it
    user: str | None = None
    password: str = ""

    @property
    def authority(self) -> str:
        """Host and, when it is not the scheme's own, port: the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL without credentials, as a proxy or a redirect wants it. May hold secrets in its query."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def full(self) -> str:
        """The URL with its credentials, to be parsed again. Never for logs."""
        if self.user is None:
            return self.text
        secret = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return self.text.replace("://", f"://{secret}", 1)

    def __str__(self) -> str:
        """For people and logs: no credentials, no query."""
        path, mark, _ = self.target.partition("?")
        return f"{self.scheme}://{self.authority}{path}{mark and '?…'}"


def parse_url(untrusted_text: str) -> Url:
    """The URL in ``untrusted_text``; its fragment is dropped.

    :raises BadUrl: it is not an absolute http(s) URL
    """
    text = untrusted_text.strip()
    if not text or len(text) > MAX_URL or not text.isprintable() or " " in text:
        raise BadUrl("the URL is empty, too long, or has characters that no URL has")
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii") if ":" not in (parts.hostname or "") else None
    except (ValueError, UnicodeError) as error:
        raise BadUrl("the URL's host or port is not valid") from error
    if parts.scheme not in _PORTS:
        raise BadUrl(f"only http and https URLs are followed, not {parts.scheme[:20] or 'a relative URL'}:")
    host = parts.hostname if host is None else host
    if not host or port == 0 or not _HOST.fullmatch(host):
        raise BadUrl("the URL has no valid host")
    return Url(
        scheme=parts.scheme,
        host=host,
        port=port or _PORTS[parts.scheme],
        target=urlunsplit(("", "", _quoted(parts.path) or "/", _quoted(parts.query), "")),
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


def resolve(base: Url, untrusted_reference: str) -> Url:
    """The URL that ``untrusted_reference``, found in what came from ``base``, means.

    :raises BadUrl: it is not http(s), or would leave https for unprotected http
    """
    try:
        target = parse_url(urljoin(base.text, untrusted_reference.strip()))
    except ValueError as error:
        raise BadUrl("the URL cannot be joined to the one before it") from error
    if base.scheme == "https" and target.scheme == "http":
        raise BadUrl(f"{target} is unprotected, {base} was not")
    return target


def redirect(url: Url, untrusted_location: str | None) -> Url:
    """Where ``url`` is redirected to. :raises LoaderError: there is no Location that may be followed"""
    if not untrusted_location:
        raise LoaderError(f"{url} redirects to nowhere (no Location)")
    try:
        return resolve(url, untrusted_location)
    except BadUrl as error:
        raise LoaderError(f"{url} redirects to where it must not lead: {error}") from error


def _quoted(text: str) -> str:
    """Percent-encode what may not stand in a request line; what is encoded already stays as it is."""
    return quote(text, safe="/%:=&?~#+!$,;'@()*[]-._")
