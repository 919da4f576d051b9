"""Tokens: only their digest is kept, revoked ones are void, there is always an admin."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from virmo_server.api.auth import add_token, authenticate, require, revoke_token
from virmo_server.model import Role, Token
from virmo_server.problem import Problem
from virmo_server.services import Services


def make(services: Services, name: str, role: Role) -> str:
    with services.database.write() as session:
        return add_token(session, name=name, role=role, now=services.clock())


def test_clear_text_is_not_kept(services: Services) -> None:
    token = make(services, "ann", Role.VIEWER)
    with services.database.read() as session:
        row = session.scalars(select(Token)).one()
        assert token not in repr(vars(row))
        assert authenticate(session, f"bearer {token}").name == "ann"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Bearer wrong", "Bearer " + "x" * 10_000])
def test_no_actor_without_a_good_token(services: Services, header: str | None) -> None:
    make(services, "ann", Role.VIEWER)
    with services.database.read() as session, pytest.raises(Problem) as caught:
        authenticate(session, header)
    assert caught.value.status == 401


def test_roles_include_each_other(services: Services) -> None:
    token = make(services, "op", Role.OPERATOR)
    with services.database.read() as session:
        actor = authenticate(session, f"Bearer {token}")
    require(actor, Role.VIEWER)
    require(actor, Role.OPERATOR)
    with pytest.raises(Problem, match="needs the role admin; 'op' has the role operator"):
        require(actor, Role.ADMIN)


def test_last_admin_stays(services: Services) -> None:
    make(services, "root", Role.ADMIN)
    with services.database.write() as session, pytest.raises(Problem, match="last admin token"):
        revoke_token(session, name="root", now=services.clock())
    second = make(services, "second", Role.ADMIN)
    with services.database.write() as session:
        revoke_token(session, name="root", now=services.clock())
        assert authenticate(session, f"Bearer {second}").role is Role.ADMIN


def test_names_are_never_used_again(services: Services) -> None:
    make(services, "ann", Role.VIEWER)
    with services.database.write() as session:
        revoke_token(session, name="ann", now=services.clock())
    with pytest.raises(Problem, match="never used again"):
        make(services, "ann", Role.VIEWER)
