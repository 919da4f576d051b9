"""Reads what a device has: finds the MO roots by MOID, lists VMs and images, reads their leaves.

What is read enters the server's knowledge like every other answer to a Get; this procedure only asks in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from dom0_agent.omadm.status import Status
from virmo_server.procedures import image, vm
from virmo_server.procedures.core import (
    Decision,
    DmCommand,
    Done,
    Fail,
    Go,
    Outcome,
    Procedure,
    ReadNode,
    Situation,
    Step,
    get,
    status_words,
)

VIRMO_MOID = "urn:oma:mo:oma-virmo:1.0"
VMIMG_MOID = "urn:oma:mo:oma-vmimgmo:1.0"
DEFAULT_VIRMO_ROOT = "./VirMO"
DEFAULT_VMIMG_ROOT = "./VMImgMO"
#: Children of VirMO that are no VM (reading A-24).
RESERVED_NODES = frozenset({"Operations", "DeviceResources"})
#: Entries read in one message: five leaves each stay far below the smallest message size clients announce.
ENTRIES_PER_MESSAGE = 8
#: A device that claims more entries than this is not believed; R-033 sets no limit, a board's memory does.
MAX_ENTRIES = 256


def refresh_procedure() -> Procedure:
    """Roots → lists → entries. Memory ``virmo_root`` and ``vmimg_root`` are kept with the device by the engine."""
    steps = {
        "roots": Step(_ask_types, _judge_types),
        "search": Step(lambda _s: [get(".?list=Struct")], _judge_search),
        "lists": Step(_ask_lists, _judge_lists),
        "entries": Step(_ask_entries, _judge_entries),
    }
    return Procedure(first="roots", steps=steps)


def find_root(nodes: Sequence[ReadNode], moid: str) -> str | None:
    """The URI of the (first) MO root with this MOID in the answer to ``?list=Struct``."""
    for node in nodes:
        if (node.type or "").strip() == moid:
            uri = node.uri.partition("?")[0]
            return uri if uri.startswith(".") else f"./{uri}"
    return None


def child_names(untrusted_value: str | None) -> list[str]:
    """Child names in the answer to a Get of an interior node: joined by ``/``, unordered."""
    return sorted({name for name in (untrusted_value or "").split("/") if name})


def _ask_types(_situation: Situation) -> list[DmCommand]:
    return [get(f"{DEFAULT_VIRMO_ROOT}?prop=Type"), get(f"{DEFAULT_VMIMG_ROOT}?prop=Type")]


def _judge_types(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    virmo, vmimg = outcomes
    usual = {"virmo_root": DEFAULT_VIRMO_ROOT, "vmimg_root": DEFAULT_VMIMG_ROOT}
    if (virmo.value() or "").strip() == VIRMO_MOID and (vmimg.value() or "").strip() == VMIMG_MOID:
        return Go("lists", usual, "both MOs are at their usual place")
    if Status.NOT_SUPPORTED in {virmo.status, vmimg.status}:
        return Go("lists", usual, "the device does not tell types of nodes: assuming the usual places")
    return Go("search", {}, "MOs are not at their usual place: searching by MOID")


def _judge_search(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if not outcomes[0].ok:
        return Fail(f"the tree cannot be searched: {status_words(outcomes[0].status)}", outcomes[0].status)
    virmo = find_root(outcomes[0].nodes, VIRMO_MOID)
    vmimg = find_root(outcomes[0].nodes, VMIMG_MOID)
    if virmo is None or vmimg is None:
        missing = " and ".join(moid for moid, root in ((VIRMO_MOID, virmo), (VMIMG_MOID, vmimg)) if root is None)
        return Fail(f"the device has no management object {missing}")
    return Go("lists", {"virmo_root": virmo, "vmimg_root": vmimg}, f"found {virmo} and {vmimg}")


def _roots(situation: Situation) -> tuple[str, str]:
    return str(situation.memory["virmo_root"]), str(situation.memory["vmimg_root"])


def _ask_lists(situation: Situation) -> list[DmCommand]:
    virmo, vmimg = _roots(situation)
    return [get(virmo), get(vmimg), get(f"{virmo}/DeviceResources")]


def _judge_lists(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    virmo, vmimg = _roots(situation)
    for outcome in outcomes[:2]:
        if not outcome.ok:
            return Fail(f"{outcome.command.uri} cannot be read: {status_words(outcome.status)}", outcome.status)
    vms = [name for name in child_names(outcomes[0].value()) if name not in RESERVED_NODES]
    images = child_names(outcomes[1].value())
    if len(vms) + len(images) > MAX_ENTRIES:
        return Fail(f"the device claims {len(vms)} VMs and {len(images)} images, more than {MAX_ENTRIES}")
    rest = [[f"{virmo}/{name}", "vm"] for name in vms] + [[f"{vmimg}/{name}", "image"] for name in images]
    summary = f"{len(vms)} VMs, {len(images)} images"
    return Go("entries", {"rest": rest, "summary": summary}, summary) if rest else Done(summary, Status.OK)


def _ask_entries(situation: Situation) -> list[DmCommand]:
    leaves = {"vm": vm.READ_BACK, "image": image.READ_BACK}
    return [
        get(f"{uri}/{leaf}") for uri, kind in situation.memory["rest"][:ENTRIES_PER_MESSAGE] for leaf in leaves[kind]
    ]


def _judge_entries(situation: Situation, _outcomes: Sequence[Outcome]) -> Decision:
    rest = situation.memory["rest"][ENTRIES_PER_MESSAGE:]
    if rest:
        return Go("entries", {"rest": rest})
    return Done(str(situation.memory["summary"]), Status.OK)
