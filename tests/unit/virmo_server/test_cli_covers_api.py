"""``virmo`` covers all of the HTTP API: each operation, each query parameter, each kind of order, each field of a body.

What must be covered is generated from the OpenAPI document; what covers it is a table of command lines, run against a
client that notes what it is asked for and answers with what the document describes.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import virmo_server.cli.context
from virmo_server.api.endpoints import ENDPOINTS
from virmo_server.api.openapi import openapi_document
from virmo_server.cli.client import Event
from virmo_server.cli.main import main

DOCUMENT = openapi_document(ENDPOINTS, "")
FILE, IMAGE_ID, SHA256 = "web.img", "0" * 32, "0" * 64
WORDS = {"FILE": FILE, "IMAGE_ID": IMAGE_ID, "SHA256": SHA256, "ORDER": "--deadline 1h"}
COMMANDS = """
    server show
    device list --label lab --word x --limit 5 --offset 1
    device add b --dev-id urn:x:b --client-name c --client-secret 12345678 --server-secret 12345678 \
        --server-url https://s --notify-url http://b --label lab --auth hmac --certificate CN=b
    device show b
    device set b --certificate CN=b --name c --server-url https://s --notify-url http://b --label lab
    device remove b
    device renew b
    device refresh b {ORDER}
    device tree b ./VirMO
    device trace b --sessions 2
    device alerts b --limit 5
    device alerts --before 9 --limit 5
    vm list b
    vm create b v --image i --description d --powered-off --bootstrap {FILE} {ORDER}
    vm poweroff b v {ORDER}
    vm poweron b v
    vm suspend b v
    vm resume b v
    vm delete b v
    vm lock b v {ORDER}
    vm lock b v --partial
    vm unlock b v
    vm reset b v
    vm packages b v
    vm info b v
    vm wipe b v --item x {ORDER}
    vm install b v --id p --url https://u --title n --type deb --sha256 {SHA256} --params x --inactive {ORDER}
    vm install b v --id p --file {FILE}
    vm install b v --id p --image-id {IMAGE_ID}
    vm remove b v p {ORDER}
    vm update b v --url https://u {ORDER}
    vm update b v --image-id {IMAGE_ID}
    vm ask b v text text? --choice a --min 1 --max 2 --default d --length 3 --input A --masked {ORDER}
    vm peripheral list b v {ORDER}
    vm peripheral enable b v eth0 {ORDER}
    vm peripheral disable b v eth0
    resources apply b v=cpu:1,ram:1M,storage:1M,network:1 {ORDER}
    node get b ./A {ORDER}
    node add b ./A x --format chr --type text/plain
    node replace b ./A x
    node delete b ./A
    node exec b ./A x
    image list
    image list b
    image show {IMAGE_ID}
    image upload {FILE} --name n --media-type a/b --signature {FILE}
    image deliver b --name n --image-id {IMAGE_ID} --description d --descriptor {ORDER}
    image delete b n {ORDER}
    image forget {IMAGE_ID}
    image reports {IMAGE_ID} --limit 5
    order list b --state done --group 1 --limit 5
    order show 1
    order cancel 1
    device refresh @lab --rate 3
    group list --limit 5
    group show 1
    token list
    token add t --role viewer
    token revoke t
    operator list
    operator add o --role viewer
    operator set o --role viewer --password
    operator remove o
    login o
    logout
    password
    audit --actor a --before 9 --limit 5
    events b --kind vm --after 3 --count 1
