"""Pages of access: API tokens."""

from __future__ import annotations

from virmo_server.api import operations as op
from virmo_server.api import schema
from virmo_server.console.visit import Answer, Changed, Page, Visit
from virmo_server.model import Role


def access_page(visit: Visit) -> Answer:
    """All tokens."""
    tokens: list[schema.TokenView] = visit.call(op.list_tokens)
    return Page("access.html", {"tokens": tokens, "roles": list(Role), "made": None})


def add_token(visit: Visit) -> Answer:
    """Make a token; this answer is the one time that it is shown."""
    made: schema.NewTokenView = visit.call(
        op.create_token, form={"name": visit.form.get("name", ""), "role": visit.form.get("role", "")}
    )
    tokens: list[schema.TokenView] = visit.call(op.list_tokens)
    return Page("access.html", {"tokens": tokens, "roles": list(Role), "made": made})


def revoke_token(visit: Visit) -> Answer:
    """Make a token void at once."""
    visit.call(op.remove_token, path=visit.path)
    return Changed(f"Token {visit.path['token']} is revoked.")
