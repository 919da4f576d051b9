"""What goes wrong in the field: each failure is clear to the person, told to the server, and changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from image.story.server import Server
from image.story.sim_board import SimBoard, make_bundle
from image.story.steps import DEV_ID, DEVICE, agent_yaml

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"


class Fleet:
    """A running server, and one board that is registered there but whose agent is not started."""

    def __init__(self, folder: Path) -> None:
        self.board = SimBoard(folder / "board")
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--agent-config")
        self.config: dict[str, Any] = yaml.safe_load(agent_yaml(snippet))

    @property
    def account(self) -> dict[str, Any]:
        account: dict[str, Any] = self.config["dm"]["accounts"][0]
        return account

    def session(self) -> subprocess.CompletedProcess[str]:
        self.board.configure(yaml.safe_dump(self.config), self.server.ca_file)
        return self.board.agent("session")

    def order(self, *words: str) -> dict[str, Any]:
        """Give an order, run sessions until it has ended, return it."""
        placed = self.server.virmo_json(*words)
        shown: dict[str, Any] = placed
        for _ in range(3):
            assert self.session().returncode == 0
            shown = self.server.virmo_json("order", "show", str(placed["id"]))
            if shown["state"] in ("done", "failed"):
                return shown
        raise AssertionError(f"the order has not ended: {shown}")

    def deliver(self, name: str = "sample") -> dict[str, Any]:
        bundle = str(self.board.bundle)
        return self.order("image", "deliver", DEVICE, "--name", name, "--file", bundle, "--media-type", MEDIA_TYPE)

    def create(self) -> dict[str, Any]:
        return self.order("vm", "create", DEVICE, "guest-1", "--image", "sample")

    def image(self) -> dict[str, Any]:
        (image,) = self.server.virmo_json("image", "list", DEVICE)
        assert isinstance(image, dict)
        return image

    def image_files(self) -> list[Path]:
        return [path for path in (self.board.state_dir / "images").glob("**/*") if path.is_file()]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.server.close()
    made.board.close()


def test_a_wrong_server_secret_ends_the_session_before_any_command(fleet: Fleet) -> None:
    """The device does not know this server: nothing is executed, the order waits."""
    order = fleet.server.virmo_json(
        "image", "deliver", DEVICE, "--name", "x", "--file", str(fleet.board.bundle), "--media-type", MEDIA_TYPE
    )
    fleet.account["server"]["secret"] = "not-this-one"
    done = fleet.session()
    assert done.returncode == 1
    assert "did not prove who it is" in done.stdout
    assert "server secret" in done.stdout
    assert fleet.server.virmo_json("order", "show", str(order["id"]))["state"] in ("queued", "sent")
    assert fleet.image_files() == []


def test_a_wrong_client_secret_is_named_on_both_sides(fleet: Fleet) -> None:
    fleet.account["client"]["secret"] = "not-this-one"
    done = fleet.session()
    assert done.returncode == 1
    assert "does not accept our credentials" in done.stdout
    (device,) = fleet.server.virmo_json("device", "list")
    assert device["auth_failed_at"] is not None
    assert "not-this-one" not in fleet.server.log() + done.stdout + done.stderr


def test_an_unreachable_server_is_named(fleet: Fleet) -> None:
    fleet.server.close()
    done = fleet.session()
    assert done.returncode == 1
    assert "cannot be reached" in done.stdout
    assert "refused" in done.stdout


def test_an_unknown_ca_is_named_and_nothing_is_sent(fleet: Fleet, tmp_path: Path) -> None:
    other = Server(tmp_path / "other", "127.0.0.1")
    fleet.account["tls"]["ca_file"] = str(other.ca_file)
    done = fleet.session()
    assert done.returncode == 1
    assert "certificate that is not trusted by" in done.stdout
    assert str(other.ca_file) in done.stdout
    (device,) = fleet.server.virmo_json("device", "list")
    assert device["last_seen_at"] is None


def test_a_corrupt_image_is_refused_with_both_digests(fleet: Fleet) -> None:
    """R-088: State 3, and not a byte of it stays."""
    make_bundle(fleet.board.bundle, damaged=True)
    order = fleet.deliver()
    assert (order["state"], order["dm_status"]) == ("failed", 424)
    assert fleet.image()["state"] == 3
    assert not [path for path in fleet.image_files() if path.name in ("kernel", "vm.yaml")]
    log = fleet.session().stderr
    assert "SHA-256" in log or fleet.server.virmo_json("order", "show", str(order["id"]))["message"]


def test_a_disk_that_is_too_small_is_known_before_the_download(fleet: Fleet) -> None:
    fleet.config["images"]["reserve"] = 1 << 50
    order = fleet.deliver()
    assert (order["state"], order["dm_status"]) == ("failed", 420)
    assert fleet.image()["state"] in (0, 3)
    # What is kept is the note that lets a later try go on, not a byte of the image.
    assert [path for path in fleet.image_files() if path.stat().st_size > 4096] == []


def test_an_image_url_that_is_404_is_final(fleet: Fleet) -> None:
    placed = fleet.server.virmo_json(
        "image", "deliver", DEVICE, "--name", "sample", "--file", str(fleet.board.bundle), "--media-type", MEDIA_TYPE
    )
    for file in (fleet.server.folder / "state").glob("images/**/*"):
        if file.is_file():
            file.unlink()
    assert fleet.session().returncode == 0
    fleet.session()
    order = fleet.server.virmo_json("order", "show", str(placed["id"]))
    assert (order["state"], order["dm_status"]) == ("failed", 500)
    assert fleet.image()["state"] == 3


def test_a_create_that_xen_refuses_leaves_nothing(fleet: Fleet) -> None:
    """R-011, R-012: no domain, no disk, and the entry that the order had made is taken away again."""
    assert fleet.deliver()["state"] == "done"
    fleet.board.simulator("fault", "create", "fail")
    order = fleet.create()
    assert (order["state"], order["dm_status"]) == ("failed", 500)
    assert "create" in order["message"].lower()
    assert fleet.server.virmo_json("vm", "list", DEVICE) == []
    assert fleet.board.leftovers() == []
    fleet.board.simulator("fault")
    assert fleet.create()["state"] == "done"
