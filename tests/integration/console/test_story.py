"""The whole story through the console, as an operator at a browser lives it, on a real agent and the simulator."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, Route, expect

from image.story.steps import DEVICE, IMAGE, VM
from tests.integration.console.stage import PATIENCE, Stage, log_in, prepare

expect.set_options(timeout=PATIENCE)


def row(page: Page, name: str) -> Locator:
    """The line of a table with this heading."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile(rf"^{name}\b")))


def press(page: Page, button: str, *, confirm: str | None = None) -> None:
    """Press a button of the VM's row and answer its question."""
    row(page, VM).get_by_role("button", name=button, exact=True).click()
    if confirm is not None:
        question = page.get_by_role("dialog")
        expect(question).to_contain_text(VM)
        question.get_by_role("button", name=confirm, exact=True).click()


def known_state(stage: Stage) -> int | None:
    vms = stage.server.virmo_json("vm", "list", DEVICE)
    return next((vm["state"] for vm in vms if vm["name"] == VM), None)


def test_the_life_of_a_vm(stage: Stage, page: Page) -> None:
    """Upload, deliver, create, power off and on, suspend, resume, delete; each is seen on the page without a reload."""
    log_in(page, stage, "operator")
    create_vm(stage, page)
    run_through_states(stage, page, lambda: None)
    delete_vm(stage, page)


def create_vm(stage: Stage, page: Page) -> None:
    """From the board's bundle, through the library."""
    upload(stage, page)
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name=DEVICE).click()
    page.get_by_label(DEVICE).get_by_role("link", name="Images").click()
    page.get_by_label("Name on the device").fill(IMAGE)
    page.get_by_role("button", name="Deliver").click()
    expect(page.get_by_role("status").filter(has_text="Deliver image")).to_be_visible()
    expect(row(page, IMAGE)).to_contain_text("Downloaded")
    page.get_by_label(DEVICE).get_by_role("link", name="VMs").click()
    page.get_by_label("Name", exact=True).fill(VM)
    page.get_by_role("button", name="Create").click()
    expect(row(page, VM)).to_contain_text("Running")
    assert known_state(stage) == 2


def run_through_states(stage: Stage, page: Page, look: Callable[[], None]) -> None:
    """Off, on, suspended, running again; ``look`` is called in each."""
    for button, question, state, number in (
        ("Power off", "Power off", "PoweredOff", 1),
        ("Power on", None, "Running", 2),
        ("Suspend", "Suspend", "Suspended", 3),
        ("Resume", None, "Running", 2),
    ):
        press(page, button, confirm=question)
        expect(row(page, VM)).to_contain_text(state)
        assert known_state(stage) == number
        look()


def delete_vm(stage: Stage, page: Page) -> None:
    """Not at the first question; then nothing is left of it, and every order stands there as done."""
    press(page, "Delete", confirm="Cancel")
    assert known_state(stage) == 2
    press(page, "Delete", confirm="Delete")
    expect(page.get_by_text("No VMs on this device.")).to_be_visible()
    stage.wait_for(lambda: stage.board.leftovers() == [])
    page.get_by_label(DEVICE).get_by_role("link", name="Orders").click()
    for words in ("Create VM", "Power off", "Power on", "Suspend", "Resume", "Delete VM"):
        expect(row(page, words)).to_contain_text("done")
        expect(row(page, words)).to_contain_text("operator-1")


def upload(stage: Stage, page: Page) -> None:
    """The board's bundle goes into the library."""
    page.get_by_role("link", name="Images", exact=True).click()
    bundle = stage.board.bundle
    name = bundle.name.partition(".")[0]
    page.get_by_label("File").set_input_files(bundle)
    expect(page.get_by_label("What it is")).to_have_value("application/vnd.virmo.bundle+tar")
    expect(page.get_by_label("Name for operators")).to_have_value(name)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_text(f"{name} is in the library.")).to_be_visible()
    expect(row(page, name)).to_contain_text(bundle.name)


