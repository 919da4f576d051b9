"""The console's parts without HTTP: the sealed cookie, links, words, and the files that come from others."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from virmo_server.api.endpoint import InvalidRequest
from virmo_server.api.schema import NodeView, OrderView
from virmo_server.api.schema_orders import CreateVmBody, OrderBody
from virmo_server.console import links, vms, words
from virmo_server.console.render import FOLDER, STATIC, make_environment
from virmo_server.console.session import LIFETIME, is_csrf_right, new_session, seal, unseal
from virmo_server.console.tree import _children, _crumbs
from virmo_server.console.visit import read_form
from virmo_server.model import OrderState
from virmo_server.procedures.states import VmState
from virmo_server.vault import Vault

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "key")


def test_a_session_survives_its_cookie(vault: Vault) -> None:
    session = new_session(NOW, "virmo_token")
    cookie = seal(vault, session)
    assert unseal(vault, cookie, NOW + timedelta(hours=1)) == session
    assert "virmo_token" not in cookie
    assert is_csrf_right(session, session.csrf)
    assert not is_csrf_right(session, "")
    assert new_session(NOW).csrf != session.csrf


def test_a_session_ends_after_a_day_of_work(vault: Vault) -> None:
    cookie = seal(vault, new_session(NOW))
    assert unseal(vault, cookie, NOW + LIFETIME) is not None
    assert unseal(vault, cookie, NOW + LIFETIME + timedelta(seconds=1)) is None


def test_what_was_sealed_as_something_else_is_no_cookie(vault: Vault, tmp_path: Path) -> None:
    """The vault seals device secrets, too."""
    for secret in ("device-secret", "1", "[]", json.dumps({"other": 1}), "null"):
        assert unseal(vault, vault.seal(secret), NOW) is None
    other = Vault(tmp_path / "other")
    assert unseal(vault, seal(other, new_session(NOW)), NOW) is None
    assert unseal(vault, None, NOW) is None


def test_links_quote_every_name() -> None:
    assert links.url("devices", "a/../b?c#d é") == "/console/devices/a%2F..%2Fb%3Fc%23d%20%C3%A9"
    assert links.url("orders", 7, state="failed", group=None, device="") == "/console/orders/7?state=failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (89, "89 s ago"), (300, "5 min ago"), (7200, "2 h ago"), (259200, "3 d ago"), (-7200, "in 2 h")],
)
def test_times_are_told_roughly(seconds: int, text: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_sizes_and_allocations() -> None:
    assert [words.size(n) for n in (0, 1023, 1536, 5 << 30, None)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "unknown"]
    shown = words.allocation("CPU=10&RAM=268435456&Storage=0&Network=5&Vendor=x&RAM=-1&").replace("\xa0", " ")
    assert shown == "10 % CPU, 256.0 MiB RAM, 0 B Storage, 5 % Network, Vendor=x, RAM=-1"
    assert words.allocation(None) == ""


def test_actions_fit_the_state() -> None:
    assert [action.kind for action in words.vm_actions(VmState.RUNNING)] == ["suspend", "power-off", "delete-vm"]
    assert {action.kind for action in words.vm_actions(None)} == {
        "power-on",
        "power-off",
        "suspend",
        "resume",
        "delete-vm",
    }
    assert all(action.question for action in words.vm_actions(None) if action.dangerous)


def test_a_form_is_the_body_of_the_api() -> None:
    form = {"kind": "create-vm", "name": "www", "image": "web", "running": "false", "description": ""}
    body = read_form(OrderBody, form)
    assert body == CreateVmBody(kind="create-vm", name="www", image="web", running=False)
    with pytest.raises(InvalidRequest) as error:
        read_form(OrderBody, {**form, "name": "no/slash", "colour": "blue"})
    assert len(error.value.errors) == 2
    with pytest.raises(InvalidRequest):
        read_form(OrderBody, {"kind": "unheard-of"})


def test_what_guests_tell_is_taken_apart_or_left_as_it_is() -> None:
    """Found by looking: a line of another form broke the page."""

    def told(message: str, form: re.Pattern[str]) -> list[vms.Line]:
        order = OrderView.model_construct(state=OrderState.DONE, message=message)
        return vms._lines(order, form)

    assert told("greeter 1.0 (active, archive:greeter)\npackage x (installed)", vms._PACKAGE) == [
        vms.Line("greeter 1.0", "archive:greeter", "active"),
        vms.Line("package x (installed)"),
    ]
    assert told("cam-1: Front, enabled\nthe VM has no peripherals\n<b>: x", vms._PERIPHERAL) == [
        vms.Line("Front, enabled", "cam-1"),
        vms.Line("the VM has no peripherals"),
        vms.Line("<b>: x"),
    ]
    assert vms._lines(None, vms._PACKAGE) == []


def test_the_tree_lists_children_that_are_known_by_what_is_below() -> None:
    nodes = [
        NodeView(uri=uri, format="chr", value="x", known_at=NOW)
        for uri in ("./A/B", "./A/C/D", "./A/C/E", "./AB/C", ".")
    ]
    assert [(child.name, child.below, child.value) for child in _children(nodes, "./A")] == [
        ("B", 0, "x"),
        ("C", 2, None),
    ]
    assert [child.name for child in _children(nodes, ".")] == ["A", "AB"]
    assert _crumbs("./A/B") == [(".", "."), ("A", "./A"), ("B", "./A/B")]


def test_what_comes_from_others_is_what_was_taken() -> None:
    """``console/vendor`` made these bytes."""
    lines = (FOLDER / "vendor.sha256").read_text().split()
    assert len(lines) == 4
    for digest, name in zip(lines[::2], lines[1::2], strict=True):
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


def test_every_template_compiles() -> None:
    environment = make_environment()
    assert len(environment.list_templates()) > 10
    for name in environment.list_templates():
        environment.get_template(name)
