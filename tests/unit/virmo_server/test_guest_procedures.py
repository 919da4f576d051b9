"""Orders for what runs in a VM, as procedures alone: against a device that is a table, and that may lie (11.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from dom0_agent.omadm.node import Command
from virmo_server.procedures.core import (
    UNKNOWABLE,
    Await,
    Decision,
    DmCommand,
    Done,
    Fail,
    Go,
    Outcome,
    ReadNode,
    Situation,
)
from virmo_server.procedures.guest import MAX_OBJECTS, guest_procedure
from virmo_server.procedures.guest_actions import ACTIONS, DEVDETAIL, DEVINFO, FUMO, LAWMO, SCOMO, ui_command

VM = "./VirMO/www"
TREE = f"{VM}/DMTree"


class Device:
    """Nodes of a device: URI → value. What is done to it is noted; an Exec answers as it was told."""

    def __init__(self, nodes: dict[str, str] | None = None, types: dict[str, str] | None = None) -> None:
        self.nodes = nodes or {}
        self.types = types or {}
        self.ends: int = 200
        self.done: list[str] = []

    def answer(self, command: DmCommand) -> Outcome:
        uri, _, query = command.uri.partition("?")
        if command.verb is Command.GET:
            return self._get(command, uri, query)
        self.done.append(f"{command.verb.value} {uri}" + (f" {command.data}" if command.data else ""))
        if command.verb is Command.EXEC:
            return Outcome(command, self.ends)
        if command.verb is Command.ADD and uri in self.nodes:
            return Outcome(command, 418)
        self.nodes[uri] = command.data
        if command.type is not None:
            self.types[uri] = command.type
        return Outcome(command, 200)

    def _get(self, command: DmCommand, uri: str, query: str) -> Outcome:
        if query == "prop=Type":
            return Outcome(command, 200, (ReadNode(command.uri, self.types.get(uri, "")),))
        below = [name for name in self.nodes if name.startswith(f"{uri}/")]
        if query == "list=StructData":
            return Outcome(command, 200, tuple(ReadNode(name, self.nodes[name]) for name in below))
        if uri in self.nodes:
            return Outcome(command, 200, (ReadNode(uri, self.nodes[uri]),))
        if not below:
            return Outcome(command, 404)
        children = sorted({name[len(uri) + 1 :].partition("/")[0] for name in below})
        return Outcome(command, 200, (ReadNode(uri, "/".join(children), "node"),))


class Order:
    """One order's procedure, driven as the engine does it."""

    def __init__(self, kind: str, device: Device, **params: Any) -> None:
        self.procedure = guest_procedure(ACTIONS[kind])
        self.device = device
        self.params = {"node": "www", "name": "www", **params}
        self.memory: dict[str, Any] = {}
        self.step = self.procedure.first

    def situation(self, *, doubtful: bool = False) -> Situation:
        return Situation(self.params, self.memory, "c1", "./VirMO", "./VMImgMO", doubtful)

    def run(self) -> Decision:
        """To its end, or until it waits."""
        for _ in range(20):
            step = self.procedure.steps[self.step]
            outcomes = [self.device.answer(command) for command in step.commands(self.situation())]
            decision = self._next(step.judge(self.situation(), outcomes))
            if not isinstance(decision, Go):
                return decision
        raise AssertionError("it does not end")

    def alert(self, status: int) -> Decision:
        """The device reports the end."""
        assert self.procedure.on_alert is not None
        decision = self._next(self.procedure.on_alert(self.situation(), status))
        return self.run() if isinstance(decision, Go) else decision

    def _next(self, decision: Decision) -> Decision:
        if isinstance(decision, Go | Await):
            self.memory.update(decision.remember)
            self.step = decision.step if isinstance(decision, Go) else decision.poll
        return decision


