"""Operators: log-in, roles, the audit trail; and no secret in any log."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import requests

from tests.integration.server.conftest import POSTGRESQL, SQLITE, Result, Virmo
from tests.integration.server.server_process import ServerProcess
from virmo_server.operators import MAX_FAILURES

BACKENDS = (SQLITE, POSTGRESQL)

PASSWORD = "correct horse battery"
NEW_PASSWORD = "staple of another horse"


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What standard input holds."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def post(server: ServerProcess, path: str, body: Any, token: str | None = None) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.post(f"{server.url}/api/v1{path}", json=body, headers=headers, verify=server.ca_file, timeout=30)


@pytest.fixture
def log_in(virmo: Virmo, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an account and log in through ``virmo``."""

    def run(name: str, role: str = "operator") -> str:
        say(monkeypatch, PASSWORD)
        assert virmo("operator", "add", name, "--role", role).status == 0
        say(monkeypatch, PASSWORD)
        result: Result = virmo("login", name)
        assert result.status == 0, result.err
        return result.out.strip()

    return run


def test_a_log_in_is_a_key_with_the_operators_role(server: ServerProcess, virmo: Virmo, log_in: Any) -> None:
    token = log_in("anna", "viewer")
    server.add_board("annas")
    assert post(server, "/devices/annas/orders", {"kind": "refresh"}, token).status_code == 403
    assert virmo("operator", "set", "anna", "--role", "operator").status == 0
    assert post(server, "/devices/annas/orders", {"kind": "refresh"}, token).status_code == 401  # log in again


def test_logging_out_ends_the_key(server: ServerProcess, log_in: Any) -> None:
    token = log_in("bert")
    assert post(server, "/logout", None, token).status_code == 204
    assert post(server, "/logout", None, token).status_code == 401


def test_an_operator_changes_the_password(
    server: ServerProcess, virmo: Virmo, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRMO_TOKEN", log_in("carla"))
    say(monkeypatch, "wrong", NEW_PASSWORD)
    assert virmo("password").status == 3
    say(monkeypatch, PASSWORD, NEW_PASSWORD)
    assert virmo("password").status == 0
    assert virmo("server", "show").status == 3
    assert post(server, "/login", {"name": "carla", "password": PASSWORD}).status_code == 401
    assert post(server, "/login", {"name": "carla", "password": NEW_PASSWORD}).status_code == 200


def test_guessing_is_slow(server: ServerProcess, log_in: Any) -> None:
    log_in("dora")
    answers = [post(server, "/login", {"name": "dora", "password": "guess"}).status_code for _ in range(MAX_FAILURES)]
    assert answers == [401] * MAX_FAILURES
    locked = post(server, "/login", {"name": "dora", "password": PASSWORD})
    assert locked.status_code == 429
    assert "try again in" in locked.json()["detail"]
    assert post(server, "/login", {"name": "nobody", "password": "guess"}).status_code == 401


def test_a_removed_operator_is_out_at_once(server: ServerProcess, virmo: Virmo, log_in: Any) -> None:
    token = log_in("emil")
    assert virmo("operator", "remove", "emil").status == 0
    assert post(server, "/logout", None, token).status_code == 401
    assert "emil" in virmo("audit", "--actor", "emil").out


def test_the_audit_trail_tells_who_what_and_how_it_ended(server: ServerProcess, virmo: Virmo, log_in: Any) -> None:
    token = log_in("frida")
    server.add_board("fridas")
    post(server, "/devices/fridas/orders", {"kind": "refresh"}, token)
    post(server, "/devices/nowhere/orders", {"kind": "refresh"}, token)
    post(server, "/tokens", {"name": "x", "role": "admin"}, token)
    records = json.loads(virmo("audit", "--actor", "frida", "--json").out)
    found = [(record["operation"], record["target"], record["status"]) for record in records]
    assert found == [
        ("create_token", "/tokens", 403),
        ("create_order", "nowhere", 404),
        ("create_order", "fridas", 200),
        ("log_in", "frida", 200),
    ]
    assert "refresh on fridas" in records[2]["detail"]
    table = virmo("audit", "--limit", 3).out
    assert "frida" in table


def test_no_secret_is_in_the_log(server: ServerProcess, virmo: Virmo, log_in: Any) -> None:
    """Passwords, tokens, device secrets, nonces: none of them, however they came in."""
    token = log_in("gerd")
    boards = [server.add_board(f"secretive-{auth}", auth=auth) for auth in ("md5", "hmac", "basic")]
    for board in boards:
        board.session()
        server.client.post(f"/devices/{board.account.client.credentials.name}/orders", {"kind": "refresh"})
        board.session()
    post(server, "/login", {"name": "gerd", "password": f"{PASSWORD}!"})
    post(server, "/operators", {"name": "g", "password": PASSWORD, "role": "none"}, server.token)
    requests.get(f"{server.url}/api/v1/devices?token={token}", verify=server.ca_file, timeout=30)
    secrets = [PASSWORD, token, server.token]
    for board in boards:
        for side in ("client", "server"):
            account = board.config["dm"]["accounts"][0][side]  # type: ignore[index]
            secrets += [account["secret"], account["nonce"]]
    log = server.log()
    assert [secret for secret in secrets if secret in log] == []
    stored = server.stored()
    assert "secretive-md5" in stored
    assert [secret for secret in secrets if secret in stored] == []
