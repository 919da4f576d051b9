"""Who is logged in: a cookie that only this server can read or make, so that every worker process knows it.

The cookie holds the operator's key to the API (of a log-in, or an API token), sealed by the vault, and the secret that
forms must repeat (CSRF). The key is checked at every request: one that is void ends its sessions. Knows no HTTP.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from virmo_server.operators import LOGIN_LIFETIME
from virmo_server.vault import Vault, VaultError

#: As long as a log-in; who came with an API token begins anew then, too.
LIFETIME = LOGIN_LIFETIME
#: Ours are a quarter of it; what is longer is not even decrypted.
MAX_COOKIE_CHARS = 4096


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """``csrf`` is repeated by every form; ``token`` is ``None`` until somebody logs in."""

    csrf: str
    issued_at: datetime
    token: str | None = None


def new_session(now: datetime, token: str | None = None) -> ConsoleSession:
    """A session with a CSRF secret of its own: logging in changes it, so that nobody can have planted it before."""
    return ConsoleSession(secrets.token_urlsafe(24), now, token)


def seal(vault: Vault, session: ConsoleSession) -> str:
    """The cookie's value."""
    content = {"csrf": session.csrf, "at": int(session.issued_at.timestamp()), "token": session.token}
    return vault.seal(json.dumps({"console": content}))


def unseal(vault: Vault, untrusted_cookie: str | None, now: datetime) -> ConsoleSession | None:
    """The session; ``None`` for no cookie, an old one, or one that is not ours."""
    if not untrusted_cookie or len(untrusted_cookie) > MAX_COOKIE_CHARS or not untrusted_cookie.isascii():
        return None
    try:
        sealed = vault.open(untrusted_cookie)
    except VaultError:
        return None
    # What the vault opened was sealed here, but perhaps as something else: device secrets are sealed by it, too.
    try:
        content = json.loads(sealed)["console"]
    except (ValueError, KeyError, TypeError):
        return None
    issued_at = datetime.fromtimestamp(content["at"], UTC)
    if now - issued_at > LIFETIME:
        return None
    return ConsoleSession(content["csrf"], issued_at, content["token"])


def is_csrf_right(session: ConsoleSession, untrusted_word: str) -> bool:
    """Whether a form repeated the session's secret."""
    return secrets.compare_digest(session.csrf.encode(), untrusted_word.encode())
