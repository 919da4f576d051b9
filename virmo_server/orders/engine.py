"""Drives orders through a DM session: which commands are due, what the answers mean, what happens when none come.

Knows the order table and the procedures; knows no SyncML, HTTP or threads. The caller holds one write transaction for
each message of a device, so that a message and what it changed are stored together or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select
from sqlalchemy.orm import Session

from dom0_agent.omadm.node import Command
from dom0_agent.omadm.status import Status
from virmo_server.clock import Clock
from virmo_server.config import Dm
from virmo_server.devices import knowledge
from virmo_server.devices.registry import lock_device
from virmo_server.model import OPEN_STATES, Device, Order, OrderState
from virmo_server.orders.alerts import DeviceAlert, find_order, record_alert
from virmo_server.orders.lifecycle import DEVICE_ACTOR, SERVER_ACTOR, By, finish, move, note
from virmo_server.orders.prerequisites import Blocked, Ready, Unfit, check
from virmo_server.procedures.catalogue import PROCEDURES
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
    ReadNode,
    Situation,
)
from virmo_server.procedures.create_params import BOOTSTRAP
from virmo_server.statements import Prepared
from virmo_server.vault import Vault

logger = logging.getLogger(__name__)

#: Asked in every message; mostly there are none, and the first is cheaper.
_HAS_OPEN_ORDERS = Prepared(
    select(Order.id)
    .where(Order.device_id == bindparam("device"), or_(*(Order.state == state for state in sorted(OPEN_STATES))))
    .limit(1)
)
_OPEN_ORDERS = (
    select(Order).where(Order.device_id == bindparam("device"), Order.state.in_(OPEN_STATES)).order_by(Order.id)
)

#: Answers that mean "not now, ask me later": the step is sent again in the next session, until the deadline.
AUTHENTICATION = frozenset({Status.UNAUTHORIZED, Status.AUTHENTICATION_REQUIRED})


@dataclass(frozen=True, slots=True)
class DueCommand:
    """A command to send now. ``ref`` comes back with its answer."""

    ref: str
    command: DmCommand


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device answered to a :class:`DueCommand`; ``status`` is ``None`` when the session ended before it did."""

    ref: str
    status: int | None
    nodes: tuple[ReadNode, ...] = ()


def with_open_orders(connection: Connection, device_ids: Sequence[int]) -> set[int]:
    """Those of the devices with something to do; that does not change while messages of them are worked on."""
    found = _HAS_OPEN_ORDERS.first_of_each(connection, [{"device": device_id} for device_id in device_ids])
    return {device_id for device_id, row in zip(device_ids, found, strict=True) if row is not None}


