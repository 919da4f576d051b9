"""A VM's system is replaced on real Xen, and a broken one is taken back by itself; FactoryReset makes it new.

What runs afterwards is asked at the guest's console; what is on its data disk is read there, too. All tests of one kind
of guest work on one VM, one after the other: each begins with whatever system runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.nested.guest_site import Site, explained, site

pytestmark = [pytest.mark.nested, pytest.mark.long]

PRECIOUS = "precious"
#: Seconds for a new system's shim: a guest starts within half a minute, on a busy machine in two.
HEALTH = {"health_timeout": 120}
#: Name of a broken system → words on its kernel's command line.
BROKEN = {"panics": "rdinit=/nonsense panic=-1", "mute": "rdinit=/bin/sh"}
#: Where the memory of a guest that runs has a file, and that of the next start has not.
MARK = "/root/mark"


@pytest.fixture(scope="module", params=[("pv", "vchan"), ("pvh", "xenstore")], ids="-".join)
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A VM with something on its data disk."""
    guest_type, transport = request.param
    with site(tmp_path_factory.mktemp("system"), guest_type, transport, fumo=HEALTH) as made:
        made.console.enter(f"printf {PRECIOUS} | dd of=/dev/xvdb conv=fsync; echo kept-$((6*7))")
        made.console.shows("kept-42")
        yield made


def changed(at: Site, name: str, words: str) -> str:
    """A bundle: the sample guest with other words on its kernel's command line."""
    target = at.folder / f"{name}.tar"
    folder = at.folder / name
    folder.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", str(at.bundle), "-C", str(folder)], check=True, timeout=120)
    about = yaml.safe_load((folder / "vm.yaml").read_text())
    about["cmdline"] = f"{about['cmdline']} {words}"
    (folder / "vm.yaml").write_text(yaml.safe_dump(about))
    members = ["vm.yaml", *(path.name for path in sorted(folder.iterdir()) if path.name != "vm.yaml")]
    subprocess.run(["tar", "--format=ustar", "-cf", str(target), "-C", str(folder), *members], check=True, timeout=120)
    return str(target)


def system(at: Site) -> str:
    """The kernel's command line of the guest that runs now."""
    at.greeted(at.transport)
    at.attach()
    at.console.enter("cat /proc/cmdline; echo that-$((6*7))")
    at.console.shows("that-42")
    lines = [line for line in at.console.text().splitlines() if line.startswith("console=hvc0")]
    return lines[-1].strip()


def data(at: Site) -> str:
    """The first bytes of the data disk, ``0`` for each null."""
    at.console.enter("echo disk=$(head -c 8 /dev/xvdb | tr '\\0' 0)=")
    at.console.shows("\ndisk=")
    return at.console.text().rpartition("\ndisk=")[2].partition("=")[0]


def fumo_state(at: Site) -> str:
    """FUMO's State."""
    return str(at.node("get", "FUMO/State")["message"])


def test_a_system_is_replaced(at: Site) -> None:
    """HLF-14: the new one runs, State is 100 (update successful, no data)."""
    with explained(at):
        good = at.vm("update", "--file", changed(at, "good", "virmo.update=good"))
        assert (good["state"], good["message"]) == ("done", "the new system runs"), good
        assert system(at).endswith("quiet virmo.update=good")
        assert (data(at), fumo_state(at), at.listed()["state"]) == (PRECIOUS, "100", 2)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_system_is_taken_back(at: Site, name: str) -> None:
    """HLF-14, HLF-08: its kernel panics, or its shim never comes: 410, State is 70 (update failed, have data)."""
    with explained(at):
        before = system(at)
        broken = at.vm("update", "--file", changed(at, name, BROKEN[name]))
        assert (broken["state"], broken["dm_status"]) == ("failed", 410), broken
        assert "old system runs" in broken["message"], broken
        assert system(at) == before
        assert (data(at), fumo_state(at), at.listed()["state"]) == (PRECIOUS, "70", 2)


def test_a_download_and_an_update_by_themselves(at: Site) -> None:
    """HLF-14: FUMO's other two operations, node by node; the guest has started anew."""
    with explained(at):
        system(at)
        at.console.enter(f"touch {MARK}; ls {MARK}; echo left-$((6*7))")
        at.console.shows("left-42")
        (image,) = [row for row in at.server.virmo_json("image", "list") if row["file_name"] == at.bundle.name]
        assert at.node("replace", "FUMO/Download/PkgURL", image["url"])["state"] == "done"
        for operation, state in (("Download", "50"), ("Update", "100")):
            done = at.node("exec", f"FUMO/{operation}")
            assert (done["state"], done["dm_status"]) == ("done", 200), done
            assert fumo_state(at) == state
        assert system(at).endswith("quiet")
        at.console.enter(f"ls {MARK}; echo looked-$((6*7))")
        at.console.shows("looked-42")
        assert f"{MARK}: No such file" in at.console.text()
        assert data(at) == PRECIOUS


def test_a_factory_reset_makes_all_disks_new(at: Site) -> None:
    """HLF-12: LAWMO's FactoryReset, by dom0."""
    with explained(at):
        assert at.vm("reset")["dm_status"] == 1200
        assert system(at).endswith("quiet")
        assert (data(at), at.listed()["state"]) == ("00000000", 2)