def with_object(moid: str, leaves: dict[str, str], name: str = "X7") -> Device:
    """A VM with one object, under a name that says nothing (A-42)."""
    root = f"{TREE}/{name}"
    nodes = {root: "", f"{TREE}/other": "", **{f"{root}/{path}": value for path, value in leaves.items()}}
    return Device(nodes, {root: moid, f"{TREE}/other": "urn:x:other"})


def test_objects_are_found_by_moid() -> None:
    """R-144, A-42."""
    device = with_object(LAWMO.moid, {"State": "10"})
    assert Order("guest-lock", device).run() == Done("fully locked", 200)
    assert device.done == [f"Exec {TREE}/X7/Operations/FullyLock"]


@pytest.mark.parametrize("nodes", [{}, {f"{TREE}/other": ""}])
def test_objects_that_are_missing_are_added_with_their_moid(nodes: dict[str, str]) -> None:
    """R-141, R-143."""
    device = Device({**nodes, f"{VM}/State": "2"})
    Order("guest-lock", device).run()
    assert device.done == [f"Add {TREE}/LAWMO", f"Exec {TREE}/LAWMO/Operations/FullyLock"]
    assert device.types[f"{TREE}/LAWMO"] == LAWMO.moid


def test_an_add_in_doubt_that_finds_the_object_has_worked_once() -> None:
    order = Order("guest-lock", Device({f"{TREE}/LAWMO": ""}))
    order.memory["roots"] = {}
    (command,) = order.procedure.steps["add"].commands(order.situation())
    outcome = order.device.answer(command)
    assert isinstance(order.procedure.steps["add"].judge(order.situation(), [outcome]), Fail)
    assert isinstance(order.procedure.steps["add"].judge(order.situation(doubtful=True), [outcome]), Go)


def test_a_device_that_claims_too_many_objects_is_not_searched() -> None:
    device = Device({f"{TREE}/o{number}": "" for number in range(MAX_OBJECTS + 1)})
    decision = Order("guest-lock", device).run()
    assert isinstance(decision, Fail)
    assert device.done == []


@pytest.mark.parametrize(
    ("kind", "state"), [("guest-lock", "10"), ("guest-partial-lock", "20"), ("guest-unlock", "30")]
)
def test_a_lock_is_believed_only_when_the_state_shows_it(kind: str, state: str) -> None:
    for shown in ("10", "20", "30", ""):
        decision = Order(kind, with_object(LAWMO.moid, {"State": shown})).run()
        assert isinstance(decision, Done if shown == state else Fail), (shown, decision)


def test_an_accepted_operation_ends_with_its_alert() -> None:
    """R-147: 202, polls in between, then the object's result code in words."""
    device = with_object(LAWMO.moid, {"State": "10"})
    device.nodes[f"{VM}/State"] = "2"
    device.ends = 202
    order = Order("guest-lock", device)
    assert isinstance(order.run(), Await)
    assert isinstance(order.run(), Await)  # polled
    assert order.alert(1402) == Fail("the device reports 1402 failed (full lock, download, or enabling)", 1402)
    order.step = "poll"
    assert order.alert(1200) == Done("fully locked", 200)


def test_an_alert_that_overtakes_the_status_counts() -> None:
    device = with_object(LAWMO.moid, {"State": "30"})
    device.ends = 202
    order = Order("guest-unlock", device)
    order.memory["alert_status"] = 1404
    decision = order.run()
    assert isinstance(decision, Fail)
    assert decision.status == 1404


def test_waiting_ends_when_the_vm_is_gone() -> None:
    device = with_object(LAWMO.moid, {"State": "10"})
    device.ends = 202
    order = Order("guest-lock", device)
    order.run()
    device.nodes.clear()
    decision = order.run()
    assert isinstance(decision, Fail)
    assert decision.status == 404


