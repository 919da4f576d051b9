"""What runs inside a VM, managed over OMA DM on real Xen: the effect is seen in the guest, over its console.

The sample guest, its real shim and handlers, over vchan and XenStore; the console is read and typed on as
``xl console`` does it, not through the shim.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from image.story.steps import DEVICE
from tests.nested.conftest import eventually
from tests.nested.guest_site import VM, Site, site

pytestmark = pytest.mark.nested


def component(version: str = "1.0") -> bytes:
    """A component that speaks up on the guest's console when it is installed, started and stopped."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text, mode in (
            ("component.json", json.dumps({"name": "greeter", "version": version}), 0o644),
            *(
                (f"hooks/{hook}", f"#!/bin/sh\necho greeter-{version}-{hook} >/dev/console\n", 0o755)
                for hook in ("install", "activate", "deactivate", "remove")
            ),
        ):
            info = tarfile.TarInfo(name)
            data = text.encode()
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def a_shell_answers(site: Site) -> None:
    site.console.enter("echo alive-$((6*7))")
    site.console.shows("alive-42")


#: Writes the interface's flags to the console each second, and belongs to no terminal, so that no lock ends it.
WITNESS = (
    "(trap '' HUP; while sleep 1; do cat /sys/class/net/e*0/flags >/dev/console; done) </dev/null >/dev/null 2>&1 &"
)
LOCKED = {"full": "fully locked", "partial": "partially locked"}
UP, DOWN = "0x1003", "0x1002"


def lock_and_unlock(site: Site, *kinds: str) -> None:
    """HLF-12, HLF-13: nobody gets a shell while it is locked; a full lock takes the network, a partial one does not."""
    for kind in kinds:
        a_shell_answers(site)
        site.console.enter(WITNESS)
        site.console.shows(UP)
        locked = site.vm("lock", *(["--partial"] if kind == "partial" else []))
        assert (locked["state"], locked["message"]) == ("done", LOCKED[kind]), locked
        site.console.shows("this machine is locked by its owner")
        site.console.enter("echo alive-$((6*7))")
        site.console.shows(UP if kind == "partial" else DOWN)
        site.console.keeps_silent("alive-42", 6.0)
        unlocked = site.vm("unlock")
        assert unlocked["message"] == "unlocked", unlocked
        site.console.shows("this machine is unlocked")
        site.console.enter(
            "kill $(ps | awk '/sys.class.net/ && !/awk/ {print $1}'); killall sleep; echo alive-$((6*7))"
        )
        site.console.shows("alive-42")


#: (what is asked, what is typed, the status and the words that come back)
QUESTIONS = (
    (("confirm", "Restart at noon?"), "yes\r", 200, "answered"),
    (("confirm", "Restart at noon?"), "no\r", 304, "no"),
    (("text", "Asset number?", "--input", "N"), "4711\r", 200, "answered: 4711"),
    (("choice", "Which?", "--choice", "red", "--choice", "blue"), "\x03", 214, "cancelled"),
    (("confirm", "Anybody there?", "--max", "3"), "", 408, "nobody answered in time"),
    (("choices", "Which ones?", "--choice", "red", "--choice", "blue"), "1 2\r", 200, "answered: red, blue"),
    (("text", "Word?", "--masked", "--default", "hush", "--length", "8"), "\r", 200, "answered: hush"),
    (("display", "Noon it is", "--min", "1"), "", 200, "answered"),
)


def ask_the_person(site: Site, questions: Sequence[tuple[tuple[str, ...], str, int, str]]) -> None:
    """R-148 to R-158: 200, 304, 214, 408 and what was entered, typed at the console."""
    for words, keys, status, message in questions:
        site.console.type("")
        order = site.place("vm", "ask", DEVICE, VM, *words)
        site.console.shows(words[1])
        if words[0] != "display":
            site.console.shows("(Ctrl-C cancels)")
        if keys:
            site.console.type(keys)
        ended = site.ended(order)
        assert (ended["state"], ended["dm_status"], ended["message"]) == ("done", status, message), ended
    a_shell_answers(site)


def install_and_remove(site: Site) -> None:
    """HLF-07: a package of the server's library gets into a guest that has no network."""
    package = site.folder / "greeter.tar.gz"
    package.write_bytes(component())
    site.console.type("")
    installed = site.vm("install", "--file", str(package), "--id", "org.example.greeter", "--type", "tar.gz")
    assert (installed["state"], installed["dm_status"]) == ("done", 1200), installed
    site.console.shows("greeter-1.0-activate")
    assert "greeter 1.0 (active" in site.vm("packages")["message"]
    removed = site.vm("remove", "greeter")
    assert removed["dm_status"] == 1200, removed
    site.console.shows("greeter-1.0-remove")


