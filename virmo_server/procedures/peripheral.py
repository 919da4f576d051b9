"""Peripherals of a VM (DCMO below its DMTree): which there are, and enabling or disabling one.

Enabling twice does no harm, so an Exec whose answer was lost is sent again. The order's end is what ``Enabled`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence

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
)
from virmo_server.procedures.refresh import child_names

#: Leaves that tell a peripheral.
FACTS = ("Property", "Enabled", "Attached")
#: A guest that claims more is broken.
MAX_PERIPHERALS = 64


def list_procedure() -> Procedure:
    """Params: ``node``."""
    steps = {
        "names": Step(lambda s: [get(_root(s))], _judge_names),
        "facts": Step(_ask_facts, _judge_facts),
    }
    return Procedure(first="names", steps=steps)


def switch_procedure(*, enable: bool) -> Procedure:
    """Params: ``node``, ``peripheral``."""
    operation, wanted = ("Enable", "true") if enable else ("Disable", "false")

    def is_reached(outcome: Outcome) -> bool:
        return (outcome.value() or "").strip().lower() == wanted

    def send(situation: Situation) -> list[DmCommand]:
        return execute(situation, f"{_peripheral(situation)}/Operations/{operation}")

    def judge_sent(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        return judge_exec(situation, outcomes[0], on_alert, ended)

    def ended(outcome: Outcome) -> Decision:
        return read_after(f"Exec {operation}")(outcome) if outcome.ok else refused(outcome)

    def judge_poll(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        if is_reached(outcomes[0]):
            return Done(f"Enabled is {wanted}, though no alert came", Status.OK)
        return Await("poll", {}, f"still waiting, Enabled is {outcomes[0].value()}")

    def judge_read(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        if is_reached(outcomes[0]):
            return Done(f"Enabled is {wanted}", Status.OK)
        return Fail(f"the device reports success, but Enabled is {outcomes[0].value()}", int(Status.COMMAND_FAILED))

    def on_alert(_situation: Situation, code: int) -> Decision:
        if code % 1000 // 100 == 2:  # DCMO's own codes are those of DM, plus a thousand
            return Go("read", {}, f"the device reports the end: {code}", code)
        return Fail(f"{operation} failed: the device reports {code}", code)

    steps = {
        "exec": Step(send, judge_sent, if_doubtful="exec"),
        "poll": Step(_ask_enabled, judge_poll),
        "read": Step(_ask_enabled, judge_read),
    }
    return Procedure(first="exec", steps=steps, on_alert=on_alert)


def _root(situation: Situation) -> str:
    return f"{situation.virmo_root}/{situation.params['node']}/DMTree/DCMO"


def _peripheral(situation: Situation) -> str:
    return f"{_root(situation)}/{situation.params['peripheral']}"


def _ask_enabled(situation: Situation) -> list[DmCommand]:
    return [get(f"{_peripheral(situation)}/Enabled")]


def _judge_names(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].status == Status.NOT_FOUND:
        return Done("the VM tells no peripherals", Status.OK)
    if not outcomes[0].ok:
        return refused(outcomes[0])
    names = child_names(outcomes[0].value())
    if len(names) > MAX_PERIPHERALS:
        return Fail(f"the VM claims {len(names)} peripherals, more than {MAX_PERIPHERALS}")
    return Go("facts", {"names": names}) if names else Done("the VM has no peripherals", Status.OK)


def _ask_facts(situation: Situation) -> list[DmCommand]:
    return [get(f"{_root(situation)}/{name}/{leaf}") for name in situation.memory["names"] for leaf in FACTS]


def _judge_facts(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    lines = []
    for number, name in enumerate(situation.memory["names"]):
        told, enabled, attached = (outcome.value() for outcome in outcomes[number * 3 : number * 3 + 3])
        state = {"true": "enabled", "false": "disabled"}.get((enabled or "").lower(), "state unknown")
        away = ", not attached" if (attached or "").lower() == "false" else ""
        lines.append(f"{name}: {told or 'no description'}, {state}{away}")
    return Done("\n".join(lines), Status.OK)
