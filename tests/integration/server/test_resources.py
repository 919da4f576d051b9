"""Resources and peripherals through ``virmo``, the API and a real DM session."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.server.conftest import Virmo
from tests.integration.server.server_process import ServerProcess


def test_resources_are_shared_out_and_shown(server: ServerProcess, virmo: Virmo, image_file: Path) -> None:
    board = server.add_board("shared")
    board.board.slow.add("ApplyChanges")
    virmo("image", "deliver", "shared", "--name", "web", "--file", image_file)
    for name in ("www", "db"):
        virmo("vm", "create", "shared", name, "--image", "web")
    with board.polling():
        shares = "www=ram:512M,cpu:40", "db=network:30%,storage:2G"
        result = virmo("resources", "apply", "shared", *shares, "--wait", "--timeout", 60)
        assert result.status == 0, result.err
        refused = virmo("resources", "apply", "shared", "www=cpu:99", "--wait", "--timeout", 60)
        assert refused.status == 1
        assert "412" in refused.out
        assert virmo("device", "refresh", "shared", "--wait", "--timeout", 60).status == 0
        done = virmo("vm", "peripheral", "disable", "shared", "www", "camera", "--wait", "--timeout", 60)
        assert done.status == 0
        assert "camera: Camera, disabled" in virmo("vm", "peripheral", "list", "shared", "www", "--wait").out
    shown = json.loads(virmo("resources", "show", "shared", "--json").out)
    assert shown["vms"] == {
        "db": {"RAM": 1 << 27, "Storage": 2 << 30, "CPU": 10, "Network": 30},
        "www": {"RAM": 1 << 29, "Storage": 0, "CPU": 40, "Network": 10},
    }
    assert shown["device"] == {"RAM": 1 << 30, "Storage": 8 << 30}
    table = virmo("resources", "show", "shared").out
    assert "640.0 MiB" in table
    assert "50 %" in table


def test_mistakes_are_told(server: ServerProcess, virmo: Virmo) -> None:
    server.add_board("mistaken")
    assert virmo("resources", "apply", "mistaken", "www=cpu:1000").status == 3
    assert "named twice" in virmo("resources", "apply", "mistaken", "www=cpu:1", "www=cpu:2").err
    assert "there is no VM" in virmo("resources", "apply", "mistaken", "www=cpu:1").err
    assert virmo("resources", "apply", "mistaken", "www").status == 2
