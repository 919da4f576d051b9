"""Image files over HTTPS: ranges, validators, HEAD, and what the library refuses."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import requests

from tests.integration.server.server_process import ServerProcess

CONTENT = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def image(server: ServerProcess) -> dict[str, Any]:
    response = upload(server, CONTENT, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert response.status_code == 201, response.text
    view: dict[str, Any] = response.json()
    return view


def upload(server: ServerProcess, content: bytes, **query: str) -> requests.Response:
    given = {"name": "hosted", "file_name": "hosted.img", "media_type": "application/octet-stream"} | query
    return requests.post(
        f"{server.url}/api/v1/images",
        params=given,
        data=content,
        headers={"Authorization": f"Bearer {server.token}"},
        verify=server.ca_file,
        timeout=30,
    )


def get(server: ServerProcess, image: dict[str, Any], method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, image["url"], headers=headers, verify=server.ca_file, timeout=30)


def test_whole_file(server: ServerProcess, image: dict[str, Any]) -> None:
    response = get(server, image)
    assert response.content == CONTENT
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-type"] == "application/octet-stream"


def test_head(server: ServerProcess, image: dict[str, Any]) -> None:
    response = get(server, image, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("spec", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=1000-", 1000, len(CONTENT)), ("bytes=-5", len(CONTENT) - 5, len(CONTENT))],
)
def test_range(server: ServerProcess, image: dict[str, Any], spec: str, start: int, end: int) -> None:
    response = get(server, image, Range=spec)
    assert response.status_code == 206
    assert response.content == CONTENT[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


def test_if_range_with_the_right_and_a_wrong_validator(server: ServerProcess, image: dict[str, Any]) -> None:
    """Complaint 16: a changed file must not be glued to an old beginning."""
    etag = get(server, image, "HEAD").headers["etag"]
    assert get(server, image, Range="bytes=5-", **{"If-Range": etag}).status_code == 206
    whole = get(server, image, Range="bytes=5-", **{"If-Range": '"another"'})
    assert (whole.status_code, whole.content) == (200, CONTENT)


def test_range_beyond_the_end(server: ServerProcess, image: dict[str, Any]) -> None:
    response = get(server, image, Range=f"bytes={len(CONTENT)}-")
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("path", ["/images/0/hosted.img", "/images/%2e%2e/virmo.db", "/images/..%2f..%2fvirmo.db/x"])
def test_what_is_not_there(server: ServerProcess, path: str) -> None:
    assert requests.get(server.url + path, verify=server.ca_file, timeout=10).status_code == 404


def test_upload_with_the_wrong_digest(server: ServerProcess) -> None:
    response = upload(server, b"something", sha256="0" * 64)
    assert response.status_code == 422
    assert "has SHA-256" in response.json()["detail"]


def test_empty_upload(server: ServerProcess) -> None:
    assert upload(server, b"").status_code == 422


def test_upload_needs_a_good_file_name(server: ServerProcess) -> None:
    response = upload(server, b"x", file_name="../../etc/passwd")
    assert response.status_code == 422
    assert response.json()["errors"][0].startswith("file_name: ")


def test_removed_image_is_gone(server: ServerProcess) -> None:
    view = upload(server, b"short-lived").json()
    server.client.delete(f"/images/{view['id']}")
    assert get(server, view).status_code == 404
    assert not (server.installation.config.image_dir / view["id"]).exists()
