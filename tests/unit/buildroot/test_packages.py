"""Each package of the external tree is whole, and agrees with the repository that it packages."""

from __future__ import annotations

import configparser
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from dom0_agent import doctor
from dom0_agent.config import DEFAULT_FILE, AgentConfig, ControlConfig
from dom0_agent.config_schema import load
from tests.unit.buildroot.kconfig_syntax import parse

REPOSITORY = Path(__file__).parents[3]
TREE = REPOSITORY / "buildroot"
SHARED = REPOSITORY / "image/files/dom0"
PACKAGES = sorted(path for path in (TREE / "package").iterdir() if path.is_dir())
HASH_FILES = sorted(TREE.rglob("*.hash"))
SCRIPTS = sorted(
    path
    for path in TREE.rglob("*")
    if path.is_file() and not path.is_symlink() and path.read_bytes()[:2] == b"#!" and path.suffix != ".pyc"
)


def symbol(package: Path) -> str:
    return "BR2_PACKAGE_" + package.name.upper().replace("-", "_")


def makefile(package: Path) -> str:
    return (package / f"{package.name}.mk").read_text()


def test_external_desc_names_the_tree() -> None:
    lines = (TREE / "external.desc").read_text().splitlines()
    assert lines[0] == "name: VIRMO"
    assert re.fullmatch(r"desc: \S.*", lines[1])


def test_every_package_is_in_the_menu_and_in_make() -> None:
    sources = parse(TREE / "Config.in").sources
    assert sources == [f"$BR2_EXTERNAL_VIRMO_PATH/package/{package.name}/Config.in" for package in PACKAGES]
    assert "include $(sort $(wildcard $(BR2_EXTERNAL_VIRMO_PATH)/package/*/*.mk))" in (TREE / "external.mk").read_text()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_is_whole(package: Path) -> None:
    parsed = parse(package / "Config.in")
    assert parsed.options[0].symbol == symbol(package)
    assert parsed.options[0].prompt == package.name
    assert all(option.help or option.symbol != symbol(package) for option in parsed.options)
    assert parsed.comments, "says nowhere what it needs when it cannot be chosen"
    text, prefix = makefile(package), package.name.upper().replace("-", "_")
    for variable in ("VERSION", "SITE", "LICENSE", "LICENSE_FILES"):
        assert re.search(rf"^{prefix}_{variable} = \S", text, re.MULTILINE), variable
    assert re.search(r"^\$\(eval \$\((?:generic|python|autotools)-package\)\)$", text, re.MULTILINE)
    licences = re.search(rf"^{prefix}_LICENSE_FILES = (.+)$", text, re.MULTILINE)
    assert licences
    hashes = sorted(package.rglob(f"{package.name}.hash"))
    assert hashes
    for file in hashes:
        hashed = {line.split()[2] for line in file.read_text().splitlines() if line and not line.startswith("#")}
        assert set(licences[1].split()) <= hashed


@pytest.mark.parametrize("file", HASH_FILES, ids=lambda path: str(path.relative_to(TREE)))
def test_hash_file_format(file: Path) -> None:
    """Buildroot wants two blanks between the fields, and somebody must have said where the hash is from."""
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# ")
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries
    for line in entries:
        assert re.fullmatch(r"sha256  [0-9a-f]{64}  [\w./+-]+", line), line


@pytest.mark.parametrize("name", ["virmo-agent", "virmo-guest-shim"])
def test_our_packages_take_this_repository_as_it_is(name: str) -> None:
    package = TREE / "package" / name
    text, prefix = makefile(package), name.upper().replace("-", "_")
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert f"\n{prefix}_VERSION = {setup['metadata']['version']}\n" in text
    assert f"\n{prefix}_SITE = $(BR2_EXTERNAL_VIRMO_PATH)/..\n" in text
    assert f"\n{prefix}_SITE_METHOD = local\n" in text
    assert f"\n{prefix}_LICENSE = {setup['metadata']['license']}\n" in text
    digest = hashlib.sha256((REPOSITORY / "LICENSE").read_bytes()).hexdigest()
    assert f"sha256  {digest}  LICENSE\n" in (package / f"{name}.hash").read_text()
    included = re.findall(r"--include=/([\w./-]+?)/?(?:\*\*\*)? ?\\", text)
    missing = [path for path in included if not (REPOSITORY / path).exists() and path != "README.md"]
    assert not missing


def test_agent_selects_what_setup_cfg_requires() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    required = {re.split(r"[<>= ]", line)[0] for line in setup["options"]["install_requires"].split("\n") if line}
    selected = set(parse(TREE / "package/virmo-agent/Config.in").options[0].selects)
    assert {f"BR2_PACKAGE_PYTHON_{name.upper()}" for name in required} <= selected


