"""Takes the pictures of the console that the READMEs show: ``python3 -m tests.integration.console.screenshots [DIR]``.

A real server, a real agent on the simulator with three VMs, and a few more boards, so that the pages have something to
show. Not a test: the pictures are looked at. Needs Debian's ``pngquant``, so that they stay small.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Browser, Page

from image.story.steps import DEVICE
from tests.integration.console.stage import PHONE, SimStage, chromium, log_in, visitor
from tests.integration.console.test_guest import component
from tests.integration.server.server_process import WireBoard
from tests.unit.virmo_server.simulated_board import SimulatedBoard

FOLDER = Path(__file__).resolve().parents[3] / "virmo_server" / "console" / "screenshots"
WINDOW = {"width": 1120, "height": 700}
IMAGES = ("edge-gateway", "telemetry", "display-wall")
VMS = {
    "gateway": {"cpu": 35},
    "metrics": {"cpu": 20, "ram": 48 << 20},
    "wall": {"cpu": 25, "ram": 56 << 20},
}
FLEET = (
    ("kiosk-berlin-02", ["kiosk", "berlin"]),
    ("kiosk-lyon-01", ["kiosk", "lyon"]),
    ("mill-7", ["factory"]),
    ("mill-8", ["factory"]),
    ("press-2", ["factory", "pilot"]),
)
#: file → page; ``{order}`` is the creation of a VM
PAGES = {
    "devices": "devices",
    "device": f"devices/{DEVICE}",
    "vm": f"devices/{DEVICE}/vms/gateway",
    "resources": f"devices/{DEVICE}/resources",
    "device-images": f"devices/{DEVICE}/images",
    "tree": f"devices/{DEVICE}/tree?uri=./VirMO/{{node}}",
    "messages": f"devices/{DEVICE}/messages",
    "device-alerts": f"devices/{DEVICE}/alerts",
    "device-orders": f"devices/{DEVICE}/orders",
    "settings": f"devices/{DEVICE}/settings",
    "fleet-alerts": "alerts",
    "orders": "orders",
    "order": "orders/{order}",
    "groups": "groups",
    "group": "groups/1",
    "images": "images",
    "access": "access",
    "audit": "audit",
    "account": "account",
}
ON_A_PHONE = ("devices", "device", "resources", "order")


def main(folder: Path) -> None:
    """Set the stage, and take every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        stage = SimStage(Path(temporary))
        boards: list[WireBoard] = []
        try:
            boards += fill(stage)
            places = {key: path.format(**facts(stage)) for key, path in PAGES.items()}
            for scheme in ("dark", "light"):
                take(browser, stage, places, folder, {"color_scheme": scheme, "viewport": WINDOW}, scheme)
            chosen = {key: places[key] for key in ON_A_PHONE}
            options = {"color_scheme": "dark", "viewport": PHONE, "has_touch": True, "is_mobile": True}
            take(browser, stage, chosen, folder, options, "phone")
        finally:
            for board in boards:
                board.http.close()
            stage.close()
    total = sum(path.stat().st_size for path in folder.glob("*.png"))
    print(f"{len(list(folder.glob('*.png')))} pictures, {total // 1024} KiB in {folder}")


