"""Managing what runs inside a VM, as step tables: the three steps of OMA-ER-VirMO 11.2.1, and 11.2.2 for its user.

Every order finds the objects it needs below the VM's DMTree by MOID (reading A-42), adds those that are missing
(R-143), sets what its action needs, executes, waits for the end, and reads what the device shows. What the actions are
is ``guest_actions``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dom0_agent.omadm.node import Command, Format
from dom0_agent.omadm.status import Status
from virmo_server.procedures.core import (
    UNKNOWABLE,
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
    refused,
    status_words,
)
from virmo_server.procedures.guest_codes import code_words, is_success
from virmo_server.procedures.refresh import child_names

#: A DMTree with more objects than this is not searched.
MAX_OBJECTS = 64


@dataclass(frozen=True, slots=True)
class ManagedObject:
    """An object below DMTree; ``name`` is what it is called when the server has to add it."""

    name: str
    moid: str


@dataclass(frozen=True, slots=True)
class Action:
    """What an order does with the objects. Paths are below the VM's node; ``root(s, moid)`` says where objects are."""

    objects: tuple[ManagedObject, ...]
    #: what to read before anything is decided (wipe lists, inventories)
    look: Callable[[Situation], Sequence[DmCommand]] | None = None
    #: what to remember of it, or why the order cannot be done
    choose: Callable[[Situation, Sequence[Outcome]], Mapping[str, object] | Fail] | None = None
    #: what to set before the Exec; outcomes other than success end the order, 418 of an Add is success
    prepare: Callable[[Situation], Sequence[DmCommand]] | None = None
    #: URI to Exec; ``None``: the order only reads
    operation: Callable[[Situation], str] | None = None
    #: what to read in the end, and what to make of it for people
    read: Callable[[Situation], Sequence[DmCommand]] | None = None
    tell: Callable[[Situation, Sequence[Outcome]], Decision] | None = None
    #: whether the Exec may be sent again when its answer was lost
    repeatable: bool = False
    #: whether its codes are FUMO's
    firmware: bool = False


def vm_uri(situation: Situation) -> str:
    """The VM's node."""
    return f"{situation.virmo_root}/{situation.params['node']}"


def root(situation: Situation, moid: str) -> str:
    """Where the object with this MOID was found or added."""
    return str(situation.memory["roots"][moid])


def guest_procedure(action: Action) -> Procedure:
    """The steps of one kind of order. Params: ``node``, ``name`` and what the action needs."""
    return _Guest(action).procedure()