def test_what_must_not_be_done_twice_is_not_sent_twice() -> None:
    """A lost answer to an Exec: a lock is repeated, a wipe or an installation is not."""
    doubts = {kind: guest_procedure(action).steps["exec"].if_doubtful for kind, action in ACTIONS.items()
              if action.operation is not None}  # fmt: skip
    assert {kind for kind, doubt in doubts.items() if doubt is None} == {
        "guest-lock", "guest-partial-lock", "guest-unlock",
    }  # fmt: skip
    assert {doubt for doubt in doubts.values() if doubt is not None} == {UNKNOWABLE}


WIPE_LIST = {"AvailableWipeList/a/ListItemName": "Letters", "AvailableWipeList/b/ListItemName": "Photos"}


@pytest.mark.parametrize(("items", "marks"), [([], "true true"), (["LETTERS"], "true false"), (["b"], "true false")])
def test_a_wipe_marks_what_is_meant_and_nothing_else(items: Sequence[str], marks: str) -> None:
    device = with_object(LAWMO.moid, dict(WIPE_LIST))
    device.ends = 1202
    assert isinstance(Order("guest-wipe", device, items=items).run(), Done)
    assert [line.rpartition(" ")[2] for line in device.done[:-1]] == marks.split()
    if items:
        assert device.done[0].endswith(f"/{'a' if items == ['LETTERS'] else 'b'}/ToBeWiped true")


def test_a_wipe_of_what_is_not_there_touches_nothing() -> None:
    device = with_object(LAWMO.moid, dict(WIPE_LIST))
    decision = Order("guest-wipe", device, items=["a", "c"]).run()
    assert decision == Fail("there is no c to wipe; the guest offers: a (Letters), b (Photos)", 404)
    assert device.done == []


def test_a_package_is_described_and_installed() -> None:
    device = with_object(SCOMO.moid, {})
    params = {"entry": "e1", "url": "https://h/p", "sha256": "ab", "package_name": "greeter", "pkg_id": None}
    Order("guest-install", device, inactive=False, **params).run()
    entry = f"{TREE}/X7/Download/e1"
    assert device.done == [f"Add {entry}", f"Replace {entry}/Name greeter", f"Replace {entry}/PkgURL https://h/p",
                           f"Replace {entry}/SHA256 ab", f"Exec {entry}/Operations/DownloadInstall"]  # fmt: skip
    Order("guest-install", device, inactive=True, **params).run()
    assert device.done[-1].endswith("/DownloadInstallInactive")


INVENTORY = {
    "Inventory/Deployed/n1/ID": "dpkg:www", "Inventory/Deployed/n1/Name": "www", "Inventory/Deployed/n1/Version": "2",
    "Inventory/Deployed/n1/State": "20", "Inventory/Deployed/n2/ID": "archive:www", "Inventory/Deployed/n2/Name": "www",
    "Inventory/Deployed/n2/State": "10", "Inventory/Delivered/p/PkgID": "p-1", "Inventory/Delivered/p/State": "10",
}  # fmt: skip


def test_packages_are_told_with_their_states() -> None:
    told = Order("guest-packages", with_object(SCOMO.moid, INVENTORY)).run()
    assert isinstance(told, Done)
    assert told.message.splitlines() == ["www 2 (active, dpkg:www)", "www  (inactive, archive:www)",
                                         "package p-1 (delivered, not installed)"]  # fmt: skip


@pytest.mark.parametrize(("wanted", "words"), [("www", "is ambiguous"), ("nginx", "is not installed")])
def test_only_one_component_that_is_there_is_removed(wanted: str, words: str) -> None:
    device = with_object(SCOMO.moid, INVENTORY)
    decision = Order("guest-remove", device, component=wanted).run()
    assert isinstance(decision, Fail)
    assert words in decision.message
    assert device.done == []
    Order("guest-remove", device, component="archive:www").run()
    assert device.done == [f"Exec {TREE}/X7/Inventory/Deployed/n2/Operations/Remove"]