def every_operation_on_software(site: Site) -> None:
    """HLF-07: delivered over DM, installed inactive, activated, updated, deactivated, removed; node by node."""
    delivered = "SCOMO/Inventory/Delivered/greeter"
    site.node("add", delivered)
    for leaf, value, how in (
        ("PkgID", "org.example.greeter", ()),
        ("PkgType", "tar.gz", ()),
        ("Data", base64.b64encode(component("2.0")).decode(), ("--format", "b64")),
    ):
        set_ = site.node("add", f"{delivered}/{leaf}", value, *how)
        assert set_["state"] == "done", set_
    operate(site, f"{delivered}/Operations/InstallInactive", "greeter-2.0-install")
    (deployed,) = site.node("get", "SCOMO/Inventory/Deployed")["message"].split("/")
    at = f"SCOMO/Inventory/Deployed/{deployed}"
    assert site.node("get", f"{at}/State")["message"] == "10"
    operate(site, f"{at}/Operations/Activate", "greeter-2.0-activate")
    assert site.node("get", f"{at}/State")["message"] == "20"
    site.node("replace", f"{delivered}/Data", base64.b64encode(component("3.0")).decode(), "--format", "b64")
    operate(site, f"{delivered}/Operations/Install", "greeter-3.0-activate")
    assert site.node("get", f"{at}/Version")["message"] == "3.0"
    operate(site, f"{at}/Operations/Deactivate", "greeter-3.0-deactivate")
    operate(site, f"{at}/Operations/Remove", "greeter-3.0-remove")
    operate(site, f"{delivered}/Operations/Remove", "")
    assert "greeter" not in site.node("get", "SCOMO/Inventory/Delivered")["message"].split("/")


def operate(site: Site, node: str, shown: str) -> None:
    """Exec an operation of SCOMO, whose result is 1200 and whose effect is ``shown`` on the console."""
    site.console.type("")
    done = site.node("exec", node)
    assert (done["state"], done["dm_status"]) == ("done", 1200), done
    site.console.shows(shown)


def the_tree(site: Site) -> None:
    """R-138 to R-146: Add, Replace, Get, Delete; a MOID that nobody knows is plain storage; the guest's live nodes."""
    assert site.node("add", "Notes", "--format", "node", "--type", "urn:example:mo:notes:1.0")["state"] == "done"
    assert site.node("add", "Notes/Line", "first")["state"] == "done"
    assert "the same" in site.node("replace", "Notes/Line", "second")["message"]
    assert site.node("get", "Notes/Line")["message"] == "second"
    assert site.node("delete", "Notes")["state"] == "done"
    assert site.node("get", "Notes/Line")["dm_status"] == 404
    assert site.node("get", "LAWMO/State")["message"] == "30"
    assert site.node("replace", "LAWMO/State", "10")["dm_status"] == 405


def wipe(site: Site) -> None:
    """What is marked is gone from the guest's file system."""
    site.console.enter("echo secret >/root/letter; ls /root")
    site.console.shows("letter")
    wiped = site.vm("wipe", "--item", "home")
    assert wiped["dm_status"] == 1202, wiped
    site.console.enter("ls -A /root | wc -l; echo counted")
    site.console.shows("counted")
    assert "letter" not in site.console.text().rpartition("wc -l")[2]


def facts(site: Site) -> dict[str, str]:
    """What the guest has told of itself."""
    told = site.vm("info")
    assert told["state"] == "done", told
    return dict(line.split(": ", 1) for line in told["message"].splitlines() if ": " in line)


def tell(site: Site) -> None:
    """DevInfo and DevDetail: the kernel is the one that the guest names at its console."""
    # A shim that has just been started may not answer in the seconds that a Get of live nodes has.
    eventually(lambda: "FwV" in facts(site), "the guest tells what it is")
    known = facts(site)
    site.console.enter("uname -r")
    site.console.shows(known["FwV"].split()[-1])
    assert known["DevId"] == f"urn:uuid:{site.vmid}"
    assert int(known["Ext/Memory"]) > 64 << 20


def test_a_pv_guest_over_vchan_and_xenstore(tmp_path: Path) -> None:
    """R-130, R-138 to R-158, HLF-07, HLF-12, HLF-13: some of it over the one, a lock over the other."""
    with site(tmp_path, "pv", "vchan") as at:
        tell(at)
        lock_and_unlock(at, "full")
        ask_the_person(at, QUESTIONS[:5:2])
        install_and_remove(at)
        wipe(at)
        at.use("xenstore")
        at.greeted("xenstore")
        lock_and_unlock(at, "full")


@pytest.mark.long
@pytest.mark.parametrize(
    ("guest_type", "transport"), [("pv", "vchan"), ("pv", "xenstore"), ("pvh", "vchan"), ("pvh", "xenstore")]
)
def test_every_operation_of_every_object(tmp_path: Path, guest_type: str, transport: str) -> None:
    """Likewise, all of it. FUMO and FactoryReset, which start the guest anew, are in ``test_guest_system_xen.py``."""
    with site(tmp_path, guest_type, transport) as at:
        for operation in (tell, install_and_remove, every_operation_on_software, wipe, the_tree):
            operation(at)
        ask_the_person(at, QUESTIONS)
        lock_and_unlock(at, "full", "partial")