#: program that the agent calls → the option that brings it
PROVIDERS = {
    "xl": "BR2_PACKAGE_VIRMO_XEN_X86_TOOLS",
    "tc": "BR2_PACKAGE_IPROUTE2",
    "ip": "BR2_PACKAGE_IPROUTE2",
    "openssl": "BR2_PACKAGE_LIBOPENSSL_BIN",
    "zstd": "BR2_PACKAGE_ZSTD",
    "losetup": "BR2_PACKAGE_UTIL_LINUX_LOSETUP",
    "cp": "BR2_PACKAGE_COREUTILS",
    "qemu-img": "BR2_PACKAGE_QEMU_TOOLS",
}


def test_agent_selects_every_program_that_its_doctor_looks_for() -> None:
    selected = set(parse(TREE / "package/virmo-agent/Config.in").options[0].selects)
    assert {PROVIDERS[program] for program in doctor._TOOLS["xl"]} <= selected


def test_agent_drops_the_programs_that_are_not_a_device_s() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    programs = dict(line.split(" = ") for line in setup["options.entry_points"]["console_scripts"].strip().split("\n"))
    foreign = {name for name, target in programs.items() if not target.startswith("dom0_agent.")}
    hook = makefile(TREE / "package/virmo-agent").partition("DROP_OTHER_PROGRAMS\n")[2].partition("endef")[0]
    assert set(re.findall(r"/usr/bin/([\w-]+)", hook)) == foreign


def test_xen_comes_from_the_source_of_buildroot_s_own_package() -> None:
    text = makefile(TREE / "package/virmo-xen-x86")
    assert "\nVIRMO_XEN_X86_VERSION = $(XEN_VERSION)\n" in text
    assert "\nVIRMO_XEN_X86_SITE = $(XEN_SITE)\n" in text
    for file in (TREE / "package/virmo-xen-x86").glob("*/virmo-xen-x86.hash"):
        assert f"  xen-{file.parent.name}.tar.gz\n" in file.read_text()


def test_agent_s_paths_are_the_same_everywhere() -> None:
    """The Debian image's unit, the System V script, the links to the state partition, and the agent's own defaults."""
    unit = (SHARED / "etc/systemd/system/virmo-agent.service").read_text()
    script = (TREE / "package/virmo-agent/S95virmo-agent").read_text()
    assert f"--config {DEFAULT_FILE} run" in unit
    assert Path("/etc/virmo-agent/agent.yaml") == DEFAULT_FILE
    assert 'DAEMON="virmo-agent"' in script
    assert 'CONFIG="/etc/$DAEMON/agent.yaml"' in script
    assert "/var/lib/$DAEMON" in script
    assert "StateDirectory=virmo-agent" in unit
    assert "/var/run/$DAEMON" in script
    assert "RuntimeDirectory=virmo-agent" in unit
    assert ControlConfig().socket == Path("/run/virmo-agent/control.sock")
    assert AgentConfig.__dataclass_fields__["state_dir"].default == Path("/var/lib/virmo-agent")
    assert "link etc/virmo-agent " in (TREE / "board/virmo/common/post-build.sh").read_text()


def test_units_that_the_agent_s_unit_requires_are_in_the_image() -> None:
    unit = (SHARED / "etc/systemd/system/virmo-agent.service").read_text()
    required = set(re.findall(r"\S+\.service", "\n".join(re.findall(r"^Requires=(.*)$", unit, re.MULTILINE))))
    provided = {path.name for path in (TREE / "package/virmo-agent").glob("*.service")}
    assert required <= provided


def test_nobody_but_the_agent_starts_domains() -> None:
    presets = (TREE / "package/virmo-agent/50-virmo.preset").read_text().splitlines()
    assert "disable xendomains.service" in presets
    assert (SHARED / "etc/xen/xl.conf").read_text().count('autoballoon="off"') == 1
    assert "etc/xen/xl.conf" in (TREE / "board/virmo/common/post-build.sh").read_text()


def test_the_example_configuration_is_one_the_agent_accepts() -> None:
    config = load(AgentConfig, TREE / "package/virmo-agent/agent.yaml.example")
    assert config.vm.bridge == "xenbr0"
    assert [account.server_id for account in config.dm.accounts] == ["example.com"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(TREE)))
def test_scripts_can_be_run_and_are_clean(script: Path) -> None:
    installed_by_make = script.name.startswith("S95")  # which sets the mode; Buildroot's style wants the file without
    assert bool(script.stat().st_mode & 0o111) != installed_by_make
    first = script.read_text().splitlines()[0]
    if first in ("#!/bin/sh", "#!/usr/bin/env bash"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
    else:
        assert first == "#!/usr/bin/env python3"
        compile(script.read_text(), str(script), "exec")
