"""Tokens of the HTTP API: making, checking, and the order of roles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from virmo_server.credentials import new_token, token_digest
from virmo_server.events.recorder import CLOCK
from virmo_server.model import Role, Token
from virmo_server.model_running import Login, Operator
from virmo_server.problem import Problem, conflict, not_found

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
#: Longer than any token we make; what is longer is not even hashed.
_MAX_TOKEN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Actor:
    """Who sent a request: the name goes into audit trails."""

    name: str
    role: Role
    login: int | None = None  #: the log-in by which an operator came; tokens have none


#: Who has not said who they are.
ANYBODY = Actor("-", Role.VIEWER)


def add_token(session: Session, *, name: str, role: Role, now: datetime) -> str:
    """A new token; its clear text is returned here and never again."""
    present = session.scalars(select(Token).where(Token.name == name)).first()
    if present is not None:
        raise conflict(f"there is a token {name!r} already: names of tokens are never used again, for the audit trail")
    if session.scalars(select(Operator).where(Operator.name == name)).first() is not None:
        raise conflict(f"there is an operator {name!r}: the audit trail must tell them apart")
    clear = new_token()
    session.add(Token(name=name, role=role, sha256=token_digest(clear), created_at=now, revoked_at=None))
    return clear


def revoke_token(session: Session, *, name: str, now: datetime) -> None:
    """Make a token void at once; :class:`Problem` 409 for the last admin token."""
    token = session.scalars(select(Token).where(Token.name == name)).first()
    if token is None:
        raise not_found("token", name, "see 'virmo token list'")
    if token.revoked_at is not None:
        return
    admins = select(Token).where(Token.role == Role.ADMIN, Token.revoked_at.is_(None))
    if token.role is Role.ADMIN and len(session.scalars(admins).all()) == 1:
        raise conflict(f"{name!r} is the last admin token: add another before you revoke it")
    token.revoked_at = now


def authenticate(session: Session, untrusted_authorization: str | None) -> Actor:
    """The actor of an ``Authorization: Bearer`` header, or a :class:`Problem` 401."""
    scheme, _, untrusted_token = (untrusted_authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not untrusted_token.strip():
        raise Problem(401, "token-missing", "this needs a token: send 'Authorization: Bearer TOKEN' (set VIRMO_TOKEN)")
    if len(untrusted_token) <= _MAX_TOKEN_CHARS:
        digest = token_digest(untrusted_token.strip())
        token = session.scalars(select(Token).where(Token.sha256 == digest, Token.revoked_at.is_(None))).first()
        if token is not None:
            return Actor(token.name, token.role)
        logged_in = select(Operator, Login.id).join(Login, Login.operator_id == Operator.id)
        found = session.execute(
            logged_in.where(Login.sha256 == digest, Login.expires_at > session.info[CLOCK]())
        ).first()
        if found is not None:
            return Actor(found[0].name, found[0].role, found[1])
    raise Problem(
        401,
        "token-unknown",
        "the server does not know this token: it was revoked, or the log-in is over (check VIRMO_TOKEN)",
    )


def require(actor: Actor, role: Role) -> None:
    """:class:`Problem` 403 unless the actor's role includes ``role``."""
    if _RANK[actor.role] < _RANK[role]:
        raise Problem(403, "role", f"this needs the role {role}; {actor.name!r} has the role {actor.role}")
