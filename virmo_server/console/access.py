"""Pages of access: operators' accounts, API tokens, one's own password, the audit trail."""

from __future__ import annotations

from typing import Any

from virmo_server.api import operations as op
from virmo_server.api import operations_running as running
from virmo_server.api import schema, schema_running
from virmo_server.console.links import LOGIN, url
from virmo_server.console.visit import Answer, Changed, Goto, Page, Visit
from virmo_server.model import Role

#: Lines of a page of the audit trail.
AUDIT_LINES = 100


def access_page(visit: Visit) -> Answer:
    """All accounts and tokens."""
    return Page("access.html", _access(visit))


def add_operator(visit: Visit) -> Answer:
    """Make an account."""
    operator: schema_running.OperatorView = visit.call(
        running.create_operator, form=_fields(visit, "name", "role", "password")
    )
    return Changed(f"{operator.name} can log in as {operator.role}.")


def change_operator(visit: Visit) -> Answer:
    """Another role or password; what is left empty stays."""
    form = _fields(visit, "role", "password")
    operator: schema_running.OperatorView = visit.call(running.change_operator, path=visit.path, form=form)
    return Changed(f"{operator.name} is changed, and has to log in again.")


def remove_operator(visit: Visit) -> Answer:
    """Remove an account."""
    visit.call(running.remove_operator, path=visit.path)
    return Changed(f"The account {visit.path['operator']} is removed.")


def add_token(visit: Visit) -> Answer:
    """Make a token; this answer is the one time that it is shown."""
    made: schema.NewTokenView = visit.call(op.create_token, form=_fields(visit, "name", "role"))
    return Page("access.html", {**_access(visit), "made": made})


def revoke_token(visit: Visit) -> Answer:
    """Make a token void at once."""
    visit.call(op.remove_token, path=visit.path)
    return Changed(f"Token {visit.path['token']} is revoked.")


def account_page(visit: Visit) -> Answer:
    """Who one is, and one's password."""
    return Page("account.html", {"has_password": visit.actor.login is not None})


def change_password(visit: Visit) -> Answer:
    """One's own password; all log-ins end, this one too."""
    visit.call(running.change_password, form=_fields(visit, "old", "new"))
    return Goto(LOGIN)


def audit_page(visit: Visit) -> Answer:
    """Who asked for what."""
    actor = visit.query.get("actor", "").strip()
    asked = {name: value for name in ("actor", "before") if (value := visit.query.get(name, "").strip())}
    lines: list[schema_running.AuditView] = visit.call(running.list_audit, query={**asked, "limit": str(AUDIT_LINES)})
    earlier = url("audit", actor=actor, before=lines[-1].id) if len(lines) == AUDIT_LINES else None
    return Page("audit.html", {"lines": lines, "by_actor": actor, "earlier": earlier})


def _access(visit: Visit) -> dict[str, Any]:
    return {
        "operators": visit.call(running.list_operators),
        "tokens": visit.call(op.list_tokens),
        "roles": list(Role),
        "made": None,
    }


def _fields(visit: Visit, *names: str) -> dict[str, str]:
    return {name: visit.form.get(name, "") for name in names}
