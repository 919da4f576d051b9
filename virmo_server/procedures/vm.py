"""Creating a VM (10.2), its primitives, and deleting it (10.3), as step tables.

An Exec may be answered at once or by 202 and a later Generic Alert (R-121, reading A-27). However it ended, State is
read back before the order is closed: the order's result is what the device shows, not what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dom0_agent.omadm.node import Command
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
    add_interior,
    execute,
    failed_outcomes,
    get,
    judge_exec,
    read_after,
    refused,
    replace,
    status_words,
)
from virmo_server.procedures.create_params import BOOTSTRAP, create_params
from virmo_server.procedures.states import VmState, parse_state, vm_state_words

#: Leaves read back after an operation, State first.
READ_BACK = ("State", "VMID", "CreateParams", "Description", "Resources/CurrentConfig")


@dataclass(frozen=True, slots=True)
class Primitive:
    """A primitive on an existing VM: the node to Exec and the State it must end in (``None``: the VM is gone)."""

    node: str
    target: VmState | None


PRIMITIVES = {
    "power-off": Primitive("PowerOff", VmState.POWERED_OFF),
    "power-on": Primitive("PowerOn", VmState.RUNNING),
    "suspend": Primitive("Suspend", VmState.SUSPENDED),
    "resume": Primitive("Resume", VmState.RUNNING),
    "delete-vm": Primitive("Delete", None),
}


def primitive_procedure(primitive: Primitive) -> Procedure:
    """Exec the primitive, wait for its end, read back.

    Delete first looks: an entry in NotCreated is removed by a DM Delete (reading A-07), one that is gone is no failure.
    """
    machine = _Operation(primitive.node, lambda _situation: primitive.target)
    if primitive.target is not None:
        return Procedure(first="exec", steps=machine.steps(), on_alert=machine.on_alert)
    steps = {
        "look": Step(_get_state, _judge_look),
        "drop": Step(lambda s: [DmCommand(Command.DELETE, _vm(s))], _judge_drop),
        **machine.steps(),
    }
    return Procedure(first="look", steps=steps, on_alert=machine.on_alert)


def create_procedure() -> Procedure:
    """10.2: add the entry, set its parameters, Exec Create, read back; an entry whose creation failed is removed.

    Params: ``node``, ``description``, ``running``; memory ``img_id`` is put there when the order becomes due.
    """
    machine = _Operation(
        "Create",
        lambda situation: VmState.RUNNING if situation.params["running"] else VmState.POWERED_OFF,
        on_failure="remove",
    )
    steps = {
        "add": Step(lambda s: [add_interior(_vm(s))], _judge_add),
        "parameters": Step(_parameters, _judge_parameters),
        **machine.steps(),
        "remove": Step(lambda s: [DmCommand(Command.DELETE, _vm(s))], _judge_remove),
    }
    return Procedure(first="add", steps=steps, on_alert=machine.on_alert)


@dataclass(frozen=True, slots=True)
class _Operation:
    """The part that all operations share: exec, in doubt: resolve, accepted: poll, read, and judge by State."""

    node: str
    target: Callable[[Situation], VmState | None]  #: None: the VM is gone
    on_failure: str | None = None  #: step to clean up with when the entry is still in NotCreated

    def steps(self) -> dict[str, Step]:
        return {
            "exec": Step(self._exec, self._judge_exec, if_doubtful="resolve"),
            "resolve": Step(_get_state, self._judge_resolve),
            "poll": Step(_get_state, self._judge_poll),
            "read": Step(_read_back, self._judge_read),
        }

    def on_alert(self, _situation: Situation, status: int) -> Decision:
        return Go("read", {"status": status}, f"the device reports the end: {status_words(status)}", status)

    def _exec(self, situation: Situation) -> list[DmCommand]:
        return execute(situation, f"{_vm(situation)}/Operations/{self.node}")

    def _judge_exec(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        ended = read_after(f"Exec {self.node}")
        return judge_exec(situation, outcomes[0], self.on_alert, ended, may_be_running=True)

    def _judge_resolve(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        if self._is_reached(situation, outcomes[0]):
            return Go("read", {"status": Status.OK}, "the lost session had done it, State says so")
        return Go("exec", {}, f"State is {_shown(outcomes[0])}: sending the Exec again")

    def _judge_poll(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        if self._is_reached(situation, outcomes[0]):
            return Go("read", {"status": Status.OK}, "State is reached, though no alert came")
        return Await("poll", {}, f"still waiting, State is {_shown(outcomes[0])}")

    def _judge_read(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        status = int(situation.memory["status"])
        state = outcomes[0]
        reached = self._is_reached(situation, state)
        if reached and (status < 300 or situation.doubtful):
            words = "gone" if state.status == Status.NOT_FOUND else vm_state_words(parse_state(state.value()))
            return Done(f"State {words}", status if status < 300 else Status.OK)
        if status >= 300:
            message = f"{self.node} failed: {status_words(status)}; State is {_shown(state)}"
        else:
            message = f"the device answered {status_words(status)} to {self.node}, but State is {_shown(state)}"
        if self.on_failure is not None and parse_state(state.value()) == VmState.NOT_CREATED:
            return Go(self.on_failure, {"failure": message, "failure_status": status}, message)
        return Fail(message, status)

    def _is_reached(self, situation: Situation, state: Outcome) -> bool:
        target = self.target(situation)
        if target is None:
            return state.status == Status.NOT_FOUND
        return parse_state(state.value()) == target


def _vm(situation: Situation) -> str:
    return f"{situation.virmo_root}/{situation.params['node']}"


def _get_state(situation: Situation) -> list[DmCommand]:
    return [get(f"{_vm(situation)}/State")]


def _read_back(situation: Situation) -> list[DmCommand]:
    return [get(f"{_vm(situation)}/{leaf}") for leaf in READ_BACK]


def _parameters(situation: Situation) -> list[DmCommand]:
    given = situation.params
    params = create_params(
        situation.memory["img_id"],
        running=given["running"],
        devices=given.get("devices", ()),
        bootstrap=given.get(BOOTSTRAP, ""),
    )
    return [
        replace(f"{_vm(situation)}/CreateParams", params),
        replace(f"{_vm(situation)}/Description", situation.params["description"]),
    ]


def _judge_add(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].ok or (situation.doubtful and outcomes[0].status == Status.ALREADY_EXISTS):
        return Go("parameters", {}, "entry added")
    return refused(outcomes[0])


def _judge_parameters(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    failure = failed_outcomes(outcomes)
    if failure is None:
        return Go("exec", {}, "parameters set")
    fail = refused(failure)
    return Go("remove", {"failure": fail.message, "failure_status": failure.status}, fail.message)


def _judge_remove(situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    """What failed may have been the first of two Execs around a lost session: the entry is then busy with the other."""
    if outcomes[0].status == Status.RETRY_LATER:
        return Await("poll", {"status": Status.ACCEPTED}, "the device is at it again, since the Exec was sent twice")
    message = str(situation.memory["failure"])
    if not outcomes[0].ok and outcomes[0].status != Status.NOT_FOUND:
        message += f"; the entry could not be removed: {status_words(outcomes[0].status)}"
    return Fail(message, int(situation.memory["failure_status"]))


def _judge_look(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].status == Status.NOT_FOUND:
        return Done("the VM was gone already", Status.OK)
    if not outcomes[0].ok:
        return refused(outcomes[0])
    if parse_state(outcomes[0].value()) == VmState.NOT_CREATED:
        return Go("drop", {}, "the VM was never created: removing its entry")
    return Go("exec", {}, f"State is {_shown(outcomes[0])}")


def _judge_drop(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].ok or outcomes[0].status == Status.NOT_FOUND:
        return Done("entry removed", Status.OK)
    return refused(outcomes[0])


def _shown(state: Outcome) -> str:
    if state.ok:
        return vm_state_words(parse_state(state.value()))
    return f"not readable ({status_words(state.status)})"