def test_an_upload_shows_its_progress_and_can_be_stopped(stage: Stage, page: Page, tmp_path: Path) -> None:
    """4 MiB through a line of 2 MiB/s."""
    file = tmp_path / "slow disk (1).qcow2"
    file.write_bytes(os.urandom(4 << 20))
    log_in(page, stage, "operator")
    page.goto(f"{stage.url}/console/images")
    line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2 << 20}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", line)
    page.get_by_label("File").set_input_files(file)
    expect(page.get_by_label("Name for operators")).to_have_value("slow-disk-1-")
    page.get_by_label("Name for operators").fill("slow")
    page.get_by_role("button", name="Upload", exact=True).click()
    under_way = (
        "() => { const bar = document.querySelector('#upload-progress'); return bar.value > 0 && bar.value < 1; }"
    )
    page.wait_for_function(under_way)
    expect(page.locator("#upload-words")).to_contain_text(" of 4.0 MiB")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("nothing of it was kept")).to_be_visible()
    assert [image["name"] for image in stage.server.virmo_json("image", "list")].count("slow") == 0
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_text("slow is in the library.")).to_be_visible()
    row(page, "slow").get_by_role("button", name="Remove slow").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row(page, "slow")).to_have_count(0)


def test_the_tree_is_read_node_by_node(stage: Stage, page: Page) -> None:
    """Values, properties, ACL; get, replace and exec from the page."""
    log_in(page, stage, "operator")
    page.goto(f"{stage.url}/console/devices/{DEVICE}/tree")
    page.get_by_role("link", name="VirMO", exact=True).first.click()
    page.get_by_role("link", name="DeviceResources").click()
    expect(page.locator("pre")).to_contain_text("RAM=")
    page.get_by_label("URI of a node").fill("./DevInfo/Lang")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_text("Nothing is known of this node yet")).to_be_visible()
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.locator(".value")).to_contain_text("chr")
    page.get_by_role("button", name="Read properties").click()
    expect(row(page, "ACL")).to_contain_text("none of its own")
    expect(row(page, "Format")).to_contain_text("chr")
    page.get_by_label("New value").fill("de")
    page.get_by_role("button", name="Replace", exact=True).click()
    expect(page.get_by_role("listitem").filter(has_text="Replace node").first).to_contain_text(
        re.compile("done|failed")
    )
    page.goto(f"{stage.url}/console/devices/{DEVICE}/tree?uri=./VirMO/Operations/ApplyChanges")
    page.get_by_role("button", name="Execute").click()
    page.get_by_role("dialog").get_by_role("button", name="Execute").click()
    expect(page.get_by_role("listitem").filter(has_text="Execute node").first).to_contain_text(
        re.compile("done|failed")
    )
    page.get_by_role("heading", name="Set the ACL").wait_for()
    page.get_by_label("Argument").fill("x" * 66000)
    page.get_by_role("button", name="Execute").click()
    page.get_by_role("dialog").get_by_role("button", name="Execute").click()
    expect(page.get_by_role("alert").filter(has_text="at most 65536")).to_be_visible()


def test_an_order_is_cancelled(stage: Stage, page: Page) -> None:
    """Of a board that never comes: it is registered here, too, and its credentials are shown once."""
    log_in(page, stage, "admin")
    page.get_by_text("Register a device").click()
    page.get_by_label("Name", exact=True).fill("asleep")
    page.get_by_label("DevId a URN").fill("urn:uuid:asleep")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_label("Agent configuration")).to_have_value(re.compile("secret: "))
    page.get_by_role("link", name="To the device").click()
    page.get_by_role("region", name="Under way").get_by_role("link").click()
    expect(page.get_by_text("queued").first).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the order").click()
    expect(page.locator(".result")).to_have_text("cancelled before anything was sent")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    page.goto(f"{stage.url}/console/devices/asleep/settings")
    page.get_by_role("button", name="Forget this device").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(page.get_by_role("heading", name="Devices")).to_be_visible()
    expect(page.get_by_role("link", name="asleep")).to_have_count(0)


def test_what_is_wrong_is_said_where_it_was_typed(stage: Stage, page: Page) -> None:
    log_in(page, stage, "admin")
    page.get_by_text("Register a device").click()
    page.get_by_label("Name", exact=True).fill("no/slash")
    page.get_by_label("DevId a URN").fill("nocolon")
    page.get_by_role("button", name="Register").click()
    problem = page.get_by_role("alert").filter(has_text="name:")
    expect(problem).to_contain_text("dev_id:")
    expect(page.get_by_label("Name", exact=True)).to_have_value("no/slash")


