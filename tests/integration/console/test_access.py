"""Usable by everybody: names, labels, contrast, no sideways scrolling on a phone, the whole way by keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from image.story.steps import DEVICE
from tests.integration.console.stage import DESKTOP, PASSWORD, PATIENCE, PHONE, Stage, log_in, prepare, visitor

expect.set_options(timeout=PATIENCE)

CHECKS = Path(__file__).with_name("checks.js").read_text(encoding="utf-8")
PATHS = (
    "devices",
    f"devices/{DEVICE}",
    f"devices/{DEVICE}/vms/www",
    f"devices/{DEVICE}/resources",
    f"devices/{DEVICE}/images",
    f"devices/{DEVICE}/tree",
    f"devices/{DEVICE}/tree?uri=./VirMO/DeviceResources",
    f"devices/{DEVICE}/messages",
    f"devices/{DEVICE}/alerts",
    f"devices/{DEVICE}/orders",
    f"devices/{DEVICE}/settings",
    "orders",
    "orders/1",
    "groups",
    "alerts",
    "images",
    "access",
    "audit",
    "account",
    "nothing-here",
)


@pytest.mark.parametrize(
    ("scheme", "viewport"),
    [
        pytest.param("light", DESKTOP, id="desktop-light"),
        pytest.param("dark", PHONE, id="phone-dark"),
        pytest.param("dark", DESKTOP, id="desktop-dark", marks=pytest.mark.long),
        pytest.param("light", PHONE, id="phone-light", marks=pytest.mark.long),
    ],
)
def test_every_page_is_for_everybody(stage: Stage, browser: Browser, scheme: str, viewport: dict[str, int]) -> None:
    faults: dict[str, Any] = {}
    if not stage.server.virmo_json("vm", "list", DEVICE):
        prepare(stage, "www", "db")
    with visitor(browser, color_scheme=scheme, viewport=viewport) as context:
        page = context.new_page()
        page.goto(f"{stage.url}/console/login")
        faults["login"] = page.evaluate(CHECKS)
        log_in(page, stage, "admin")
        for path in PATHS:
            page.goto(f"{stage.url}/console/{path}")
            page.evaluate("document.querySelectorAll('details').forEach((element) => (element.open = true))")
            faults[path] = page.evaluate(CHECKS)
    assert {path: found for path, found in faults.items() if found} == {}


def test_the_checks_see_faults(page: Page) -> None:
    """The checker itself: a page with one fault of each kind."""
    page.set_content(
        "<h2 id=a>x</h2><p id=a style='color:#999;background:#fff'>pale</p><button></button><input>"
        "<table><tr><th>x</table><div style='width:4000px'>wide</div><a href=x tabindex=-1>x</a>"
    )
    found = " ".join(page.evaluate(CHECKS))
    for fault in (
        "id a twice",
        "not one h1",
        "no language",
        "no name",
        "contrast 2.8",
        "scope",
        "px wide",
        "by keyboard",
    ):
        assert fault in found, (fault, found)


def test_the_whole_way_by_keyboard(stage: Stage, page: Page) -> None:
    """Log in, skip to the content, open the device, cancel a question with Escape, then answer it."""
    page.goto(f"{stage.url}/")
    page.keyboard.type("operator-1")  # the field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Devices").wait_for()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    assert page.get_by_role("link", name="Skip to the content").bounding_box()["y"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page, "link", DEVICE)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=DEVICE).wait_for()
    tab_to(page, "link", "Tree")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Properties").wait_for()
    page.goto(f"{stage.url}/console/devices/{DEVICE}/tree?uri=./VirMO/DeviceResources")
    tab_to(page, "button", "Delete")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("dialog").get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("listitem").filter(has_text="Delete node")).to_be_visible()


def tab_to(page: Page, role: str, name: str) -> None:
    """Tab until it has the focus, which must be visible then."""
    wanted = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("(element) => element === document.activeElement"):
            break
    outline = wanted.evaluate("(element) => getComputedStyle(element).outlineStyle")
    assert outline == "solid", f"{name}: {outline}"


def test_the_theme_is_kept(stage: Stage, browser: Browser) -> None:
    """The system's theme until the operator chooses one."""
    with visitor(browser, color_scheme="dark") as context:
        page = context.new_page()
        log_in(page, stage, "viewer")
        background = "() => getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_role("button", name="Theme: auto").click()
        light = page.evaluate(background)
        page.reload()
        assert page.evaluate(background) == light != dark
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate(background) == dark
