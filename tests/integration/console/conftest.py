"""One stage for the tests of a file: server, board, browser. Each test has a browser profile of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.integration.console.stage import SimStage, Stage, chromium, visitor


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimStage]:
    made = SimStage(tmp_path_factory.mktemp("console"))
    try:
        made.register()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """A page of a fresh profile. At its end no script failed, the policy refused nothing, nothing came from others."""
    complaints: list[str] = []
    with visitor(browser) as context:
        opened = context.new_page()
        opened.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        opened.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        opened.on("request", lambda asked: None if asked.url.startswith(stage.url) else complaints.append(asked.url))
        yield opened
    assert complaints == []
