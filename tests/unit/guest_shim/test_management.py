"""Which requests are answered without a worker, and that those touch no file."""

from __future__ import annotations

import json
from pathlib import Path

from guest_shim.dispatch import Dispatcher, Request
from guest_shim.lawmo import LISTED, MOID, Lawmo
from guest_shim.management import Management
from guest_shim.places import Places
from guest_shim.scomo import MOID as SCOMO


class Clock:
    """By hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def places(folder: Path) -> Places:
    """Of a guest that has a /home and a /data, and nothing else."""
    for name in ("home", "data"):
        (folder / "root" / name).mkdir(parents=True)
    return Places(folder / "state", folder / "handlers", folder / "settings", folder / "root")


def test_what_is_in_the_wipe_list_is_looked_at_again_after_a_while(tmp_path: Path) -> None:
    """In between it is at hand: a file system may hang, and must not keep the channel's thread."""
    clock = Clock()
    lawmo = Lawmo(places(tmp_path), clock)
    assert not lawmo.is_at_hand()
    seen = lawmo.read()
    assert set(seen) == {f"AvailableWipeList/{key}/ListItemName" for key in ("home", "data")} | {"State"}
    (tmp_path / "root" / "data").rmdir()
    clock.now += LISTED - 0.1
    assert lawmo.is_at_hand()
    assert lawmo.read() == seen
    clock.now += 0.2
    assert not lawmo.is_at_hand()
    assert "AvailableWipeList/data/ListItemName" not in lawmo.read()


def test_an_integrators_wipe_list_takes_the_place_of_the_usual(tmp_path: Path) -> None:
    """Files that cannot be read are left out."""
    where = places(tmp_path)
    (where.settings / "wipe.d").mkdir(parents=True)
    (where.settings / "wipe.d" / "logs").write_text("name = Log files\npath = /var/log\n", encoding="utf-8")
    (where.settings / "wipe.d" / "odd").write_bytes(b"\xff\xfe")
    assert Lawmo(where).read() == {"State": "30", "AvailableWipeList/logs/ListItemName": "Log files"}


def test_only_what_needs_no_file_is_quick(tmp_path: Path) -> None:
    """LAWMO's live nodes once they were read, and its configuration."""
    dispatcher = Dispatcher()
    Management(places(tmp_path)).register(dispatcher)
    lawmo = {"moid": MOID}
    assert not dispatcher.is_quick("read", lawmo)
    answer = dispatcher.handle(Request("read", lawmo))
    assert json.loads(answer.payload)["State"] == "30"
    assert dispatcher.is_quick("read", lawmo)
    assert dispatcher.is_quick("configure", lawmo)
    assert dispatcher.is_quick("ping", {})
    for verb, fields in (("read", {"moid": SCOMO}), ("configure", {}), ("exec", lawmo), ("nothing", lawmo)):
        assert not dispatcher.is_quick(verb, fields)
