"""The table of endpoints: every one needs a token, its role decides, and the OpenAPI document tells the truth."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests

from tests.integration.server.conftest import POSTGRESQL, SQLITE
from tests.integration.server.server_process import ServerProcess
from virmo_server.api.endpoint import Endpoint
from virmo_server.api.endpoints import ENDPOINTS
from virmo_server.api.http import API_PREFIX
from virmo_server.audit import is_audited
from virmo_server.model import Role

BACKENDS = (SQLITE, POSTGRESQL)

WITH_ROLE = [endpoint for endpoint in ENDPOINTS if endpoint.role is not None]
RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@pytest.fixture(scope="module")
def tokens(server: ServerProcess) -> dict[Role, str]:
    made = [(role, server.client.post("/tokens", {"name": f"table-{role}", "role": role})) for role in Role]
    return {role: view["token"] for role, view in made}


def ask(
    server: ServerProcess, method: str, path: str, token: str | None = None, body: bytes = b"", **query: str
) -> requests.Response:
    """One request; ``path`` is below the API's prefix."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.request(
        method, server.url + path, headers=headers, data=body, params=query, verify=server.ca_file, timeout=30
    )


def path_of(endpoint: Endpoint) -> str:
    return API_PREFIX + re.sub(r"{\w+}", "1", endpoint.path)


@pytest.mark.parametrize("endpoint", WITH_ROLE, ids=lambda e: e.operation_id)
def test_no_operation_without_a_token(server: ServerProcess, endpoint: Endpoint) -> None:
    response = ask(server, endpoint.method, path_of(endpoint))
    assert response.status_code == 401
    assert response.json()["code"] == "token-missing"


def test_only_the_log_in_needs_no_role() -> None:
    assert [endpoint.path for endpoint in ENDPOINTS if endpoint.role is None] == ["/login"]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.operation_id)
def test_what_changes_something_is_audited(endpoint: Endpoint) -> None:
    """The log-in writes its record by itself: it knows who it was only in the end."""
    assert is_audited(endpoint.handler) == (endpoint.method != "GET" and endpoint.path != "/login")


@pytest.mark.parametrize("endpoint", WITH_ROLE, ids=lambda e: e.operation_id)
def test_every_role_on_every_operation(server: ServerProcess, tokens: dict[Role, str], endpoint: Endpoint) -> None:
    """A role is let through exactly when it includes the needed one; nothing ends in 500."""
    assert endpoint.role is not None
    for role, token in tokens.items():
        response = ask(server, endpoint.method, path_of(endpoint), token, b"{}")
        assert (response.status_code == 403) == (RANK[role] < RANK[endpoint.role]), (role, response.text)
        assert response.status_code < 500


def test_upload_needs_an_operator(server: ServerProcess, tokens: dict[Role, str]) -> None:
    query = {"name": "x", "file_name": "x", "media_type": "a/b"}
    for role, status in ((Role.VIEWER, 403), (Role.OPERATOR, 201)):
        response = ask(server, "POST", f"{API_PREFIX}/images", tokens[role], b"data", **query)
        assert response.status_code == status, response.text


def call(server: ServerProcess, token: str, method: str, path: str, body: Any = None) -> Any:
    """The decoded answer."""
    response = ask(server, method, API_PREFIX + path, token, json.dumps(body or {}).encode())
    return response.json() if response.content else None


def test_every_mistake_of_a_body_is_listed(server: ServerProcess, tokens: dict[Role, str]) -> None:
    body = {"name": "no/slash", "dev_id": "nocolon", "colour": "blue", "client_secret": "short"}
    problem = call(server, tokens[Role.ADMIN], "POST", "/devices", body)
    assert problem["status"] == 422
    assert [error.partition(":")[0] for error in problem["errors"]] == ["name", "dev_id", "client_secret", "colour"]
    assert "short" not in json.dumps(problem["errors"]).replace("at least", "")


@pytest.mark.parametrize("url", ["board", "ftp://board", "http://", "http:///path", "http://a b", "https://x?y"])
def test_addresses_are_checked(server: ServerProcess, tokens: dict[Role, str], url: str) -> None:
    """Found by fuzzing: the document named no pattern, so that clients could not know."""
    body = {"name": "x", "dev_id": "urn:x:x", "notify_url": url}
    problem = call(server, tokens[Role.ADMIN], "POST", "/devices", body)
    assert problem["errors"] == ["notify_url: Value error, expected an address such as https://virmo.example.org:8443"]
    document = ask(server, "GET", f"{API_PREFIX}/openapi.json").json()
    notify_url = document["components"]["schemas"]["NewDeviceBody"]["properties"]["notify_url"]
    assert not any(re.match(option["pattern"], url) for option in notify_url["anyOf"] if "pattern" in option)


def test_unknown_query_parameters_are_refused(server: ServerProcess, tokens: dict[Role, str]) -> None:
    problem = call(server, tokens[Role.ADMIN], "GET", "/devices?colour=blue")
    assert problem["errors"] == ["colour: unknown query parameter"]


def test_body_over_the_limit(server: ServerProcess, tokens: dict[Role, str]) -> None:
    body = b" " * (server.installation.config.limits.request_bytes + 1)
    assert ask(server, "POST", f"{API_PREFIX}/devices", tokens[Role.ADMIN], body).status_code == 413


def test_device_is_changed_and_forgotten(server: ServerProcess, tokens: dict[Role, str]) -> None:
    token = tokens[Role.ADMIN]
    call(server, token, "POST", "/devices", {"name": "a", "dev_id": "urn:x:a", "labels": ["one", "two"]})
    change = {"name": "b", "labels": ["two", "three"], "notify_url": "http://board:8080"}
    changed = call(server, token, "PATCH", "/devices/a", change)
    assert (changed["name"], changed["labels"]) == ("b", ["three", "two"])
    assert changed["notify_url"] == "http://board:8080"
    assert call(server, token, "GET", "/devices/urn:x:a")["name"] == "b"
    assert [d["name"] for d in call(server, token, "GET", "/devices?label=three")] == ["b"]
    assert call(server, token, "DELETE", "/devices/b") is None
    assert call(server, token, "GET", "/devices/b")["code"] == "not-found"


def test_openapi_names_every_operation_and_its_schemas(server: ServerProcess) -> None:
    document = ask(server, "GET", f"{API_PREFIX}/openapi.json").json()
    for endpoint in ENDPOINTS:
        operation = document["paths"][API_PREFIX + endpoint.path][endpoint.method.lower()]
        assert operation["operationId"] == endpoint.operation_id
        assert str(endpoint.status) in operation["responses"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
