"""The one exception by which services refuse a request of an operator; the API renders it as RFC 9457 problem+json."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """``status`` is the HTTP status, ``code`` a stable word for programs, the message a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def not_found(what: str, name: object, hint: str = "") -> Problem:
    """404 for a thing that the operator named."""
    return Problem(404, "not-found", f"there is no {what} {name!r}{': ' + hint if hint else ''}")


def conflict(message: str) -> Problem:
    """409: the request does not fit the present state."""
    return Problem(409, "conflict", message)