def test_a_revoked_token_ends_its_session_at_once(stage: Stage, page: Page) -> None:
    made = stage.server.virmo_json("token", "add", "fleeting", "--role", "viewer")
    page.goto(f"{stage.url}/console/orders")
    page.get_by_label("Name").fill("viewer-1")
    page.get_by_label("Password").fill("a wrong password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert").filter(has_text="Name or password is wrong.")).to_be_visible()
    page.get_by_text("With an API token instead").click()
    page.get_by_label("API token").fill("virmo_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert").filter(has_text="not known here")).to_be_visible()
    page.get_by_text("With an API token instead").click()
    page.get_by_label("API token").fill(made["token"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Orders")).to_be_visible()
    stage.server.virmo("token", "revoke", "fleeting")
    stage.server.virmo("device", "refresh", DEVICE)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()  # the page's next look leads there


def test_a_viewer_is_offered_no_action(stage: Stage, page: Page) -> None:
    """And is refused by the server when it tries all the same (see ``test_pages``)."""
    log_in(page, stage, "viewer")
    for path in (
        "devices",
        f"devices/{DEVICE}",
        f"devices/{DEVICE}/tree",
        f"devices/{DEVICE}/images",
        "images",
        "groups",
    ):
        page.goto(f"{stage.url}/console/{path}")
        buttons = page.get_by_role("main").get_by_role("button").all_text_contents()
        assert set(buttons) <= {"Filter", "Go"}, (path, buttons)
        assert page.locator("main [hx-post]").count() == 0
    expect(page.get_by_role("link", name="Access")).to_have_count(0)


def test_resources_are_shared_out_by_sliders(stage: Stage, page: Page) -> None:
    """Two VMs change by one order; sums show at once; too much is refused by the device, and nothing changes."""
    prepare(stage, "left", "right")
    log_in(page, stage, "operator")
    page.goto(f"{stage.url}/console/devices/{DEVICE}/resources")
    page.get_by_label("CPU of left in %").fill("30")
    expect(page.get_by_label("CPU of left, slider")).to_have_value("30")
    page.get_by_label("CPU of right, slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    moved = int(page.get_by_label("CPU of right in %").input_value())
    expect(page.locator('[data-sum="cpu"] output')).to_contain_text(f"{30 + moved} % of 100 %")
    page.get_by_label("Memory of right in MiB").fill("48")
    expect(page.get_by_text("3 changes for 2 VMs, not applied yet")).to_be_visible()
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("status").filter(has_text="new resources for left, right")).to_be_visible()
    stage.wait_for(lambda: stage.server.virmo_json("device", "show", DEVICE)["open_orders"] == 0)
    assert shares(stage, "left")["CPU"] == 30
    assert shares(stage, "right") == {**shares(stage, "right"), "CPU": moved, "RAM": 48 << 20}
    # While the order ran the page showed what the VMs had until then. Once something is moved it is refreshed no more.
    expect(page.get_by_label("CPU of right in %")).to_have_value(str(moved))
    page.get_by_label("CPU of left in %").fill("99")
    expect(page.locator('[data-sum="cpu"] output')).to_contain_text("too much")
    page.get_by_role("button", name="Apply changes").click()
    page.get_by_role("link", name=re.compile("new resources for left$")).click()
    expect(page.get_by_role("main")).to_contain_text("failed")
    assert shares(stage, "left")["CPU"] == 30
    page.goto(f"{stage.url}/console/devices/{DEVICE}/resources")
    page.get_by_label("CPU of left in %").fill("31")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("CPU of left in %")).to_have_value("30")
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("alert").filter(has_text="Nothing was moved")).to_be_visible()


def test_what_happens_while_a_page_loads_is_seen(stage: Stage, page: Page) -> None:
    """Between the making of the page and the first event that it hears."""
    log_in(page, stage, "operator")
    client = stage.client()
    added: list[object] = []

    def add_first(route: Route) -> None:
        if not added:
            added.append(client.post("/devices", {"name": "late", "dev_id": "urn:uuid:late"}))
        route.continue_()

    page.route("**/events*", add_first)
    page.goto(f"{stage.url}/console/devices")
    expect(page.get_by_role("link", name="late")).to_be_visible(timeout=5000)
    assert added
    client.delete("/devices/late")
    client.close()


def shares(stage: Stage, name: str) -> dict[str, int]:
    """What the server knows that a VM has."""
    vm = next(vm for vm in stage.server.virmo_json("vm", "list", DEVICE) if vm["name"] == name)
    return {key: int(value) for key, value in (pair.split("=") for pair in vm["current_config"].split("&"))}
