"""The console's story in a real Chromium, on a board under nested Xen: what it shows agrees with ``xl``."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from image.guest import build_guest
from image.story.nested_board import NestedBoard
from image.story.steps import DEVICE, VM
from tests.integration.console.stage import Stage, chromium, log_in, visitor
from tests.integration.console.test_story import create_vm, delete_vm, run_through_states

pytestmark = [pytest.mark.nested, pytest.mark.long]

#: Milliseconds: a guest starts in a minute when the machine that emulates Xen is busy.
PATIENCE = 300_000
POLL_SECONDS = 60
SHARE = 40


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    board = NestedBoard(build_guest("x86_64"), "x86_64", "credit2", lambda _line: None)
    made = Stage(tmp_path_factory.mktemp("console"), board, PATIENCE)
    try:
        made.register(POLL_SECONDS)
        yield made
    finally:
        made.close()


@pytest.fixture
def page(stage: Stage) -> Iterator[Page]:
    with chromium() as browser, visitor(browser, PATIENCE) as context:
        yield context.new_page()


def domain_state(stage: Stage) -> str | None:
    """What ``xl`` says of the VM."""
    (vm,) = stage.server.virmo_json("vm", "list", DEVICE)
    domain = stage.board.domain(UUID(vm["vmid"]))
    return None if domain is None else domain.state


def test_the_story_by_the_console(stage: Stage, page: Page) -> None:
    """R-100 to R-125 by an operator at a browser, on real Xen."""
    expect.set_options(timeout=PATIENCE)
    log_in(page, stage, "operator")
    create_vm(stage, page)
    assert domain_state(stage) == "running"
    share_out_cpu(stage, page)
    seen = []
    run_through_states(stage, page, lambda: seen.append(domain_state(stage)))
    assert seen == [None, "running", None, "running"]
    delete_vm(stage, page)


def share_out_cpu(stage: Stage, page: Page) -> None:
    """By a slider's number, until the scheduler has it."""
    page.get_by_label(DEVICE).get_by_role("link", name="Resources").click()
    page.get_by_label(f"CPU of {VM} in %").fill(str(SHARE))
    page.get_by_role("button", name="Apply changes").click()
    expect(page.get_by_role("status").filter(has_text=f"new resources for {VM}")).to_be_visible()
    stage.wait_for(lambda: bool(stage.server.virmo_json("device", "show", DEVICE)["open_orders"] == 0))
    (vm,) = stage.server.virmo_json("vm", "list", DEVICE)
    share = stage.board.cpu_share(UUID(vm["vmid"]))
    assert share is not None
    assert share.cap == SHARE * stage.board.cpus()
    page.get_by_label(DEVICE).get_by_role("link", name="VMs").click()
