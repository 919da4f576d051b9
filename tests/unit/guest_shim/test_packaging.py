"""What is deployed: one file that runs alone and stays small, a Debian package that is whole, and init scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from dom0_agent.guest.unix_channel import UnixChannelServer
from guest_shim.build import PACKAGING, build_deb, build_pyz, main
from guest_shim.shim import VERSION

#: KiB of resident memory that an idle shim may have.
MEMORY = 15 * 1024
SCRIPTS = [
    PACKAGING / "virmo-guest-shim.init",
    *(PACKAGING / "debian" / name for name in ("postinst", "prerm", "postrm")),
]


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pyz(tmp_path_factory.mktemp("pyz"))


def test_the_one_file_runs_without_the_repository(pyz: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-IOOS", str(pyz), "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == VERSION
    names = zipfile.ZipFile(pyz).namelist()
    assert "guest_shim/handlers/lawmo/lock" in names
    assert "guest_shim/cli.py" in names
    assert "guest_shim/cli.pyc" in names
    assert not [name for name in names if "packaging" in name or "build" in name]


def test_it_is_the_same_each_time(pyz: Path, tmp_path: Path) -> None:
    assert build_pyz(tmp_path).read_bytes() == pyz.read_bytes()


def test_an_idle_shim_is_small(pyz: Path, tmp_path: Path) -> None:
    """At most 15 MB, connected and beating, as the service runs it (without options: those cost argparse).

    The least of three lives: how much of a library the kernel maps around what is read is not the shim's doing, and was
    once a megabyte more on a busy machine.
    """
    lives: list[dict[str, int]] = []
    while len(lives) < 3 and not any(life["VmRSS"] <= MEMORY for life in lives):
        lives.append(idle_memory(pyz, tmp_path / f"life-{len(lives)}"))
    assert min(life["VmRSS"] for life in lives) <= MEMORY, lives


def idle_memory(pyz: Path, folder: Path) -> dict[str, int]:
    """What a shim has in memory once it beats: the kernel's names, KiB."""
    folder.mkdir()
    server = UnixChannelServer()
    server.listen("vm", folder)
    start = (
        f"import sys; sys.path.insert(0, {str(pyz)!r}); from guest_shim.start import program; cli = program(); "
        f"cli._parse = lambda argv: cli.SimpleNamespace(transport='unix:{folder}/channel.sock', verbose=False); "
        "sys.exit(cli.main())"
    )
    environment = {"PATH": os.environ["PATH"], "MALLOC_ARENA_MAX": "1"}
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    shim = subprocess.Popen([python, "-IOOS", "-c", start], env=environment)
    try:
        end = time.monotonic() + 20
        while (server.facts("vm").beats or 0) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        status = Path(f"/proc/{shim.pid}/status").read_text()
        return {name: int(size) for name, size in re.findall(r"(VmRSS|RssAnon|RssFile):\s+(\d+) kB", status)}
    finally:
        shim.terminate()
        shim.wait(10)
        server.close()


def test_what_needs_the_real_inspect_gets_it(pyz: Path) -> None:
    """Also when the shim runs, and its own dataclasses work without it."""
    code = (
        f"import sys; sys.path.insert(0, {str(pyz)!r}); from guest_shim.start import program; program(); "
        "from guest_shim.places import Places; print(Places()); import inspect; print(inspect.signature(print))"
    )
    told = subprocess.run([sys.executable, "-IOOS", "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("Places(state=")
    assert "sep=' '" in told


def test_the_debian_package_is_whole(tmp_path: Path) -> None:
    deb = build_deb(tmp_path)
    fields = subprocess.run(["dpkg-deb", "-f", str(deb)], capture_output=True, text=True, check=True).stdout
    assert f"Version: {VERSION}\n" in fields
    root = tmp_path / "root"
    subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    program = root / "usr/bin/virmo-guest-shim"
    told = subprocess.run([sys.executable, str(program), "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == VERSION
    assert program.read_bytes().startswith(b"#!/usr/bin/python3 ")
    for name in ("lib/systemd/system/virmo-guest-shim.service", "etc/init.d/virmo-guest-shim"):
        assert (root / name).is_file()
    assert os.access(root / "etc/init.d/virmo-guest-shim", os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    result = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=warning", str(script)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_the_build_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "virmo-guest-shim.pyz" in capsys.readouterr().out
