"""What administrators do in the console: accounts, tokens, devices' settings, group orders, the audit trail."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.console.stage import PASSWORD, PATIENCE, SimStage, log_in, visitor

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimStage]:
    """A server; nothing here needs a board that comes."""
    made = SimStage(tmp_path_factory.mktemp("console"))
    yield made
    made.close()


@pytest.fixture
def admin(stage: SimStage, page: Page) -> Page:
    log_in(page, stage, "admin")
    return page


def test_an_account_from_its_making_to_its_end(stage: SimStage, admin: Page, browser: Browser) -> None:
    admin.get_by_role("link", name="Access").click()
    making = admin.get_by_role("region", name="Make an account")
    making.get_by_label("Name").fill("ann")
    making.get_by_label("Password").fill("short")
    making.get_by_role("button").click()
    expect(making.get_by_role("alert")).to_contain_text("password: String should have at least 10 characters")
    making.get_by_label("Role").select_option("operator")
    making.get_by_label("Password").fill(PASSWORD)
    making.get_by_role("button").click()
    expect(admin.get_by_role("row").filter(has_text="ann")).to_contain_text("may log in")
    with visitor(browser) as context:
        page = context.new_page()
        page.goto(f"{stage.url}/console/login")
        log_in_as(page, "ann", PASSWORD)
        page.get_by_role("link", name="ann operator").click()
        page.get_by_label("Old password").fill(PASSWORD)
        page.get_by_label("New password").fill("another long word")
        page.get_by_role("button", name="Change").click()
        page.get_by_role("button", name="Log in").wait_for()
        log_in_as(page, "ann", "another long word")
        admin.get_by_role("button", name="Remove ann").click()
        admin.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(admin.get_by_role("row").filter(has_text="ann")).to_have_count(0)
        page.reload()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
    admin.get_by_role("link", name="Audit").click()
    expect(admin.get_by_role("row").filter(has_text="remove operator")).to_contain_text("admin-1")
    expect(admin.get_by_role("row").filter(has_text="change password")).to_contain_text("ann")
    assert PASSWORD not in stage.server.log()


def log_in_as(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Devices").wait_for()


def test_a_token_is_shown_once(admin: Page, stage: SimStage) -> None:
    admin.goto(f"{stage.url}/console/access")
    making = admin.get_by_role("region", name="Make a token")
    making.get_by_label("Name").fill("pipeline")
    making.get_by_role("button").click()
    expect(admin.get_by_label("Token (viewer)")).to_have_value(re.compile("^virmo_"))
    admin.reload()
    expect(admin.get_by_label("Token (viewer)")).to_have_count(0)
    admin.get_by_role("button", name="Revoke pipeline").click()
    admin.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("row").filter(has_text="pipeline")).to_contain_text("revoked")


def test_devices_are_labelled_found_and_ordered_together(admin: Page, stage: SimStage) -> None:
    client = stage.client()
    for number in range(3):
        client.post("/devices", {"name": f"mill-{number}", "dev_id": f"urn:x:{number}"})
    client.close()
    for number in range(2):
        admin.goto(f"{stage.url}/console/devices/mill-{number}/settings")
        admin.get_by_label("Labels").fill("hall north")
        admin.get_by_label("Notify URL").fill("not an address")
        admin.get_by_role("button", name="Save").click()
        expect(admin.get_by_role("alert").filter(has_text="notify_url")).to_be_visible()
        admin.get_by_label("Notify URL").fill("")
        admin.get_by_role("button", name="Save").click()
        expect(admin.get_by_text(f"mill-{number} is saved.")).to_be_visible()
        expect(admin.get_by_role("link", name="north")).to_be_visible()
    admin.goto(f"{stage.url}/console/devices")
    admin.get_by_label("Label", exact=True).select_option("hall")
    admin.get_by_role("button", name="Filter").click()
    expect(admin.get_by_role("rowheader")).to_have_count(2)
    admin.get_by_role("link", name="Groups").click()
    admin.get_by_text("Order something of many devices").click()
    admin.get_by_label("Devices with the label").select_option("hall")
    expect(admin.get_by_label("Image on the devices", exact=True)).to_be_hidden()
    admin.get_by_label("Order", exact=True).select_option("power-off")
    admin.get_by_label("Name of the VM or image").fill("www")
    admin.get_by_role("button", name="Order", exact=True).click()
    expect(admin.get_by_role("status").filter(has_text="2 devices do not fit")).to_be_visible()
    admin.get_by_label("Order", exact=True).select_option("refresh")
    admin.get_by_label("At most so many").fill("1")
    admin.get_by_role("button", name="Order", exact=True).click()
    admin.get_by_role("link", name="2 orders are placed.").click()
    expect(admin.get_by_role("rowheader").filter(has_text="Refresh")).to_have_count(2)


def test_new_credentials_are_shown_once(admin: Page, stage: SimStage) -> None:
    client = stage.client()
    client.post("/devices", {"name": "press", "dev_id": "urn:x:press"})
    client.close()
    admin.goto(f"{stage.url}/console/devices/press/settings")
    admin.get_by_role("button", name="Renew credentials").click()
    admin.get_by_role("dialog").get_by_role("button", name="Renew").click()
    shown = admin.get_by_label("Agent configuration")
    expect(shown).to_have_value(re.compile("urn:x:press"))
    secrets = re.findall(r"secret: (\S+)", shown.input_value())
    assert len(secrets) == 2
    assert not any(secret in stage.server.log() for secret in secrets)