class _Guest:
    def __init__(self, action: Action) -> None:
        self._action = action
        names = ("look", "prepare", "exec", "read")
        given = (action.look, action.prepare, action.operation, action.read)
        self._order = [name for name, part in zip(names, given, strict=True) if part is not None]

    def procedure(self) -> Procedure:
        action = self._action
        steps = {
            "find": Step(lambda s: [get(f"{vm_uri(s)}/DMTree")], self._judge_find),
            "types": Step(_ask_types, self._judge_types),
            "add": Step(self._add, self._judge_add),
            "poll": Step(lambda s: [get(f"{vm_uri(s)}/State")], _judge_poll),
        }
        if action.look is not None:
            steps["look"] = Step(action.look, self._judge_look)
        if action.prepare is not None:
            steps["prepare"] = Step(action.prepare, self._judge_prepare)
        if action.operation is not None:
            doubt = None if action.repeatable else UNKNOWABLE
            steps["exec"] = Step(self._exec, self._judge_exec, if_doubtful=doubt)
        if action.read is not None:
            steps["read"] = Step(action.read, self._judge_read)
        first = "find" if action.objects else self._order[0]
        return Procedure(first=first, steps=steps, on_alert=self._on_alert)

    # -- 11.2.1, step 1: the objects --------------------------------------------------------------------------------

    def _judge_find(self, _situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        outcome = outcomes[0]
        if outcome.status == Status.NOT_FOUND:
            return Go("add", {"roots": {}}, "the VM has no DMTree yet")
        if not outcome.ok:
            return refused(outcome)
        names = child_names(outcome.value())
        if len(names) > MAX_OBJECTS:
            return Fail(f"the VM's DMTree claims {len(names)} objects, more than {MAX_OBJECTS}")
        return Go("types", {"names": names}) if names else Go("add", {"roots": {}}, "the VM's DMTree is empty")

    def _judge_types(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        wanted = {item.moid for item in self._action.objects}
        roots: dict[str, str] = {}
        for name, outcome in zip(situation.memory["names"], outcomes, strict=True):
            moid = (outcome.value() or "").strip()
            if moid in wanted:
                roots.setdefault(moid, f"{vm_uri(situation)}/DMTree/{name}")
        missing = [item.name for item in self._action.objects if item.moid not in roots]
        note = f"adding {', '.join(missing)}" if missing else "found by MOID"
        return Go("add" if missing else self._after("find"), {"roots": roots}, note)

    def _missing(self, situation: Situation) -> list[ManagedObject]:
        return [item for item in self._action.objects if item.moid not in situation.memory["roots"]]

    def _add(self, situation: Situation) -> list[DmCommand]:
        tree = f"{vm_uri(situation)}/DMTree"
        return [
            DmCommand(Command.ADD, f"{tree}/{item.name}", format=Format.NODE, type=item.moid)
            for item in self._missing(situation)
        ]

    def _judge_add(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        roots = dict(situation.memory["roots"])
        for item, outcome in zip(self._missing(situation), outcomes, strict=True):
            known = situation.doubtful and outcome.status == Status.ALREADY_EXISTS
            if not outcome.ok and not known:
                return refused(outcome)
            roots[item.moid] = f"{vm_uri(situation)}/DMTree/{item.name}"
        return Go(self._after("find"), {"roots": roots}, "objects added")

    # -- step 2 and 3: the action -----------------------------------------------------------------------------------

    def _after(self, step: str) -> str:
        """The step that follows; ``find`` is before all."""
        position = 0 if step == "find" else self._order.index(step) + 1
        return self._order[position]

    def _judge_look(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        for outcome in outcomes:
            if not outcome.ok:
                return refused(outcome)
        assert self._action.choose is not None
        chosen = self._action.choose(situation, outcomes)
        if isinstance(chosen, Fail):
            return chosen
        return Go(self._after("look"), dict(chosen))

    def _judge_prepare(self, _situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        for outcome in outcomes:
            there = outcome.command.verb is Command.ADD and outcome.status == Status.ALREADY_EXISTS
            if not outcome.ok and not there:
                return refused(outcome)
        return Go(self._after("prepare"), {}, "parameters set")

    def _exec(self, situation: Situation) -> list[DmCommand]:
        assert self._action.operation is not None
        return execute(situation, self._action.operation(situation))

    def _judge_exec(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        return judge_exec(situation, outcomes[0], self._on_alert, lambda outcome: self._ended(outcome.status))

    def _on_alert(self, _situation: Situation, status: int) -> Decision:
        return self._ended(status)

    def _ended(self, status: int) -> Decision:
        words = code_words(status, firmware=self._action.firmware)
        if not is_success(status):
            return Fail(f"the device reports {words}", status)
        if self._action.read is None:
            return Done(words, status)
        return Go("read", {"status": status}, f"the device reports {words}", status)

    def _judge_read(self, situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
        assert self._action.tell is not None
        return self._action.tell(situation, outcomes)


def _ask_types(situation: Situation) -> list[DmCommand]:
    return [get(f"{vm_uri(situation)}/DMTree/{name}?prop=Type") for name in situation.memory["names"]]


def _judge_poll(_situation: Situation, outcomes: Sequence[Outcome]) -> Decision:
    if outcomes[0].status == Status.NOT_FOUND:
        return Fail(f"the VM is gone: {status_words(outcomes[0].status)}", outcomes[0].status)
    return Await("poll", {}, "still waiting for the device's report")
