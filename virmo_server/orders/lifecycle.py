"""The life of an order as a table of allowed moves, and its audit trail. Every change of state goes through here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from virmo_server.devices import knowledge
from virmo_server.model import Order, OrderEvent, OrderState
from virmo_server.procedures.catalogue import CREATE_VM, DELIVER_IMAGE

logger = logging.getLogger(__name__)

SERVER_ACTOR = "server"
DEVICE_ACTOR = "device"

_ENDS = frozenset({OrderState.DONE, OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED})
MOVES: Mapping[OrderState, frozenset[OrderState]] = {
    OrderState.QUEUED: frozenset({OrderState.SENT, *_ENDS}) - {OrderState.DONE},
    OrderState.SENT: frozenset({OrderState.SENT, OrderState.ACCEPTED, *_ENDS}),
    OrderState.ACCEPTED: frozenset({OrderState.ACCEPTED, OrderState.SENT, *_ENDS}),
    **dict.fromkeys(_ENDS, frozenset()),
}


@dataclass(frozen=True, slots=True)
class By:
    """Who did something to an order, and when: the left columns of its trail."""

    actor: str
    at: datetime


class IllegalMove(Exception):  # noqa: N818 - it names what happened
    """A programming error: the table does not allow this change of state."""


def move(session: Session, order: Order, by: By, state: OrderState, text: str) -> None:
    """Change the state (or stay in it) and write the trail."""
    if state not in MOVES[order.state]:
        raise IllegalMove(f"order {order.id} cannot go from {order.state} to {state}")
    order.state = state
    note(session, order, by, text)


def finish(session: Session, order: Order, by: By, state: OrderState, message: str) -> None:
    """End an order with a sentence for people; a name that it had reserved in vain becomes free again."""
    order.message = message
    order.finished_at = by.at
    order.session_serial, order.answers = None, {}
    move(session, order, by, state, message)
    if state is not OrderState.DONE:
        _free_name(session, order)
    logger.info(
        "order id=%d kind=%s device=%s state=%s status=%s: %s",
        order.id, order.kind, order.device.name, state, order.dm_status, message,
    )  # fmt: skip


def note(session: Session, order: Order, by: By, text: str) -> None:
    """A line in the trail without a change of state."""
    session.add(OrderEvent(order_id=order.id, at=by.at, actor=by.actor, state=order.state, step=order.step, text=text))


def _free_name(session: Session, order: Order) -> None:
    """The entry of a creation or delivery that ended without leaving anything on the device is dropped."""
    roots = {CREATE_VM: knowledge.virmo_root, DELIVER_IMAGE: knowledge.vmimg_root}
    if order.kind not in roots:
        return
    uri = f"{roots[order.kind](order.device)}/{order.params['node']}"
    if not knowledge.nodes_below(session, order.device, uri):
        session.flush()
        knowledge.forget(session, order.device, uri)
