"""What keeps a server running: health, metrics, logs, backup and restore, an orderly end, completion."""

from __future__ import annotations

import configparser
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

import virmo_server
from tests.integration.server.conftest import POSTGRESQL, SQLITE, Virmo
from tests.integration.server.postgresql import Cluster
from tests.integration.server.server_process import ServerProcess
from virmo_server.backup import back_up, restore
from virmo_server.config import ServerConfig, load_config
from virmo_server.database import DatabaseError
from virmo_server.logs import set_up_logs
from virmo_server.serve import BACKLOG
from virmo_server.services import open_database

BACKENDS = (SQLITE, POSTGRESQL)


def fetch(server: ServerProcess, path: str, token: str | None) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.get(server.url + path, headers=headers, verify=server.ca_file, timeout=30)


def test_metrics_count_for_all_workers(server: ServerProcess) -> None:
    board = server.add_board("counted")
    before = messages(server)
    for _ in range(5):
        board.session()
    assert messages(server) >= before + 5
    text = fetch(server, "/metrics", server.token).text
    assert 'virmo_orders{state="done"}' in text
    assert re.search(r'virmo_api_requests_total{operation="add_device",status="201"} \d', text)
    assert re.search(r"^virmo_devices_alive [1-9]", text, re.MULTILINE)
    assert fetch(server, "/metrics", None).status_code == 401
    assert fetch(server, "/health", None).text == "ok\n"


def messages(server: ServerProcess) -> float:
    found = re.search(r'virmo_dm_messages_total{status="200"} ([0-9.]+)', fetch(server, "/metrics", server.token).text)
    return float(found[1]) if found else 0.0


def test_a_backup_of_a_running_server_is_restored(
    server: ServerProcess, postgresql: Cluster, tmp_path: Path, image_file: Path, virmo: Virmo
) -> None:
    """Into SQLite and into PostgreSQL, from either: boards, secrets, orders and images are the same afterwards."""
    board = server.add_board("kept", labels=["a", "b"])
    virmo("image", "upload", image_file)
    board.session()
    config = server.installation.config_file
    archive = tmp_path / "backup.tar.gz"
    program = [sys.executable, "-m", "virmo_server.main", "--config", str(config), "backup", str(archive)]
    subprocess.run(program, check=True, timeout=120)
    assert archive.stat().st_mode & 0o077 == 0
    url = postgresql.create_database(f"restored-{tmp_path.name}".lower().replace("_", "-"))
    before = fetch(server, "/api/v1/devices/kept", server.token).json()
    for number, database_url in enumerate((None, url)):
        folder = tmp_path / str(number)
        restored = ServerConfig(public_url="https://x", state_dir=folder, database_url=database_url)
        database = open_database(restored)
        restore(restored, database, archive)
        check_restored(restored, before, image_file)
        with pytest.raises(DatabaseError, match="there is an installation already"):
            restore(restored, database, archive)
        again = folder / "again.tar.gz"
        back_up(restored, database, again, images=False)
        assert again.stat().st_size > 1000
        database.close()


def check_restored(config: ServerConfig, device: dict[str, object], image_file: Path) -> None:
    from virmo_server.api.views import device_view
    from virmo_server.devices.registry import NewDevice, find_device, register
    from virmo_server.services import open_services

    services = open_services(config)
    with services.database.write() as session:
        found = find_device(session, "kept")
        shown = device_view(session, found).model_dump(mode="json")
        assert {key: value for key, value in shown.items() if key != "open_orders"} == {
            key: value for key, value in device.items() if key != "open_orders"
        }
        assert services.vault.open(found.client_secret)
        register(  # numbers go on where they were
            session, NewDevice("new", "urn:x:new"), server_id="s", vault=services.vault, clock=services.clock
        )
    files = [path.read_bytes() for path in config.image_dir.iterdir()]
    assert image_file.read_bytes() in files
    services.close()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    config = ServerConfig(public_url="https://x", state_dir=tmp_path / "state")
    config.state_dir.mkdir()
    database = open_database(config)
    with pytest.raises(DatabaseError, match="is no backup"):
        restore(config, database, tmp_path / "other.tar.gz")
    database.close()


def test_an_event_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    own = ServerProcess(tmp_path, workers=2)
    with own.installation.config_file.open("a") as file:
        file.write("log_format: json\n")
    own.start()
    headers = {"Authorization": f"Bearer {own.token}"}
    with requests.get(
        f"{own.url}/api/v1/events", headers=headers, verify=own.ca_file, stream=True, timeout=30
    ) as stream:
        assert next(stream.iter_lines()).startswith(b":")
        assert own.stop() == 0
    lines = [json.loads(line) for line in own.log().splitlines()]
    assert [line["message"] for line in lines][-1] == "stopped"
    assert {line["level"] for line in lines} == {"info"}


def test_each_worker_keeps_to_a_processor_and_the_listener_holds_a_fleet(tmp_path: Path) -> None:
    own = ServerProcess(tmp_path, workers=2)
    own.start()
    try:
        processors = [os.sched_getaffinity(pid) for pid in own.workers()]
        assert [len(of_one) for of_one in processors] == [1, 1]
        assert len(set.union(*processors)) == min(2, len(os.sched_getaffinity(0)))
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{own.port}"], capture_output=True, text=True, check=True)
        assert shown.stdout.split()[2] == str(BACKLOG), shown.stdout
    finally:
        assert own.stop() == 0


def test_json_lines_hold_exceptions() -> None:
    stream, root = io.StringIO(), logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        set_up_logs("info", "json", stream)
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("x").exception("what\nnow")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("error", "x", "what\nnow")
    assert "ValueError: why" in line["exception"]


def test_the_unit_starts_what_there_is(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(Path(virmo_server.__file__).parent / "files" / "virmo-server.service")
    command = unit["Service"]["ExecStart"].split()
    assert command[0] == "/usr/bin/virmo-server"
    config = tmp_path / "virmo-server.yaml"
    config.write_text(yaml.safe_dump({"public_url": "https://x", "state_dir": "/var/lib/virmo-server"}))
    assert load_config(config).state_dir == Path("/var/lib/virmo-server")
    from virmo_server.main import _parser

    options = _parser().parse_args(command[1:])
    assert options.workers == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("virmo ", ["vm", "device", "resources"]),
        ("virmo vm cr", ["create"]),
        ("virmo --json vm create --po", []),
        ("virmo vm create --po", ["--powered-off"]),
        ("virmo vm peripheral ", ["enable", "disable", "list"]),
        ("virmo operator add anna --ro", ["--role"]),
        ("virmo completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(virmo: Virmo, line: str, expected: list[str]) -> None:
    script = virmo("completion", "bash").out
    words = line.split(" ")
    program = f"""{script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
_virmo; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, check=True, timeout=30)
    found = done.stdout.split()
    assert set(expected) <= set(found)
    assert all(word.startswith(words[-1]) for word in found)


def test_other_shells_get_scripts(virmo: Virmo) -> None:
    assert virmo("completion", "zsh").out.startswith("#compdef virmo\n")
    assert "complete -c virmo -n '__fish_use_subcommand' -a '" in virmo("completion", "fish").out
