"""Accounts of people: log-in with a password, for a key to the API that lives a working day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from virmo_server.credentials import new_token, token_digest
from virmo_server.model import Role, Token
from virmo_server.model_running import Login, Operator
from virmo_server.passwords import NOBODY, hash_password, is_password
from virmo_server.problem import Problem, conflict, not_found

#: How long a log-in lasts.
LOGIN_LIFETIME = timedelta(hours=12)
#: Wrong passwords in a row until an account is closed for :data:`LOCKED_FOR`.
MAX_FAILURES = 5
LOCKED_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A new log-in; ``token`` is its clear text, shown this one time."""

    operator: Operator
    token: str
    expires_at: datetime


def add_operator(session: Session, *, name: str, role: Role, password: str, now: datetime) -> Operator:
    """A new account; :class:`Problem` 409 when the name is taken."""
    taken = session.scalars(select(Operator).where(Operator.name == name)).first()
    if taken is not None or session.scalars(select(Token).where(Token.name == name)).first() is not None:
        raise conflict(f"there is an operator or a token {name!r} already: the audit trail must tell them apart")
    operator = Operator(name=name, role=role, password=hash_password(password), created_at=now, failures=0)
    session.add(operator)
    session.flush()
    return operator


def find_operator(session: Session, name: str) -> Operator:
    """The account with this name, or a :class:`Problem` 404."""
    operator = session.scalars(select(Operator).where(Operator.name == name)).first()
    if operator is None:
        raise not_found("operator", name, "see 'virmo operator list'")
    return operator


def change_operator(session: Session, operator: Operator, *, role: Role | None, password: str | None) -> None:
    """A new role or password; both end the account's log-ins."""
    if role is not None:
        operator.role = role
    if password is not None:
        operator.password = hash_password(password)
        operator.failures, operator.locked_until = 0, None
    end_logins(session, operator)


def end_logins(session: Session, operator: Operator) -> None:
    """The operator has to log in again everywhere."""
    session.execute(delete(Login).where(Login.operator_id == operator.id))


def log_in(session: Session, *, name: str, untrusted_password: str, now: datetime) -> LoggedIn | Problem:
    """A new log-in, or the :class:`Problem` 401 or 429 to raise: the count of failures must be committed before."""
    operator = session.scalars(select(Operator).where(Operator.name == name).with_for_update(key_share=True)).first()
    if operator is not None and operator.locked_until is not None and operator.locked_until > now:
        seconds = int((operator.locked_until - now).total_seconds()) + 1
        return Problem(429, "locked", f"too many wrong passwords: try again in {seconds} s")
    if not is_password(untrusted_password, NOBODY if operator is None else operator.password) or operator is None:
        if operator is not None:
            operator.failures += 1
            if operator.failures >= MAX_FAILURES:
                operator.failures, operator.locked_until = 0, now + LOCKED_FOR
        return Problem(401, "password", "name or password is wrong")
    operator.failures, operator.locked_until = 0, None
    session.execute(delete(Login).where(Login.expires_at < now))
    token = new_token()
    expires_at = now + LOGIN_LIFETIME
    session.add(Login(operator_id=operator.id, sha256=token_digest(token), created_at=now, expires_at=expires_at))
    return LoggedIn(operator, token, expires_at)
