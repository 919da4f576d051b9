"""What can be ordered of a running VM: one row an action. The steps around them are ``guest``'s."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import Decision, DmCommand, Done, Fail, Outcome, ReadNode, Situation, get, replace
from virmo_server.procedures.guest import Action, ManagedObject, root, vm_uri

LAWMO = ManagedObject("LAWMO", "urn:oma:mo:oma-lawmo:1.0")
SCOMO = ManagedObject("SCOMO", "urn:oma:mo:oma-scomo:1.0")
FUMO = ManagedObject("FUMO", "urn:oma:mo:oma-fumo:1.0")
DEVINFO = ManagedObject("DevInfo", "urn:oma:mo:oma-dm-devinfo:1.0")
DEVDETAIL = ManagedObject("DevDetail", "urn:oma:mo:oma-dm-devdetail:1.0")

LOCK_STATES = {"10": "fully locked", "20": "partially locked", "30": "unlocked"}
PACKAGE_LEAVES = {"pkg_id": "PkgID", "package_name": "Name", "type": "PkgType", "url": "PkgURL", "sha256": "SHA256",
                  "install_params": "InstallParams"}  # fmt: skip
ALERT_CODES = {"display": 1100, "confirm": 1101, "text": 1102, "choice": 1103, "choices": 1104}
ANSWER_WORDS = {200: "answered", 304: "no", 214: "cancelled", 408: "nobody answered in time", 416: "cannot be shown"}


def _lock(operation: str, state: str) -> Action:
    def tell(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        shown = outcomes[0].value() or ""
        words = LOCK_STATES.get(shown, f"State {shown!r}")
        if shown != state:
            return Fail(f"the device reports success, but the VM is {words}", int(Status.COMMAND_FAILED))
        return Done(words, Status.OK)

    return Action(
        (LAWMO,),
        operation=lambda s: f"{root(s, LAWMO.moid)}/Operations/{operation}",
        read=lambda s: [get(f"{root(s, LAWMO.moid)}/State")],
        tell=tell,
        repeatable=True,
    )


# Wipe -----------------------------------------------------------------------------------------------------------------


def _choose_wiped(situation: Situation, outcomes: Sequence[Outcome]) -> Mapping[str, object] | Fail:
    """Which entries of AvailableWipeList are meant, by their names or what they are called for people."""
    entries = table(outcomes[0], "AvailableWipeList")
    names = {key: {key.lower(), leaves.get("ListItemName", "").lower()} for key, leaves in entries.items()}
    wanted = {item.lower() for item in situation.params["items"]}
    unknown = wanted - set().union(*names.values()) if wanted else set()
    if unknown or not entries:
        offered = ", ".join(f"{key} ({leaves.get('ListItemName', '')})" for key, leaves in entries.items())
        missing = f"there is no {', '.join(sorted(unknown))} to wipe" if unknown else "there is nothing to wipe"
        return Fail(f"{missing}; the guest offers: {offered or 'nothing'}", int(Status.NOT_FOUND))
    chosen = [key for key in entries if not wanted or names[key] & wanted]
    return {"chosen": chosen, "others": [key for key in entries if key not in chosen]}


def _mark(situation: Situation) -> list[DmCommand]:
    at = f"{root(situation, LAWMO.moid)}/AvailableWipeList"
    marks = [(key, "true") for key in situation.memory["chosen"]]
    marks += [(key, "false") for key in situation.memory["others"]]
    return [DmCommand(Command.REPLACE, f"{at}/{key}/ToBeWiped", value, Format.BOOL) for key, value in marks]


# Software -------------------------------------------------------------------------------------------------------------


def _tell_packages(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if not outcomes[0].ok:
        return Fail("the inventory cannot be read", outcomes[0].status)
    lines = []
    for leaves in table(outcomes[0], "Deployed").values():
        state = "active" if leaves.get("State") == "20" else "inactive"
        lines.append(f"{leaves.get('Name', '?')} {leaves.get('Version', '')} ({state}, {leaves.get('ID', '')})")
    for key, leaves in table(outcomes[0], "Delivered").items():
        state = "installed" if leaves.get("State") == "20" else "delivered, not installed"
        lines.append(f"package {leaves.get('PkgID') or key} ({state})")
    return Done("\n".join(lines) or "no components", Status.OK)


def _set_package(situation: Situation) -> list[DmCommand]:
    at = f"{root(situation, SCOMO.moid)}/Download/{situation.params['entry']}"
    given = [(leaf, situation.params[key]) for key, leaf in PACKAGE_LEAVES.items() if situation.params.get(key)]
    return [DmCommand(Command.ADD, at, format=Format.NODE), *(replace(f"{at}/{leaf}", value) for leaf, value in given)]


def _install(situation: Situation) -> str:
    operation = "DownloadInstallInactive" if situation.params["inactive"] else "DownloadInstall"
    return f"{root(situation, SCOMO.moid)}/Download/{situation.params['entry']}/Operations/{operation}"


def _choose_component(situation: Situation, outcomes: Sequence[Outcome]) -> Mapping[str, object] | Fail:
    wanted = situation.params["component"]
    deployed = table(outcomes[0], "Deployed")
    found = [key for key, leaves in deployed.items() if wanted in (key, leaves.get("ID"), leaves.get("Name"))]
    if len(found) != 1:
        names = ", ".join(leaves.get("ID", key) for key, leaves in deployed.items()) or "nothing"
        what = "is ambiguous" if found else "is not installed"
        return Fail(f"{wanted!r} {what}; the VM has: {names}", int(Status.NOT_FOUND))
    return {"component": found[0]}


# Firmware -------------------------------------------------------------------------------------------------------------


def _tell_update(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    state = outcomes[0].value() or ""
    if state in ("90", "100"):
        return Done("the new system runs", Status.OK)
    return Fail(f"the device reports success, but FUMO's State is {state!r}", int(Status.COMMAND_FAILED))


# The user -------------------------------------------------------------------------------------------------------------


def ui_command(params: Mapping[str, object]) -> str:
    """UI/Command: the Alert that asks (R-149)."""
    options = "&".join(f"{key}={value}" for key, value in _options(params))
    choices = params.get("choices") or ()
    assert isinstance(choices, Sequence)
    texts = [options, str(params["text"]), *map(str, choices)]
    items = "".join(f"<Item><Data>{escape(text)}</Data></Item>" for text in texts)
    return f"<Alert><CmdID>1</CmdID><Data>{ALERT_CODES[str(params['ask'])]}</Data>{items}</Alert>"


def _options(params: Mapping[str, object]) -> list[tuple[str, str]]:
    names = {"min_seconds": "MINDT", "max_seconds": "MAXDT", "default": "DR", "max_length": "MAXLEN", "input": "IT"}
    found = [(name, str(params[key])) for key, name in names.items() if params.get(key) not in (None, "")]
    return [*found, ("ET", "P")] if params.get("masked") else found


def _tell_answer(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    """UI/Result: a Status; its code is what the person did, its Items what was entered or chosen."""
    if not outcomes[0].ok:
        return Fail("UI/Result cannot be read", outcomes[0].status)
    untrusted_text = outcomes[0].value() or ""
    if "<!" in untrusted_text:
        return Fail("UI/Result is not a Status")
    try:
        status = ElementTree.fromstring(untrusted_text)  # noqa: S314 - no declarations, and no longer than a value
    except ElementTree.ParseError as error:
        return Fail(f"UI/Result cannot be read: {error}")
    code = (status.findtext("Data") or "").strip()
    if not re.fullmatch(r"[0-9]{3}", code):
        return Fail("UI/Result is not a Status")
    said = [(item.findtext("Data") or "") for item in status.findall("Item")]
    choices = situation.params.get("choices") or ()
    if situation.params["ask"] in ("choice", "choices"):
        said = [choices[int(n) - 1] if n.isdigit() and 1 <= int(n) <= len(choices) else n for n in said]
    words = ANSWER_WORDS.get(int(code), "ended")
    return Done(f"{words}: {', '.join(said)}" if said else words, int(code))


# Facts ----------------------------------------------------------------------------------------------------------------


def _tell_info(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    lines = []
    for outcome in outcomes:
        if not outcome.ok:
            return Fail(f"{outcome.command.uri} cannot be read", outcome.status)
        base = outcome.command.uri.partition("?")[0]
        for node in outcome.nodes:
            if node.value and node.format != "node":
                lines.append(f"{_normal(node).removeprefix(base + '/')}: {node.value}")
    return Done("\n".join(lines) or "the guest has told nothing yet", Status.OK)


def tree(item: ManagedObject, below: str = "") -> Callable[[Situation], list[DmCommand]]:
    """Gets an object, or what is ``below`` its root, with all its values at once."""
    return lambda s: [get(f"{root(s, item.moid)}{below}?list=StructData")]


def _normal(node: ReadNode) -> str:
    uri = node.uri.partition("?")[0]
    return uri if uri.startswith(".") else f"./{uri}"


def table(outcome: Outcome, parent: str) -> dict[str, dict[str, str]]:
    """Entries below the interior node ``parent`` in an answer to ``?list=StructData``: name → leaf → value."""
    entries: dict[str, dict[str, str]] = {}
    for node in outcome.nodes:
        parts = _normal(node).split("/")
        if parent in parts:
            below = parts[parts.index(parent) + 1 :]
            if below:
                entry = entries.setdefault(below[0], {})
                if len(below) == 2 and node.value is not None:
                    entry[below[1]] = node.value
    return entries


ACTIONS: Mapping[str, Action] = {
    "guest-lock": _lock("FullyLock", "10"),
    "guest-partial-lock": _lock("PartiallyLock", "20"),
    "guest-unlock": _lock("UnLock", "30"),
    "guest-reset": Action((LAWMO,), operation=lambda s: f"{root(s, LAWMO.moid)}/Operations/FactoryReset"),
    "guest-wipe": Action(
        (LAWMO,),
        look=tree(LAWMO, "/AvailableWipeList"),
        choose=_choose_wiped,
        prepare=_mark,
        operation=lambda s: f"{root(s, LAWMO.moid)}/Operations/Wipe",
    ),
    "guest-packages": Action((SCOMO,), read=tree(SCOMO, "/Inventory"), tell=_tell_packages),
    "guest-install": Action((SCOMO,), prepare=_set_package, operation=_install),
    "guest-remove": Action(
        (SCOMO,),
        look=tree(SCOMO, "/Inventory"),
        choose=_choose_component,
        operation=lambda s: (
            f"{root(s, SCOMO.moid)}/Inventory/Deployed/{s.memory['component']}/Operations/Remove"
        ),
    ),
    "guest-update": Action(
        (FUMO,),
        prepare=lambda s: [replace(f"{root(s, FUMO.moid)}/DownloadAndUpdate/PkgURL", s.params["url"])],
        operation=lambda s: f"{root(s, FUMO.moid)}/DownloadAndUpdate",
        read=lambda s: [get(f"{root(s, FUMO.moid)}/State")],
        tell=_tell_update,
        firmware=True,
    ),
    "guest-ask": Action(
        (),
        prepare=lambda s: [
            DmCommand(Command.REPLACE, f"{vm_uri(s)}/UI/Command", ui_command(s.params), Format.XML, "text/xml")
        ],
        operation=lambda s: f"{vm_uri(s)}/Operations/ExecUICmd",
        read=lambda s: [get(f"{vm_uri(s)}/UI/Result")],
        tell=_tell_answer,
    ),
    "guest-info": Action(
        (DEVINFO, DEVDETAIL), read=lambda s: [*tree(DEVINFO)(s), *tree(DEVDETAIL)(s)], tell=_tell_info
    ),
}  # fmt: skip
