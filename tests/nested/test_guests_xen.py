"""What runs inside a VM, managed over OMA DM on real Xen: the effect is seen in the guest, over its console.

The sample guest, its real shim and handlers, over vchan and XenStore; the console is read and typed on as
``xl console`` does it, not through the shim.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from image.story.steps import DEVICE
from tests.nested.guest_site import VM, Site

pytestmark = pytest.mark.nested


def component() -> bytes:
    """A component that speaks up on the guest's console when it is installed and removed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text, mode in (
            ("component.json", json.dumps({"name": "greeter", "version": "1.0"}), 0o644),
            ("hooks/activate", "#!/bin/sh\necho greeter-is-active >/dev/console\n", 0o755),
            ("hooks/deactivate", "#!/bin/sh\necho greeter-is-inactive >/dev/console\n", 0o755),
        ):
            info = tarfile.TarInfo(name)
            data = text.encode()
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def a_shell_answers(site: Site) -> None:
    site.console.enter("echo alive-$((6*7))")
    site.console.shows("alive-42")


def lock_and_unlock(site: Site) -> None:
    """HLF-12, HLF-13: nobody gets a shell while it is locked, and the interfaces are down."""
    a_shell_answers(site)
    locked = site.vm("lock")
    assert (locked["state"], locked["message"]) == ("done", "fully locked"), locked
    site.console.shows("this machine is locked by its owner")
    site.console.enter("echo alive-$((6*7))")
    site.console.keeps_silent("alive-42", 6.0)
    unlocked = site.vm("unlock")
    assert unlocked["message"] == "unlocked", unlocked
    site.console.shows("this machine is unlocked")
    a_shell_answers(site)


#: (what is asked, what is typed, the status and the words that come back)
QUESTIONS = (
    (("confirm", "Restart at noon?"), "yes\r", 200, "answered"),
    (("confirm", "Restart at noon?"), "no\r", 304, "no"),
    (("text", "Asset number?", "--input", "N"), "4711\r", 200, "answered: 4711"),
    (("choice", "Which?", "--choice", "red", "--choice", "blue"), "\x03", 214, "cancelled"),
    (("confirm", "Anybody there?", "--max", "3"), "", 408, "nobody answered in time"),
)


def ask_the_person(site: Site, questions: Sequence[tuple[tuple[str, ...], str, int, str]]) -> None:
    """R-148 to R-158: 200, 304, 214, 408 and what was entered, typed at the console."""
    for words, keys, status, message in questions:
        site.console.type("")
        order = site.place("vm", "ask", DEVICE, VM, *words)
        site.console.shows("(Ctrl-C cancels)")
        assert words[1] in site.console.text()
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
    site.console.shows("greeter-is-active")
    assert "greeter 1.0 (active" in site.vm("packages")["message"]
    removed = site.vm("remove", "greeter")
    assert removed["dm_status"] == 1200, removed
    site.console.shows("greeter-is-inactive")


def wipe(site: Site) -> None:
    """What is marked is gone from the guest's file system."""
    site.console.enter("echo secret >/root/letter; ls /root")
    site.console.shows("letter")
    wiped = site.vm("wipe", "--item", "home")
    assert wiped["dm_status"] == 1202, wiped
    site.console.enter("ls -A /root | wc -l; echo counted")
    site.console.shows("counted")
    assert "letter" not in site.console.text().rpartition("wc -l")[2]


def tell(site: Site) -> None:
    """DevInfo and DevDetail: the kernel is the one that the guest names at its console."""
    told = site.vm("info")
    assert told["state"] == "done", told
    facts = dict(line.split(": ", 1) for line in told["message"].splitlines() if ": " in line)
    site.console.enter("uname -r")
    site.console.shows(facts["FwV"].split()[-1])
    assert facts["DevId"] == f"urn:uuid:{site.vmid}"
    assert int(facts["Ext/Memory"]) > 64 << 20


def the_whole_table(folder: Path, guest_type: str, first: str, second: str, *, step: int = 1) -> None:
    """All operations over one kind of channel, then the agent is switched to the other; each ``step``-th question."""
    site = Site(folder, guest_type, first)
    try:
        tell(site)
        lock_and_unlock(site)
        ask_the_person(site, QUESTIONS[::step])
        install_and_remove(site)
        wipe(site)
        site.use(second)
        site.greeted(second)
        lock_and_unlock(site)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.board.agent_log()}\n{site.console.text()[-2000:]}") from error
    finally:
        site.close()


def test_a_pv_guest_over_vchan_and_xenstore(tmp_path: Path) -> None:
    """R-130, R-138 to R-158, HLF-07, HLF-12, HLF-13."""
    the_whole_table(tmp_path, "pv", "vchan", "xenstore", step=2)


@pytest.mark.long
def test_a_pvh_guest_over_xenstore_and_vchan(tmp_path: Path) -> None:
    """Likewise."""
    the_whole_table(tmp_path, "pvh", "xenstore", "vchan")