@pytest.mark.parametrize(("end", "state", "words"), [
    (200, "100", "the new system runs"), (200, "70", "State is '70'"), (410, "70", "the old system runs"),
])  # fmt: skip
def test_an_update_has_fumos_codes(end: int, state: str, words: str) -> None:
    device = with_object(FUMO.moid, {"State": state, "DownloadAndUpdate": ""})
    device.ends = end
    decision = Order("guest-update", device, url="https://h/new").run()
    assert isinstance(decision, Done | Fail)
    assert words in decision.message
    assert isinstance(decision, Done) == (state == "100")
    assert device.done[0] == f"Replace {TREE}/X7/DownloadAndUpdate/PkgURL https://h/new"


def test_facts_are_told_line_by_line() -> None:
    nodes = {f"{TREE}/i": "", f"{TREE}/i/Man": "Debian", f"{TREE}/d": "", f"{TREE}/d/Ext/Hostname": "www"}
    told = Order("guest-info", Device(nodes, {f"{TREE}/i": DEVINFO.moid, f"{TREE}/d": DEVDETAIL.moid})).run()
    assert told == Done("Man: Debian\nExt/Hostname: www", 200)


# the user -------------------------------------------------------------------------------------------------------------


def test_a_ui_command_carries_every_option_escaped() -> None:
    """R-149, R-153."""
    params = {"ask": "text", "text": "a < b & c", "min_seconds": 2, "max_seconds": 9, "default": "x", "max_length": 5,
              "input": "N", "masked": True, "choices": ()}  # fmt: skip
    alert = ElementTree.fromstring(ui_command(params))  # noqa: S314 - our own
    assert alert.findtext("Data") == "1102"
    options, text = (item.findtext("Data") for item in alert.findall("Item"))
    assert options == "MINDT=2&MAXDT=9&DR=x&MAXLEN=5&IT=N&ET=P"
    assert text == "a < b & c"
    several = ElementTree.fromstring(ui_command({"ask": "choices", "text": "?", "choices": ["<a>", "b"]}))  # noqa: S314
    assert [item.findtext("Data") or "" for item in several.findall("Item")] == ["", "?", "<a>", "b"]


def result(code: str, *items: str) -> str:
    said = "".join(f"<Item><Data>{item}</Data></Item>" for item in items)
    start = "<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>1</CmdRef><Cmd>Alert</Cmd>"
    return f"{start}<Data>{code}</Data>{said}</Status>"


@pytest.mark.parametrize(("ask", "shown", "message", "code"), [
    ("display", result("200"), "answered", 200), ("confirm", result("304"), "no", 304),
    ("confirm", result("214"), "cancelled", 214), ("confirm", result("408"), "nobody answered in time", 408),
    ("text", result("200", "4711"), "answered: 4711", 200), ("choice", result("200", "2"), "answered: b", 200),
    ("choices", result("200", "1", "2"), "answered: a, b", 200), ("choice", result("200", "9"), "answered: 9", 200),
])  # fmt: skip
def test_the_answer_is_in_ui_result(ask: str, shown: str, message: str, code: int) -> None:
    """R-154, R-158, A-47: the Exec is 200 whatever the person says."""
    device = Device({f"{VM}/UI/Result": shown})
    assert Order("guest-ask", device, ask=ask, text="?", choices=["a", "b"]).run() == Done(message, code)
    assert [line.split()[0] for line in device.done] == ["Replace", "Exec"]
    assert device.done[1] == f"Exec {VM}/Operations/ExecUICmd"


@pytest.mark.parametrize("lie", [
    "", "<Status>", "<Status/>", result("okay"), '<!DOCTYPE a [<!ENTITY x "y">]><Status><Data>200</Data></Status>',
])  # fmt: skip
def test_what_is_no_result_fails(lie: str) -> None:
    decision = Order("guest-ask", Device({f"{VM}/UI/Result": lie}), ask="confirm", text="?").run()
    assert isinstance(decision, Fail)