class OrderEngine:
    """Stateless but for its dependencies: all state is in the database."""

    def __init__(self, clock: Clock, settings: Dm, vault: Vault) -> None:
        self._clock = clock
        self._settings = settings
        self._vault = vault

    def begin_session(self, session: Session, device: Device, serial: str) -> None:
        """A new DM session of the device: whatever was under way in an earlier one was lost with it."""
        for order in _open_orders(session, device):
            if order.session_serial is not None and order.session_serial != serial:
                self._lost(session, order)

    def due(self, session: Session, device: Device, serial: str) -> list[DueCommand]:
        """The commands to send now, and mark them as under way. Empty: nothing to do in this session."""
        self._expire(session, _open_orders(session, device))
        chosen: list[Order] = []
        busy: set[str] = set()
        for order in _open_orders(session, device):
            targets = _targets(order)
            if targets & busy:
                busy |= targets
                continue
            if order.session_serial is None and self._is_sendable(session, order, serial):
                chosen.append(order)
            if not order.state.is_final:
                busy |= targets
        # What broke a session goes alone, so that it can hurt nothing but itself.
        again = [order for order in chosen if order.losses]
        chosen = again[:1] or chosen[: self._settings.orders_per_message]
        return [due for order in chosen for due in self._send(session, order, serial)]

    def settle(self, session: Session, device: Device, answer: Answer, serial: str) -> None:
        """An answer came, or is known never to come. When it completes its order's step, the step is judged."""
        order_id, _, index = answer.ref.partition(".")
        order = session.get(Order, int(order_id))
        if order is None or order.device_id != device.id or order.session_serial != serial:
            return  # forgotten, ended meanwhile, or lost with an earlier answer of the same step
        if answer.status is None or answer.status in AUTHENTICATION:
            self._lost(session, order)
            return
        step = _procedure(order).steps[order.step]
        situation = self._situation(order)
        commands = step.commands(situation)
        outcome = Outcome(commands[int(index)], answer.status, answer.nodes)
        knowledge.observe(session, device, outcome, self._clock())
        order.answers = {**order.answers, index: _to_json(outcome)}
        if len(order.answers) < len(commands):
            return
        outcomes = [_from_json(command, order.answers[str(i)]) for i, command in enumerate(commands)]
        order.session_serial, order.answers = None, {}
        if order.step not in _doubt_steps(_procedure(order)):
            order.losses = 0
        decision = step.judge(situation, outcomes)
        on_alert = _procedure(order).on_alert
        if isinstance(decision, Await) and on_alert is not None and "alert_status" in order.memory:
            # What would be waited for has come already, between the commands and their answers.
            decision = on_alert(situation, int(order.memory["alert_status"]))
            _forget_alert(order)
        elif _executes(commands):
            _forget_alert(order)  # the judge has used it
        self._apply(session, order, serial, decision)

    def alert(self, session: Session, device: Device, serial: str, alert: DeviceAlert) -> None:
        """A Generic Alert came: store it, and let the order that waited for it go on."""
        now = self._clock()
        status = alert.end_status()
        order = find_order(session, device, alert)
        record_alert(session, device, alert, order, now)
        state = alert.new_state()
        if state is not None:
            knowledge.learn_state(session, device, alert.source, state, now)
        if order is None or status is None:
            logger.info("alert device=%s type=%s source=%s order=none", device.name, alert.type, alert.source)
            return
        logger.info("alert device=%s type=%s order=%d status=%d", device.name, alert.type, order.id, status)
        on_alert = _procedure(order).on_alert
        if order.state is OrderState.ACCEPTED and order.session_serial is None and on_alert is not None:
            self._apply(session, order, serial, on_alert(self._situation(order), status))
        elif order.state.is_final:
            note(session, order, By(DEVICE_ACTOR, now), f"alert after the end: {status}")
        else:
            order.memory = {**order.memory, "alert_status": status}
            note(session, order, By(DEVICE_ACTOR, now), f"alert before the answer: {status}")

    def expire(self, session: Session, device: Device | None = None) -> int:
        """End orders (of one device, or all) whose deadline has passed; how many."""
        overdue = (Order.state.in_(OPEN_STATES), Order.deadline <= self._clock())
        owners = select(Order.device_id).where(*overdue).distinct().order_by(Order.device_id)
        if device is not None:
            owners = owners.where(Order.device_id == device.id)
        ended = 0
        for device_id in session.scalars(owners).all():
            lock_device(session, device_id)
            query = select(Order).where(*overdue, Order.device_id == device_id).order_by(Order.id)
            found = session.scalars(query.execution_options(populate_existing=True)).all()
            ended += self._expire(session, found)
        return ended

    def _expire(self, session: Session, orders: Sequence[Order]) -> int:
        now = self._clock()
        overdue = [order for order in orders if order.deadline <= now]
        for order in overdue:
            finish(session, order, By(SERVER_ACTOR, now), OrderState.EXPIRED, _expiry_message(order))
        return len(overdue)

    def _is_sendable(self, session: Session, order: Order, serial: str) -> bool:
        if order.state is OrderState.ACCEPTED:
            return order.polled_serial != serial
        if order.state is OrderState.SENT:
            return True
        match check(session, order):
            case Blocked():
                return False
            case Unfit(message):
                finish(session, order, By(SERVER_ACTOR, self._clock()), OrderState.FAILED, message)
                return False
            case Ready(memory):
                order.memory = {**order.memory, **memory}
                return True

    def _send(self, session: Session, order: Order, serial: str) -> list[DueCommand]:
        commands = _procedure(order).steps[order.step].commands(self._situation(order))
        if _executes(commands):
            _forget_alert(order)  # of an Exec before this one, which a lost session or a power cut ended
        order.session_serial, order.answers = serial, {}
        if order.state is OrderState.ACCEPTED:
            order.polled_serial = serial
        else:
            move(session, order, By(SERVER_ACTOR, self._clock()), OrderState.SENT, _describe(commands))
        return [DueCommand(f"{order.id}.{index}", command) for index, command in enumerate(commands)]

    def _lost(self, session: Session, order: Order) -> None:
        now = self._clock()
        order.session_serial, order.answers = None, {}
        if order.state is OrderState.ACCEPTED:
            return  # only a question for State was lost
        order.losses += 1
        order.doubtful = True
        if order.losses >= self._settings.step_attempts:
            finish(
                session,
                order,
                By(SERVER_ACTOR, now),
                OrderState.FAILED,
                f"given up: the device never answered step {order.step!r}, sent in {order.losses} sessions",
            )
            return
        lost_step = order.step
        next_step = _procedure(order).steps[lost_step].if_doubtful or lost_step
        if next_step == UNKNOWABLE:
            message = "the session was lost before the answer: it is not known whether the device has done it"
            finish(session, order, By(SERVER_ACTOR, now), OrderState.FAILED, message)
            return
        order.step = next_step
        note(
            session,
            order,
            By(SERVER_ACTOR, now),
            f"session lost before the answer to {lost_step!r}: {order.step!r} next",
        )

    def _apply(self, session: Session, order: Order, serial: str, decision: Decision) -> None:
        now = self._clock()
        match decision:
            case Go(step, remember, text, status):
                order.memory = {**order.memory, **remember}
                order.step = step
                if status is not None:
                    order.dm_status = status
                _keep_roots(order, remember)
                move(session, order, By(DEVICE_ACTOR, now), OrderState.SENT, text)
            case Await(poll, remember, text, status):
                order.memory = {**order.memory, **remember}
                order.step, order.polled_serial = poll, serial
                if status is not None:
                    order.dm_status = status
                move(session, order, By(DEVICE_ACTOR, now), OrderState.ACCEPTED, text)
            case Done(message, status):
                order.dm_status = status if status is not None else order.dm_status
                finish(session, order, By(DEVICE_ACTOR, now), OrderState.DONE, message)
            case Fail(message, status):
                order.dm_status = status if status is not None else order.dm_status
                finish(session, order, By(DEVICE_ACTOR, now), OrderState.FAILED, message)

    def _situation(self, order: Order) -> Situation:
        params = order.params
        if BOOTSTRAP in params:
            params = {**params, BOOTSTRAP: self._vault.open(params[BOOTSTRAP])}
        return Situation(
            params=params,
            memory=order.memory,
            correlator=order.correlator,
            virmo_root=knowledge.virmo_root(order.device),
            vmimg_root=knowledge.vmimg_root(order.device),
            doubtful=order.doubtful,
        )


