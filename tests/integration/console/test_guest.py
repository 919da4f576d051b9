"""The page of a VM: what runs inside it, and the conversation with its user, against the real shim."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from image.story.steps import DEVICE
from tests.integration.console.stage import PATIENCE, SimStage, log_in, prepare

expect.set_options(timeout=PATIENCE)
VM = "web"


@pytest.fixture
def vm(stage: SimStage, page: Page) -> Page:
    """An operator looks at the running VM."""
    if not stage.server.virmo_json("vm", "list", DEVICE):
        prepare(stage, VM)
    log_in(page, stage, "operator")
    page.goto(f"{stage.url}/console/devices/{DEVICE}")
    page.get_by_role("link", name=VM, exact=True).click()
    expect(page.get_by_role("heading", name=VM)).to_contain_text("Running")
    return page


def test_facts_come_from_the_guest(vm: Page) -> None:
    """R-143 to R-146."""
    facts = vm.get_by_role("region", name="Facts from the guest")
    expect(facts).to_contain_text("Not read yet")
    facts.get_by_role("button", name="Read").click()
    expect(facts.get_by_role("term").filter(has_text="Ext/Hostname")).to_be_visible()


def test_software_is_installed_listed_and_removed(stage: SimStage, vm: Page, tmp_path: Path) -> None:
    """HLF-07: out of the library through dom0 into the guest."""
    package = tmp_path / "greeter.tar.gz"
    package.write_bytes(component())
    client = stage.client()
    query = {"name": "greeter", "file_name": "greeter.tar.gz", "media_type": "application/gzip"}
    client.upload(package, package.stat().st_size, query, lambda _sent: None)
    client.close()
    vm.reload()
    vm.get_by_label("From the library", exact=True).select_option(label="greeter (greeter.tar.gz)")
    vm.get_by_label("Package ID").fill("org.example.greeter")
    vm.get_by_label("Package type").fill("tar.gz")
    vm.get_by_role("button", name="Install").click()
    expect(vm.get_by_role("region", name="Last orders").get_by_role("row").nth(1)).to_contain_text("done")
    software = vm.get_by_role("region", name="Software in the guest")
    software.get_by_role("button", name="Read").click()
    installed = software.get_by_role("row").filter(has_text="greeter 1.0")
    expect(installed).to_contain_text("active")
    assert (stage.guest(VM) / "state/components/greeter/files/activated").exists()
    installed.get_by_role("button", name="Remove").click()
    vm.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(vm.get_by_role("region", name="Last orders").get_by_role("row").nth(1)).to_contain_text("Remove software")
    expect(vm.get_by_role("region", name="Last orders").get_by_role("row").nth(1)).to_contain_text("done")
    software.get_by_role("button", name="Read").click()
    expect(installed).to_have_count(0)


def test_the_user_is_asked_and_answers(stage: SimStage, vm: Page) -> None:
    """R-148 to R-158: the question appears on the guest's console, the answer on the page."""
    vm.get_by_label("Text", exact=True).fill("Which wall?")
    expect(vm.get_by_label("Choices")).to_be_hidden()
    vm.get_by_label("Answer", exact=True).select_option("choice")
    vm.get_by_label("Choices").fill("north\nsouth\n")
    vm.get_by_role("button", name="Ask").click()
    talk = vm.get_by_role("region", name="Conversation with the guest's user")
    expect(talk).to_contain_text("Which wall? north · south")
    expect(talk).to_contain_text("waiting for an answer")
    stage.wait_for(lambda: "]: " in stage.see(VM) or "): " in stage.see(VM))
    stage.type(VM, "2\r")
    expect(talk).to_contain_text("answered: south")
    vm.get_by_label("Text", exact=True).fill("And?")
    vm.get_by_label("Answer", exact=True).select_option("choices")
    vm.get_by_role("button", name="Ask").click()
    expect(vm.get_by_role("alert").filter(has_text="choices")).to_be_visible()


def test_the_guest_is_locked_after_a_question(stage: SimStage, vm: Page) -> None:
    """HLF-12."""
    vm.get_by_role("button", name="Lock fully").click()
    vm.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    vm.get_by_role("button", name="Lock fully").click()
    vm.get_by_role("dialog").get_by_role("button", name="Lock fully").click()
    expect(vm.get_by_text("fully locked, ")).to_be_visible()
    assert (stage.guest(VM) / "root/etc/nologin").exists()
    vm.get_by_role("button", name="Unlock").click()
    expect(vm.get_by_text("unlocked, ")).to_be_visible()
    assert not (stage.guest(VM) / "root/etc/nologin").exists()


def component() -> bytes:
    """A package as the shim's own archive back end takes it."""
    out = io.BytesIO()
    files = (
        ("component.json", json.dumps({"name": "greeter", "version": "1.0"}).encode(), 0o644),
        ("hooks/install", b"#!/bin/sh\necho activated >activated\n", 0o755),
    )
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
