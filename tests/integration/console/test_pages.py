"""The console over HTTP: roles, CSRF, cookies, headers, and what a hostile device may not do to the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import requests

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.client import PendingAlert
from tests.integration.console.visits import Visitor
from tests.integration.server.server_process import ServerProcess
from virmo_server.console.page import ConsolePage
from virmo_server.console.pages import PAGES
from virmo_server.model import Role

RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("virmo"))
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def visitors(server: ServerProcess) -> Iterator[dict[Role, Visitor]]:
    tokens = {role: server.client.post("/tokens", {"name": f"page-{role}", "role": role})["token"] for role in Role}
    made = {role: Visitor(server, token) for role, token in tokens.items()}
    yield made
    for visitor in made.values():
        visitor.close()


@pytest.fixture
def stranger(server: ServerProcess) -> Iterator[Visitor]:
    made = Visitor(server)
    yield made
    made.close()


def path_of(page: ConsolePage) -> str:
    return "/console" + re.sub(r"{\w+}", "1", page.path)


def page_id(page: ConsolePage) -> str:
    return f"{page.method} {page.path}"


def ask(visitor: Visitor, page: ConsolePage, **more: str) -> requests.Response:
    return visitor.get(path_of(page)) if page.method == "GET" else visitor.post(path_of(page), {}, **more)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_role_on_every_page(visitors: dict[Role, Visitor], page: ConsolePage) -> None:
    """A role is let through exactly when it includes the needed one; nothing ends in 500."""
    for role, visitor in visitors.items():
        answer = ask(visitor, page)
        assert (answer.status_code == 403) == (RANK[role] < RANK[page.role]), (role, answer.text)
        assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_without_a_log_in(stranger: Visitor, page: ConsolePage) -> None:
    answer = ask(stranger, page)
    if page.method == "GET":
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/login?next=%2Fconsole%2F")
    else:
        assert answer.status_code == 401
        assert answer.headers["hx-redirect"].startswith("/console/login")


@pytest.mark.parametrize("page", [page for page in PAGES if page.method == "POST"], ids=page_id)
@pytest.mark.parametrize("word", ["", "wrong", "wörng"])
def test_a_form_without_its_word_is_refused(visitors: dict[Role, Visitor], page: ConsolePage, word: str) -> None:
    answer = visitors[Role.ADMIN].post(path_of(page), {"csrf": word}, csrf="")
    assert answer.status_code == 403
    assert "not done" in answer.text


@pytest.mark.parametrize("page", [page for page in PAGES if page.method == "POST"], ids=page_id)
def test_another_site_is_refused_even_with_the_word(visitors: dict[Role, Visitor], page: ConsolePage) -> None:
    answer = ask(visitors[Role.ADMIN], page, **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "another site" in answer.text


def test_an_upload_needs_word_and_role(visitors: dict[Role, Visitor]) -> None:
    path = "/console/images?name=x&file_name=x.tar&media_type=a/b"
    assert visitors[Role.VIEWER].post(path, {"a": "b"}).status_code == 403
    assert visitors[Role.OPERATOR].post(path, {"a": "b"}, csrf="wrong").status_code == 403
    assert visitors[Role.OPERATOR].post(path, {"a": "b"}).status_code == 201


def test_the_cookie_is_for_the_console_alone(stranger: Visitor, server: ServerProcess) -> None:
    answer = stranger.log_in(server.token)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Secure-virmo-console=")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/console"):
        assert attribute in cookie
    assert server.token not in cookie
    assert server.token not in stranger.get("/console/devices").text
    assert stranger.get("/api/v1/devices").status_code == 401


def test_logging_in_changes_the_word(stranger: Visitor, server: ServerProcess) -> None:
    """Who planted a cookie before does not know the word after."""
    before = stranger.get("/console/login").text
    stranger.log_in(server.token)
    assert stranger.csrf not in before


def test_a_log_in_leads_nowhere_else(server: ServerProcess) -> None:
    for goal, place in (
        ("/console/orders?state=failed", "/console/orders?state=failed"),
        ("https://evil.example/console/", "/console/devices"),
        ("//evil.example/console/", "/console/devices"),
        ("/console/\\evil.example", "/console/devices"),
        ("/console/login", "/console/devices"),
    ):
        visitor = Visitor(server)
        assert visitor.log_in(server.token, goal).headers["location"] == place
        visitor.close()


def test_log_out(stranger: Visitor, server: ServerProcess) -> None:
    stranger.log_in(server.token)
    assert stranger.post("/console/logout", {"csrf": "wrong"}, csrf="").status_code == 403
    assert stranger.get("/console/devices").status_code == 200
    stranger.post("/console/logout", {"csrf": stranger.csrf}, csrf="")
    assert stranger.get("/console/devices").status_code == 303


@pytest.mark.parametrize("value", ["", "x", "gAAAA", "a" * 5000, "ü".encode().decode("latin-1")])
def test_a_cookie_that_is_not_ours_is_nobody(stranger: Visitor, value: str) -> None:
    stranger.http.cookies.set("__Secure-virmo-console", value, path="/console", secure=True)
    assert stranger.get("/console/devices").status_code == 303


def test_tokens_never_reach_the_log(stranger: Visitor, server: ServerProcess) -> None:
    stranger.log_in("virmo_a-token-that-is-wrong")
    stranger.log_in(server.token)
    log = server.log()
    assert "virmo_a-token-that-is-wrong" not in log
    assert server.token not in log
    assert "logged in" in log


@pytest.mark.parametrize("path", ["/console/devices", "/console/nothing", "/console/static/console.css"])
def test_security_headers(visitors: dict[Role, Visitor], path: str) -> None:
    headers = visitors[Role.VIEWER].get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("name", ["..%2Fpages.py", "%2e%2e/pages.py", "nothing.js", "..%2F..%2Fapp.py"])
def test_only_static_files_are_static_files(stranger: Visitor, name: str) -> None:
    answer = stranger.get(f"/console/static/{name}")
    assert answer.status_code in {303, 404}
    assert "import" not in answer.text


def test_static_files_are_kept_by_content(stranger: Visitor) -> None:
    page = stranger.get("/console/login").text
    asset = re.search(r'href="(/console/static/console\.css\?v=\w+)"', page)
    assert asset
    assert "immutable" in stranger.get(asset[1]).headers["cache-control"]
    assert stranger.get("/console/login").headers["cache-control"] == "no-store"


class Audit(HTMLParser):
    """Collects what the policy would refuse and what would leave this server."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script" and "src" not in values:
            self.faults.append("inline script")
        for name, value in values.items():
            if name == "style" or name.startswith("on"):
                self.faults.append(f"<{tag} {name}>")
            if name in {"href", "src", "action", "hx-get", "hx-post"} and not (value or "").startswith(("/", "#")):
                self.faults.append(f"<{tag} {name}={value}>")
        if tag in {"style", "iframe", "object", "img"}:
            self.faults.append(f"<{tag}>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile(server: ServerProcess) -> str:
    """A device that answers with markup wherever it can."""
    board = server.add_board("hostile")
    query = {"name": "web", "file_name": "web", "media_type": "a/b"}
    upload = server.client.upload(file := Path(__file__), file.stat().st_size, query, lambda _sent: None)
    order = {"kind": "deliver-image", "name": "web", "image_id": upload["id"], "description": EVIL}
    server.client.post("/devices/hostile/orders", order)
    board.session()
    creation = {"kind": "create-vm", "name": "www", "image": "web", "description": EVIL}
    server.client.post("/devices/hostile/orders", creation)
    board.session()
    (uri,) = board.board.vm_uris()
    board.board.nodes |= {f"{uri}/State": EVIL, f"{uri}/Description": EVIL, f"{uri}/<b>evil": EVIL}
    board.board.nodes["./VirMO/DeviceResources"] = EVIL
    meta = c.Meta(format="chr", type="Reversed-Domain-Name: org.evil/<script>alert(1)</script>")
    alert = c.Alert(code=1226, items=(c.Item(source=uri, meta=meta, data=EVIL),))
    board.board.alerts.append(PendingAlert("evil", alert))
    server.client.post("/devices/hostile/orders", {"kind": "refresh"})
    server.client.post("/devices/hostile/orders", {"kind": "node-get", "uri": f"{uri}/Description"})
    board.session()
    return uri


def test_what_a_device_says_is_text(hostile: str, visitors: dict[Role, Visitor]) -> None:
    """Nothing of it becomes markup, on any page; and no page reaches out."""
    seen = 0
    orders = visitors[Role.ADMIN].get("/console/orders").text
    numbers = sorted(set(re.findall(r"/console/orders/(\d+)", orders)))
    paths = [
        path_of(page).replace("/1", "/hostile") for page in PAGES if page.method == "GET" and "{order}" not in page.path
    ]
    paths += [f"/console/orders/{number}" for number in numbers]
    paths += [f"/console/devices/hostile/tree?uri={hostile}", f"/console/devices?word={EVIL.replace('&', '%26')}"]
    for path in paths:
        answer = visitors[Role.ADMIN].get(path)
        audit = Audit()
        audit.feed(answer.text)
        assert audit.faults == [], path
        assert "<script>alert" not in answer.text, path
        seen += "<script>alert(1)</script>" in "".join(audit.text)
    assert seen >= 5  # state, description, alert, resources, order results


def test_problems_are_plain_text_for_the_script(visitors: dict[Role, Visitor]) -> None:
    answer = visitors[Role.ADMIN].post("/console/devices/1/orders", {"kind": "<b>"})
    assert answer.headers["content-type"].startswith("text/plain")


def test_an_error_page_says_what_to_do(visitors: dict[Role, Visitor]) -> None:
    answer = visitors[Role.VIEWER].get("/console/devices/nowhere")
    assert answer.status_code == 404
    assert "there is no device &#39;nowhere&#39;" in answer.text
    assert "All devices" in answer.text


@pytest.mark.parametrize("query", ["?page=x", "?page=-1", "?page=99999999", "?word=%25_", "?label=unheard-of"])
def test_odd_filters_break_nothing(visitors: dict[Role, Visitor], query: str) -> None:
    assert visitors[Role.VIEWER].get(f"/console/devices{query}").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["orders?state=lost", "orders?group=x", "orders?device=nowhere", "devices?word=%00", "devices?label=%F0%9F%98%80"],
)
def test_wrong_filters_are_told(visitors: dict[Role, Visitor], path: str) -> None:
    assert visitors[Role.VIEWER].get(f"/console/{path}").status_code in {404, 422}


def test_forms_have_limits(visitors: dict[Role, Visitor], server: ServerProcess) -> None:
    many = {f"field-{number}": "x" for number in range(2000)}
    assert visitors[Role.ADMIN].post("/console/devices", many).status_code == 400
    large = {"name": "x" * (server.installation.config.limits.request_bytes + 1)}
    assert visitors[Role.ADMIN].post("/console/devices", large).status_code == 413


def test_the_root_leads_to_the_console(stranger: Visitor) -> None:
    assert stranger.get("/").headers["location"] == "/console/devices"