def _open_orders(session: Session, device: Device) -> list[Order]:
    """Read once in a transaction: while one message is worked on, nobody else can give this device orders."""
    key = ("open orders", device.id)
    if key not in session.info:
        session.info[key] = list(session.scalars(_OPEN_ORDERS, {"device": device.id}))
    return [order for order in session.info[key] if not order.state.is_final]


def _executes(commands: Sequence[DmCommand]) -> bool:
    """Whether they begin what an alert tells the end of."""
    return any(command.verb is Command.EXEC for command in commands)


def _forget_alert(order: Order) -> None:
    """An alert that came before the answer stands for one end of one operation."""
    if "alert_status" in order.memory:
        order.memory = {key: value for key, value in order.memory.items() if key != "alert_status"}


def _targets(order: Order) -> set[str]:
    """What the order has to itself while it is under way: its target, and all VMs that it is about."""
    return {order.target, *(f"vm:{vm['node']}" for vm in order.params.get("vms", ()))}


def _procedure(order: Order) -> Procedure:
    return PROCEDURES[order.kind]


def _doubt_steps(procedure: Procedure) -> set[str]:
    return {step.if_doubtful for step in procedure.steps.values() if step.if_doubtful is not None}


def _keep_roots(order: Order, remember: Mapping[str, Any]) -> None:
    if "virmo_root" in remember:
        order.device.virmo_root = str(remember["virmo_root"])
        order.device.vmimg_root = str(remember["vmimg_root"])


def _describe(commands: Sequence[DmCommand]) -> str:
    shown = ", ".join(command.describe() for command in commands[:4])
    return f"{shown} and {len(commands) - 4} more" if len(commands) > 4 else shown


def _expiry_message(order: Order) -> str:
    asked = {
        OrderState.QUEUED: "the device did not ask for work in time",
        OrderState.SENT: "the device did not answer in time; it may have done it: 'virmo device refresh' tells",
        OrderState.ACCEPTED: "the device accepted it but did not report an end in time",
    }
    when: datetime = order.deadline
    return f"deadline {when:%Y-%m-%d %H:%M:%S} UTC passed: {asked[order.state]}"


def _to_json(outcome: Outcome) -> dict[str, Any]:
    nodes = [[node.uri, node.value, node.format, node.type] for node in outcome.nodes]
    return {"status": outcome.status, "nodes": nodes}


def _from_json(command: DmCommand, answer: Mapping[str, Any]) -> Outcome:
    return Outcome(command, answer["status"], tuple(ReadNode(*fields) for fields in answer["nodes"]))