def fill(stage: SimStage) -> list[WireBoard]:
    """A fleet, a library, and VMs in different states."""
    client = stage.client()
    boards = []
    for name, labels in FLEET:
        registration = client.post("/devices", {"name": name, "dev_id": f"urn:uuid:{name}", "labels": labels})
        board = WireBoard(yaml.safe_load(registration["agent_config"]), stage.ca_file, SimulatedBoard())
        boards.append(board)
        if name != "press-2":
            board.session()
    stage.register()
    client.patch(f"/devices/{DEVICE}", {"labels": ["lab", "pilot"]})
    bundle = stage.board.bundle
    for name in IMAGES:
        query = {"name": name, "file_name": f"{name}.tar", "media_type": "application/vnd.virmo.bundle+tar"}
        image = client.upload(bundle, bundle.stat().st_size, query, lambda _sent: None)
        order(stage, {"kind": "deliver-image", "name": name, "image_id": image["id"]})
    for name, image_name in zip(VMS, IMAGES, strict=True):
        order(stage, {"kind": "create-vm", "name": name, "image": image_name, "description": f"{name} of hall 3"})
    order(stage, {"kind": "apply-resources", "vms": [{"name": name, **share} for name, share in VMS.items()]})
    talk(stage, {"ask": "choice", "text": "Which line stops first?", "choices": ["north", "south"]}, "2\r")
    talk(stage, {"ask": "confirm", "text": "Update tonight at 22:00?"}, "yes\r")
    package = stage.board.bundle.with_name("greeter.tar.gz")
    package.write_bytes(component())
    query = {"name": "greeter", "file_name": package.name, "media_type": "application/gzip"}
    image = client.upload(package, package.stat().st_size, query, lambda _sent: None)
    install = {"kind": "guest-install", "name": "gateway", "image_id": image["id"], "pkg_id": "org.example.greeter"}
    order(stage, {**install, "type": "tar.gz"})
    for kind in ("guest-packages", "guest-info"):
        order(stage, {"kind": kind, "name": "gateway"})
    order(stage, {"kind": "suspend", "name": "metrics"})
    order(stage, {"kind": "power-off", "name": "wall"})
    order(stage, {"kind": "suspend", "name": "wall"}, "failed")  # it is powered off
    (gateway,) = [vm for vm in client.get(f"/devices/{DEVICE}/vms") if vm["name"] == "gateway"]
    for name in ("ACL", "Format", "TStamp"):
        order(stage, {"kind": "node-get", "uri": f"{gateway['uri']}?prop={name}"})
    client.post("/groups", {"label": "factory", "rate": 2, "order": {"kind": "refresh"}})
    for board in boards[2:4]:
        board.session()
    stage.board.stop_agent()  # nothing moves on the pictures any more; the last session is one with something to say
    client.patch(f"/devices/{DEVICE}", {"notify_url": None})
    client.post(f"/devices/{DEVICE}/orders", {"kind": "refresh"})
    stage.board.agent("session")
    client.close()
    return boards


def talk(stage: SimStage, question: dict[str, Any], keys: str) -> None:
    """Ask the user of the gateway, who answers."""
    client = stage.client()
    body = {"kind": "guest-ask", "name": "gateway", **question}
    number = client.post(f"/devices/{DEVICE}/orders", body)["id"]
    stage.wait_for(lambda: question["text"] in stage.see("gateway"))
    stage.type("gateway", keys)
    stage.wait_for(lambda: client.get(f"/orders/{number}")["finished_at"] is not None)
    client.close()


def order(stage: SimStage, body: dict[str, Any], end: str = "done") -> None:
    """Place an order on the real board and see it through."""
    client = stage.client()
    number = client.post(f"/devices/{DEVICE}/orders", body)["id"]
    stage.wait_for(lambda: client.get(f"/orders/{number}")["finished_at"] is not None)
    ended = client.get(f"/orders/{number}")
    assert ended["state"] == end, ended["message"]
    client.close()


def facts(stage: SimStage) -> dict[str, Any]:
    """What the pages' paths need."""
    client = stage.client()
    vms = client.get(f"/devices/{DEVICE}/vms")
    orders = client.get("/orders", limit=200)
    client.close()
    creation = next(placed for placed in orders if placed["kind"] == "create-vm" and placed["name"] == "gateway")
    return {"node": next(vm["node"] for vm in vms if vm["name"] == "gateway"), "order": creation["id"]}


def take(
    browser: Browser, stage: SimStage, places: dict[str, str], folder: Path, options: dict[str, Any], suffix: str
) -> None:
    """One picture for each place."""
    with visitor(browser, **options) as context:
        page = context.new_page()
        page.goto(f"{stage.url}/console/login")
        shoot(page, folder / f"login-{suffix}.png")
        log_in(page, stage, "admin")
        for name, path in places.items():
            page.goto(f"{stage.url}/console/{path}")
            shoot(page, folder / f"{name}-{suffix}.png")


def shoot(page: Page, file: Path) -> None:
    """What a person sees first."""
    page.wait_for_load_state()
    page.screenshot(path=file, animations="disabled", caret="hide")
    subprocess.run(["pngquant", "--force", "--skip-if-larger", "--ext", ".png", "128", str(file)], check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