"""


class Asked:
    """What commands asked the API for."""

    def __init__(self) -> None:
        self.operations: set[str] = set()
        self.queries: dict[str, set[str]] = defaultdict(set)
        self.fields: dict[str, set[str]] = defaultdict(set)

    def note(self, method: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
        """File it under its operation; an answer as the document describes."""
        operation = find(method, path)
        name = operation["operationId"]
        self.operations.add(name)
        self.queries[name] |= {key for key, value in query.items() if value is not None}
        self.fields[name] |= set(body)
        order = body.get("order", body)
        if "kind" in order:
            self.fields[str(order["kind"])] |= set(order)
            for part in order.get("vms", ()):
                self.fields["VmResources"] |= set(part)
        answers = operation["responses"]["201" if "201" in operation["responses"] else min(operation["responses"])]
        content = answers.get("content", {}).get("application/json")
        return None if content is None else example(content["schema"])


class NotingClient:
    """Stands for ``virmo``'s connection to a server."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def get(self, path: str, **query: object) -> Any:
        return self._asked.note("get", path, query, {})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._asked.note("post", path, {}, body or {})

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._asked.note("patch", path, {}, body)

    def delete(self, path: str) -> None:
        self._asked.note("delete", path, {}, {})

    def upload(self, _path: Path, _size: int, query: Mapping[str, str], progress: Callable[[int], None]) -> Any:
        progress(1)
        return self._asked.note("post", "/images", query, {})

    def events(self, **query: object) -> Iterator[Event]:
        self._asked.note("get", "/events", query, {})
        yield Event(1, "vm", {"at": "2026-01-01T00:00:00", "device": "b", "name": "v", "node": "v", "change": "new"})

    def close(self) -> None:
        pass


def find(method: str, path: str) -> dict[str, Any]:
    """The operation behind a request."""
    found = [
        operations[method]
        for template, operations in DOCUMENT["paths"].items()
        if method in operations and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
    ]
    assert found, f"{method} {path} is no operation"
    operation: dict[str, Any] = found[0]
    return operation


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema behind its reference."""
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example(schema: dict[str, Any]) -> Any:
    """A value as the schema describes."""
    schema = resolve(schema)
    if "anyOf" in schema:
        return example(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][-1]
    if schema.get("type") == "object":
        return {name: example(part) for name, part in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [example(schema["items"])]
    text = "2026-01-01T00:00:00Z" if schema.get("format") == "date-time" else "eA=="
    return {"integer": 1, "boolean": True}.get(schema.get("type", ""), text)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """What all commands of the table ask for."""
    noted = Asked()
    folder = tmp_path_factory.mktemp("virmo")
    (folder / FILE).write_bytes(b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(virmo_server.cli.context, "load_settings", lambda *_given, **_more: None)
        patch.setattr(virmo_server.cli.context, "Client", lambda _settings: NotingClient(noted))
        for line in COMMANDS.replace("\\\n", " ").format(**WORDS).strip().splitlines():
            patch.setattr("sys.stdin", io.StringIO("a long password\nanother long password\n"))
            assert main(line.split()) in {0, 1}, line
    yield noted


def operations() -> list[dict[str, Any]]:
    """All of the document."""
    return [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation["operationId"])
def test_each_operation_has_a_command(asked: Asked, operation: dict[str, Any]) -> None:
    """And each of its query parameters and fields an option."""
    name = operation["operationId"]
    assert name in asked.operations
    parameters = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"}
    assert asked.queries[name] >= parameters
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and "properties" in resolve(body["schema"]):
        assert asked.fields[name] >= set(resolve(body["schema"])["properties"])


def order_kinds() -> dict[str, set[str]]:
    """Each kind of order with the fields of its body."""
    schema = DOCUMENT["paths"]["/devices/{device}/orders"]["post"]["requestBody"]["content"]["application/json"]
    mapping = resolve(schema["schema"])["discriminator"]["mapping"]
    return {kind: set(resolve({"$ref": ref})["properties"]) for kind, ref in mapping.items()}


@pytest.mark.parametrize("kind", order_kinds())
def test_each_kind_of_order_has_a_command(asked: Asked, kind: str) -> None:
    """``--deadline`` and such, which kinds share, count once."""
    assert kind in asked.fields
    of_all_kinds = set().union(*(fields for other, fields in asked.fields.items() if other in order_kinds()))
    shared = {"deadline_seconds", "name", "value", "format", "type"}
    assert asked.fields[kind] | (shared & of_all_kinds) >= order_kinds()[kind]


def test_all_resources_of_a_vm_can_be_given(asked: Asked) -> None:
    assert asked.fields["VmResources"] >= set(DOCUMENT["components"]["schemas"]["VmResources"]["properties"])
