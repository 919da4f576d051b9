"""Sharing a device's resources out anew (7.1, 8): NewConfig of each VM, then one Exec of ApplyChanges for all.

The device changes all of them or none (reading A-16). What is not given stays as CurrentConfig has it, because
NewConfig must be complete (reading A-14). An order that fails takes its NewConfig nodes back, or the next ApplyChanges
of anybody would apply them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import (
    Await,
    Decision,
    DmCommand,
    Done,
    Fail,
    Go,
    Outcome,
    Procedure,
    Situation,
    Step,
    execute,
    get,
    judge_exec,
    read_after,
    refused,
    replace,
    status_words,
)

#: Keys of a configuration, in the order of R-049: octets, octets, percent, percent.
KEYS = ("RAM", "Storage", "CPU", "Network")


def apply_procedure() -> Procedure:
    """Params: ``vms``, a list of ``node``, ``name`` and ``config`` (key → number, only those that change)."""
    steps = {
        "look": Step(_ask_current, _judge_look),
        "write": Step(_add_configs, _judge_add),
        "rewrite": Step(_replace_configs, _judge_replace),
        "exec": Step(_exec, _judge_exec, if_doubtful="resolve"),
        "resolve": Step(_ask_current, _judge_resolve),
        "poll": Step(_ask_current, _judge_poll),
        "read": Step(_ask_all, _judge_read),
        "withdraw": Step(_delete_configs, _judge_withdraw),
    }
    return Procedure(first="look", steps=steps, on_alert=_on_alert)


def parse_config(untrusted_text: str | None) -> dict[str, int]:
    """``RAM=1024&CPU=10``: the known keys with their numbers; what is no number is left out."""
    pairs = parse_qsl(untrusted_text or "", keep_blank_values=True)
    return {key: int(value) for key, value in pairs if key in KEYS and value.isascii() and value.isdigit()}


def config_text(config: Mapping[str, int]) -> str:
    """A complete configuration as the nodes hold it."""
    return "&".join(f"{key}={config[key]}" for key in KEYS)


def _vms(situation: Situation) -> list[Mapping[str, Any]]:
    return list(situation.params["vms"])


def _resources(situation: Situation, vm: Mapping[str, Any]) -> str:
    return f"{situation.virmo_root}/{vm['node']}/Resources"


def _ask_current(situation: Situation) -> list[DmCommand]:
    return [get(f"{_resources(situation, vm)}/CurrentConfig") for vm in _vms(situation)]


def _ask_all(situation: Situation) -> list[DmCommand]:
    return [*_ask_current(situation), get(f"{situation.virmo_root}/DeviceResources")]


def _judge_look(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    wanted: dict[str, str] = {}
    for vm, outcome in zip(_vms(situation), outcomes, strict=True):
        if not outcome.ok:
            return refused(outcome)
        config = parse_config(outcome.value()) | vm["config"]
        missing = [key for key in KEYS if key not in config]
        if missing:
            return Fail(f"VM {vm['name']}: CurrentConfig is {outcome.value()!r}, so {', '.join(missing)} must be given")
        wanted[vm["node"]] = config_text(config)
    return Go("write", {"wanted": wanted}, "; ".join(f"{vm['name']}: {wanted[vm['node']]}" for vm in _vms(situation)))


def _add_configs(situation: Situation) -> list[DmCommand]:
    wanted = situation.memory["wanted"]
    return [
        DmCommand(Command.ADD, f"{_resources(situation, vm)}/NewConfig", wanted[vm["node"]], Format.CHR)
        for vm in _vms(situation)
    ]


def _judge_add(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    present = []
    for vm, outcome in zip(_vms(situation), outcomes, strict=True):
        if outcome.status == Status.ALREADY_EXISTS:
            present.append(vm["node"])
        elif not outcome.ok:
            return _withdraw(refused(outcome))
    if present:
        return Go("rewrite", {"present": present}, "some NewConfig nodes are there already: replacing them")
    return Go("exec", {}, "NewConfig is written")


def _replace_configs(situation: Situation) -> list[DmCommand]:
    wanted, present = situation.memory["wanted"], situation.memory["present"]
    return [
        replace(f"{_resources(situation, vm)}/NewConfig", wanted[vm["node"]])
        for vm in _vms(situation)
        if vm["node"] in present
    ]


def _judge_replace(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    failed = [outcome for outcome in outcomes if not outcome.ok]
    return _withdraw(refused(failed[0])) if failed else Go("exec", {}, "NewConfig is written")


def _exec(situation: Situation) -> list[DmCommand]:
    return execute(situation, f"{situation.virmo_root}/Operations/ApplyChanges")


def _judge_exec(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    return judge_exec(situation, outcomes[0], _on_alert, read_after("Exec ApplyChanges"), may_be_running=True)


def _judge_resolve(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if _is_reached(situation, outcomes):
        return Go("read", {"status": Status.OK}, "the lost session had done it, CurrentConfig says so")
    return Go("exec", {}, "not done yet: sending the Exec again")


def _judge_poll(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if _is_reached(situation, outcomes):
        return Go("read", {"status": Status.OK}, "all is applied, though no alert came")
    return Await("poll", {}, "still waiting")


def _on_alert(_situation: Situation, status: int) -> Decision:
    return Go("read", {"status": status}, f"the device reports the end: {status_words(status)}", status)


def _judge_read(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    status = int(situation.memory["status"])
    currents = outcomes[: len(_vms(situation))]
    shown = "; ".join(
        f"{vm['name']}: {outcome.value() or status_words(outcome.status)}"
        for vm, outcome in zip(_vms(situation), currents, strict=True)
    )
    if status < 300 and _is_reached(situation, currents):
        return Done(shown, Status.OK)
    if status < 300:
        return _withdraw(Fail(f"the device answered {status_words(status)}, but shows {shown}", status))
    return _withdraw(Fail(f"ApplyChanges failed: {status_words(status)}; unchanged: {shown}", status))


def _is_reached(situation: Situation, currents: Sequence[Outcome]) -> bool:
    wanted = situation.memory["wanted"]
    return all(
        parse_config(outcome.value()) == parse_config(wanted[vm["node"]])
        for vm, outcome in zip(_vms(situation), currents, strict=True)
    )


def _withdraw(failure: Fail) -> Go:
    return Go("withdraw", {"failure": failure.message, "failure_status": failure.status}, failure.message)


def _delete_configs(situation: Situation) -> list[DmCommand]:
    return [DmCommand(Command.DELETE, f"{_resources(situation, vm)}/NewConfig") for vm in _vms(situation)]


def _judge_withdraw(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    message = str(situation.memory["failure"])
    left = [outcome for outcome in outcomes if not outcome.ok and outcome.status != Status.NOT_FOUND]
    if left:
        message += f"; its NewConfig could not be taken back: {status_words(left[0].status)}"
    status = situation.memory["failure_status"]
    return Fail(message, None if status is None else int(status))
