"""A real server over TLS, a real agent on the simulator, a real browser: for the console's tests and screenshots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from image.story.board import Board
from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import DEV_ID, DEVICE, IMAGE, agent_yaml
from virmo_server.cli.client import Client
from virmo_server.cli.settings import Settings

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: Milliseconds in which what a test waits for must be there: a cold guest on a busy machine.
PATIENCE = 30_000
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
ROLES = ("viewer", "operator", "admin")
PASSWORD = "correct horse battery"


class Stage:
    """The server with one board, which waits for orders, and an account for each role: ``operator-1`` and so on.

    ``patience`` is in milliseconds, as for a browser.
    """

    def __init__(self, folder: Path, board: Board, patience: int = PATIENCE) -> None:
        self.board = board
        self.patience = patience
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        settings = yaml.safe_load((self.server.folder / "virmo.yaml").read_text())
        self.url: str = settings["server"]
        self.ca_file = str(self.server.ca_file)
        self._token: str = settings["token"]
        client = self.client()
        for role in ROLES:
            client.post("/operators", {"name": f"{role}-1", "role": role, "password": PASSWORD})
        client.close()

    def client(self) -> Client:
        """The API, with the first administrator's token."""
        return Client(Settings(self.url, self._token, self.ca_file))

    def register(self, poll_interval: int = 1) -> None:
        """The board comes to the server and listens for notifications.

        A person clicks more often than the server may notify in a minute; who polls needs not wait for that.
        """
        url = self.board.notification_url
        text = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        config = yaml.safe_load(agent_yaml(text))
        config["dm"]["poll_interval"] = poll_interval
        self.board.start_agent(yaml.safe_dump(config), self.server.ca_file)
        self.wait_for(lambda: bool(self.server.virmo_json("device", "show", DEVICE)["open_orders"] == 0))

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Poll until it holds; an assertion fails after the stage's patience."""
        deadline = time.monotonic() + self.patience / 1000
        while not holds():
            assert time.monotonic() < deadline, f"it did not come true in time\n{self.board.agent_log()}"
            time.sleep(0.1)

    def close(self) -> None:
        """End all of it."""
        self.server.close()
        self.board.close()


class SimStage(Stage):
    """A stage whose board is the simulator, with people at its guests' consoles."""

    board: SimBoard

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SimBoard(folder / "board"))

    def guest(self, vm: str) -> Path:
        """The folder of a VM's simulated guest: what it has, and its console."""
        found = next(shown for shown in self.server.virmo_json("vm", "list", DEVICE) if shown["name"] == vm)
        (home,) = [path for path in self.board.state_dir.glob("sim/**/guest") if found["vmid"] in str(path)]
        return home

    def see(self, vm: str) -> str:
        """What stands on the guest's console."""
        return (self.guest(vm).parent / "console.txt").read_text(errors="replace")

    def type(self, vm: str, keys: str) -> None:
        """Somebody types on the guest's console."""
        with (self.guest(vm).parent / "console.in").open("w") as console:
            console.write(keys)


def prepare(stage: Stage, *names: str) -> None:
    """The image is on the board, and these VMs run."""
    client = stage.client()
    bundle = stage.board.bundle
    query = {"name": IMAGE, "file_name": "guest.tar", "media_type": "application/vnd.virmo.bundle+tar"}
    image = client.upload(bundle, bundle.stat().st_size, query, lambda _sent: None)
    client.post(f"/devices/{DEVICE}/orders", {"kind": "deliver-image", "name": IMAGE, "image_id": image["id"]})
    for name in names:
        client.post(f"/devices/{DEVICE}/orders", {"kind": "create-vm", "name": name, "image": IMAGE})
    stage.wait_for(lambda: client.get(f"/devices/{DEVICE}")["open_orders"] == 0)
    client.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visitor(browser: Browser, patience: int = PATIENCE, **options: object) -> Iterator[BrowserContext]:
    """A fresh browser profile. The trial CA is not the system's: that it is checked is seen by the other clients."""
    context = browser.new_context(ignore_https_errors=True, **{"viewport": DESKTOP, **options})  # type: ignore[arg-type]
    context.set_default_timeout(patience)
    try:
        yield context
    finally:
        context.close()


def log_in(page: Page, stage: Stage, role: str) -> None:
    """As a person does."""
    page.goto(f"{stage.url}/console/login")
    page.get_by_label("Name").fill(f"{role}-1")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Devices").wait_for()
